"""What signal handlers raise while the library waits: kept until the scripts have ended (R8)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

__all__ = ["SLICE", "Interrupts", "in_main_thread"]

_T = TypeVar("_T")

SLICE: Final = 0.25
"""Seconds after which the main thread's waits come back to Python: a signal that arrives just
before a system call that blocks is seen no earlier."""


def in_main_thread() -> bool:
    """Whether the caller is the thread in which Python runs signal handlers."""
    return threading.current_thread() is threading.main_thread()


class Interrupts:
    """Carries a wait on, whatever is raised out of it. One thread's.

    cancel: called before the wait goes on; its argument says whether this is not the first time.
    """

    def __init__(self, cancel: Callable[[bool], None]) -> None:
        self._cancel = cancel
        self._seen: list[BaseException] = []
        self._told = 0

    def persist(self, wait: Callable[[], _T]) -> _T:
        """Call ``wait`` until it returns."""
        result: list[_T] = []
        while not result:
            try:
                self._attempt(wait, result)
            except BaseException as error:  # raised while the one before was noted
                self._seen.append(error)
        return result[0]

    def _attempt(self, wait: Callable[[], _T], result: list[_T]) -> None:
        try:
            if self._told < len(self._seen):
                self._cancel(len(self._seen) > 1)
                self._told = len(self._seen)
            result.append(wait())
        except BaseException as error:
            self._seen.append(error)

    def raise_first(self) -> None:
        """Raise what came first, if anything did."""
        if self._seen:
            raise self._seen[0]
