"""Where the log file is, what it holds, what is refused, and how it rotates."""

from __future__ import annotations

import errno
import os
import select
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner, RunScript
from support import Background, Lines, eventually, run_host, umask

from agentscripts import CancelToken, Dependency, Runner, RunResult, RunStatus, Script, _writers
from agentscripts._files import LogTarget, OSFilesystem
from agentscripts._native import LogFile

COUNT = "i=0; while [ $i -lt {0} ]; do echo {1} $i; i=$((i+1)); done"


def contents(result: RunResult) -> bytes:
    assert result.log_path is not None
    return result.log_path.read_bytes()


def rotated(path: Path, backups: int) -> list[bytes]:
    """Return what a log's files hold, the oldest first."""
    names = [path.with_name(f"{path.name}.{number}") for number in range(backups, 0, -1)]
    return [name.read_bytes() for name in [*names, path] if name.exists()]


def test_default_path(run: RunScript, tmp_path: Path) -> None:
    """L1: the log's name comes from the log_source_id, its parents are made private."""
    script = Script(script="echo hello", name="x")
    result = run(script)
    path = tmp_path / "logs" / f"coder-script-{script.log_source_id}.log"
    assert result.log_path == path
    assert path.read_bytes() == b"hello\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_expansion(run: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1: ~ and $VAR expand, a relative path starts in log_dir."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PART", "deep/er")
    assert run(Script(script=":", log_path="~/x.log")).log_path == tmp_path / "x.log"
    assert run(Script(script=":", log_path="$PART/y")).log_path == tmp_path / "logs/deep/er/y"


@pytest.mark.parametrize(
    "kind", ["symlink", "directory", "fifo", "hard link", "socket", "dangling"]
)
def test_refused_targets(run: RunScript, lines: Lines, tmp_path: Path, kind: str) -> None:
    """L2: what is no regular file with one link is refused, stays untouched, starts nothing."""
    import socket

    victim, path = tmp_path / "victim", tmp_path / "log"
    victim.write_text("precious")
    match kind:
        case "symlink":
            path.symlink_to(victim)
        case "dangling":
            path.symlink_to(tmp_path / "absent")
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "hard link":
            path.hardlink_to(victim)
        case "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
    before = os.lstat(path)
    result = run(Script(script=f"touch {tmp_path}/started", log_path=str(path)))
    after = os.lstat(path)
    assert result.status is RunStatus.NOT_STARTED
    assert isinstance(result.cause, OSError)
    assert str(path) in result.reason
    assert (before.st_mode, before.st_ino, before.st_mtime) == (
        after.st_mode,
        after.st_ino,
        after.st_mtime,
    )
    assert victim.read_text() == "precious"
    assert not (tmp_path / "started").exists()
    assert not (tmp_path / "absent").exists()


def test_a_fifo_with_a_reader_is_refused(run: RunScript, tmp_path: Path) -> None:
    """L2: also a FIFO that could be opened."""
    path = tmp_path / "log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run(Script(script="echo x", log_path=str(path))).status is RunStatus.NOT_STARTED
        assert os.read(reader, 10) == b""
    finally:
        os.close(reader)


def test_no_stale_tail(make_runner: MakeRunner, tmp_path: Path) -> None:
    """L2: a run begins with an empty file."""
    (tmp_path / "mode").write_text("12345678901234567890")
    with make_runner(Script(script=f"cat {tmp_path}/mode", name="x")) as runner:
        runner.execute()
        (tmp_path / "mode").write_text("short")
        (result,) = runner.execute()
    assert contents(result) == b"short"


def test_append(make_runner: MakeRunner) -> None:
    """L2: with append_logs a run goes on where the last one ended."""
    with make_runner("echo x", append_logs=True) as runner:
        runner.execute()
        (result,) = runner.execute()
    assert contents(result) == b"x\nx\n"


def test_dev_null(run: RunScript, lines: Lines) -> None:
    """L2: /dev/null is a log file."""
    result = run(Script(script="echo x", log_path="/dev/null"))
    assert result.ok
    assert lines.lines == ["x"]


