"""close() from wherever the user's code may call it, and what interrupts it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from conftest import MakeRunner
from support import (
    PATIENCE,
    Background,
    Lines,
    descriptors,
    eventually,
    no_threads,
    run_host,
    threads,
)

from agentscripts import (
    LogBatch,
    Overlap,
    Runner,
    RunResult,
    RunStatus,
    Script,
    Stage,
    _calls,
    _shutdown,
)
from agentscripts._signals import DeferredSignals, WakeupPipe

EVERY_SECOND = "* * * * * *"


class OnRecord(logging.Handler):
    """Calls something, once, when a record has a text."""

    def __init__(self, text: str, call: Callable[[], object]) -> None:
        super().__init__()
        self._text = text
        self._calls = [call]

    def handle(self, record: logging.LogRecord) -> bool:
        """Without a lock: one that hangs would hold up the other threads' records, too."""
        if self._text in record.getMessage() and self._calls:
            self._calls.pop()()
        return True


@pytest.fixture
def agent_log() -> Iterator[logging.Logger]:
    logger = logging.Logger("agent")
    yield logger
    logger.handlers.clear()


def test_a_log_handler_may_close_in_a_worker(
    make_runner: MakeRunner, agent_log: logging.Logger
) -> None:
    """S3: a handler of the agent's log that closes does not wait for the thread that it is in."""
    runner = make_runner("exit 1", "exit 1", logger=agent_log)
    agent_log.addHandler(OnRecord("exit status 1", runner.close))
    results = Background(lambda: runner.execute(check=False)).result()
    assert [result.status for result in results] == [RunStatus.FAILED] * 2
    runner.close()


@pytest.mark.slow
def test_a_log_handler_may_close_in_the_scheduler(
    make_runner: MakeRunner, agent_log: logging.Logger
) -> None:
    """S3: likewise in the thread of the schedules; their runs are cancelled."""
    done: list[RunResult] = []
    runner = make_runner(
        Script(script="exec sleep 60", cron=EVERY_SECOND),
        logger=agent_log,
        on_complete=done.append,
    )
    agent_log.addHandler(OnRecord("skipped", runner.close))
    runner.start_cron()
    eventually(lambda: done)
    Background(runner.close).result()
    assert [result.status for result in done] == [RunStatus.CANCELLED]


@pytest.mark.slow
def test_a_log_handler_that_hangs_in_the_scheduler(
    make_runner: MakeRunner, agent_log: logging.Logger
) -> None:
    """S2: close returns, its scheduled runs have ended, and the thread is named."""
    said: list[str] = []
    hangs, go = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        go.wait(PATIENCE)

    done: list[RunResult] = []
    runner = make_runner(
        Script(script="exec sleep 60", cron=EVERY_SECOND),
        logger=agent_log,
        on_complete=done.append,
    )
    agent_log.addHandler(OnRecord("skipped", hang))
    runner.start_cron()
    assert hangs.wait(PATIENCE)
    agent_log.handlers.clear()
    agent_log.addHandler(OnRecord("agentscripts-cron", lambda: said.append("named")))
    Background(lambda: runner.close(timeout=0)).result()
    assert said == ["named"]
    assert [result.status for result in done] == [RunStatus.CANCELLED]
    go.set()


