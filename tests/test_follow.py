"""``agentscripts logs``: a log file, and what becomes of it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from commandline import COMMAND, OPTIONS, Terminal, command, read_line
from support import PATIENCE, Background, eventually

from agentscripts import Options, Runner, Script, _follow
from agentscripts._follow import Rotated

_MANIFEST = '[[script]]\nname = "a"\nlog_path = "a.log"\nscript = "true"\n'


def rest(file: Rotated) -> bytes:
    """Return all that there is."""
    return b"".join(iter(file.read, b""))


def rotate(path: Path, keep: int) -> None:
    """Do what the library does when a log is full."""
    for number in range(keep, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        newer = path if number == 1 else path.with_name(f"{path.name}.{number - 1}")
        if newer.exists():
            newer.replace(older)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "a.log"


@pytest.fixture
def file(log: Path) -> Iterator[Rotated]:
    """The log as it is followed, opened at the first read."""
    with contextlib.closing(Rotated(log)) as followed:
        yield followed


def test_what_is_added(log: Path, file: Rotated) -> None:
    """Bytes come as they are added; a new run empties the file, and it is read anew."""
    log.write_bytes(b"one\xff\n")
    assert rest(file) == b"one\xff\n"
    with log.open("ab") as writer:
        writer.write(b"two")
        writer.flush()
        assert rest(file) == b"two"
        assert rest(file) == b""
    log.write_bytes(b"new")
    assert rest(file) == b"new"


def written_later(log: Path, data: bytes) -> None:
    """Empty a file and write to it, at another time than before by the system's coarse clock."""
    before = log.stat().st_mtime_ns
    eventually(lambda: log.write_bytes(data) and log.stat().st_mtime_ns != before)


@pytest.mark.parametrize("anew", [b"two\n", b"two\nthree\n", b"one\n"])
def test_new_run_that_is_not_seen_to_empty_the_file(log: Path, file: Rotated, anew: bytes) -> None:
    """A run that has written as much as the one before when one looks again is shown whole, even
    if it has written the same."""
    log.write_bytes(b"one\n")
    assert rest(file) == b"one\n"
    written_later(log, anew)
    assert rest(file) + rest(file) == anew
    assert rest(file) + rest(file) == b""
    with log.open("ab") as writer:
        writer.write(b"more\n")
    assert rest(file) + rest(file) + rest(file) == b"more\n"


def test_a_write_under_way_is_no_new_run(log: Path, file: Rotated) -> None:
    """The time of a write that adds may be there a moment before its bytes."""
    log.write_bytes(b"one\n")
    assert rest(file) + rest(file) == b"one\n"
    os.utime(log, ns=(0, log.stat().st_mtime_ns + 1))
    assert rest(file) == b""
    with log.open("ab") as writer:
        writer.write(b"two\n")
    assert rest(file) + rest(file) + rest(file) == b"two\n"


def test_rotation(log: Path, file: Rotated) -> None:
    """What the old file got before the rotation comes before what the new one has."""
    log.write_bytes(b"1")
    assert rest(file) == b"1"
    with log.open("ab") as writer:
        writer.write(b"2")
    rotate(log, 2)
    assert rest(file) == b"2"
    log.write_bytes(b"3")
    assert rest(file) == b"3"


def test_several_rotations_between_two_looks(log: Path, file: Rotated) -> None:
    """Every file between is read, in order, with more than nine of them, too."""
    log.write_bytes(b"0 ")
    assert file.read() == b"0 "
    for number in range(1, 13):
        rotate(log, 12)
        log.write_bytes(b"%d " % number)
    assert rest(file) == b"".join(b"%d " % number for number in range(1, 13))


def test_rotated_away(log: Path, file: Rotated) -> None:
    """Where the file that was read is gone, all that is left is newer, and is read."""
    log.write_bytes(b"0 ")
    assert file.read() == b"0 "
    for number in range(1, 6):
        rotate(log, 2)
        log.write_bytes(b"%d " % number)
    assert rest(file) == b"3 4 5 "


