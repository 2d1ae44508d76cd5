"""What is still open when the process ends."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from typing import Final, Protocol

__all__ = ["forget", "keep", "watch"]


class _Open(Protocol):
    def end_with_process(self) -> None:
        """End what runs, soon."""


_watched: Final[weakref.WeakSet[_Open]] = weakref.WeakSet()
_kept: Final[set[_Open]] = set()


def watch(one: _Open) -> None:
    """Have it ended with the process, if it is still there then."""
    _register_hook()
    _watched.add(one)


def keep(one: _Open) -> None:
    """Keep it until then, for it goes on when nobody refers to it any more."""
    _kept.add(one)


def forget(one: _Open) -> None:
    """It is closed."""
    _watched.discard(one)
    _kept.discard(one)


def _at_exit() -> None:
    for one in list(_watched):
        with contextlib.suppress(Exception):
            one.end_with_process()


@functools.cache
def _register_hook() -> None:
    # atexit's hooks come after the wait for threads that are no daemons: one in execute would hang.
    # These run in reverse order: ours before that of concurrent.futures, which waits for its
    # threads.
    import concurrent.futures.thread  # noqa: F401  # registers its own

    with contextlib.suppress(RuntimeError):  # the process ends already
        threading._register_atexit(_at_exit)  # type: ignore[attr-defined]
