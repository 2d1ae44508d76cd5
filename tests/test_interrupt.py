"""R8: what a signal handler raises during ``execute``."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry
from support import Background, Host, Lines, eventually, is_alive

from agentscripts import (
    CancelToken,
    LogBatch,
    RunResult,
    RunStatus,
    Script,
    _escalation,
    _interrupts,
    _signals,
)
from agentscripts._console import Output
from agentscripts._escalation import SAME_REQUEST
from agentscripts._interrupts import Interrupts
from agentscripts._signals import DeferredSignals, WakeupPipe, are_deferred

OBEDIENT = "echo up $$; sleep 60"
ASKED = "trap 'echo asked; exit 5' HUP; echo up $$; while :; do sleep 0.02; done"
STUBBORN = 'trap "echo asked" HUP; echo up $$; while :; do sleep 0.02; done'

HOST = """
runner = make(*[{script!r}] * {count}, kill_delay={kill_delay}, max_parallel={max_parallel},
              on_complete=lambda result: say("completed", result.status, result.exit_code))
try:
    runner.execute()
except KeyboardInterrupt:
    say("interrupted")
say("left", len(runner.runs()))
runner.close()
"""


def host(
    base: Path, script: str, count: int, kill_delay: float = 30, parallel: int | None = None
) -> Host:
    text = HOST.format(script=script, count=count, kill_delay=kill_delay, max_parallel=parallel)
    return Host(base, text)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_one_sigint_cancels(tmp_path: Path, count: int) -> None:
    """R8: Ctrl-C asks the scripts to end, waits for them, and KeyboardInterrupt goes on."""
    with host(tmp_path, ASKED, count) as agent:
        pids = [int(agent.wait_for("line up")) for _ in range(count)]
        agent.send_signal(signal.SIGINT)
        lines = agent.finish()
    assert agent.returncode == 0, agent.complaints
    assert lines[-2:] == ["interrupted", "left 0"]
    assert lines.count("line asked") == count
    assert lines.count("completed cancelled 5") == count
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_two_sigints_kill(tmp_path: Path, count: int) -> None:
    """R8: the second Ctrl-C kills at once what the first could not end."""
    with host(tmp_path, STUBBORN, count) as agent:
        pids = [int(agent.wait_for("line up")) for _ in range(count)]
        agent.send_signal(signal.SIGINT)
        # The first one has been handled: pending signals merge.
        for _ in range(count):
            agent.wait_for("line asked")
        time.sleep(SAME_REQUEST)
        assert all(is_alive(pid) for pid in pids)
        began = time.monotonic()
        agent.send_signal(signal.SIGINT)
        lines = agent.finish()
    assert time.monotonic() - began < 15, "kill_delay is 30 s"
    assert agent.returncode == 0, agent.complaints
    assert lines[-2:] == ["interrupted", "left 0"]
    assert lines.count("completed cancelled -9") == count
    assert not any(is_alive(pid) for pid in pids)


def test_the_command_raises_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: of all the signals that the command gets, two interrupt it: no repeat, and no third."""
    monkeypatch.setattr(_escalation, "SAME_REQUEST", 1000.0)
    hurry = CancelToken()
    with Interrupts(Output(None, hurry), hurry) as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert not hurry.cancelled
        monkeypatch.setattr(_escalation, "SAME_REQUEST", 0.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert hurry.cancelled
        signal.raise_signal(signal.SIGINT)
        interrupts.first = 0  # it puts the handlers back


@pytest.fixture
def pipe() -> Iterator[WakeupPipe]:
    """One that is closed after the test, twice: by then nothing may hold it."""
    made = WakeupPipe()
    yield made
    for _ in range(2):
        made.close()
    assert (made.read_fd, made.write_fd) == (-1, -1)


def get_twice(number: int, pipe: WakeupPipe, asked: list[bool]) -> None:
    """Have two signals come, one after the other, as in ``execute``; note what each one asked."""
    with DeferredSignals(pipe) as signals:
        signals.on_interrupt = asked.append
        for _ in range(2):
            signal.raise_signal(number)
            signals.check()


def test_the_command_alone_tells_requests_apart(
    pipe: WakeupPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: the second one that the command has told counts in ``execute``, however late that has
    learnt of the first one: nothing would come after it."""
    hurry = CancelToken()
    times = iter([0.0, SAME_REQUEST])
    clock = SimpleNamespace(monotonic=lambda: next(times))
    asked: list[bool] = []

    with Interrupts(Output(None, hurry), hurry) as interrupts:
        monkeypatch.setattr(_interrupts, "time", clock)
        with pytest.raises(KeyboardInterrupt):
            get_twice(signal.SIGTERM, pipe, asked)
        interrupts.first = 0  # it puts the handlers back
    assert asked == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5])
def test_a_repeat_is_no_second_sigint(make_runner: MakeRunner, lines: Lines, count: int) -> None:
    """R8: a handler that raises twice in a row, as under timeout(1), kills nothing."""
    raised: list[Alarm] = []

    def handler(number: int, frame: FrameType | None) -> NoReturn:
        if not raised:
            signal.raise_signal(signal.SIGALRM)
        raised.append(Alarm())
        raise raised[-1]

    before = signal.signal(signal.SIGALRM, handler)
    try:
        completed: list[RunResult] = []
        runner = make_runner(*[ASKED] * count, kill_delay=3600, on_complete=completed.append)
        _alarm_when(lines, count)
        with pytest.raises(Alarm):
            runner.execute()
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(raised) == 2
    runner.close()
    assert [result.exit_code for result in completed] == [5] * count


@pytest.mark.slow
def test_sigint_while_scripts_wait(tmp_path: Path) -> None:
    """R8: scripts that wait for their turn are never started."""
    with host(tmp_path, OBEDIENT, 6, parallel=2) as agent:
        for _ in range(2):
            agent.wait_for("line up")
        agent.send_signal(signal.SIGINT)
        lines = agent.finish()
    assert agent.returncode == 0, agent.complaints
    assert sorted(lines[:-2]) == ["completed cancelled -1"] * 2 + ["completed cancelled None"] * 4


class Alarm(Exception):
    """What the test's handler raises."""


class Interrupt(BaseException):
    """The same as ``KeyboardInterrupt``, which would end pytest."""


@pytest.fixture
def alarm() -> Iterator[None]:
    """SIGALRM raises ``Alarm`` in the main thread."""

    def handler(number: int, frame: FrameType | None) -> NoReturn:
        raise Alarm

    old = signal.signal(signal.SIGALRM, handler)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, old)


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("count", [1, 4])
def test_a_handler_that_raises(make_runner: MakeRunner, lines: Lines, count: int) -> None:
    """R8: any exception of any handler cancels and is raised; the runner goes on working."""
    completed: list[RunStatus] = []
    runner = make_runner(
        *[OBEDIENT] * count, on_complete=lambda result: completed.append(result.status)
    )
    _alarm_when(lines, count)
    with pytest.raises(Alarm):
        runner.execute()
    assert runner.runs() == []
    eventually(lambda: len(completed) == count, "all are reported")
    assert completed == [RunStatus.CANCELLED] * count
    assert runner.execute(lambda script: False) == []


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("count", [1, 3])
def test_a_handler_that_returns(make_runner: MakeRunner, lines: Lines, count: int) -> None:
    """R8: a handler runs while scripts run, and one that returns changes nothing."""
    seen: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: seen.append(number))
    runner = make_runner(*["echo up; sleep 0.2"] * count)
    _alarm_when(lines, count)
    assert all(result.ok for result in runner.execute())
    assert seen == [signal.SIGALRM]


