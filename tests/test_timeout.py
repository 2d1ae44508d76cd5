"""Deadlines and cancels: what is sent, when, and what the result says."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import Background, Lines, eventually, is_alive

from agentscripts import CancelToken, RunStatus, Script, ScriptTimeoutError

TRAP = "trap '' HUP TERM; "


def test_one_millisecond(run: RunScript) -> None:
    """K1: sleep infinity with a timeout of 1 ms is back at once."""
    begin = time.monotonic()
    result = run(Script(script="sleep infinity", timeout=0.001), kill_delay=30.0)
    assert time.monotonic() - begin < 15  # the stop signal was enough
    assert result.status is RunStatus.TIMED_OUT
    assert isinstance(result.error, ScriptTimeoutError)
    assert result.exit_code == -signal.SIGHUP
    assert result.survivors == ()


@pytest.mark.slow
def test_one_millisecond_is_back_in_fifty(run: RunScript) -> None:
    """K1: at one try of many, as a busy machine delays anybody."""

    def took() -> float:
        begin = time.monotonic()
        run(Script(script="sleep infinity", timeout=0.001))
        return time.monotonic() - begin

    assert any(took() < 0.05 for _ in range(200))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_stop_signal(make_runner: MakeRunner, lines: Lines, number: signal.Signals) -> None:
    """K1: the stop signal is the one of the options, and a script may end in its own way."""
    token = CancelToken()
    name = number.name.removeprefix("SIG")
    runner = make_runner(
        f"exec 2>/dev/null; trap 'echo got {name}; exit 7' {name}; "
        "echo ready; while :; do sleep 0.01; done",
        stop_signal=number,
        kill_delay=None,
    )
    running = Background(lambda: runner.execute(cancel=token, check=False))
    lines.wait_for("ready")
    token.cancel()
    (result,) = running.result()
    assert result.status is RunStatus.CANCELLED
    assert result.exit_code == 7
    assert lines.lines == ["ready", f"got {name}"]


@pytest.mark.slow
@pytest.mark.parametrize("waits", [True, False])
def test_what_a_trap_starts_is_left_alone(
    run: RunScript, lines: Lines, tmp_path: Path, waits: bool
) -> None:
    """K1: the stop signal is sent once: clean-up that a trap starts gets kill_delay to end, also
    when the script's exit has the tree looked through again."""
    os.mkfifo(tmp_path / "up")
    # The first is as long as a busy machine may need until it has sent that signal to all.
    clean_up = f'sleep 1; setsid sh -c "echo >{tmp_path}/up; sleep 0.1; echo cleaned" &'
    clean_up += f" read up <{tmp_path}/up; {'wait;' if waits else ''} exit 0"
    script = f"exec 2>/dev/null; trap '{clean_up}' HUP; while :; do sleep 0.01; done"
    result = run(Script(script=script, timeout=1), kill_delay=20.0)
    assert lines.lines == ["cleaned"]
    assert result.status is RunStatus.TIMED_OUT
    assert result.exit_code == 0


@pytest.mark.slow
def test_kill_delay(run: RunScript) -> None:
    """K1: SIGKILL comes kill_delay after the stop signal, no sooner."""
    result = run(Script(script=TRAP + "while :; do sleep 1; done", timeout=0.5), kill_delay=0.5)
    assert result.status is RunStatus.TIMED_OUT
    assert result.exit_code == -signal.SIGKILL
    assert 1.0 <= result.duration < 2


def test_kill_delay_of_zero(run: RunScript) -> None:
    """K1: a kill_delay of 0 kills at once."""
    result = run(Script(script=TRAP + "while :; do sleep 1; done", timeout=0.05), kill_delay=0)
    assert result.exit_code in (-signal.SIGKILL, -signal.SIGHUP)
    assert result.duration < 1


def test_a_stopped_script(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: a process that is stopped gets the stop signal, too."""
    token = CancelToken()
    runner = make_runner("echo $$; kill -STOP $$; sleep 30", kill_delay=None)
    running = Background(lambda: runner.execute(cancel=token, check=False))
    eventually(lambda: lines.lines)
    pid = int(lines.lines[0])
    eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] == "T")
    token.cancel()
    (result,) = running.result()
    assert result.exit_code == -signal.SIGHUP


@pytest.mark.slow
def test_output_up_to_the_end_is_kept(run: RunScript, lines: Lines) -> None:
    """K1: lines, also the unfinished one, are there after a timeout."""
    result = run(Script(script="echo a; echo b >&2; printf c; sleep 30", timeout=1))
    assert sorted(lines.lines) == ["a", "b", "c"]
    assert result.log_path is not None
    assert sorted(result.log_path.read_bytes()) == sorted(b"a\nb\nc")


def test_wait_delay_plays_no_part(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: a run that was cancelled does not wait for its pipes; K4: nor is anybody left over."""
    token = CancelToken()
    runner = make_runner("sleep 60 & echo ready; sleep 60", wait_delay=None)
    running = Background(lambda: runner.execute(cancel=token, check=False))
    lines.wait_for("ready")
    token.cancel()
    (result,) = running.result(20)
    assert result.status is RunStatus.CANCELLED
    assert result.survivors == ()


@pytest.mark.slow
def test_the_exit_ends_the_deadline(run: RunScript) -> None:
    """K5: a script that has exited does not time out any more, nor is anything of it killed."""
    result = run(Script(script="(sleep 1.4; echo late) & exit 3", timeout=1), kill_delay=0)
    assert result.status is RunStatus.FAILED
    assert result.exit_code == 3
    assert result.tail == ("late",)


def test_call_timeout(make_runner: MakeRunner) -> None:
    """K1: the call's timeout ends a script whose own is longer."""
    runner = make_runner(Script(script="sleep 30", timeout=25))
    (result,) = runner.execute(timeout=0.05, check=False)
    assert result.status is RunStatus.TIMED_OUT
    assert "0.05" in result.reason


def test_cancel_one_run(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: Runner.cancel ends one run and no other."""
    runner = make_runner(
        Script(script="echo ready; sleep 30", name="a"),
        Script(script="echo ready; read x <$CODER_SCRIPT_DATA_DIR/../go; echo $x", name="b"),
    )
    os.mkfifo(runner.data_dir / "go")
    running = Background(lambda: runner.execute(check=False))
    lines.wait_for("ready", 2)
    (run_id,) = (run.run_id for run in runner.runs() if run.script.name == "a")
    assert runner.cancel(run_id)
    eventually(lambda: len(runner.runs()) == 1)
    (runner.data_dir / "go").write_text("done\n")
    results = running.result()
    assert [result.status for result in results] == [RunStatus.CANCELLED, RunStatus.SUCCEEDED]
    assert not runner.cancel(run_id)


def test_close_ends_the_stubborn(make_runner: MakeRunner, lines: Lines) -> None:
    """S1: close(timeout) cancels; a process that ignores everything is gone afterwards."""
    runner = make_runner(TRAP + "echo $$; while :; do sleep 1; done", kill_delay=0.05)
    running = Background(lambda: runner.execute(check=False))
    eventually(lambda: lines.lines)
    runner.close(timeout=0)
    (result,) = running.result()
    assert result.status is RunStatus.CANCELLED
    assert not is_alive(int(lines.lines[0]))
