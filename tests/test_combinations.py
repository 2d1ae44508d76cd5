"""What goes wrong only together: nested calls, forks in the host, limits that meet."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import Background, eventually, run_host

from agentscripts import CancelToken, LogBatch, RunResult, RunStatus, Script, Stage


@pytest.mark.slow
def test_a_handler_runs_the_stop_scripts(tmp_path: Path) -> None:
    """R8, S3: execute in a signal handler of execute works, and again for the second signal."""
    program = """
import os, signal
runner = make(Script(script="echo up; read x <go", run_on_start=True),
              Script(script="echo stopping", run_on_stop=True), working_dir=BASE)
os.mkfifo(BASE / "go")

def handle(number, frame):
    say("stop", *(result.status for result in runner.execute(Stage.STOP)))
    if not left.pop():
        (BASE / "go").write_text("\\\\n")
    else:
        os.kill(os.getpid(), signal.SIGTERM)

left = [False, True]
signal.signal(signal.SIGTERM, handle)

def kick():
    while not any(run.last_line for run in runner.runs()):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=kick).start()
say("start", *(result.status for result in runner.execute(Stage.START)))
runner.close()
""".replace("\\\\n", "\\n")
    said = run_host(tmp_path, program)
    assert [line for line in said if not line.startswith("line ")] == [
        "stop succeeded",
        "stop succeeded",
        "start succeeded",
    ]


@pytest.mark.forks
@pytest.mark.slow
def test_a_forked_child_has_the_hosts_handlers(tmp_path: Path) -> None:
    """S2: a child that is forked during execute reacts to signals as the host would have."""
    program = """
import os, signal
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
runner = make("echo up; read x <go", working_dir=BASE)
os.mkfifo(BASE / "go")

