"""What is still open when the process ends."""

from __future__ import annotations

import contextlib
import functools
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

__all__ = ["forget", "keep", "watch"]

_watched: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_kept: Final[set[Any]] = set()


def watch(one: Any, end_all: Callable[[list[Any]], None]) -> None:
    """Have it ended with the process, by one call for all that are still there then."""
    _register_hook(end_all)
    _watched.add(one)


def keep(one: Any) -> None:
    """Keep it until then, for it goes on when nobody refers to it any more."""
    _kept.add(one)


def forget(one: Any) -> None:
    """It is closed."""
    _watched.discard(one)
    _kept.discard(one)


@functools.cache
def _register_hook(end_all: Callable[[list[Any]], None]) -> None:
    # atexit's hooks come after the wait for threads that are no daemons: one in execute would hang.
    # These run in reverse order: ours before that of concurrent.futures, which waits for its
    # threads.
    import concurrent.futures.thread  # noqa: F401  # registers its own

    with contextlib.suppress(RuntimeError):  # the process ends already
        threading._register_atexit(lambda: end_all(list(_watched)))  # type: ignore[attr-defined]
