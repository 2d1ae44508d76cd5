"""Python's signal handlers while the main thread is in ``execute`` (R8)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["SLICE", "DeferredSignals"]

SLICE: Final = 0.25
"""Seconds after which the main thread's waits come back to Python: a signal that arrives just
before a system call that blocks is seen no earlier."""

# Those from SIGRTMIN on have handlers in hardly any host, and cost as much again to look at.
_SIGNALS: Final = sorted(set(range(1, signal.SIGRTMIN)) & signal.valid_signals())


class DeferredSignals:
    """Calls the host's signal handlers at chosen points, so that they raise nowhere else.

    Python calls a handler between any two instructions of the main thread. One that raises, as that
    of SIGINT does, could do so after a fork and before the pid is noted. So within this context a
    signal is only noted, and ``check`` calls its handler. What that raises cancels the scripts, and
    is raised when they have ended. In other threads Python runs no handlers: it does nothing there.

    A handler that another one installs meanwhile stays installed. Restoring one undoes what
    ``signal.siginterrupt`` did to it.
    """

    def __init__(self) -> None:
        self.on_interrupt: Callable[[bool], None] = _ignore
        """What to do when a handler has raised; its argument: whether one had before."""
        self.wake: Callable[[], None] = _ignore
        """Called with each signal, as soon as Python sees it; takes no lock."""
        self.in_main_thread: Final = threading.current_thread() is threading.main_thread()
        self._handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._noted: list[tuple[int, FrameType | None]] = []
        self._raised: list[BaseException] = []

    def __enter__(self) -> Self:
        if self.in_main_thread:
            try:
                for number in _SIGNALS:
                    if callable(handler := signal.getsignal(number)):
                        self._handlers[number] = handler
                        signal.signal(number, self._note)
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
        if not self.in_main_thread:
            return left
        return SLICE if left is None else min(left, SLICE)

    def check(self) -> None:
        """Call the handlers of the signals that came."""
        while self._noted:
            number, frame = self._noted.pop(0)
            try:
                self._handlers[number](number, frame)
            except BaseException as error:
                self._raised.append(error)
                self.on_interrupt(len(self._raised) > 1)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._noted.append((number, frame))
        self.wake()


def _ignore(again: bool = False) -> None:
    pass
