"""S1, S2 and S3: ``close``, while nothing runs, while scripts run, and from callbacks."""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner
from support import PATIENCE, Background, Lines, eventually, is_alive, threads

from agentscripts import (
    CancelToken,
    LogBatch,
    Options,
    Runner,
    RunnerClosedError,
    RunResult,
    RunStatus,
    Script,
    _calls,
)
from agentscripts._delivery import Delivery
from agentscripts._lifecycle import OwnThread
from agentscripts._shutdown import Shutdown

LONG = "echo up $$; exec sleep 60"


def is_closing(runner: Runner) -> bool:
    try:
        runner.register_metrics(None)
    except RunnerClosedError:
        return True
    return False


def test_close_is_idempotent(make_runner: MakeRunner) -> None:
    """S1: a second close does nothing."""
    runner = make_runner("echo hello")
    runner.execute()
    runner.close()
    runner.close(timeout=0)
    with runner:
        pass


def test_the_context_manager_closes(make_runner: MakeRunner) -> None:
    """S1: leaving the block closes, also by an exception, which goes on."""
    with pytest.raises(LookupError), make_runner("true") as runner:
        raise LookupError
    with pytest.raises(RunnerClosedError):
        runner.execute()


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1"])
def test_a_bad_timeout_closes_nothing(make_runner: MakeRunner, timeout: float) -> None:
    """S1: a bad argument is refused, and the runner stays open."""
    runner = make_runner("true")
    with pytest.raises((ValueError, TypeError), match="timeout"):
        runner.close(timeout)
    runner.execute()