@pytest.mark.usefixtures("alarm")
def test_a_signal_while_handlers_are_replaced(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: one that comes right after its handler was replaced is not left until the end."""

    def replace(number: int, handler: Any) -> Any:
        old = set_handler(number, handler)
        if number == signal.SIGALRM and not completed:
            signal.raise_signal(number)
        return old

    set_handler = _signals.set_handler
    monkeypatch.setattr(_signals, "set_handler", replace)
    completed: list[RunStatus] = []
    runner = make_runner(
        Script(script="sleep 60", timeout=5.0),
        on_complete=lambda result: completed.append(result.status),
    )
    with pytest.raises(Alarm):
        runner.execute(check=False)
    assert completed == [RunStatus.CANCELLED]


@pytest.mark.usefixtures("alarm")
def test_a_signal_while_the_hosts_descriptor_is_replaced(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: whatever its handler raises then, the host has its own descriptor again."""

    def replace(fd: int, **options: bool) -> int:
        old: int = set_wakeup_fd(fd, **options)
        if fd >= 0 and not raised:
            raised.append(fd)
            signal.raise_signal(signal.SIGALRM)
        return old

    raised: list[int] = []
    set_wakeup_fd = _signals.set_wakeup_fd
    monkeypatch.setattr(_signals, "set_wakeup_fd", replace)
    runner = make_runner(Script(script="sleep 60", timeout=5.0))
    with pytest.raises(Alarm):
        runner.execute(check=False)
    assert raised
    assert signal.set_wakeup_fd(-1) == -1


@pytest.fixture
def users() -> Iterator[list[int]]:
    """The numbers of SIGUSR1 and SIGUSR2 in the order in which their handlers were called."""
    called: list[int] = []
    numbers = signal.SIGUSR1, signal.SIGUSR2
    old = [signal.signal(number, lambda number, _: called.append(number)) for number in numbers]
    yield called
    for number, handler in zip(numbers, old, strict=True):
        signal.signal(number, handler)


@pytest.mark.parametrize("reused", [False, True])
def test_the_host_closes_its_descriptor_meanwhile(pipe: WakeupPipe, reused: bool) -> None:
    """R8: then Python writes signals nowhere, also where its number is another file's by then."""
    host = WakeupPipe()
    other = os.open(os.devnull, os.O_WRONLY)  # one that blocks is refused
    signal.set_wakeup_fd(host.write_fd)
    try:
        with DeferredSignals(pipe):
            if reused:
                os.dup2(other, host.write_fd, inheritable=False)
            else:
                host.close()
    finally:
        left = signal.set_wakeup_fd(-1)
        os.close(other)
        host.close()
    assert left == -1


@pytest.mark.usefixtures("users")
def test_a_handler_installed_meanwhile_stays(pipe: WakeupPipe) -> None:
    """R8: only what stands in for the host's handlers is replaced by them."""
    before = signal.getsignal(signal.SIGUSR2)
    with DeferredSignals(pipe):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGUSR2) is before