def test_line_that_a_rotation_moves(log: Path, file: Rotated) -> None:
    """L4: the begin of a line moves to the new file with the rest; it comes once."""
    log.write_bytes(b"one\ntw")
    assert rest(file) == b"one\ntw"
    rotate(log, 2)
    log.write_bytes(b"t")
    assert rest(file) == b""
    log.write_bytes(b"two\nthree")
    os.truncate(f"{log}.1", 4)
    assert rest(file) == b"o\nthree"
    with log.open("ab") as writer:
        writer.write(b"\n")
    assert rest(file) == b"\n"


def test_line_that_was_moved_before_the_look(log: Path, file: Rotated) -> None:
    """L4: a file that the rotation has shortened is no new run's: what was shown comes once."""
    log.write_bytes(b"one\ntw")
    assert rest(file) == b"one\ntw"
    rotate(log, 2)
    os.truncate(f"{log}.1", 4)
    log.write_bytes(b"two\n")
    assert rest(file) == b"o\n"


def test_line_of_a_new_run_that_a_rotation_moves(log: Path, file: Rotated) -> None:
    """L4: what the run before had of a line is no part of it."""
    log.write_bytes(b"one")
    assert rest(file) == b"one"
    log.write_bytes(b"tw")
    assert rest(file) == b"tw"
    rotate(log, 2)
    log.write_bytes(b"two\n")
    assert rest(file) == b"o\n"


def test_long_line_of_one_letter(log: Path, file: Rotated) -> None:
    """L4: one that is too long to be moved goes on in the new file, though that looks the same."""
    for _ in range(2):
        log.write_bytes(b"x" * 70_000)
        assert rest(file) == b"x" * 70_000
        rotate(log, 2)


def test_line_that_stays(log: Path, file: Rotated) -> None:
    """A line that was cut by the rotation goes on in the new file."""
    log.write_bytes(b"one")
    assert rest(file) == b"one"
    rotate(log, 2)
    log.write_bytes(b"two\n")
    assert rest(file) == b"two\n"


def test_moved_away(log: Path, file: Rotated) -> None:
    """A file that somebody keeps elsewhere is given up for the one at its name, not at once."""
    log.write_bytes(b"1")
    assert rest(file) == b"1"
    log.rename(log.with_name("kept"))
    log.write_bytes(b"2\n")
    assert file.read() == b""
    assert eventually(file.read) == b"2\n"


