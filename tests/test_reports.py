"""R7: one result, one count, one call and one record per run, whatever the user's code does."""

from __future__ import annotations

import logging
import os
import signal
import threading
import traceback
import weakref
from pathlib import Path
from uuid import UUID

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry
from support import (
    PATIENCE,
    Background,
    Lines,
    all_descriptors_taken,
    eventually,
    main_frame,
    processes_with,
)

from agentscripts import LogBatch, Options, Runner, RunResult, RunStatus, Script, ScriptLogger

ENDS = {
    "well": (Script(script="true", name="ends"), RunStatus.SUCCEEDED),
    "with an exit code": (Script(script="exit 3", name="ends"), RunStatus.FAILED),
    "by a signal": (Script(script="kill -9 $$", name="ends"), RunStatus.FAILED),
    "by its timeout": (Script(script="sleep 60", name="ends", timeout=0.02), RunStatus.TIMED_OUT),
    "with open pipes": (Script(script="sleep 0.3 & true", name="ends"), RunStatus.PIPES_OPEN),
    "without a start": (Script(script="#!/no/such", name="ends"), RunStatus.NOT_STARTED),
}


@pytest.mark.parametrize("how", ENDS)
def test_each_run_is_told_once(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """R7: one result, one increment, one call of on_complete, one log record."""
    script, status = ENDS[how]
    caplog.set_level(logging.INFO)
    registry = CollectorRegistry()
    calls: list[tuple[RunResult, str]] = []
    runner = make_runner(
        script,
        wait_delay=0.02,
        on_complete=lambda result: calls.append((result, threading.current_thread().name)),
    )
    runner.register_metrics(registry)
    results = runner.execute(check=False)
    assert [result.status for result in results] == [status]
    (result,) = results
    assert calls == [(result, "agentscripts-reports")]
    counts = {
        success: registry.get_sample_value("agent_scripts_executed_total", {"success": success})
        for success in ("true", "false")
    }
    assert sum(count or 0 for count in counts.values()) == 1
    assert counts["true" if result.ok else "false"] == 1
    records = [one for one in caplog.records if '"ends"' in one.getMessage()]
    assert len(records) == 1
    message = records[0].getMessage()
    assert f"{result.duration:.3f} s" in message
    assert status.value in message
    assert result.reason in message
    if result.exit_code is not None:
        assert str(abs(result.exit_code)) in message
    assert records[0].levelno == (logging.INFO if result.ok else logging.WARNING)
    if status is RunStatus.PIPES_OPEN:
        eventually(lambda: not _sleepers(runner), "the background process has ended")


def _sleepers(runner: Runner) -> list[int]:
    return processes_with(f"CODER_SCRIPT_BIN_DIR={runner.script_bin_dir}")


def test_execute_waits_for_on_complete(make_runner: MakeRunner) -> None:
    """R7: its calls have returned when execute returns."""
    done: list[str] = []

    def on_complete(result: RunResult) -> None:
        threading.Event().wait(0.02)
        done.append(result.run_id)

    runner = make_runner("true", "true", on_complete=on_complete)
    assert {one.run_id for one in runner.execute()} == set(done)


def test_execute_waits_for_on_complete_no_longer_than_flush_timeout(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """R7: one that does not return is warned of, and holds up nothing for good."""
    release = threading.Event()
    runner = make_runner("true", on_complete=lambda _: release.wait(), flush_timeout=0.05)
    try:
        assert Background(runner.execute).result()[0].ok
        assert "on_complete is too slow" in caplog.text
        Background(runner.close).result()
    finally:
        release.set()


def _main_waits_for_on_complete() -> bool:
    files = [Path(one.filename).name for one in traceback.extract_stack(main_frame())]
    return "_reports.py" in files and "_lifecycle.py" in files


def test_a_signal_ends_the_wait_for_on_complete(make_runner: MakeRunner) -> None:
    """R8: what a handler raises is raised at once, though on_complete has not returned."""
    release = threading.Event()
    returned: list[RunResult] = []

    def on_complete(result: RunResult) -> None:
        eventually(_main_waits_for_on_complete, "execute waits")
        signal.raise_signal(signal.SIGUSR1)
        release.wait(PATIENCE)
        returned.append(result)

    def handler(number: int, frame: object) -> None:
        raise LookupError

    runner = make_runner("true", on_complete=on_complete, flush_timeout=None)
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(LookupError):
            runner.execute()
        assert not returned
    finally:
        release.set()
        signal.signal(signal.SIGUSR1, old)


def test_a_result_that_was_told_is_not_kept(make_runner: MakeRunner) -> None:
    """R7: the thread that calls on_complete holds no result while it waits for the next one."""
    told: list[weakref.ref[RunResult]] = []
    runner = make_runner("true", on_complete=lambda result: told.append(weakref.ref(result)))
    runner.execute()
    eventually(lambda: told[0]() is None, "the result is gone")


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
def test_an_on_complete_that_raises(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """R7: it is logged, and the next results are reported as usual."""
    seen: list[str] = []

    def on_complete(result: RunResult) -> None:
        seen.append(result.run_id)
        raise error("on purpose")

    runner = make_runner(Script(script="true", name="a"), "true", on_complete=on_complete)
    results = runner.execute()
    assert sorted(seen) == sorted(result.run_id for result in results)
    assert all(result.ok for result in results)
    assert 'on_complete failed for script "a"' in caplog.text
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("count", [1, 2])
def test_parts_that_raise(make_runner: MakeRunner, error: type[BaseException], count: int) -> None:
    """R7: whatever the user's parts raise before a start is that run's result."""

    def get_script_logger(_: UUID) -> ScriptLogger:
        raise error("no logger")

    runner = make_runner(*["true"] * count, get_script_logger=get_script_logger)
    results = runner.execute(check=False)
    said = "no logger" if error is LookupError else f"{error.__name__}('no logger')"
    expected = [(RunStatus.NOT_STARTED, f"not started: {said}")] * count
    assert [(one.status, one.reason) for one in results] == expected


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
def test_a_logger_that_raises(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    """R7: it is logged once per run, and harms neither the run nor others."""

    def fail(batch: LogBatch) -> None:
        raise error("on purpose")

    healthy, bad = Lines(), Lines(fail)
    good = Script(script="echo 1; sleep 0.1; echo 2", name="good")
    runner = make_runner(
        good,
        Script(script="echo 1; sleep 0.1; echo 2", name="bad"),
        get_script_logger=lambda one: healthy if one == good.log_source_id else bad,
    )
    results = runner.execute()
    assert [(one.ok, one.lines, one.lines_dropped) for one in results] == [(True, 2, 0)] * 2
    assert healthy.lines == ["1", "2"]
    failures = [one for one in caplog.records if "failed" in one.getMessage()]
    assert len(failures) == 1
    assert '"bad"' in failures[0].getMessage()


def test_a_logger_that_cannot_be_had(make_runner: MakeRunner) -> None:
    """R7: get_script_logger that raises keeps its script from starting, and no other."""
    good, bad = Script(script="echo 1", name="good"), Script(script="echo 1", name="bad")
    logger = Lines()

    def get(log_source_id: object) -> Lines:
        if log_source_id == bad.log_source_id:
            raise LookupError("no logger")
        return logger

    runner = make_runner(good, bad, get_script_logger=get)
    first, second = runner.execute(check=False)
    assert first.ok
    assert second.status is RunStatus.NOT_STARTED
    assert "no logger" in second.reason
    assert isinstance(second.cause, LookupError)


@pytest.mark.parametrize("count", [1, 3])
def test_an_agents_log_that_raises(make_runner: MakeRunner, count: int) -> None:
    """R7: Options.logger with a handler that raises costs no result and no report."""

    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError("on purpose")

    logger = logging.Logger("broken", logging.INFO)
    logger.addHandler(Broken())
    calls: list[str] = []
    registry = CollectorRegistry()
    runner = make_runner(
        *["echo hello"] * count,
        logger=logger,
        on_complete=lambda result: calls.append(result.run_id),
    )
    runner.register_metrics(registry)
    results = Background(runner.execute).result()
    assert [result.status for result in results] == [RunStatus.SUCCEEDED] * count
    assert sorted(calls) == sorted(result.run_id for result in results)
    assert registry.get_sample_value("agent_scripts_executed_total", {"success": "true"}) == count


def test_open_pipes_without_descriptors(make_runner: MakeRunner, tmp_path: Path) -> None:
    """R7: a run that ended is told as it ended, also when its pipes' holders cannot be found."""
    lines = Lines()
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = make_runner(f"cat {fifo} & echo up", wait_delay=0.3, get_script_logger=lambda _: lines)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    write_end = os.open(fifo, os.O_WRONLY)
    try:
        with all_descriptors_taken():
            (result,) = call.result()
        assert (result.status, result.exit_code) == (RunStatus.PIPES_OPEN, 0)
    finally:
        os.close(write_end)
        eventually(lambda: not _sleepers(runner), "cat has ended")


def test_runs_after_the_reports(tmp_path: Path) -> None:
    """R7: without on_complete, nothing but the results tells."""
    with Runner(Options(data_dir_base=tmp_path, log_dir=tmp_path, shell="/bin/sh")) as runner:
        runner.init([Script(script="true")])
        assert [one.ok for one in runner.execute()] == [True]