@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("times", [1, 2])
def test_a_handler_that_raises_while_another_is_replaced(
    pipe: WakeupPipe, users: list[int], monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """R8: before the call, or when its own is back already: the host has all its handlers again."""

    def replace(number: int, handler: Any) -> Any:
        if number == signal.SIGUSR1:
            replaced.append(number)
            if len(replaced) == times:
                # Its own handler is there: SIGALRM's is replaced after that of SIGUSR1.
                signal.raise_signal(signal.SIGALRM)
        return set_handler(number, handler)

    replaced: list[int] = []
    set_handler = _signals.set_handler
    before = [signal.getsignal(number) for number in range(1, signal.SIGRTMIN)]
    monkeypatch.setattr(_signals, "set_handler", replace)
    with pytest.raises(Alarm), DeferredSignals(pipe):
        pass
    assert [signal.getsignal(number) for number in range(1, signal.SIGRTMIN)] == before


def test_where_no_handler_can_be_replaced(
    pipe: WakeupPipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R8: as in a subinterpreter: there is nothing to look at, and nothing keeps the pipe."""

    def refuse(number: int, handler: Any) -> NoReturn:
        raise ValueError("signal only works in main thread of the main interpreter")

    monkeypatch.setattr(_signals, "set_handler", refuse)
    with DeferredSignals(pipe) as signals:
        assert signals.fd == -1
        assert signals.slice(None) is None


def test_the_host_is_told_of_each_signal(pipe: WakeupPipe, users: list[int]) -> None:
    """R8: its own descriptor has their numbers, also of one that comes after the last look; one
    that takes no more is let be. Handlers are called in the order of their signals."""
    host = WakeupPipe()
    signal.set_wakeup_fd(host.write_fd)
    try:
        with DeferredSignals(pipe) as signals:
            signal.raise_signal(signal.SIGUSR2)
            signal.raise_signal(signal.SIGUSR1)
            signals.check()
            assert users == list(host.drain()) == [signal.SIGUSR2, signal.SIGUSR1]
            signal.raise_signal(signal.SIGUSR2)
        assert list(host.drain()) == [signal.SIGUSR2]
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(host.write_fd, bytes(4096))
        with DeferredSignals(pipe) as signals:
            signal.raise_signal(signal.SIGUSR1)
            signals.check()
    finally:
        assert signal.set_wakeup_fd(-1) == host.write_fd
        host.close()
    assert users[2:] == [signal.SIGUSR2, signal.SIGUSR1]


def test_other_threads_of_the_call_see_no_signal(pipe: WakeupPipe, users: list[int]) -> None:
    """R8: handlers are the main thread's, which looks at times also where it waits without pipe."""
    with DeferredSignals(pipe) as signals:
        signal.raise_signal(signal.SIGUSR1)
        Background(signals.check).result()
        assert Background(lambda: signals.fd).result() == -1
        assert (users, signals.fd) == ([], pipe.read_fd)
        signals.check()
        assert users == [signal.SIGUSR1]
        now = time.monotonic()
        assert signals.slice(None) == signals.slice(now + 1000) == _signals._SLICE
        assert signals.slice(now - 1) == 0


@pytest.mark.forks
def test_a_child_forked_meanwhile(pipe: WakeupPipe, users: list[int]) -> None:
    """R8, S2: it has its own signals again, and leaves its parent's to that."""

    def has_its_own(signals: DeferredSignals) -> bool:
        signal.raise_signal(signal.SIGUSR2)
        restored = signal.set_wakeup_fd(-1) == host.write_fd and not are_deferred()
        signals.__exit__(None, None, None)
        return restored and users == [signal.SIGUSR2]

    host = WakeupPipe()
    signal.set_wakeup_fd(host.write_fd)
    try:
        with DeferredSignals(pipe) as signals:
            signal.raise_signal(signal.SIGUSR1)
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    code = not has_its_own(signals)
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert list(pipe.drain()) == [signal.SIGUSR1]
    finally:
        assert signal.set_wakeup_fd(-1) == host.write_fd
        host.close()
    assert users == [signal.SIGUSR1]


@pytest.mark.usefixtures("alarm")
def test_an_execute_in_a_handler(pipe: WakeupPipe) -> None:
    """R8: what is raised there ends both calls, and is one interruption of each."""

    def handler(number: int, frame: FrameType | None) -> None:
        with DeferredSignals(pipe) as inner:
            inner.on_interrupt = asked.append
            signal.raise_signal(signal.SIGALRM)
            inner.check()
            counts.append(len(asked))

    def execute() -> None:
        with DeferredSignals(pipe) as outer:
            outer.on_interrupt = asked.append
            signal.raise_signal(signal.SIGUSR1)
            outer.check()
            counts.append(outer.interrupts)

    asked: list[bool] = []
    counts: list[int] = []
    old = signal.signal(signal.SIGUSR1, handler)
    try:
        with pytest.raises(Alarm):
            execute()
        assert asked == [False, False]
        assert counts == [2, 1]
    finally:
        signal.signal(signal.SIGUSR1, old)


def test_the_first_of_several_is_raised(pipe: WakeupPipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """R8: the others only count; and nothing holds it any more when it has been handled."""

    def handler(number: int, frame: FrameType | None) -> NoReturn:
        raise Alarm(len(asked))

    monkeypatch.setattr(_escalation, "SAME_REQUEST", 1000.0)
    asked: list[bool] = []
    old = signal.signal(signal.SIGALRM, handler)
    gc.disable()
    try:
        with pytest.raises(Alarm, match="0") as caught:
            get_twice(signal.SIGALRM, pipe, asked)
        raised = weakref.ref(caught.value)
        del caught
        assert raised() is None
    finally:
        gc.enable()
        signal.signal(signal.SIGALRM, old)
    assert asked == [False]


def _alarm_when(lines: Lines, count: int) -> None:
    main = threading.main_thread().ident
    assert main is not None

    def raise_alarm() -> None:
        lines.wait_for("up", count)
        signal.pthread_kill(main, signal.SIGALRM)

    threading.Thread(target=raise_alarm, daemon=True).start()


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("script", ["yes", "while :; do echo x; done", "echo up; sleep 60"])
def test_a_handler_that_raises_while_the_core_works(
    make_runner: MakeRunner, lines: Lines, script: str
) -> None:
    """R8: a signal that comes while the core reads, and not while it waits, is not missed."""
    runner = make_runner(
        Script(script=script, timeout=5.0),
        get_script_logger=lambda _: first,
        on_complete=lambda result: statuses.append(result.status),
    )
    statuses: list[RunStatus] = []
    for _ in range(8):
        first = _First()
        with pytest.raises(Alarm):
            runner.execute(check=False)
    assert statuses == [RunStatus.CANCELLED] * 8


class _First:
    """A logger that raises SIGALRM in the main thread at the first line, and drops all."""

    def __init__(self) -> None:
        self._told = False

    def send(self, batch: LogBatch) -> None:
        main = threading.main_thread().ident
        if not self._told and main is not None:
            self._told = True
            signal.pthread_kill(main, signal.SIGALRM)

    def flush(self) -> None:
        pass


@pytest.mark.slow
@pytest.mark.usefixtures("alarm")
@pytest.mark.parametrize("kind", [Alarm, Interrupt])
@pytest.mark.parametrize("count", [1, 8])
def test_an_exception_at_any_moment(
    make_runner: MakeRunner, count: int, kind: type[BaseException]
) -> None:
    """R8, R7: wherever it strikes, it is raised, execute returns, no run is left or told twice,
    nothing leaks, and the runner goes on working."""

    def handler(number: int, frame: FrameType | None) -> NoReturn:
        raise kind

    signal.signal(signal.SIGALRM, handler)
    completed: list[RunResult] = []
    registry = CollectorRegistry()
    runner = make_runner(*["echo hello"] * count, on_complete=completed.append)
    runner.register_metrics(registry)
    took = []
    for _ in range(5):  # the first one starts threads and imports
        began = time.perf_counter()
        runner.execute()
        took.append(time.perf_counter() - began)
    raised = step = 0
    # On a busy machine a signal may come late, after the call.
    while step < 100 or (raised <= 20 and step < 2000):
        step += 1
        results: list[RunResult] = []
        try:
            try:
                delay = 1e-5 + min(took) * 1.2 * (step % 100) / 100
                signal.setitimer(signal.ITIMER_REAL, delay)
                results = runner.execute(check=False)
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except kind:
            raised += 1
        assert all(one.ok for one in results), f"step {step}: the exception was swallowed"
        assert runner.runs() == [], f"step {step}"
    assert raised > 20
    assert all(result.ok for result in runner.execute())
    runner.close()
    ids = [result.run_id for result in completed]
    assert len(ids) == len(set(ids))
    told = [
        registry.get_sample_value("agent_scripts_executed_total", {"success": success}) or 0
        for success in ("true", "false")
    ]
    assert sum(told) == len(ids)
    assert registry.get_sample_value("agent_scripts_running", {"stage": "manual"}) == 0
