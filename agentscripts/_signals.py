"""Python's signal handlers while the main thread is in ``execute`` (R8)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["DeferredSignals", "WakeupPipe"]

_SLICE: Final = 0.25  # seconds between two looks, for a wait that cannot have the pipe

# Those from SIGRTMIN on have handlers in hardly any host, and cost as much again to look at.
_SIGNALS: Final = sorted(set(range(1, signal.SIGRTMIN)) & signal.valid_signals())


class WakeupPipe:
    """What a blocking call of the main thread polls to see a signal. Not thread-safe.

    EINTR is not enough: a signal that comes just before the call blocks, or that another thread
    receives, interrupts nothing. ``signal.set_wakeup_fd`` has its number written here in any case.
    """

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def drain(self) -> bytes:
        """Return the numbers of the signals that came."""
        try:
            return os.read(self.read_fd, 4096)
        except BlockingIOError:
            return b""

    def close(self) -> None:
        """Close both ends."""
        os.close(self.read_fd)
        os.close(self.write_fd)


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
        """What to do when a handler has raised; its argument: whether one had before."""
        self._thread: Final = threading.current_thread()
        self._pipe = pipe if self._thread is threading.main_thread() else None
        self._host_fd = -1  # the host's own wakeup descriptor
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[tuple[int, FrameType | None]] = []
        self._raised: list[BaseException] = []

    @property
    def fd(self) -> int:
        """Readable when ``check`` has something to do; -1 in the call's other threads: never."""
        return self._pipe.read_fd if self._pipe and self._is_own_thread() else -1

    def __enter__(self) -> Self:
        if self._pipe:
            try:
                for number in _SIGNALS:
                    if callable(handler := signal.getsignal(number)):
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
                self._host_fd = signal.set_wakeup_fd(self._pipe.write_fd, warn_on_full_buffer=False)
            except BaseException:
                self._restore()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._pipe:
            signal.set_wakeup_fd(self._host_fd)
        self._restore()
        self.check()
        if self._raised:
            raise self._raised[0]

    def _restore(self) -> None:
        left = list(self._handlers.items())
        while left:
            number, handler = left[-1]
            try:
                if signal.getsignal(number) == self._note:
                    signal.signal(number, handler)
                left.pop()
            except BaseException as error:  # of a handler that is back already
                self._raised.append(error)

    @property
    def interrupts(self) -> int:
        """How many handlers have raised."""
        return len(self._raised)

    def slice(self, deadline: float | None) -> float | None:
        """Return how many seconds a wait until ``deadline`` may last before the next ``check``."""
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._pipe is None:
            return left
        return _SLICE if left is None else min(left, _SLICE)

    def check(self) -> None:
        """Call the handlers of the signals that came; in the call's other threads: nothing."""
        if not self._is_own_thread():
            return
        if self._pipe and (numbers := self._pipe.drain()) and self._host_fd >= 0:
            with contextlib.suppress(OSError):
                os.write(self._host_fd, numbers)
        while self._noted:
            number, frame = self._noted.pop(0)
            try:
                self._handlers[number](number, frame)
            except BaseException as error:
                self._raised.append(error)
                self.on_interrupt(len(self._raised) > 1)

    def _is_own_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append((number, frame))


def _ignore(again: bool) -> None:
    pass
