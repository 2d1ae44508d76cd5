"""CancelToken: the switch itself, and the calls that have it."""

from __future__ import annotations

import copy
import gc
import pickle
import signal
import threading
from uuid import UUID

import pytest
from conftest import MakeRunner
from support import Background, Lines, descriptors, is_alive

from agentscripts import CancelToken, RunStatus, ScriptCancelledError
from agentscripts._supervised import Supervised


def test_a_token_stays_cancelled() -> None:
    """CancelToken: cancelled is False, then True for good; cancel may be called again."""
    token = CancelToken()
    assert (token.cancelled, token.wait(0)) == (False, False)
    token.cancel()
    token.cancel()
    assert (token.cancelled, token.wait(), token.wait(0)) == (True, True, True)


def test_wait_ends_by_time_or_cancel() -> None:
    """CancelToken: wait returns at its timeout, or when another thread cancels."""
    token = CancelToken()
    assert token.wait(0.001) is False
    assert token.wait(-1) is False
    waiters = [Background(token.wait) for _ in range(3)]
    token.cancel()
    assert [waiter.result() for waiter in waiters] == [True] * 3


def test_a_token_is_not_copied() -> None:
    """CancelToken: a copy would write to a number that may be another descriptor's by then."""
    for make in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="CancelToken"):
            make(CancelToken())  # type: ignore[operator]


def test_a_token_gives_its_descriptor_back() -> None:
    """S2: it holds one descriptor, as long as it lives."""
    before = descriptors()
    token = CancelToken()
    assert len(descriptors()) == len(before) + 1
    del token
    gc.collect()
    assert descriptors() == before


def test_cancel_in_a_signal_handler() -> None:
    """CancelToken: cancel takes no lock, so a handler that strikes inside cancel may call it."""
    token = CancelToken()
    calls = 0

    def handler(number: int, frame: object) -> None:
        nonlocal calls
        calls += 1
        token.cancel()

    old = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while calls < 30:
            token.cancel()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert token.cancelled


@pytest.mark.parametrize("count", [1, 3])
def test_cancel_ends_a_call(make_runner: MakeRunner, lines: Lines, count: int) -> None:
    """K1: all scripts of the call end and report CANCELLED with their exit codes."""
    token = CancelToken()
    runner = make_runner(*["trap 'exit 7' HUP; echo up $$; while :; do sleep 0.01; done"] * count)
    call = Background(lambda: runner.execute(cancel=token, check=False))
    lines.wait_for("up", count)
    token.cancel()
    results = call.result()
    assert [one.status for one in results] == [RunStatus.CANCELLED] * count
    assert [one.exit_code for one in results] == [7] * count
    assert all(isinstance(one.error, ScriptCancelledError) for one in results)
    pids = [int(line.split()[1]) for line in lines.lines if line.startswith("up")]
    assert not any(is_alive(pid) for pid in pids)


@pytest.mark.parametrize("count", [1, 3])
def test_a_cancelled_token_starts_nothing(
    make_runner: MakeRunner, lines: Lines, count: int
) -> None:
    """K1: a call with a token that is cancelled already starts no script."""
    token = CancelToken()
    token.cancel()
    runner = make_runner(*["echo up"] * count)
    results = runner.execute(cancel=token, check=False)
    assert [one.status for one in results] == [RunStatus.CANCELLED] * count
    assert lines.lines == []


def test_one_token_cancels_many_calls(make_runner: MakeRunner, lines: Lines) -> None:
    """CancelToken: calls of several runners may share one; a call without it goes on."""
    token, other = CancelToken(), CancelToken()
    runners = [make_runner("echo up; exec sleep 60") for _ in range(2)]
    calls = [
        Background(lambda one=one: one.execute(cancel=token, check=False))  # type: ignore[misc]
        for one in runners
        for _ in range(2)
    ]
    free = Background(lambda: runners[0].execute(cancel=other, check=False))
    lines.wait_for("up", 5)
    token.cancel()
    assert {call.result()[0].status for call in calls} == {RunStatus.CANCELLED}
    assert len(runners[0].runs()) == 1
    other.cancel()
    assert free.result()[0].status is RunStatus.CANCELLED


def test_cancel_while_scripts_wait(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: those that wait for their turn are never started."""
    token = CancelToken()
    runner = make_runner(*["echo up; exec sleep 60"] * 4, max_parallel=1)
    call = Background(lambda: runner.execute(cancel=token, check=False))
    lines.wait_for("up")
    token.cancel()
    assert [one.exit_code for one in call.result()] == [-1, None, None, None]
    assert lines.lines == ["up"]


def test_cancel_races(make_runner: MakeRunner) -> None:
    """K1, R7: whenever a cancel comes, each script has one result and the call returns."""
    runner = make_runner("true", "true", max_parallel=1)
    for step in range(40):
        token = CancelToken()
        timer = threading.Timer(step * 1e-4, token.cancel)
        timer.start()
        results = Background(lambda token=token: runner.execute(cancel=token, check=False)).result()  # type: ignore[misc]
        timer.join()
        assert len(results) == 2
        assert {one.status for one in results} <= {RunStatus.SUCCEEDED, RunStatus.CANCELLED}


@pytest.mark.parametrize("kill", [False, True])
def test_cancel_during_a_start(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, kill: bool
) -> None:
    """K1: a cancel that comes while the process is being started ends it; a later one that is not
    as strong leaves it at SIGKILL."""
    cancel, told = Supervised.cancel, []

    def tell(core: Supervised, *, kill: bool) -> None:
        told.append(kill)
        cancel(core, kill=kill)

    def get_script_logger(_: UUID) -> Lines:
        if kill:
            runner._calls.cancel_all(kill=True)
        assert runner.cancel(runner.runs()[0].run_id)
        return Lines()

    monkeypatch.setattr(Supervised, "cancel", tell)
    runner = make_runner("exec sleep 60", get_script_logger=get_script_logger)
    (result,) = runner.execute(check=False)
    assert (result.status, told) == (RunStatus.CANCELLED, [kill])