def _closers(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Return the threads that close, a list that grows as they start."""
    closers: list[threading.Thread] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        if thread.name == "agentscripts-close":
            closers.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return closers


def test_close_waits_for_the_thread_of_a_callback(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: the thread in which a callback has had the runner close has ended when close returns."""
    closers = _closers(monkeypatch)
    go = threading.Event()
    runner = make_runner("true", on_complete=lambda result: runner.close())
    # It would end by itself at some moment.
    monkeypatch.setattr(runner._shutdown._signals, "close", lambda: _wait_in_closer(go))
    runner.execute()
    closing = Background(runner.close)
    eventually(lambda: runner._shutdown._closed)
    go.set()
    closing.result()
    (closer,) = closers
    assert closer not in threading.enumerate()


def _wait_in_closer(go: threading.Event) -> None:
    if threading.current_thread().name == "agentscripts-close":
        go.wait(PATIENCE)


def test_a_logger_that_closes_at_each_line(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: however often callbacks close, one thread does it."""
    closers = _closers(monkeypatch)
    calls: list[int] = []

    def close(batch: LogBatch) -> None:
        for _ in batch.lines:
            runner.close(timeout=PATIENCE)
            runner.close()
            calls.append(1)

    runner = make_runner("seq 300", get_script_logger=lambda _: Lines(close))
    runner.execute()
    runner.close()
    assert len(calls) == 300
    assert len(closers) == 1


def test_a_callback_that_cannot_wait(make_runner: MakeRunner) -> None:
    """S1, S3: a close in a callback cancels after its own timeout, also when another one waits."""

    def close(batch: LogBatch) -> None:
        runner.close()
        runner.close(timeout=0)

    runner = make_runner("echo up; exec sleep 60", get_script_logger=lambda _: Lines(close))
    (result,) = Background(lambda: runner.execute(check=False)).result()
    assert result.status is RunStatus.CANCELLED


def closing_itself(
    make_runner: MakeRunner, agent_log: logging.Logger, while_it_waits: Callable[[], object]
) -> Runner:
    """Make a runner that a logger closes, and in whose agent's log that thread then calls this."""
    runner = make_runner(
        "echo up; exec sleep 60",
        logger=agent_log,
        get_script_logger=lambda _: Lines(lambda batch: runner.close()),
    )
    agent_log.setLevel(logging.INFO)
    agent_log.addHandler(OnRecord("close waits", while_it_waits))
    return runner


def test_a_log_handler_that_hangs_in_the_thread_that_closes(
    make_runner: MakeRunner, agent_log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: close returns, and the thread is named."""
    monkeypatch.setattr(_calls, "_REMIND", 0.01)
    monkeypatch.setattr(_shutdown, "_GRACE", 0.01)
    said: list[str] = []
    hangs, go = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        go.wait(PATIENCE)

    runner = closing_itself(make_runner, agent_log, hang)
    call = Background(lambda: runner.execute(check=False))
    assert hangs.wait(PATIENCE)
    agent_log.handlers.clear()
    agent_log.addHandler(OnRecord("agentscripts-close", lambda: said.append("named")))
    Background(lambda: runner.close(timeout=0)).result()
    call.result()
    assert said == ["named"]
    go.set()


def test_a_log_handler_may_close_in_the_thread_that_closes(
    make_runner: MakeRunner, agent_log: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3: it does not wait for the thread that it is in."""
    monkeypatch.setattr(_calls, "_REMIND", 0.01)
    closed = threading.Event()

    def close() -> None:
        runner.close(timeout=0)
        closed.set()

    runner = closing_itself(make_runner, agent_log, close)
    Background(lambda: runner.execute(check=False)).result()
    runner.close()
    assert closed.is_set()


def test_a_signal_handler_may_close_above_close(make_runner: MakeRunner) -> None:
    """S1: a close on the same thread's stack returns; the one below it goes on."""
    entered, go = threading.Event(), threading.Event()
    calls: list[str] = []

    def on_complete(result: RunResult) -> None:
        entered.set()
        go.wait(PATIENCE)

    runner = make_runner("true", on_complete=on_complete, flush_timeout=PATIENCE)

    def handler(number: int, frame: FrameType | None) -> None:
        runner.close()
        calls.append("closed above")
        go.set()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        call = Background(lambda: runner.execute())
        assert entered.wait(PATIENCE)
        main = threading.get_ident()

        def interrupt() -> None:
            eventually(lambda: runner._shutdown._is_closing)
            signal.pthread_kill(main, signal.SIGUSR1)

        # The call would hold close up before it waits for the thread of on_complete.
        runner._calls.finish = lambda *args: None  # type: ignore[method-assign]
        helper = Background(interrupt)
        runner.close()
        helper.result()
        call.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert calls == ["closed above"]


def test_close_goes_on_after_an_interrupt(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S2: what an interrupted close left is closed by the next one, not said to be."""
    runner = make_runner("true", on_complete=lambda result: None)
    before = set(threads()), set(descriptors())
    runner.execute()
    assert runner._context is not None
    reports = runner._context.reports
    assert reports is not None
    original = reports.close

    def interrupted(timeout: float | None) -> list[str]:
        monkeypatch.setattr(reports, "close", original)
        raise KeyboardInterrupt

    monkeypatch.setattr(reports, "close", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.close()
    assert len(threads()) > 1
    runner.close()
    eventually(lambda: set(threads()) < before[0], "the threads have ended")
    assert set(descriptors()) < before[1]


@pytest.mark.slow
def test_close_waits_for_an_execute_of_the_cron_stage(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """S1: only what the schedules started is cancelled, not a call that selects those scripts."""
    fifo = tmp_path / "go"
    runner = make_runner(
        Script(
            script=f'case "$AGENTSCRIPTS_SCHEDULED_AT" in ?*) echo tick; exec sleep 60;; esac;'
            f"echo mine; read x < {fifo}; echo $x",
            cron=EVERY_SECOND,
            overlap=Overlap.ALLOW,
        )
    )
    os.mkfifo(fifo)
    runner.start_cron()
    call = Background(lambda: runner.execute(Stage.CRON))
    lines.wait_for("mine")
    lines.wait_for("tick")
    closing = Background(runner.close)
    eventually(lambda: len(runner.runs()) == 1, "the scheduled runs are cancelled")
    fifo.write_text("done\n")
    (result,) = call.result()
    closing.result()
    assert result.ok
    assert lines.lines[-1] == "done"


def test_no_thread_for_the_scheduler(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R2: start_cron says so, leaves nothing behind, and may be tried again."""
    runner = make_runner(Script(script="true", cron=EVERY_SECOND))
    before = set(descriptors())
    with monkeypatch.context() as patch:
        no_threads(patch, "agentscripts-cron")
        for _ in range(2):
            with pytest.raises(OSError, match="no thread"):
                runner.start_cron()
            assert set(descriptors()) == before
    runner.start_cron()
    runner.close()


def test_no_thread_in_init(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """R1: an init that fails leaves nothing behind, and may be tried again."""
    runner = make_runner()
    before = set(descriptors())
    with monkeypatch.context() as patch:
        no_threads(patch, "agentscripts-reports")
        with pytest.raises(OSError, match="no thread"):
            runner.init([Script(script="true")], on_complete=print)
    assert set(descriptors()) == before
    runner.init([Script(script="true")])
    assert runner.execute()[0].ok


@pytest.mark.slow
def test_a_runner_that_nobody_holds(tmp_path: Path) -> None:
    """S2: schedules go on without a reference to the runner, and end with the process."""
    said = run_host(
        tmp_path,
        """
import gc
def begin():
    runner = make(Script(script="echo up $$; exec sleep 60", cron="* * * * * *"))
    runner.start_cron()
seen = threading.Event()
class Say:
    def send(self, batch):
        say(*batch.lines)
        seen.set()
    def flush(self): pass
begin()
gc.collect()
seen.wait(20)
""",
    )
    pid = int(said[0].split()[1])
    assert not Path(f"/proc/{pid}").exists()


# ---- signals ----


def test_a_signal_at_the_end_of_execute(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: one that comes after the last look at signals has its handler called all the same, and
    the host's descriptor gets its number."""
    from agentscripts import _signals

    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    end = _signals._Deferral.end

    def late(self: Any, **how: Any) -> list[BaseException]:
        signal.raise_signal(signal.SIGUSR1)
        return end(self, **how)

    monkeypatch.setattr(_signals._Deferral, "end", late)
    host = WakeupPipe()
    signal.set_wakeup_fd(host.write_fd)
    try:
        make_runner("true").execute()
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGUSR1, before)
    assert got == [signal.SIGUSR1]
    assert host.drain() == bytes(got)
    host.close()


def _close_and_interrupt(pipe: WakeupPipe) -> None:
    with DeferredSignals(pipe):
        pipe.close()
        signal.raise_signal(signal.SIGINT)


def test_close_while_signals_are_deferred() -> None:
    """R8: a runner that another thread closes meanwhile does not take the pipe away."""
    pipe = WakeupPipe()
    handler = signal.getsignal(signal.SIGINT)
    host = WakeupPipe()
    signal.set_wakeup_fd(host.write_fd)
    try:
        with pytest.raises(KeyboardInterrupt):
            _close_and_interrupt(pipe)
        assert signal.getsignal(signal.SIGINT) is handler
        assert signal.set_wakeup_fd(-1) == host.write_fd
        assert signal.SIGINT in host.drain()
        signal.set_wakeup_fd(host.write_fd)
        with DeferredSignals(pipe) as signals:
            assert signals.fd == -1
    finally:
        signal.set_wakeup_fd(-1)
        host.close()