def test_close_waits_for_running_calls(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """S1: their scripts get no signal and end well; new calls are refused meanwhile."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    runner = make_runner(f'trap "echo signal" HUP TERM; echo up; read x < {fifo}; echo $x')
    call = Background(runner.execute)
    lines.wait_for("up")
    closes = [Background(runner.close) for _ in range(3)]
    eventually(lambda: is_closing(runner), "it closes")
    with pytest.raises(RunnerClosedError):
        runner.execute()
    assert all(close.is_alive() for close in closes)
    fifo.write_text("go on\n")
    assert call.result()[0].ok
    for close in closes:
        close.result()
    assert lines.lines == ["up", "go on"]


def test_close_with_a_timeout_cancels(make_runner: MakeRunner, lines: Lines) -> None:
    """S1: what still runs after the timeout is cancelled, those that wait included."""
    runner = make_runner(LONG, LONG, LONG, max_parallel=2)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up", 2)
    began = time.monotonic()
    runner.close(timeout=0.1)
    assert time.monotonic() - began >= 0.1
    assert {one.status for one in call.result()} == {RunStatus.CANCELLED}
    assert not any(is_alive(int(line.split()[1])) for line in lines.lines)


def test_an_interrupted_close_loses_no_run(make_runner: MakeRunner, lines: Lines) -> None:
    """S1, R8: Ctrl-C while close cancels: the call ends all the same, and so does the next close.

    A handler of the agent's log stands in for the signal's: it raises between two runs that wait.
    """

    class Interrupting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if threading.current_thread() is threading.main_thread():
                raise KeyboardInterrupt

    log = logging.Logger("interrupting")
    log.addHandler(Interrupting())
    runner = make_runner(LONG, LONG, LONG, max_parallel=1, logger=log)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    try:
        runner.close(timeout=0)
    except KeyboardInterrupt:
        Background(lambda: runner.close(timeout=0)).result()
    assert [one.status for one in call.result()] == [RunStatus.CANCELLED] * 3


def test_every_close_returns_when_all_is_done(make_runner: MakeRunner, lines: Lines) -> None:
    """S1: one with a timeout ends the wait of one without; both return after the end."""
    runner = make_runner(LONG)
    call = Background(lambda: runner.execute(check=False))
    pid = int(lines.wait_for("up").split()[1])
    patient = Background(runner.close)
    eventually(lambda: is_closing(runner), "it closes")
    runner.close(timeout=0)
    assert not is_alive(pid)
    patient.result()
    assert call.result()[0].status is RunStatus.CANCELLED


def test_close_cancels_a_call_that_is_just_beginning(make_runner: MakeRunner) -> None:
    """S1: a call that has selected no script yet when the timeout passes is cancelled, too."""
    selecting = threading.Event()

    def select(script: Script) -> bool:
        selecting.set()
        eventually(lambda: is_closing(runner), "it closes")
        time.sleep(0.05)  # for close to reach its cancel; too short a wait only weakens the test
        return True

    runner = make_runner("sleep 20")
    call = Background(lambda: runner.execute(select, check=False))
    selecting.wait()
    Background(lambda: runner.close(timeout=0)).result(timeout=10)
    assert call.result()[0].status is RunStatus.CANCELLED


@pytest.fixture
def agent_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """The agent's log, in which ``close`` says what it waits for, sooner than every 10 s."""
    monkeypatch.setattr(_calls, "_REMIND", 0.01)
    caplog.set_level(logging.INFO)
    return caplog


def test_close_says_what_it_waits_for(
    make_runner: MakeRunner, lines: Lines, agent_log: pytest.LogCaptureFixture
) -> None:
    """S1: script, pid and command, every 10 s (here sooner)."""
    runner = make_runner(Script(script=LONG, name="slow one"))
    call = Background(lambda: runner.execute(check=False))
    pid = lines.wait_for("up").split()[1]
    close = Background(runner.close)
    eventually(lambda: agent_log.text.count("slow one") > 1, "close says it twice")
    for word in ("close waits", "slow one", pid, "sleep"):
        assert word in agent_log.text
    runner.cancel(runner.runs()[0].run_id)
    close.result()
    call.result()


def test_close_says_what_it_waits_for_after_its_timeout(
    make_runner: MakeRunner, lines: Lines, agent_log: pytest.LogCaptureFixture
) -> None:
    """S1: it cancels once, then it goes on to say what it waits for, and does not spin."""
    runner = make_runner(
        "trap : HUP; echo up $$; while :; do sleep 0.02; done", kill_delay=PATIENCE
    )
    call = Background(lambda: runner.execute(check=False))
    pid = int(lines.wait_for("up").split()[1])
    close = Background(lambda: runner.close(timeout=0))
    eventually(lambda: agent_log.text.count("close waits") > 1, "close says it twice")
    os.kill(pid, signal.SIGKILL)
    close.result()
    assert call.result()[0].status is RunStatus.CANCELLED


def test_what_is_left_after_close(make_runner: MakeRunner, tmp_path: Path) -> None:
    """S2: no thread of the library is left when close returns."""
    before = threads()
    runner = make_runner(*["echo hello"] * 5, on_complete=lambda result: None)
    runner.execute()
    runner.close()
    assert not [one for one in threading.enumerate() if one.name.startswith("agentscripts-")]
    # A thread that was joined may have its last instructions before it.
    eventually(lambda: threads().keys() <= before.keys(), "the system's threads are gone")


def test_threads_stuck_in_user_code_are_named(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """S2: close returns although a logger and an on_complete never do; a warning names them."""
    release, called = threading.Event(), tmp_path / "called"

    def stick(_: object) -> None:
        called.touch()
        release.wait()

    runner = make_runner(
        f"echo hello; until [ -e {called} ]; do sleep 0.01; done",  # else it may be given up before
        on_complete=stick,
        get_script_logger=lambda _: Lines(stick),
        stall_timeout=0.05,
        flush_timeout=0.05,
    )
    try:
        runner.execute()
        runner.close()
        (warning,) = [one.getMessage() for one in caplog.records if "closed, but" in one.msg]
        assert "agentscripts-delivery" in warning
        assert "agentscripts-reports" in warning
        assert all(
            one.daemon for one in threading.enumerate() if one.name.startswith("agentscripts")
        )
    finally:
        release.set()


def test_no_thread_begins_while_it_closes(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: a thread for lines starts no further one that close would not know of."""
    joining, started = threading.Event(), []
    usual_join, usual_start = OwnThread.join, OwnThread.start

    def join(self: OwnThread, timeout: float | None = None) -> None:
        joining.set()
        usual_join(self, timeout)

    def start(self: OwnThread) -> None:
        started.append(self.name)
        usual_start(self)

    def start_thread(self: Delivery, usual: Any = Delivery._start_thread) -> None:
        if threading.current_thread().name == "agentscripts-delivery":
            assert joining.wait(PATIENCE)
        usual(self)

    runner = make_runner("echo hello", flush_timeout=0.05)
    monkeypatch.setattr(OwnThread, "join", join)
    monkeypatch.setattr(OwnThread, "start", start)
    monkeypatch.setattr(Delivery, "_start_thread", start_thread)
    runner.execute()
    assert started == ["agentscripts-delivery"]
    runner.close()
    assert started == ["agentscripts-delivery"]


def test_a_fork_while_a_lock_is_held(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: a child learns that the runner is not its own before it takes a lock, which no thread
    there will give back. A process that has another pid stands in for it."""
    runner = make_runner("true")
    with runner._shutdown._lock, monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        calls = [Background(runner.start_cron), Background(lambda: runner.register_metrics(None))]
        for call in calls:
            with pytest.raises(RunnerClosedError, match="parent"):
                call.result()


def test_the_end_of_a_forked_child(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: a process that ends without close ends only its own runners."""
    runner = make_runner("true")
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 0)
        Shutdown.end_with_process([runner._shutdown])
    assert runner.execute()[0].ok


def test_the_end_of_the_process(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: without close nothing begins any more, schedules included; a failure harms no other."""

    def fail() -> None:
        raise LookupError

    broken = make_runner("true")
    runner = make_runner(Script(script="true", cron="0 0 0 1 1 *"))
    runner.start_cron()
    assert "agentscripts-cron" in threads().values()
    with monkeypatch.context() as patch:
        patch.setattr(broken._calls, "shut_down", fail)
        Shutdown.end_with_process([broken._shutdown, runner._shutdown])
    assert "agentscripts-cron" not in threads().values()
    with pytest.raises(RunnerClosedError):
        runner.execute()


def test_a_closed_runner_is_let_go(tmp_path: Path) -> None:
    """S2: nothing holds what a closed runner had, though its schedules have kept it alive."""
    runner = Runner(Options(data_dir_base=tmp_path, log_dir=tmp_path, shell="/bin/sh"))
    runner.init([Script(script="true", cron="0 0 0 1 1 *")])
    runner.start_cron()
    runner.close()
    kept = weakref.ref(runner._shutdown)
    del runner
    gc.collect()
    assert kept() is None


# ---- from callbacks ----


def test_on_complete_may_close(make_runner: MakeRunner) -> None:
    """S3: close from on_complete starts closing and returns; other calls end well."""
    closed = threading.Event()

    def on_complete(result: RunResult) -> None:
        runner.close()
        closed.set()

    runner = make_runner("true", on_complete=on_complete)
    assert Background(runner.execute).result()[0].ok
    assert closed.is_set()
    Background(runner.close).result()


def test_a_logger_may_close(make_runner: MakeRunner) -> None:
    """S3: close from send starts closing and returns; the rest is delivered."""
    logger = Lines(lambda batch: runner.close())
    runner = make_runner("echo one; sleep 0.1; echo two", get_script_logger=lambda _: logger)
    assert Background(runner.execute).result()[0].ok
    assert logger.lines == ["one", "two"]
    Background(runner.close).result()


def test_a_predicate_may_close(make_runner: MakeRunner) -> None:
    """S3: close from a predicate starts closing and returns; its call ends well."""

    def select(script: Script) -> bool:
        runner.close()
        return True

    runner = make_runner("true")
    assert Background(lambda: runner.execute(select)).result()[0].ok
    Background(runner.close).result()
    with pytest.raises(RunnerClosedError):
        runner.execute()


def test_callbacks_may_execute(make_runner: MakeRunner) -> None:
    """S3: both callbacks may run scripts, and wait for them."""
    inner: list[RunStatus] = []

    def execute() -> None:
        inner.extend(one.status for one in runner.execute(lambda one: one.name == "inner"))

    def on_complete(result: RunResult) -> None:
        if result.script.name == "outer":
            execute()

    logger = Lines(lambda batch: execute() if "outer" in batch.lines else None)
    runner = make_runner(
        Script(script="echo outer", name="outer"),
        Script(script="echo inner", name="inner"),
        on_complete=on_complete,
        get_script_logger=lambda _: logger,
        flush_timeout=PATIENCE,  # neither call waits so long: on_complete is that of the other
    )
    Background(lambda: runner.execute(lambda one: one.name == "outer")).result()
    eventually(lambda: len(runner.runs()) == 0, "all have ended")
    Background(runner.close).result()
    assert inner == [RunStatus.SUCCEEDED] * 2


@pytest.mark.parametrize("where", ["send", "on_complete"])
def test_callbacks_may_cancel(make_runner: MakeRunner, where: str) -> None:
    """S3: a callback may cancel the call that it belongs to."""
    token = CancelToken()

    def cancel(what: LogBatch | RunResult) -> None:
        token.cancel()

    callback: dict[str, Callable[[object], object]] = {"on_complete": lambda result: None}
    logger = Lines(cancel if where == "send" else None)
    if where == "on_complete":
        callback["on_complete"] = cancel  # type: ignore[assignment]
    runner = make_runner(
        "echo hello", "exec sleep 60", get_script_logger=lambda _: logger, **callback
    )
    results = Background(lambda: runner.execute(cancel=token, check=False)).result()
    assert results[1].status is RunStatus.CANCELLED
