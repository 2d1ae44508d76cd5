"""The threads of a runner, and who waits for their end."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from types import FrameType
from typing import NoReturn

import pytest
from support import eventually, main_frame

from agentscripts._lifecycle import OwnThread


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
