"""Background processes after a script's exit."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import PATIENCE, Background, Lines, eventually, is_alive

from agentscripts import (
    CancelToken,
    LogBatch,
    OutputPipesOpenError,
    RunState,
    RunStatus,
    Script,
)
from agentscripts._process import pipe_holders


@pytest.fixture
def daemons(lines: Lines) -> Iterator[list[int]]:
    """The processes whose pids the script printed; killed after the test."""
    found: list[int] = []
    yield found
    for pid in found:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not is_alive(pid))


@pytest.mark.parametrize("timeout", [None, 0.2])
@pytest.mark.parametrize("code", [0, 3])
def test_a_daemon_that_holds_the_pipes(
    run: RunScript,
    lines: Lines,
    daemons: list[int],
    caplog: pytest.LogCaptureFixture,
    timeout: float | None,
    code: int,
) -> None:
    """K5: after wait_delay the run ends as PIPES_OPEN, and the warning names who holds them."""
    script = Script(script=f"sleep 60 & echo $!; echo done; exit {code}", timeout=timeout)
    result = run(script, wait_delay=0.5)
    daemons.append(int(lines.lines[0]))
    holder = f"sleep 60 (pid {daemons[0]})"
    assert result.status is RunStatus.PIPES_OPEN
    assert isinstance(result.error, OutputPipesOpenError)
    assert result.exit_code == code
    assert 0.5 <= result.duration < 5
    assert lines.lines[1] == "done"
    (note,) = (line for batch in lines.batches if batch.level == "warn" for line in batch.lines)
    assert result.log_path is not None
    assert note in result.log_path.read_text()
    agent = "\n".join(r.message for r in caplog.records if r.levelname == "WARNING")
    for text in (note, agent):
        assert holder in text
    assert "SIGPIPE" in note
    assert result.lines == 2
    assert is_alive(daemons[0])


def test_the_agents_log_says_what_to_do(
    run: RunScript, lines: Lines, daemons: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """K5: the agent's log, too, tells of SIGPIPE and of the way out."""
    run("sleep 60 & echo $!", wait_delay=0.01)
    daemons.append(int(lines.lines[0]))
    agent = "\n".join(record.message for record in caplog.records)
    assert "SIGPIPE" in agent
    assert ">/dev/null" in agent


def test_the_warning_follows_an_unfinished_line(
    run: RunScript, lines: Lines, daemons: list[int]
) -> None:
    """K5: L5: it is no part of that line, and comes after it, in the script's log and its file."""
    result = run("sleep 60 & echo $!; printf unfinished", wait_delay=0.01)
    pid, *rest = lines.lines
    daemons.append(int(pid))
    assert rest[0] == "unfinished"
    assert rest[1].startswith("agentscripts: exit status 0, but ")
    assert result.log_path is not None
    assert result.log_path.read_text().splitlines()[1:] == rest
    assert (result.lines, len(rest)) == (2, 2)


def test_output_redirected(run: RunScript, lines: Lines, daemons: list[int]) -> None:
    """K5: a process that redirected its output is no reason to wait, and lives on."""
    result = run("sleep 60 >/dev/null 2>&1 & echo $!", wait_delay=None)
    daemons.append(int(lines.lines[0]))
    assert result.status is RunStatus.SUCCEEDED
    assert is_alive(daemons[0])


@pytest.mark.parametrize("redirection", [">/dev/null", "2>/dev/null"])
def test_one_pipe_is_enough(
    run: RunScript, lines: Lines, daemons: list[int], redirection: str
) -> None:
    """K5: who holds one of both pipes holds the run."""
    result = run(f"sleep 60 {redirection} & echo $!", wait_delay=0.01)
    daemons.append(int(lines.lines[0]))
    assert result.status is RunStatus.PIPES_OPEN


def test_pipes_closed_in_time(run: RunScript, lines: Lines) -> None:
    """K5: a process that ends within wait_delay is no reason to complain."""
    result = run("(sleep 0.1; echo late) & echo early", wait_delay=20.0)
    assert result.status is RunStatus.SUCCEEDED
    assert lines.lines == ["early", "late"]