def fork():
    while not any(run.last_line for run in runner.runs()):
        time.sleep(0.01)
    pid = os.fork()
    if pid == 0:
        signal.raise_signal(signal.SIGTERM)
        os._exit(1)
    say("child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    (BASE / "go").write_text("\\n")

threading.Thread(target=fork).start()
say(*(result.status for result in runner.execute()))
runner.close()
"""
    said = run_host(tmp_path, program)
    assert [line for line in said if not line.startswith("line ")] == ["child 7", "succeeded"]


def test_a_timeout_of_a_month(make_runner: MakeRunner) -> None:
    """K1: a limit beyond what poll can take is no limit."""
    runner = make_runner("echo one", "echo two", max_parallel=1)
    assert [one.ok for one in runner.execute(timeout=30 * 86400)] == [True, True]
    token = CancelToken()
    waiting = Background(lambda: token.wait(30 * 86400))
    token.cancel()
    assert waiting.result()


def test_a_cancel_before_the_first_start_is_told_once(make_runner: MakeRunner) -> None:
    """R7, S1: a lone script that close cancels before it starts has one result and no process."""
    told: list[RunResult] = []
    selecting, go_on = threading.Event(), threading.Event()

    def select(script: Script) -> bool:
        selecting.set()
        return go_on.wait(20)

    runner = make_runner("echo never", on_complete=told.append)
    call = Background(lambda: runner.execute(select, check=False))
    selecting.wait()
    closing = Background(lambda: runner.close(timeout=0))
    eventually(lambda: runner._calls.is_ending(Stage.MANUAL), "close has cancelled")
    go_on.set()
    closing.result()
    (result,) = call.result()
    assert (result.status, result.lines) == (RunStatus.CANCELLED, 0)
    assert told == [result]


def test_a_slot_is_free_when_the_script_has_ended(make_runner: MakeRunner) -> None:
    """R3, L6: a slow logger keeps no other script from starting."""
    first, second = Script(script="echo one", name="one"), Script(script="echo two", name="two")
    both = threading.Barrier(2)

    class Meeting:
        def send(self, batch: LogBatch) -> None:
            both.wait(20)  # each logger waits until the other script has printed, too

        def flush(self) -> None:
            pass

    runner = make_runner(first, second, max_parallel=1, get_script_logger=lambda _: Meeting())
    assert [one.ok for one in runner.execute()] == [True, True]


def test_a_rotation_that_cannot_be(run: RunScript, tmp_path: Path) -> None:
    """L4, L3: where .1 cannot be replaced the log goes on under its name, and nothing is lost."""
    (tmp_path / "x.log.1").mkdir()
    (tmp_path / "x.log.new").write_bytes(b"of somebody else")
    result = run(Script(script="seq 1 3000", log_path=str(tmp_path / "x.log")), max_log_bytes=1000)
    assert result.ok
    assert isinstance(result.log_error, IsADirectoryError)
    assert (tmp_path / "x.log").read_text() == "".join(f"{i}\n" for i in range(1, 3001))
    assert sorted(path.name for path in tmp_path.glob("*x.log*")) == [
        "x.log",
        "x.log.1",
        "x.log.new",
    ]


@pytest.mark.parametrize("which", ["", "bin", "own", "file", "moved"])
def test_a_directory_that_was_removed(make_runner: MakeRunner, which: str) -> None:
    """R2, R5: the next run finds it again."""
    script = Script(script='cd "$CODER_SCRIPT_BIN_DIR" && cd "$CODER_SCRIPT_DATA_DIR"')
    runner = make_runner(script)
    for attempt in range(2):
        gone = runner.data_dir / (str(script.log_source_id) if which == "own" else which)
        if which == "moved":
            runner.data_dir.rename(runner.data_dir.with_name(f"moved-{attempt}"))
        elif which == "file":
            runner.script_bin_dir.rmdir()
            runner.script_bin_dir.write_text("in the way")
            assert "not a directory" in runner.execute(check=False)[0].reason
            runner.script_bin_dir.unlink()
        elif gone.exists():
            shutil.rmtree(gone)
        assert runner.execute()[0].ok


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")
def test_a_directory_that_became_another_users(make_runner: MakeRunner) -> None:
    """R2: what is not this user's any more is looked at again, and refused as on the first day."""
    runner = make_runner('test -d "$CODER_SCRIPT_BIN_DIR"')
    assert runner.execute()[0].ok
    runner.data_dir.chmod(0o777)
    os.chown(runner.script_bin_dir, 65534, 65534)
    assert "belongs to user 65534" in runner.execute(check=False)[0].reason


def test_a_cancel_that_is_no_token(make_runner: MakeRunner) -> None:
    """Bad input gets an error that names the argument and what was expected."""
    runner = make_runner("echo never")
    with pytest.raises(TypeError, match=r"cancel is <.*Event.*>, expected a CancelToken or None"):
        runner.execute(Stage.START, cancel=threading.Event())  # type: ignore[arg-type]


def with_charset(base: Path, charset: str) -> dict[str, str]:
    """Return the environment of a host whose locale has this charset; ``""``: ASCII."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LC_")},
        "LC_ALL": "POSIX",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONUTF8": "0",
    }
    if charset:
        locale = base / "locales" / "xx_XX"
        locale.parent.mkdir()
        # It warns of what the charset lacks, such as the euro sign.
        command = ["localedef", "-c", "-f", charset, "-i", "POSIX", str(locale)]
        subprocess.run(command, stderr=subprocess.DEVNULL)
        environment |= {"LOCPATH": str(locale.parent), "LC_ALL": locale.name}
    return environment


each_charset = pytest.mark.parametrize(
    "charset",
    [
        "",
        pytest.param(
            "ISO-8859-1",
            marks=pytest.mark.skipif(
                shutil.which("localedef") is None, reason="no localedef, of glibc, is here"
            ),
        ),
    ],
    ids=["ASCII", "ISO-8859-1"],
)


@pytest.mark.slow
@each_charset
def test_a_locale_without_utf_8(tmp_path: Path, charset: str) -> None:
    """R4, R5: scripts and their variables reach the shell as UTF-8, whatever the locale.

    What is the agent's own reaches it as it was, unless the script has another value for it.
    """
    program = """
runner = make(Script(script="echo gr\\u00fcn $X $AGENTS $OTHER | od -An -v -tx1",
                     env={"X": "wei\\u00df", "OTHER": "\\u00e4"}))
(result,) = runner.execute()
say("".join(result.tail).replace(" ", ""))
runner.close()
"""
    bytes_of_agent = {b"AGENTS": b"\xe9t\xe9", b"OTHER": b"\xe9"}
    said = run_host(tmp_path, program, env={**with_charset(tmp_path, charset), **bytes_of_agent})
    expected = "grün weiß ".encode() + b"\xe9t\xe9 " + "ä\n".encode()
    assert said[-1] == expected.hex()


@pytest.mark.slow
@each_charset
def test_names_of_files_without_utf_8(tmp_path: Path, charset: str) -> None:
    """R4, R5, R6: a script finds its directories and files where the host has made them."""
    program = """
place = Path(os.fsdecode(os.fsencode(BASE) + b"/\\xe4"))
(place / "bin").mkdir(parents=True)
os.symlink("/bin/sh", place / "bin/interpreter")
os.environ["TMPDIR"] = os.environ["HOME"] = str(place)
os.environ["PATH"] = f"{place}/bin:{os.environ['PATH']}"
text = 'cd "$CODER_SCRIPT_DATA_DIR" && cd "$CODER_SCRIPT_BIN_DIR" && interpreter -c "echo $$"'
for options in ({}, {"working_dir": place}, {"shell": str(place / "bin/interpreter")}):
    runner = make(text, "#!interpreter\\n" + text, "#!/usr/bin/env interpreter\\n" + text,
                  data_dir_base=place, **options)
    say(*(result.reason or "ok" for result in runner.execute(check=False)))
    runner.close()
"""
    said = run_host(tmp_path, program, env=with_charset(tmp_path, charset))
    assert [line for line in said if not line.startswith("line ")] == ["ok ok ok"] * 3
