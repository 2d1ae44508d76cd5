"""Python's signal handlers while the main thread is in ``execute`` (R8)."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time

# What `signal` wraps in conversions to enums: 25 µs less per call of `execute`.
from _signal import getsignal, set_wakeup_fd  # type: ignore[import-not-found]
from _signal import signal as set_handler
from collections.abc import Callable
from itertools import compress
from types import FrameType, TracebackType
from typing import Any, Final, Self

from agentscripts._escalation import Escalation, Request, Requested

__all__ = ["DeferredSignals", "WakeupPipe", "are_deferred"]

_SLICE: Final = 0.25  # seconds between two looks, for a wait that cannot have the pipe

# Those from SIGRTMIN on have handlers in hardly any host, and cost as much again to look at.
_SIGNALS: Final = sorted(set(range(1, signal.SIGRTMIN)) & signal.valid_signals())


class WakeupPipe:
    """What a blocking call of the main thread polls to see a signal.

    EINTR is not enough: a signal that comes just before the call blocks, or that another thread
    receives, interrupts nothing. ``signal.set_wakeup_fd`` has its number written here in any case.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.pid: Final = os.getpid()
        # Guards both below. A signal handler may come here, too, above a holder of the lock.
        self._lock = threading.RLock()
        self._held = False
        self._closed = False

    def hold(self) -> bool:
        """Keep it open until ``let_go``; ``False`` when it is closed. The main thread's."""
        with self._lock:
            self._held = not self._closed
            return self._held

    def let_go(self) -> None:
        """Say that the main thread needs it no more."""
        with self._lock:
            self._held = False
            if self._closed:
                self._close_now()

    def drain(self) -> bytes:
        """Return the numbers of the signals that came."""
        try:
            return os.read(self.read_fd, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close both ends, or have ``let_go`` close them. Any thread; may be called again."""
        with self._lock:
            self._closed = True
            if not self._held:
                self._close_now()

    def _close_now(self) -> None:
        read_fd, self.read_fd = self.read_fd, -1  # no signal handler runs between this and the call
        if read_fd >= 0:
            os.close(read_fd)
        write_fd, self.write_fd = self.write_fd, -1
        if write_fd >= 0:
            os.close(write_fd)


class _Deferral:
    """Stands in for the host's handlers while the main thread is in ``execute``."""

    def __init__(self, pipe: WakeupPipe) -> None:
        self.pipe = pipe
        self.users: list[DeferredSignals] = []  # nested calls: a handler may call execute, too
        self._host_fd: int | None = None  # the host's own wakeup descriptor, once it is replaced
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[int] = []

    def begin(self) -> None:
        """Stand in for the host's handlers."""
        try:
            for number in compress(_SIGNALS, map(callable, map(getsignal, _SIGNALS))):
                self._handlers[number] = getsignal(number)
                set_handler(number, self._note)
            # Last: while a handler of the host's may raise, nobody would put its descriptor back.
            self._host_fd = set_wakeup_fd(self.pipe.write_fd, warn_on_full_buffer=False)
        except BaseException:
            self.end()
            raise

    def end(self, *, forget: bool = False) -> list[BaseException]:
        """Put the host's handlers back; return what they raised meanwhile.

        forget: whether signals that came and have had no handler yet are another process's.
        """
        raised: list[BaseException] = []
        if self._host_fd is not None:
            try:
                set_wakeup_fd(self._host_fd)
            except (ValueError, OSError):  # the host has closed it
                set_wakeup_fd(-1)  # not the pipe, whose number may soon be another file's
        left = list(self._handlers.items())
        while left:
            number, handler = left[-1]
            try:
                if getsignal(number) == self._note:
                    set_handler(number, handler)
                left.pop()
            except BaseException as error:  # of a handler that is back already
                raised.append(error)
        if forget:
            self._noted.clear()
        # What came after the last check: nobody else would look at it.
        elif self._host_fd not in (None, -1):
            self._forward(self.pipe.drain())
        while self._noted:
            try:
                self._call_next()
            except BaseException as error:
                raised.append(error)
        return raised

    def check_noted(self) -> None:
        """``check``, but for numbers in the pipe that nobody else wants: a later one drains it."""
        if self._noted or self._host_fd not in (None, -1):
            self.check()

    def check(self) -> None:
        """Call the handlers of the signals that came; what they raise interrupts all users."""
        self._forward(self.pipe.drain())
        while self._noted:
            try:
                self._call_next()
            except BaseException as error:
                for user in tuple(self.users):
                    user.interrupt(error)

    def _call_next(self) -> None:
        number = self._noted.pop(0)
        # Not the frame that was interrupted: by the traceback it would live on.
        self._handlers[number](number, sys._getframe())

    def _forward(self, numbers: bytes) -> None:
        """Tell the host of the signals, as they would have come to its own descriptor."""
        if numbers and self._host_fd not in (None, -1):
            assert self._host_fd is not None
            with contextlib.suppress(OSError):
                os.write(self._host_fd, numbers)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append(number)


_active: _Deferral | None = None  # only the main thread looks at it


def are_deferred() -> bool:
    """Whether the main thread, which asks, is in ``execute``."""
    return _active is not None


def _after_fork() -> None:
    """Give a forked child its own signals; the thread that forked is its main thread."""
    global _active
    if _active is not None:
        deferral, _active = _active, None
        deferral.end(forget=True)


os.register_at_fork(after_in_child=_after_fork)


class DeferredSignals:
    """Calls the host's signal handlers at chosen points, so that they raise nowhere else.

    Python calls a handler between any two instructions of the main thread. One that raises, as that
    of SIGINT does, could do so after a fork and before the pid is noted. So within this context a
    signal is only noted, and ``check`` calls its handler. What that raises cancels the scripts, and
    is raised when they have ended. In other threads Python runs no handlers: it does nothing there.

    A handler that another one installs meanwhile stays installed. Restoring one undoes what
    ``signal.siginterrupt`` did to it.
    """

    def __init__(self, pipe: WakeupPipe) -> None:
        self.on_interrupt: Callable[[bool], None] = _ignore
        """What to do when a handler has raised; its argument: whether it is the second request."""
        self._thread: Final = threading.current_thread()
        self._pipe = pipe
        self._deferral: _Deferral | None = None
        self._raised: list[BaseException] = []
        self._escalation: Final = Escalation()

    def __enter__(self) -> Self:
        global _active
        if self._thread is threading.main_thread():
            if _active is None:
                if not self._pipe.hold():
                    return self  # the runner is closed, as its caller is about to see
                deferral = _Deferral(self._pipe)
                try:
                    deferral.begin()
                except ValueError:  # a subinterpreter, in which Python calls no handler
                    self._pipe.let_go()
                    return self
                except BaseException:
                    self._pipe.let_go()
                    raise
                _active = deferral
            self._deferral = _active
            _active.users.append(self)
            _active.check_noted()  # a signal may have come before the pipe was there
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        global _active
        self.on_interrupt = _ignore  # no cycle: what it calls knows this object
        deferral = self._deferral
        if deferral is not None and os.getpid() == self._pipe.pid:
            deferral.check_noted()
            deferral.users.remove(self)
            if not deferral.users:
                _active = None
                self._raised += deferral.end()
                deferral.pipe.let_go()
        if self._raised:
            error, self._raised = self._raised[0], []
            try:
                raise error
            finally:
                del error  # no cycle through the traceback: what it holds goes with it

    @property
    def fd(self) -> int:
        """Readable when ``check`` has something to do; -1 in the call's other threads: never."""
        return self._deferral.pipe.read_fd if self._deferral and self._is_own_thread() else -1

    @property
    def interrupts(self) -> int:
        """How many handlers have raised."""
        return len(self._raised)

    def interrupt(self, error: BaseException) -> None:
        """Note what a handler raised; a nested call raises again what this one knows."""
        if any(one is error for one in self._raised):
            return
        self._raised.append(error)
        if isinstance(error, Requested):
            request = error.request
        else:
            request = self._escalation.note(time.monotonic())
        if request is not Request.NONE:
            self.on_interrupt(request is Request.SECOND)

    def slice(self, deadline: float | None) -> float | None:
        """Return how many seconds a wait until ``deadline`` may last before the next ``check``."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._deferral is None:
            return left
        return _SLICE if left is None else min(left, _SLICE)

    def check(self) -> None:
        """Call the handlers of the signals that came; in the call's other threads: nothing."""
        if self._deferral and self._is_own_thread():
            self._deferral.check()

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread


def _ignore(second: bool) -> None:
    pass