def test_unwritable_directory(run: RunScript, tmp_path: Path) -> None:
    """L2: a log directory that cannot be made keeps the script from starting and says why."""
    (tmp_path / "file").touch()
    result = run(Script(script=f"touch {tmp_path}/started", log_path=str(tmp_path / "file/log")))
    assert result.status is RunStatus.NOT_STARTED
    assert str(tmp_path / "file") in result.reason
    assert not (tmp_path / "started").exists()


def test_runs_share_a_writer(make_runner: MakeRunner, lines: Lines, tmp_path: Path) -> None:
    """L2: a second run neither empties the file that the first one writes, nor overwrites it."""
    os.mkfifo(tmp_path / "go")
    path = str(tmp_path / "log")
    first = make_runner(Script(script=f"echo one; read x <{tmp_path}/go; echo two", log_path=path))
    second = make_runner(Script(script="echo other", log_path=path))
    running = Background(first.execute)
    lines.wait_for("one")
    second.execute()
    (tmp_path / "go").write_text("\n")
    (result,) = running.result()
    assert contents(result) == b"one\nother\ntwo\n"


def test_another_run_ends_while_the_log_is_opened(
    make_runner: MakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L2, L4: what it has written meanwhile is removed as well, or counts for the rotation."""
    path = tmp_path / "log"
    other = make_runner(Script(script="echo other", log_path=str(path)), append_logs=True)
    open_log = _writers._open

    def let_the_other_run(*args: Any) -> tuple[LogFile, LogTarget]:
        opened = open_log(*args)
        monkeypatch.undo()
        other.execute()
        return opened

    mine = Script(script="echo mine", log_path=str(path))
    monkeypatch.setattr(_writers, "_open", let_the_other_run)
    make_runner(mine).execute()
    assert path.read_bytes() == b"mine\n"
    monkeypatch.setattr(_writers, "_open", let_the_other_run)
    make_runner(mine, append_logs=True, max_log_bytes=12).execute()
    assert rotated(path, 1) == [b"mine\nother\n", b"mine\n"]


@pytest.mark.parametrize("name", ["\ud800", None])
def test_a_filesystem_that_returns_no_name(run: RunScript, name: str) -> None:
    """R7: the run says so, and no descriptor is left open."""

    class Nameless(OSFilesystem):
        def open_log(self, path: Path) -> LogTarget:
            return super().open_log(path)._replace(name=name)

    result = run("true", filesystem=Nameless(), max_log_bytes=100)
    assert result.status is RunStatus.NOT_STARTED


def test_a_note_after_the_last_runs_unfinished_line(make_runner: MakeRunner) -> None:
    """L3, D1: with append_logs, too, what the library says has a line of its own."""
    runner = make_runner(
        Script(script="exit 1", name="a"),
        Script(script="printf partial", name="b", depends_on=(Dependency("a"),)),
        append_logs=True,
    )
    (first,) = runner.execute(lambda script: script.name == "b")
    assert first.log_path is not None
    for _ in range(2):
        runner.execute(check=False)
    note = 'agentscripts: not started: dependency "a" failed'
    assert first.log_path.read_text().splitlines() == ["partial", note, note]


# ---- rotation ----


def test_a_umask_that_takes_all(make_runner: MakeRunner, tmp_path: Path) -> None:
    """L2, L4: each file has mode 0600 all the same, for the next run, too, is to write it."""
    runner = make_runner("seq 100", max_log_bytes=100, log_backups=2)
    with umask(0o777):
        (result,) = runner.execute()
    assert result.log_path is not None
    files = [result.log_path, *result.log_path.parent.glob(f"{result.log_path.name}.*")]
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600] * 3


def test_rotation_at_lines(run: RunScript, tmp_path: Path) -> None:
    """L4: each file ends at a line's end and is no longer than the limit; no byte is lost."""
    result = run(COUNT.format(300, "line"), max_log_bytes=500, log_backups=20)
    assert result.log_path is not None
    files = rotated(result.log_path, 20)
    assert b"".join(files) == b"".join(b"line %d\n" % i for i in range(300))
    assert len(files) > 5
    assert all(len(file) <= 500 and file.endswith(b"\n") for file in files)
    assert all(len(file) > 500 - 10 for file in files[:-1])


def test_backups_are_limited(run: RunScript) -> None:
    """L4: there are never more than log_backups rotated files, and they are the newest ones."""
    result = run(COUNT.format(300, "line"), max_log_bytes=500, log_backups=2)
    assert result.log_path is not None
    whole = b"".join(b"line %d\n" % i for i in range(300))
    files = rotated(result.log_path, 9)
    assert len(files) == 3
    assert whole.endswith(b"".join(files))


@pytest.mark.parametrize("chunk", [1, 7, 100, 4096])
def test_rotation_inside_a_long_line(run: RunScript, tmp_path: Path, chunk: int) -> None:
    """L4: a line longer than max_line is cut at the limit exactly."""
    (tmp_path / "printed").write_bytes(b"x" * 1050)
    result = run(
        f"perl -e 'syswrite STDOUT, $b while sysread STDIN, $b, {chunk}' <{tmp_path}/printed",
        max_log_bytes=100,
        log_backups=20,
        max_line=10,
    )
    assert result.log_path is not None
    sizes = [len(file) for file in rotated(result.log_path, 20)]
    assert sum(sizes) == 1050
    assert sizes == [100] * 10 + [50]


def test_rotation_moves_an_unfinished_line(run: RunScript, lines: Lines, tmp_path: Path) -> None:
    """L4: the begin of a line moves along to the next file, so that its line stays whole."""
    os.mkfifo(tmp_path / "go")
    script = f"echo 0123456789; printf 'abc'; read x <{tmp_path}/go; echo defghijk"
    opener = Background(lambda: (tmp_path / "go").write_text("\n"))
    result = run(script, max_log_bytes=20)
    opener.result()
    assert result.log_path is not None
    assert rotated(result.log_path, 1) == [b"0123456789\n", b"abcdefghijk\n"]


def test_rotation_keeps_the_name(run: RunScript, tmp_path: Path) -> None:
    """L4: at no moment is there no file of the log's name."""
    path = tmp_path / "log"
    script = Script(
        script=f"for i in $(seq 400); do echo $i; test -e {path} || echo gone; done",
        log_path=str(path),
    )
    result = run(script, max_log_bytes=50, log_backups=100)
    assert result.ok
    assert b"gone" not in b"".join(rotated(path, 100))


def test_rotation_while_the_log_is_opened(run: RunScript, tmp_path: Path) -> None:
    """L4: who has opened a file that lost its name meanwhile opens the one that has it now."""

    class Rotating(OSFilesystem):
        opened = 0

        def open_log(self, path: Path) -> LogTarget:
            target = super().open_log(path)
            self.opened += 1
            if self.opened < 3:
                path.rename(f"{path}.{self.opened}")
            if self.opened == 1:
                path.touch()
            return target

    result = run("echo x", filesystem=Rotating(), max_log_bytes=100, log_backups=2)
    assert result.log_path is not None
    assert rotated(result.log_path, 2) == [b"", b"", b"x\n"]


def test_removed_while_the_log_is_opened(
    run: RunScript, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L4: a file that a rotation removes between its open and the look at it is opened anew."""
    path, fstat = tmp_path / "a.log", os.fstat
    path.touch()

    def remove(fd: int) -> os.stat_result:
        if f"{path}" == os.readlink(f"/proc/self/fd/{fd}"):
            monkeypatch.undo()
            path.unlink()
        return fstat(fd)

    monkeypatch.setattr(os, "fstat", remove)
    assert run(Script(script="echo x", log_path=str(path)), max_log_bytes=1000).ok
    assert path.read_text() == "x\n"


def test_a_name_that_is_not_the_files(run: RunScript, tmp_path: Path) -> None:
    """L4: a file system whose names lead elsewhere keeps a run from starting, and says why."""

    class Elsewhere(OSFilesystem):
        def open_log(self, path: Path) -> LogTarget:
            target = super().open_log(path)
            return target._replace(name="elsewhere")

    result = run("true", filesystem=Elsewhere(), max_log_bytes=1000)
    assert result.status is RunStatus.NOT_STARTED
    assert "names another file than was opened" in result.reason


def test_a_rotation_that_fails_once(make_runner: MakeRunner, lines: Lines, tmp_path: Path) -> None:
    """L3, L4: it leaves no file behind, is told, and is made up for; then the limit holds again."""
    go, logs = tmp_path / "go", tmp_path / "logs"
    os.mkfifo(go)
    (logs / "log.1").mkdir(parents=True)
    rest = "for i in 3 4 5; do echo $i abcdefgh; done"
    script = f"echo 1 abcdefgh; echo 2 abcdefgh; read go <{go}; {rest}"
    runner = make_runner(Script(script=script, log_path="log"), max_log_bytes=16)
    call = Background(runner.execute)
    lines.wait_for("2")
    assert sorted(os.listdir(logs)) == ["log", "log.1"]
    (logs / "log.1").rmdir()
    go.write_text("\n")
    (result,) = call.result()
    assert result.log_error is not None
    assert result.log_error.errno == errno.EISDIR
    assert rotated(logs / "log", 1) == [b"4 abcdefgh\n", b"5 abcdefgh\n"]
    assert sorted(os.listdir(logs)) == ["log", "log.1"]


def test_whose_writer_a_file_has_after_a_rotation(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """L2, L4: the file in use shares its writer; one that was rotated away is another log's."""
    log, away = tmp_path / "log", tmp_path / "away"
    go = [tmp_path / "go 1", tmp_path / "go 2"]
    for one in go:
        os.mkfifo(one)
    hold = [f"echo up; read go <'{one}'; echo end" for one in go]
    rotating = make_runner(
        Script(script=f"echo {'x' * 20}; echo abcdef; {hold[0]}", name="first", log_path=str(log)),
        Script(script="echo late", name="late", log_path=str(log)),
        max_log_bytes=21,
    )
    plain = make_runner(
        Script(script=hold[1], name="second", log_path=str(away)),
        Script(script="echo third", name="third", log_path=str(away)),
    )

    def start(runner: Runner, name: str) -> Background[list[RunResult]]:
        return Background(lambda: runner.execute(lambda one: one.name == name))

    first = start(rotating, "first")
    lines.wait_for("up")
    log.with_name("log.1").rename(away)
    start(rotating, "late").result()
    assert log.read_text() == "abcdef\nup\nlate\n"
    second = start(plain, "second")
    lines.wait_for("up", 2)
    assert away.read_text() == "up\n"
    go[0].write_text("\n")
    first.result()
    assert log.read_text() == "abcdef\nup\nlate\nend\n"
    start(plain, "third").result()
    assert away.read_text() == "up\nthird\n"
    go[1].write_text("\n")
    second.result()
    assert away.read_text() == "up\nthird\nend\n"


@pytest.mark.slow
@pytest.mark.parametrize("status", [RunStatus.TIMED_OUT, RunStatus.CANCELLED])
def test_an_end_that_rotations_would_hold_up(make_runner: MakeRunner, status: RunStatus) -> None:
    """K1, L4: what a script has left in its pipe when it is ended goes to a file too large, where
    to rotate over and over would take long."""
    timeout = 1.5 if status is RunStatus.TIMED_OUT else None
    token = CancelToken()
    runner = make_runner(Script(script="yes", timeout=timeout), max_log_bytes=1, kill_delay=0)
    call = Background(lambda: runner.execute(cancel=token, check=False))
    if timeout is None:
        eventually(lambda: [run.last_line for run in runner.runs()] == ["y"])
        token.cancel()
    (result,) = call.result()
    assert result.status is status
    assert len(contents(result)) > 1000


@pytest.mark.slow
def test_two_runs_rotate_one_file(make_runner: MakeRunner, tmp_path: Path) -> None:
    """L2, L4: two runs that write and rotate one file lose no byte and write none twice."""
    path = str(tmp_path / "log")
    runner = make_runner(
        *(Script(script=COUNT.format(5000, name), log_path=path) for name in ("left", "right")),
        max_log_bytes=4000,
        log_backups=100,
    )
    runner.execute()
    files = rotated(tmp_path / "log", 100)
    assert len(files) > 20
    assert all(len(file) <= 4000 for file in files)
    # Raw, in the order read: a read may end inside a line, and the other run's bytes come next.
    wanted = b"".join(b"%s %d\n" % (name, i) for name in (b"left", b"right") for i in range(5000))
    assert sorted(b"".join(files)) == sorted(wanted)


# ---- writes that fail ----


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_full_disk(
    run: RunScript, lines: Lines, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """L3: a full disk costs the file its rest and nothing else."""
    path = small_disk / "log"
    result = run(Script(script=COUNT.format(20_000, "line"), log_path=str(path)))
    assert result.ok
    assert result.exit_code == 0
    assert lines.lines == [f"line {i}" for i in range(20_000)]
    assert result.log_error is not None
    assert result.log_error.errno == errno.ENOSPC
    assert any(
        record.levelname == "WARNING" and str(path) in record.message for record in caplog.records
    )


def test_a_disk_that_has_room_again(
    make_runner: MakeRunner, lines: Lines, small_disk: Path
) -> None:
    """L3: the log goes on when writing works again."""
    (small_disk / "ballast").write_bytes(b"x" * 60_000)
    os.mkfifo(small_disk / "go")
    script = COUNT.format(4000, "line") + f"; echo full; read x <{small_disk}/go; echo again"
    runner = make_runner(Script(script=script, log_path=str(small_disk / "log")))
    running = Background(runner.execute)
    lines.wait_for("full")
    (small_disk / "ballast").unlink()
    (small_disk / "go").write_text("\n")
    (result,) = running.result()
    assert contents(result).endswith(b"again\n")
    assert result.log_error is not None
    assert result.log_error.errno == errno.ENOSPC


def test_full_disk_with_rotation(run: RunScript, lines: Lines, small_disk: Path) -> None:
    """L3, L4: rotating on a full disk hurts no script either."""
    script = Script(script=COUNT.format(20_000, "line"), log_path=str(small_disk / "log"))
    result = run(script, max_log_bytes=10_000, log_backups=50)
    assert result.ok
    assert lines.lines == [f"line {i}" for i in range(20_000)]
    assert result.log_error is not None
    assert result.log_error.errno == errno.ENOSPC
    kept = b"".join(rotated(small_disk / "log", 50))
    assert kept.startswith(b"line 0\nline 1\n")
    assert len(kept) > 40_000


def test_file_size_limit(tmp_path: Path) -> None:
    """L3: neither does the host's RLIMIT_FSIZE reach the script or the lines."""
    program = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
count = 0
class Count:
    def send(self, batch):
        global count
        count += len(batch)
    def flush(self): pass
with make("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done",
          get_script_logger=lambda _: Count()) as runner:
    (result,) = runner.execute()
say(result.exit_code, count, result.log_error.errno, result.log_path.stat().st_size)
"""
    assert run_host(tmp_path, program) == [f"0 20000 {errno.EFBIG} 65536"]


# ---- the host's own streams ----

TO_STDOUT = """
with make(Script(script={script!r}, log_path="/dev/stdout"),
          get_script_logger=lambda _: agentscripts.testing.RecordingLogger(), {options}) as runner:
    {before}
    (result,) = runner.execute()
    {after}
"""


def host_program(script: str, options: str = "", before: str = "", after: str = "") -> str:
    text = TO_STDOUT.format(script=script, options=options, before=before, after=after)
    return f"import agentscripts.testing\n{text}"


def test_stdout_is_a_pipe(tmp_path: Path) -> None:
    """L2: a log at /dev/stdout comes where the host's own output goes."""
    program = host_program("echo hello", before='say("before")', after='say("after")')
    assert run_host(tmp_path, program) == ["before", "hello", "after"]


def test_stdout_is_a_file(tmp_path: Path) -> None:
    """L2: host and script share a file's end, so neither overwrites the other."""
    program = host_program("echo from-script", before='say("before")', after='say("after")')
    program = f"""
import os
os.dup2(os.open(BASE / "shared", os.O_WRONLY | os.O_CREAT, 0o600), 1)
{program}"""
    run_host(tmp_path, program)
    assert (tmp_path / "shared").read_text() == "before\nfrom-script\nafter\n"


def test_stdout_stays_blocking(tmp_path: Path) -> None:
    """L2: the host's own descriptor does not become non-blocking."""
    program = host_program("echo hello", after="say(os.get_blocking(1))")
    assert run_host(tmp_path, program) == ["hello", "True"]


def test_stdout_is_a_closed_pipe(tmp_path: Path) -> None:
    """L3: nobody reads the host's stdout any more: only log_error tells."""
    program = host_program(
        "echo hello; echo more",
        before="""
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)""",
        after="""said = f"{result.status} {result.lines} {result.log_error.errno}"
    (BASE / "result").write_text(said)""",
    )
    assert run_host(tmp_path, program) == []
    assert (tmp_path / "result").read_text() == f"succeeded 2 {errno.EPIPE}"


class PipeFilesystem(OSFilesystem):
    """Every log is one pipe, as /dev/stdout often is."""

    def __init__(self) -> None:
        self.read_end, self._write_end = os.pipe()

    def open_log(self, path: Path) -> LogTarget:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(f"/proc/self/fd/{self._write_end}", flags)
        return LogTarget(fd, None, "pipe", truncate=False)

    def read_slowly(self) -> Background[bytes]:
        """Read to the end."""

        def read() -> bytes:
            data = bytearray()
            while chunk := os.read(self.read_end, 5000):
                data.extend(chunk)
                time.sleep(0.0005)
            return bytes(data)

        return Background(read)

    def close_write_end(self) -> None:
        os.close(self._write_end)

    def close(self) -> None:
        os.close(self.read_end)


def run_with_a_slow_pipe(run: RunScript, script: str) -> tuple[RunResult, bytes]:
    """Run a script whose log takes its time; return its result and what its log got."""
    pipe = PipeFilesystem()
    reader = pipe.read_slowly()
    result = run(script, filesystem=pipe, stall_timeout=None)
    pipe.close_write_end()
    data = reader.result()
    pipe.close()
    return result, data


def test_a_slow_pipe(run: RunScript, lines: Lines) -> None:
    """L3: a log that takes its time holds the script back, and every byte comes."""
    result, data = run_with_a_slow_pipe(run, "seq 100000")
    assert data == b"".join(b"%d\n" % i for i in range(1, 100_001))
    assert len(lines.lines) == 100_000
    assert result.log_error is None


def test_a_stuck_pipe(run: RunScript, lines: Lines) -> None:
    """L3, L6: a log that takes nothing holds the script for stall_timeout, and costs no line."""
    pipe = PipeFilesystem()
    # More than the script's own pipe takes, which may have 1 MiB.
    result = run("seq 300000", filesystem=pipe, stall_timeout=2.0)  # also the logger
    pipe.close_write_end()
    pipe.close()
    assert result.ok
    assert lines.lines == [str(i) for i in range(1, 300_001)]
    assert result.log_error is not None
    assert result.log_error.errno == errno.EAGAIN


def test_a_slow_pipe_for_both_streams(run: RunScript) -> None:
    """L3: what one stream's bytes wait for, the other one's wait for, too."""
    result, data = run_with_a_slow_pipe(run, "seq 100000 & seq 100000 >&2; wait")
    assert result.log_error is None
    assert sorted(data) == sorted(2 * b"".join(b"%d\n" % i for i in range(1, 100_001)))


@pytest.mark.parametrize("reader", ["comes back", "leaves"])
def test_a_pipe_that_was_stuck(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, reader: str
) -> None:
    """L3: when it takes something again, the script is held back for it again; the first error is
    the one that is told."""
    go, pipe = tmp_path / "go", PipeFilesystem()
    os.mkfifo(go)
    script = f"seq 300000; echo full; read go <{go}; echo begin; seq 100000"
    # It is the logger's, too.
    runner = make_runner(script, filesystem=pipe, stall_timeout=2.0)
    call = Background(runner.execute)
    lines.wait_for("full")
    if reader == "leaves":
        pipe.close()
        go.write_text("\n")
        (result,) = call.result()
        pipe.close_write_end()
    else:
        draining = pipe.read_slowly()
        eventually(lambda: not select.select([pipe.read_end], [], [], 0)[0], "the pipe is empty")
        go.write_text("\n")
        (result,) = call.result()
        pipe.close_write_end()
        data = draining.result()
        pipe.close()
        after = b"begin\n" + b"".join(b"%d\n" % i for i in range(1, 100_001))
        assert data.endswith(after)
    assert result.log_error is not None
    assert result.log_error.errno == errno.EAGAIN


def test_a_stuck_pipe_at_the_end(run: RunScript) -> None:
    """L3, L6: once the script has ended the log has flush_timeout to take the rest."""
    pipe = PipeFilesystem()
    result = run("seq 20000", filesystem=pipe, stall_timeout=None, flush_timeout=0.2)
    pipe.close_write_end()
    pipe.close()
    assert result.ok
    assert result.log_error is not None
    assert result.log_error.errno == errno.EAGAIN
