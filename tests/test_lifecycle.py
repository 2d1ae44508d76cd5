"""The threads of a runner and who waits for their end, and what else they share."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from types import FrameType
from typing import NoReturn

import pytest
from support import Background, eventually, main_frame

from agentscripts._lifecycle import OwnThread, Slots, WaitGroup


class Alarm(Exception):
    """What the handler of a host raises."""


def test_a_join_that_a_signal_ends_forgets_no_thread() -> None:
    """S1, S2: a close that a handler has ended is called again, and waits for the same threads."""
    may_end = threading.Event()

    def handle(number: int, frame: FrameType | None) -> NoReturn:
        raise Alarm

    def interrupt() -> None:
        eventually(_main_joins)
        os.kill(os.getpid(), signal.SIGUSR1)

    old = signal.signal(signal.SIGUSR1, handle)
    thread, other = OwnThread(may_end.wait, "waiting"), threading.Thread(target=interrupt)
    try:
        thread.start()
        other.start()
        with pytest.raises(Alarm):
            thread.join()
        assert thread.is_alive()
        thread.join(0.001)
        assert thread.is_alive()
        may_end.set()
        thread.join()
        assert not thread.is_alive()
        assert "waiting" not in [one.name for one in threading.enumerate()]
    finally:
        may_end.set()
        other.join()
        signal.signal(signal.SIGUSR1, old)


def _main_joins() -> bool:
    frame = main_frame()
    names = [one.name for one in traceback.extract_stack(frame)]
    return "join" in names and names[-1] != "join"


def test_what_cannot_be_joined() -> None:
    """A thread that was not started is not waited for; one's own is refused."""
    errors: list[RuntimeError] = []

    def join_itself() -> None:
        try:
            thread.join()
        except RuntimeError as error:
            errors.append(error)

    thread = OwnThread(join_itself, "own")
    thread.join()
    thread.start()
    thread.join()
    assert len(errors) == 1


def test_joins_in_several_threads() -> None:
    """S1: the end of a thread ends all waits for it."""
    may_end = threading.Event()
    thread = OwnThread(may_end.wait, "waiting")
    thread.start()
    joins = [Background(thread.join) for _ in range(3)]
    eventually(lambda: len(thread._joining) == len(joins), "all wait")
    may_end.set()
    for join in joins:
        join.result()


def test_a_wait_that_is_longer_than_a_lock_takes() -> None:
    """R3: it is as good as no limit, also where there is something to wait for."""
    group = WaitGroup()
    group.add()
    wait = Background(lambda: group.wait(1e300))
    eventually(lambda: group._zero._condition, "it waits")
    group.done()
    assert wait.result()


class Waiter:
    """One who waits for a slot."""

    woken = 0

    def wake(self) -> None:
        self.woken += 1


def test_all_who_wait_for_a_slot_are_told() -> None:
    """R3: who is woken may not want it any more: so all look, and none is told for nothing."""
    slots = Slots(1)
    holder, first, second = Waiter(), Waiter(), Waiter()
    assert [slots.take(one) for one in (holder, first, second)] == [True, False, False]
    slots.give()
    assert [one.woken for one in (holder, first, second)] == [0, 1, 1]
    assert slots.take(second)
    slots.give()
    assert [one.woken for one in (holder, first, second)] == [0, 1, 1]