def test_moved_away_again(log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4: each rotation has its moment in which the file has no name, however long ago the last."""
    now = 1.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    between = log.with_name(".between")
    log.write_bytes(b"0")
    for number in b"1", b"2":
        file.read()
        log.rename(between)
        log.write_bytes(number)
        assert file.read() == b""
        between.rename(f"{log}.1")
        assert file.read() == number
        now += 100


def test_other_files_are_none_of_its_rotations(log: Path, file: Rotated) -> None:
    """Only ``.1``, ``.2`` … are the log's, and those that are older than what was read are not."""
    for suffix in "gz", "01", "1.gz", "7":
        log.with_name(f"a.log.{suffix}").write_bytes(b"other")
        os.utime(log.with_name(f"a.log.{suffix}"), (1, 1))
    log.write_bytes(b"1")
    assert rest(file) == b"1"
    log.unlink()
    log.write_bytes(b"2")
    assert rest(file) == b"2"


def test_missing_file(log: Path, file: Rotated) -> None:
    """A file that is not there yet is no file; later it may be."""
    with pytest.raises(FileNotFoundError):
        file.read()
    log.write_bytes(b"x")
    assert rest(file) == b"x"
    log.unlink()
    assert rest(file) == b""
    log.write_bytes(b"y")
    assert rest(file) == b"y"


def test_removed_in_the_same_moment(log: Path, file: Rotated) -> None:
    """The clock of a file system is coarse: what came right after has the same time."""
    log.write_bytes(b"1")
    os.utime(log, ns=(1, 1))
    assert rest(file) == b"1"
    log.unlink()
    log.write_bytes(b"2")
    os.utime(log, ns=(1, 1))
    assert rest(file) == b"2"


def test_a_fifo(log: Path, file: Rotated) -> None:
    """One that somebody has put there is not waited for."""
    os.mkfifo(log)
    with pytest.raises(OSError, match="seek"):
        Background(file.read).result()


def at_first(monkeypatch: pytest.MonkeyPatch, name: str, do: Callable[[], object]) -> None:
    """Have something happen right before a part of the module is called for the first time."""
    real = getattr(_follow, name)

    def call(path: Path) -> object:
        monkeypatch.setattr(_follow, name, real)
        do()
        return real(path)

    monkeypatch.setattr(_follow, name, call)


def test_a_write_and_a_rotation_before_a_look(
    log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: what the old file got after it was read comes first, and in order."""
    log.write_bytes(b"1")
    assert file.read() == b"1"

    def write_and_rotate() -> None:
        with log.open("ab") as writer:
            writer.write(b"2")
        rotate(log, 2)
        log.write_bytes(b"3")

    at_first(monkeypatch, "_look", write_and_rotate)
    assert [file.read() for _ in range(3)] == [b"2", b"3", b""]


def test_a_rotation_after_a_look(log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch) -> None:
    """L4: what has another name when it is opened is looked for again, not passed over."""
    log.write_bytes(b"0")
    assert file.read() == b"0"
    rotate(log, 9)
    log.write_bytes(b"1")

    def rotate_again() -> None:
        rotate(log, 9)
        log.write_bytes(b"2")

    at_first(monkeypatch, "_open", rotate_again)
    assert rest(file) == b"12"


def test_a_file_that_is_gone_after_a_look(
    log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: the next look finds it by its new name."""
    log.write_bytes(b"0")
    assert file.read() == b"0"
    rotate(log, 9)
    log.write_bytes(b"1")
    at_first(monkeypatch, "_open", lambda: rotate(log, 9))
    assert [file.read() for _ in range(2)] == [b"", b"1"]


def test_a_file_that_is_followed_before_it_is_there(log: Path) -> None:
    """-f takes a file that is missing for one that is still empty."""
    with contextlib.closing(_follow._pieces(log, follow=True)) as pieces:
        assert [next(pieces), next(pieces)] == [b"", b""]
        log.write_bytes(b"one")
        assert next(pieces) == b"one"


def rotate_but_for_one(log: Path, file: Rotated) -> None:
    """Have what was read to its end be .2, and a new file at the name; none is .1."""
    log.write_bytes(b"one\n")
    assert file.read() == b"one\n"
    log.rename(f"{log}.2")
    log.write_bytes(b"three\n")


def test_a_rotation_that_is_held_up(
    log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: what was at the name has no number for a moment; it is waited for, not passed over."""
    between = log.with_name(".between")
    between.write_bytes(b"two\n")
    rotate_but_for_one(log, file)
    monkeypatch.setattr(time, "sleep", lambda _: between.rename(f"{log}.1"))
    assert file.read() == b"two\n"
    assert file.read() == b"three\n"


def test_a_backup_that_was_removed(
    log: Path, file: Rotated, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: what never comes is waited for a second."""
    rotate_but_for_one(log, file)
    clock = itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert file.read() == b"three\n"


@pytest.mark.slow
def test_real_rotations(tmp_path: Path, log: Path, file: Rotated) -> None:
    """L4: beside the library's writer, however often it rotates, no byte is lost or comes twice."""
    count = 20_000
    options = Options(
        data_dir_base=tmp_path / "data",
        log_dir=tmp_path,
        shell="/bin/sh",
        max_log_bytes=4096,
        log_backups=1000,
    )
    script = f"seq {count}"
    log.touch()
    found = file.read()  # it is open before the first rotation
    with Runner(options) as runner:
        runner.init([Script(script=script, log_path="a.log")])
        thread = threading.Thread(target=runner.execute)
        thread.start()
        while thread.is_alive():
            found += file.read()
        thread.join()
    found += rest(file)
    assert found == b"".join(b"%d\n" % number for number in range(1, count + 1))


# ---- the command ----


class Following(subprocess.Popen[bytes]):
    """``agentscripts logs -f`` on the script ``a``."""

    def __init__(self, base: Path) -> None:
        argv = [*COMMAND, "logs", "m.toml", "a", "-f"]
        super().__init__(argv, cwd=base, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)

    def __exit__(self, *exc: object) -> None:
        self.kill()
        super().__exit__(*exc)  # type: ignore[arg-type]


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """The directory of logs of a manifest."""
    (tmp_path / "m.toml").write_text(OPTIONS + _MANIFEST)
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs"


@pytest.mark.slow
def test_whole_log(logs: Path) -> None:
    """A pipe gets the very bytes, at once."""
    (logs / "a.log").write_bytes(b"one\n\x1b[2J\xff")
    argv = [*COMMAND, "logs", "m.toml", "a"]
    done = subprocess.run(argv, cwd=logs.parent, capture_output=True, timeout=PATIENCE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\n\x1b[2J\xff", b"")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_log_on_a_terminal(tmp_path: Path) -> None:
    """A terminal is not steered by what a script has written."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/a.log").write_bytes("é one\r\n\x1b[2J\n".encode())
    with Terminal(tmp_path, _MANIFEST, "logs", after=("a",)) as terminal:
        assert terminal.finish() == 0
        assert terminal.screen == ["é one", r"\x1b[2J"]


@pytest.mark.slow
def test_follow(logs: Path) -> None:
    """-f waits for the file, goes on over a rotation, and ends with Ctrl-C."""
    log = logs / "a.log"
    with Following(logs.parent) as process:
        eventually(lambda: _sleeps(process.pid))
        log.write_bytes(b"one\n")
        assert read_line(process.stdout) == "one"
        rotate(log, 2)
        log.write_bytes(b"two\n")
        assert read_line(process.stdout) == "two"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        assert (process.returncode, stdout, stderr) == (130, b"", b"")


@pytest.mark.slow
def test_follow_is_no_busy_loop(logs: Path) -> None:
    """While nothing comes it sleeps: it gives the processor away at each look, and seldom looks."""
    (logs / "a.log").write_bytes(b"one\n")
    with Following(logs.parent) as process:
        assert read_line(process.stdout) == "one"
        before = _switches(process.pid)
        eventually(lambda: _switches(process.pid) >= before + 3)
        used = _cpu(process.pid)
        now = _switches(process.pid)
        eventually(lambda: _switches(process.pid) >= now + 5)
        assert _cpu(process.pid) - used <= 0.1


def _switches(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _sleeps(pid: int) -> bool:
    return "poll" in Path(f"/proc/{pid}/wchan").read_text() or _cpu(pid) > 0


@pytest.mark.slow
def test_reader_that_leaves(logs: Path) -> None:
    """``logs -f | head`` ends quietly, and does not wait for another line."""
    log = logs / "a.log"
    log.write_bytes(b"one\n")
    with Following(logs.parent) as process:
        assert read_line(process.stdout) == "one"
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manifest", "name"),
    [
        ("m.toml", "script[2]"),
        ("m.json", "script[1]"),  # an empty name
        ("m.json", "script[3]"),  # the name of another one
    ],
)
def test_log_of_no_lasting_name(logs: Path, manifest: str, name: str) -> None:
    """A script whose log file is another one in each run is told apart from one that has not run,
    also by ``--follow``, which would wait for ever."""
    (logs.parent / "m.toml").write_text(OPTIONS + _MANIFEST + '[[script]]\nscript = "true"\n')
    tables = [{"script": "true", "display_name": one} for one in ("", "a", "a")]
    (logs.parent / "m.json").write_text(json.dumps(tables))
    why = (
        f'NAME "{name}" has another log file in each run, '
        "expected a script with a name of its own, a log_path or a log_source_id"
    )
    for follow in ([], ["-f"]):
        done = command("logs", manifest, name, *follow, cwd=logs.parent)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines()[-1] == why


@pytest.mark.slow
@pytest.mark.parametrize("given", ["log_path = 'a.log'", f"log_source_id = '{UUID(int=1)}'"])
def test_log_of_a_script_without_a_name(logs: Path, given: str) -> None:
    """A script without a name is found by what else says where its log file is."""
    for name in ("a.log", f"coder-script-{UUID(int=1)}.log"):
        (logs / name).write_text("one\n")
    (logs.parent / "m.toml").write_text(f'{OPTIONS}[[script]]\nscript = "true"\n{given}\n')
    done = command("logs", "m.toml", "script[1]", cwd=logs.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("a", 1, "agentscripts: {logs}/a.log: No such file or directory; the script has not run"),
        ("b", 2, 'NAME "b" is no script, expected one of a'),
    ],
)
def test_nothing_to_show(logs: Path, name: str, status: int, message: str) -> None:
    """A script that has not run, and one that is not there, are told apart."""
    done = command("logs", "m.toml", name, cwd=logs.parent)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr == f"{message.format(logs=logs)}\n"
