"""R3: selection, running side by side, limits, results and errors of ``execute``."""

from __future__ import annotations

import errno
import logging
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner, RunScript
from support import Background, Lines, descriptors, eventually, is_alive, run_host

from agentscripts import (
    ExecuteError,
    RunState,
    RunStatus,
    Script,
    ScriptCancelledError,
    ScriptExitError,
    ScriptTimeoutError,
    Stage,
)
from agentscripts._lifecycle import OwnThread


def test_echo_hello(run: RunScript, lines: Lines) -> None:
    """R3: a line reaches the logger as text, before execute returns."""
    result = run("echo hello")
    assert result.ok
    assert lines.lines == ["hello"]
    assert lines.flushes == 1


def test_what_a_result_says(
    run: RunScript, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """R7: a result has what is known of the run, and the agent's log tells of it."""
    caplog.set_level(logging.INFO)
    before = datetime.now(UTC)
    script = Script(script="echo out; echo err >&2; printf unfinished", name="all")
    result = run(script)
    assert result.status is RunStatus.SUCCEEDED
    assert (result.script, result.stage) == (script, Stage.MANUAL)
    assert (result.exit_code, result.reason, result.error) == (0, "", None)
    assert before <= result.started_at <= result.ended_at <= datetime.now(UTC)
    assert result.duration == pytest.approx(
        (result.ended_at - result.started_at).total_seconds(), abs=1e-5
    )
    assert (result.output_bytes, result.lines, result.lines_dropped) == (18, 3, 0)
    assert sorted(result.tail) == ["err", "out", "unfinished"]
    assert result.log_path == tmp_path / "logs" / f"coder-script-{script.log_source_id}.log"
    assert result.log_path.stat().st_size == 18
    assert (result.log_error, result.survivors, result.cause) == (None, (), None)
    assert 0 <= (result.cpu_seconds or 0) < 10
    assert result.max_rss is None or result.max_rss > 0
    said = f'run agent script "all": exit status 0 (succeeded after {result.duration:.3f} s)'
    assert said in caplog.text


@pytest.mark.slow
def test_what_a_script_used(tmp_path: Path) -> None:
    """R7: CPU time, the system's part included, and memory, of the children that were waited for,
    too. Memory counts from the host's peak on, so the script takes more than that."""
    (tmp_path / "use.py").write_text(
        """
import resource, sys
memory = b"x" * int(sys.argv[1])
with open("/dev/zero", "rb", buffering=0) as zero:
    used = resource.getrusage(resource.RUSAGE_SELF)
    while used.ru_utime < 0.05 or used.ru_stime < 1.05:
        zero.read(1 << 20)
        used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)
"""
    )
    program = """
import resource
more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + (64 << 20)
with make(f"{sys.executable} {BASE}/use.py {more}; exit 0") as runner:
    (result,) = runner.execute()
say("result", result.cpu_seconds, result.max_rss)
"""
    script, result = (line.split()[1:] for line in run_host(tmp_path, program))
    cpu_seconds, max_rss = map(float, script)
    assert cpu_seconds <= float(result[0]) < cpu_seconds + 1  # its end takes some, too
    assert max_rss <= int(result[1]) < 1.5 * max_rss


FAILURES = {
    "exit 3": (3, "exit status 3"),
    "exit 255": (255, "exit status 255"),
    "kill -9 $$": (-9, "killed by signal 9 (SIGKILL)"),
    "kill -TERM $$": (-15, "killed by signal 15 (SIGTERM)"),
    "kill -40 $$": (-40, "killed by signal 40"),
    "no-such-command-anywhere": (127, "exit status 127"),
}


@pytest.mark.parametrize("script", FAILURES)
def test_failures(run: RunScript, script: str) -> None:
    """R3: a non-zero exit code, or death by a signal, is FAILED; the reason says which."""
    code, reason = FAILURES[script]
    result = run(Script(script=script, name="bad"))
    assert (result.status, result.exit_code, result.reason) == (RunStatus.FAILED, code, reason)
    assert isinstance(result.error, ScriptExitError)
    assert str(result.error).splitlines()[0] == f'run agent script "bad": {reason}'


def test_scripts_run_side_by_side(make_runner: MakeRunner, tmp_path: Path) -> None:
    """R3: two scripts that need each other at once both end."""
    os.mkfifo(tmp_path / "fifo")
    runner = make_runner(f"echo x > {tmp_path}/fifo", f"cat {tmp_path}/fifo")
    assert [result.ok for result in runner.execute()] == [True, True]


def test_results_are_in_script_order(make_runner: MakeRunner) -> None:
    """R3: results come in the order of the scripts, whichever ends first."""
    scripts = [Script(script=f"sleep 0.0{9 - index}; exit {index}") for index in range(5)]
    runner = make_runner(*scripts)
    with pytest.raises(ExecuteError) as caught:
        runner.execute()
    assert [result.exit_code for result in caught.value.results] == [0, 1, 2, 3, 4]
    assert [error.result.script for error in caught.value.exceptions] == scripts[1:]


def test_one_failure_stops_no_other(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: all failures come as one error, when all scripts have ended; check=False returns."""
    scripts = ("exit 1", "sleep 0.05; echo still here", "kill -9 $$")
    runner = make_runner(*scripts)
    with pytest.raises(ExecuteError) as caught:
        runner.execute()
    assert lines.lines == ["still here"]
    assert [type(error) for error in caught.value.exceptions] == [ScriptExitError] * 2
    assert "2 of 3 scripts failed" in str(caught.value)
    assert [one.exit_code for one in runner.execute(check=False)] == [1, 0, -9]
    assert [one.exit_code for one in caught.value.results] == [1, 0, -9]


def test_selection(make_runner: MakeRunner) -> None:
    """R3: a stage, a predicate, or all; the results' stage tells which."""
    start = Script(script="true", name="start", run_on_start=True)
    stop = Script(script="true", name="stop", run_on_stop=True)
    both = Script(script="true", name="both", run_on_start=True, run_on_stop=True)
    runner = make_runner(start, stop, both)
    for select, expected in (
        (Stage.START, [start, both]),
        (Stage.STOP, [stop, both]),
        (None, [start, stop, both]),
        (lambda script: script.name == "stop", [stop]),
        (lambda script: False, []),
    ):
        results = runner.execute(select)  # type: ignore[arg-type]
        assert [result.script for result in results] == expected
        stage = select if isinstance(select, Stage) else Stage.MANUAL
        assert {result.stage for result in results} <= {stage}


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"select": Stage.MANUAL}, ValueError),
        ({"select": "start"}, TypeError),
        ({"timeout": -1}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": "1"}, TypeError),
        ({"cancel": threading.Event()}, TypeError),
    ],
)
def test_bad_arguments(
    make_runner: MakeRunner, tmp_path: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    """R3: a bad argument is refused before anything starts; the runner goes on working."""
    runner = make_runner(f"touch {tmp_path}/started")
    with pytest.raises(error, match=next(iter(arguments))):
        runner.execute(**arguments)
    assert not (tmp_path / "started").exists()
    runner.execute()


@pytest.mark.parametrize("in_main_thread", [True, False])
@pytest.mark.parametrize("long", [1e10, 1e300])
def test_durations_beyond_what_a_lock_takes(
    make_runner: MakeRunner, long: float, in_main_thread: bool
) -> None:
    """R3: a duration may be longer than any wait can last: it is as good as no limit."""
    delays = dict.fromkeys(["wait_delay", "kill_delay", "stall_timeout", "flush_timeout"], long)
    script = Script(script="true", timeout=long)

    def run() -> bool:
        with make_runner(script, on_complete=lambda result: None, **delays) as runner:
            (result,) = runner.execute(timeout=long)
            runner.close(timeout=long)
        return result.ok

    assert run() if in_main_thread else Background(run).result()


def test_a_predicate_that_raises(make_runner: MakeRunner) -> None:
    """R3: its error comes out of execute, and close does not wait for that call."""

    def select(script: Script) -> bool:
        raise LookupError(script.name)

    runner = make_runner("true")
    with pytest.raises(LookupError):
        runner.execute(select)
    Background(runner.close).result()


def test_the_same_script_runs_twice_at_once(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: calls from several threads run at once; each run has an id of its own."""
    runner = make_runner("echo up $AGENTSCRIPTS_RUN_ID; exec sleep 60")
    calls = [Background(lambda: runner.execute(check=False)) for _ in range(2)]
    lines.wait_for("up", 2)
    assert len({line for line in lines.lines if line.startswith("up")}) == 2
    for one in runner.runs():
        assert runner.cancel(one.run_id)
    for call in calls:
        assert [one.status for one in call.result()] == [RunStatus.CANCELLED]


def test_cancel_of_a_run_that_has_ended(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: cancel tells that it is over, though another run of its call is not."""
    ended: list[str] = []
    runner = make_runner(
        "true",
        "echo up; exec sleep 60",
        on_complete=lambda result: ended.append(result.run_id),
    )
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    eventually(lambda: ended and len(runner.runs()) == 1, "the other one has ended")
    assert not runner.cancel(ended[0])
    assert runner.cancel(runner.runs()[0].run_id)
    assert [one.status for one in call.result()] == [RunStatus.SUCCEEDED, RunStatus.CANCELLED]


# ---- max_parallel ----


def test_max_parallel(make_runner: MakeRunner, tmp_path: Path) -> None:
    """R3: never more than max_parallel scripts run, and all run."""
    trace = tmp_path / "trace"
    script = f"echo + >> {trace}; sleep 0.02; echo - >> {trace}"
    runner = make_runner(*[script] * 12, max_parallel=3)
    assert all(result.ok for result in runner.execute())
    running = peak = 0
    for mark in trace.read_text().split():
        running += 1 if mark == "+" else -1
        peak = max(peak, running)
    assert (running, peak) == (0, 3)


def test_max_parallel_holds_for_the_runner(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """R3: it counts the scripts of all calls; those of STOP do not wait."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    hold = Script(script=f"echo held; read x < {fifo}", name="hold")
    other = Script(script="echo other", name="other")
    stop = Script(script="echo stopped", name="stop", run_on_stop=True)
    runner = make_runner(hold, other, stop, max_parallel=1)
    first = Background(lambda: runner.execute(lambda script: script is hold))
    lines.wait_for("held")
    second = Background(lambda: runner.execute(lambda script: script is other))
    (waiting,) = eventually(
        lambda: [one for one in runner.runs() if one.state is RunState.WAITING], "it waits"
    )
    assert (waiting.script, waiting.pid, waiting.started_at) == (other, None, None)
    assert [one.ok for one in runner.execute(Stage.STOP)] == [True]
    assert "other" not in lines.lines
    fifo.write_text("go\n")
    assert first.result()[0].ok
    assert second.result()[0].ok


@pytest.mark.slow
def test_a_timeout_counts_from_the_start(make_runner: MakeRunner) -> None:
    """R3: a script's timeout does not run while it waits for its turn."""
    runner = make_runner("sleep 1.4", Script(script="true", timeout=1.2), max_parallel=1)
    results = runner.execute()
    assert [one.status for one in results] == [RunStatus.SUCCEEDED] * 2


# ---- the call's timeout ----


@pytest.mark.slow
def test_call_timeout(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: the call's timeout ends what runs; what it ends says that it was the call's."""
    runner = make_runner(
        Script(script="sleep infinity", name="long"),
        Script(script="echo quick", name="quick"),
        Script(script="sleep infinity", name="own", timeout=3600.0),
    )
    long, quick, own = runner.execute(timeout=1, check=False)
    assert (long.status, quick.status, own.status) == (
        RunStatus.TIMED_OUT,
        RunStatus.SUCCEEDED,
        RunStatus.TIMED_OUT,
    )
    assert isinstance(long.error, ScriptTimeoutError)
    assert long.exit_code == -1
    assert "the call took longer than 1 s" in long.reason
    assert "the call took longer than 1 s" in own.reason


def test_a_scripts_timeout_within_the_calls(make_runner: MakeRunner) -> None:
    """K1: the earlier of the two limits counts, and is named."""
    runner = make_runner(Script(script="sleep infinity", timeout=0.05))
    (result,) = runner.execute(timeout=3600, check=False)
    assert result.status is RunStatus.TIMED_OUT
    assert "it ran longer than 0.05 s" in result.reason


@pytest.mark.slow
def test_call_timeout_of_what_waits(make_runner: MakeRunner, tmp_path: Path) -> None:
    """K1: what the call's timeout finds waiting for its turn is never started."""
    runner = make_runner("sleep infinity", f"touch {tmp_path}/started", max_parallel=1)
    results = runner.execute(timeout=1, check=False)  # the first one must have begun by then
    assert [one.status for one in results] == [RunStatus.TIMED_OUT] * 2
    assert [one.exit_code for one in results] == [-1, None]
    assert not (tmp_path / "started").exists()


def test_call_timeout_while_another_call_has_the_slot(
    make_runner: MakeRunner, lines: Lines
) -> None:
    """K1: a call's timeout holds although its only script waits for another call's."""
    long, other = Script(script="echo up; exec sleep 60"), Script(script="true")
    runner = make_runner(long, other, max_parallel=1)
    first = Background(lambda: runner.execute(lambda one: one is long, check=False))
    lines.wait_for("up")
    (result,) = runner.execute(lambda one: one is other, timeout=0.05, check=False)
    assert result.status is RunStatus.TIMED_OUT
    runner.cancel(runner.runs()[0].run_id)
    assert first.result()[0].status is RunStatus.CANCELLED


def test_timeout_zero_is_now(make_runner: MakeRunner) -> None:
    """K1: 0 is now, for a call and for a script."""
    runner = make_runner("sleep infinity", "sleep infinity")
    assert {one.status for one in runner.execute(timeout=0, check=False)} == {RunStatus.TIMED_OUT}
    single = make_runner(Script(script="sleep infinity", timeout=0))
    assert single.execute(check=False)[0].status is RunStatus.TIMED_OUT


# ---- runs() and cancel() ----


def test_runs_says_what_runs(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: a run's snapshot has its state, pid, start and last line."""
    script = Script(script="echo one; echo up $$; exec sleep 60", name="shown", run_on_start=True)
    runner = make_runner(script)
    assert runner.runs() == []
    call = Background(lambda: runner.execute(Stage.START, check=False))
    pid = int(lines.wait_for("up").split()[1])
    (one,) = runner.runs()
    assert (one.script, one.stage, one.state) == (script, Stage.START, RunState.RUNNING)
    assert (one.pid, one.last_line) == (pid, f"up {pid}")
    assert one.started_at is not None
    assert one.started_at <= datetime.now(UTC)
    assert runner.cancel(one.run_id)
    (result,) = call.result()
    assert (result.status, result.run_id) == (RunStatus.CANCELLED, one.run_id)
    assert isinstance(result.error, ScriptCancelledError)
    assert runner.runs() == []
    assert not runner.cancel(one.run_id)
    assert not is_alive(pid)


def test_cancel_ends_one_run_only(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: the other runs of the call go on."""
    runner = make_runner(
        Script(script="echo up; exec sleep 60", name="a"),
        Script(script="echo up; exec sleep 60", name="b"),
    )
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up", 2)
    by_name = {one.script.name: one for one in runner.runs()}
    runner.cancel(by_name["a"].run_id)
    eventually(lambda: len(runner.runs()) == 1, "a ends")
    assert runner.runs()[0].run_id == by_name["b"].run_id
    runner.cancel(by_name["b"].run_id)
    assert {one.status for one in call.result()} == {RunStatus.CANCELLED}


@pytest.mark.slow
def test_state_while_stopping(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: a cancelled script that takes its time is STOPPING."""
    runner = make_runner(
        'trap "echo asked" HUP; echo up; while :; do sleep 0.01; done', kill_delay=0.3
    )
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    runner.cancel(runner.runs()[0].run_id)
    lines.wait_for("asked")
    assert [one.state for one in runner.runs()] == [RunState.STOPPING]
    assert call.result()[0].status is RunStatus.CANCELLED


def test_state_while_delivering(make_runner: MakeRunner) -> None:
    """R3: a run whose script has ended is DELIVERING until the logger has its lines."""
    go = threading.Event()
    slow = Lines(lambda batch: go.wait() and None)
    runner = make_runner("echo held", get_script_logger=lambda _: slow)
    call = Background(runner.execute)
    try:
        eventually(
            lambda: [one.state for one in runner.runs()] == [RunState.DELIVERING], "delivering"
        )
        assert runner.runs()[0].last_line == "held"
    finally:
        go.set()
    assert call.result()[0].ok


def test_a_run_that_waits_can_be_cancelled(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: a cancelled run that waits for its turn ends now, not when its turn comes."""
    ended: list[str] = []
    first, second = Script(script="echo up; exec sleep 60", name="1"), Script(script="true")
    runner = make_runner(
        first, second, max_parallel=1, on_complete=lambda result: ended.append(result.run_id)
    )
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    running, waiting = runner.runs()
    assert runner.cancel(waiting.run_id)
    try:
        eventually(lambda: ended, "the run that waits has ended")
    finally:
        runner.cancel(running.run_id)
    assert [one.status for one in call.result()] == [RunStatus.CANCELLED] * 2
    assert ended == [waiting.run_id, running.run_id]


def test_a_result_holds_no_descriptor(make_runner: MakeRunner) -> None:
    """S2: not that of a run that could not be started either, whose cause has a traceback."""
    runner = make_runner("true", shell="/no/such/shell")
    runner.execute(check=False)  # what a runner opens once is open
    before = descriptors()
    kept = [runner.execute(check=False) for _ in range(3)]
    assert {result.status for (result,) in kept} == {RunStatus.NOT_STARTED}
    assert descriptors() == before


def test_no_thread_for_the_logger(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R3: R7: a script whose lines would wait for nobody is not started, and it says why."""
    start = OwnThread.start

    def start_others(self: OwnThread) -> None:
        if self.name == "agentscripts-delivery":
            raise OSError(errno.EAGAIN, "no thread can be started")
        start(self)

    monkeypatch.setattr(OwnThread, "start", start_others)
    runner = make_runner(f"touch {tmp_path}/started")
    (result,) = runner.execute(check=False)
    assert result.status is RunStatus.NOT_STARTED
    assert "no thread for log delivery can be started" in result.reason
    assert not (tmp_path / "started").exists()
