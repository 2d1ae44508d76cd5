"""A runner that closes when the process is asked to end (``Runner.close_on_signals``)."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final

from agentscripts._escalation import Escalation, Request
from agentscripts._lifecycle import OwnThread
from agentscripts._signals import are_deferred
from agentscripts._validation import JOB_CONTROL

__all__ = ["OnSignal", "SignalClose"]

_AGAIN: Final = 0.05  # seconds
_KILLED: Final = 2.0  # seconds in which killed scripts are gone
# SIGCHLD comes with each script's end.
_NO_REQUESTS: Final = JOB_CONTROL | {signal.SIGKILL, signal.SIGCHLD}

_OVER: Final = 0  # no signal has this number
"""Put by ``close`` and by the thread that winds down."""

_taken: Final[set[int]] = set()
"""The signals that some runner waits for, or has waited for."""

_fork: Final = threading.local()


def _block_signals() -> None:
    _fork.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _taken)


def _unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _fork.mask)


# Python forgets the signals that a child gets before Python goes on in it. Without a handler they
# would end it, so they wait for the handler that it has inherited.
os.register_at_fork(
    before=_block_signals, after_in_parent=_unblock_signals, after_in_child=_unblock_signals
)

OnSignal = Callable[[int, bool], object]


class SignalClose:
    """Winds down at the first signal, kills at the second, then ends the process by the first.

    wind_down: ends the scripts in good order and returns when all is closed.
    kill: kills all scripts; does not wait.

    A handler runs between any two instructions of the main thread, which may hold any lock. So it
    does nothing but tell a thread. ``SimpleQueue.put`` takes no lock, and unlike a descriptor the
    queue cannot be closed, and its number given away, under a handler that is about to write.
    """

    def __init__(self, wind_down: Callable[[], object], kill: Callable[[], object]) -> None:
        self._wind_down: Final = wind_down
        self._kill: Final = kill
        self._pid: Final = os.getpid()
        self._escalation: Final = Escalation()
        self._replaced: dict[int, Any] = {}  # the handlers that were there, by signal
        self._told: dict[int, OnSignal] = {}
        self._events: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._worker: threading.Thread | None = None
        self._signalled = False
        self._ready = False  # the signal may have its effect
        self._had_effect = False
        self._finished = False  # the thread has nothing more to do

    @property
    def is_busy(self) -> bool:
        """Whether a signal has come that has not had its effect."""
        return self._signalled and not self._finished

    def add(self, numbers: Sequence[int], on_signal: OnSignal | None) -> None:
        """Wait for these signals, too. Raises ``RuntimeError``, ``TypeError``, ``ValueError``."""
        _check(numbers)
        if self._thread is None:
            thread = OwnThread(self._serve, "agentscripts-signals")
            thread.start()
            self._thread = thread
        for number in numbers:
            old = signal.getsignal(number)
            if old is not signal.SIG_IGN and number not in self._replaced:
                self._replaced[number] = old
                _taken.add(number)
                if on_signal:
                    self._told[number] = on_signal
                signal.signal(number, self._handle)

    def wait(self, timeout: float | None = None) -> None:
        """Wait until a signal that has come has had its effect, at most ``timeout`` seconds."""
        if self._thread is not None and self.is_busy and not self._is_own_thread():
            self._thread.join(timeout)

    def close(self) -> None:
        """End the thread. The main thread also puts the handlers back; in another one they stay,
        and pass signals on. Called by what winds down, it does nothing."""
        if self._thread is None or self._is_own_thread():
            return
        if not self._signalled:
            self._events.put(_OVER)
        self._thread.join()
        if threading.current_thread() is threading.main_thread():
            for number, old in self._replaced.items():
                # == because each look at a method makes a new object.
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, old)
        while not self._ready and not self._events.empty():  # a signal came after _OVER
            os.kill(os.getpid(), self._events.get())

    def _is_own_thread(self) -> bool:
        return threading.current_thread() in (self._thread, self._worker)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid or self._finished:
            self._pass_on(number, frame)
        elif not self._ready:
            request = self._escalation.note(time.monotonic())
            if request is not Request.NONE:
                self._signalled = True
                self._events.put(number)
                if number in self._told:
                    self._told[number](number, request is Request.SECOND)
        elif not self._had_effect:
            self._had_effect = True
            self._pass_on(number, frame)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        """Do what the signal did before."""
        old = self._replaced[number]
        if callable(old):
            old(number, frame)
            return
        signal.signal(number, old)
        os.kill(os.getpid(), number)
        # Process 1 does not die by a signal; nor does any by one like SIGCHLD.
        os._exit(128 + number)

    def _serve(self) -> None:
        number = self._events.get()
        if number != _OVER:
            self._wind_down_or_kill()
            self._ready = True
            while not self._had_effect:
                # Only the main thread runs handlers. A signal that comes right before it blocks
                # does not end that, so one is not enough.
                signal.pthread_kill(_main_thread_id(), number)
                time.sleep(_AGAIN)
        self._finished = True

    def _wind_down_or_kill(self) -> None:
        self._worker = OwnThread(self._work, "agentscripts-wind-down")
        try:
            self._worker.start()
        except OSError:  # no thread is left in the system: a second signal is too much then
            self._work()
        if self._events.get() == _OVER:
            return
        self._kill()
        with contextlib.suppress(queue.Empty):  # stuck in the host's own code
            self._events.get(timeout=_KILLED)

    def _work(self) -> None:
        try:
            self._wind_down()
        finally:
            self._events.put(_OVER)


def _main_thread_id() -> int:
    number = threading.main_thread().ident
    assert number is not None
    return number


def _check(numbers: Sequence[int]) -> None:
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "close_on_signals: called in another thread, expected the main thread: "
            "only there Python lets handlers be installed"
        )
    if are_deferred():
        raise RuntimeError("close_on_signals: called inside execute, expected a call before it")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int):
            raise TypeError(f"close_on_signals: signal is {number!r}, expected a signal.Signals")
        if number not in signal.valid_signals() or number in _NO_REQUESTS:
            raise ValueError(
                f"close_on_signals: signal is {number!r}, "
                "expected one that a process can catch and that may ask it to end"
            )
        if signal.getsignal(number) is None:
            raise RuntimeError(
                f"close_on_signals: signal {number!r} has a handler that is not Python's, "
                "which could not be put back"
            )
