"""Small parts that the threads of a runner share."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

__all__ = ["AgentLog", "LazyCondition", "OwnThread", "OwnThreads", "Slots", "WaitGroup", "at_most"]


def at_most(timeout: float | None) -> float | None:
    """Return a timeout in seconds that a lock takes: 292 years is the longest."""
    return None if timeout is None else min(timeout, threading.TIMEOUT_MAX)


class AgentLog(Protocol):
    """Writes to the agent's log; never raises."""

    def __call__(self, level: int, message: str, *args: object, exc_info: bool = False) -> None: ...


class OwnThread(threading.Thread):
    """A daemon. What a signal handler raises in a ``join`` ends that one call: the next one waits
    for the thread again, which Python 3.11 takes for ended then. Each call has a lock of its own,
    so none that was interrupted can keep the thread, or another call, from going on.
    """

    def __init__(self, target: Callable[[], object], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._call = target
        self._returned = False
        self._joining: list[threading.Lock] = []  # held

    def run(self) -> None:
        """Call the target."""
        try:
            self._call()
        finally:
            del self._call  # what it holds goes with the end
            self._returned = True
            while self._joining:
                self._joining.pop().release()

    def start(self) -> None:
        """Start it. Raises ``OSError`` when no thread is left in the system."""
        try:
            super().start()
        except RuntimeError as error:
            raise OSError(errno.EAGAIN, "no thread can be started") from error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, at most ``timeout`` seconds.

        One whose start was interrupted, or failed, is not waited for: it may be about to begin.
        """
        if self is threading.current_thread():
            raise RuntimeError("cannot join the current thread")
        if not self.is_alive() or self._wait(timeout):
            with contextlib.suppress(RuntimeError):  # it was not started
                super().join()

    def _wait(self, timeout: float | None) -> bool:
        end = threading.Lock()
        end.acquire()
        self._joining.append(end)
        seconds = at_most(timeout)
        return self._returned or end.acquire(timeout=-1 if seconds is None else seconds)


class OwnThreads:
    """The threads of one runner, in which the user's code may call the runner back. Thread-safe."""

    def __init__(self) -> None:
        self._local = threading.local()

    def new(self, name: str, target: Callable[..., object], *args: Any) -> OwnThread:
        """Return a daemonic thread that calls ``target``; not started yet."""
        return OwnThread(partial(self._run, target, args), name)

    def has_current(self) -> bool:
        """Whether the caller is in one of them."""
        return hasattr(self._local, "own")

    def _run(self, target: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._local.own = True
        target(*args)


class LazyCondition:
    """A condition that is made by the first who waits, for hardly anybody does: to make one, or to
    notify nobody, takes longer than all else that is done with its lock, which callers hold.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._condition: threading.Condition | None = None

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until it is true, at most ``timeout`` seconds; return whether it is."""
        if predicate():
            return True
        self._condition = self._condition or threading.Condition(self._lock)
        return self._condition.wait_for(predicate, timeout)

    def notify_all(self) -> None:
        """Have those who wait look again."""
        if self._condition is not None:
            self._condition.notify_all()


class WaitGroup:
    """A counter that can be waited for to become zero. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _count
        self._zero = LazyCondition(self._lock)
        self._count = 0

    def add(self) -> None:
        """Count one more."""
        with self._lock:
            self._count += 1

    def done(self) -> None:
        """Count one less."""
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._zero.notify_all()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for zero, at most ``timeout`` seconds; return whether it is zero."""
        with self._lock:
            return self._zero.wait_for(lambda: self._count == 0, at_most(timeout))


class _Waiter(Protocol):
    def wake(self) -> None: ...


class Slots:
    """How many scripts of a runner may run at once (``max_parallel``). Thread-safe."""

    def __init__(self, count: int | None) -> None:
        self._free = count  # None: no limit, for good
        self._lock = threading.Lock()  # guards _free, unless that is None, and _waiting
        self._waiting: set[_Waiter] = set()

    def is_free(self, who: _Waiter) -> bool:
        """Whether there is a slot; if not, ``who`` is woken when there is one."""
        with self._lock:
            return self._has_room(who)

    def take(self, who: _Waiter) -> bool:
        """Take a slot, or have ``who`` woken when there is one."""
        if self._free is None:
            return True
        with self._lock:
            room = self._has_room(who)
            if room:
                self._free -= 1
            return room

    def _has_room(self, who: _Waiter) -> bool:
        if self._free == 0:
            self._waiting.add(who)
            return False
        return True

    def give(self) -> None:
        """Give a slot back."""
        if self._free is None:
            return
        with self._lock:
            self._free += 1
            waiting, self._waiting = self._waiting, set()
        for who in waiting:
            who.wake()