def test_a_cancel_shortens_the_wait(
    make_runner: MakeRunner, lines: Lines, daemons: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """K5: a cancel after the exit ends the wait, signals nobody, and does not claim a time."""
    token = CancelToken()
    runner = make_runner("sleep 60 & echo $$; echo $!", wait_delay=3600.0)
    running = Background(lambda: runner.execute(cancel=token, check=False))
    eventually(lambda: len(lines.lines) == 2)
    script, daemon = map(int, lines.lines)
    daemons.append(daemon)
    eventually(lambda: not is_alive(script))
    token.cancel()
    (result,) = running.result()
    assert result.status is RunStatus.PIPES_OPEN
    assert result.exit_code == 0
    assert is_alive(daemon)
    assert "3600" not in result.reason
    assert not any("3600" in line for line in lines.lines)


def test_close_shortens_the_wait(make_runner: MakeRunner, lines: Lines, daemons: list[int]) -> None:
    """K5, S1: so does close with a timeout."""
    runner = make_runner("sleep 60 & echo $$; echo $!", wait_delay=None)
    running = Background(lambda: runner.execute(check=False))
    eventually(lambda: len(lines.lines) == 2)
    script, daemon = map(int, lines.lines)
    daemons.append(daemon)
    eventually(lambda: not is_alive(script))
    runner.close(timeout=0)
    assert running.result()[0].status is RunStatus.PIPES_OPEN
    assert is_alive(daemon)


def test_the_next_write_gets_sigpipe(run: RunScript, lines: Lines, tmp_path: object) -> None:
    """K5: the read ends are closed: a chatty process dies, and cannot prolong the run."""
    result = run("yes & echo $!", wait_delay=0.05)
    pid = int(next(line for line in lines.lines if line.isdecimal()))
    assert result.status is RunStatus.PIPES_OPEN
    eventually(lambda: not is_alive(pid))


def test_the_read_ends_close_before_the_lines_are_delivered(
    make_runner: MakeRunner, tmp_path: Path
) -> None:
    """K5: L6: a logger that is stuck does not keep a chatty process alive."""
    over = threading.Event()

    def on_send(batch: LogBatch) -> None:
        over.wait(PATIENCE)

    runner = make_runner(
        f"(while echo x; do sleep 0.01; done) & echo $! >{tmp_path}/pid",
        get_script_logger=lambda _: Lines(on_send),
        wait_delay=0.05,
        stall_timeout=None,
        flush_timeout=None,
    )
    call = Background(lambda: runner.execute(check=False))
    eventually(lambda: [run.state for run in runner.runs()] == [RunState.DELIVERING])
    pid = int((tmp_path / "pid").read_text())
    try:
        eventually(lambda: not is_alive(pid), "its next write got SIGPIPE")
    finally:
        over.set()
    assert call.result()[0].status is RunStatus.PIPES_OPEN


@pytest.mark.parametrize(("left", "ends"), [("", True), ("x", False)])
def test_who_held_the_pipes_is_gone(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, left: str, ends: bool
) -> None:
    """K5: when they are looked for, nobody holds the pipes any more: then they are not open, unless
    something is left in them, which the log would lack."""
    go = tmp_path / "go"
    os.mkfifo(go)

    def gone(pipes: tuple[int, int]) -> tuple[int, ...]:
        go.write_text("\n")
        eventually(lambda: not pipe_holders(pipes))
        return ()

    monkeypatch.setattr("agentscripts._execution.pipe_holders", gone)
    script = f"(read line <{go}; printf '{left}') & exit 0"
    (result,) = make_runner(script, wait_delay=0).execute(check=False)
    assert result.status is (RunStatus.SUCCEEDED if ends else RunStatus.PIPES_OPEN)


@pytest.mark.slow
def test_what_the_host_starts_meanwhile_holds_nothing(make_runner: MakeRunner) -> None:
    """K5: each process has copies of the pipes until its exec, also one that ``Popen`` starts."""
    over = threading.Event()

    def start_others() -> None:
        while not over.is_set():
            subprocess.run(["/bin/true"], check=True)

    others = [threading.Thread(target=start_others) for _ in range(2)]
    for thread in others:
        thread.start()
    runner = make_runner("exit 0", wait_delay=0)
    try:
        assert {runner.execute(check=False)[0].status for _ in range(100)} == {RunStatus.SUCCEEDED}
    finally:
        over.set()
        for thread in others:
            thread.join()
