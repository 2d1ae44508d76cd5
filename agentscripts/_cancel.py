"""A switch that ends scripts."""

from __future__ import annotations

import math
import os
import select
import time
import weakref
from typing import NoReturn

__all__ = ["CancelToken"]


class CancelToken:
    """Cancels the ``execute`` calls that it is given to; one token may serve many. Thread-safe.

    ``cancel`` takes no lock, so a signal handler may call it. A token stays cancelled. In a forked
    child ``cancel`` has no effect on the parent's scripts.

    Holds one descriptor until it is garbage-collected. Raises ``OSError`` when there is none left.
    """

    def __init__(self) -> None:
        # The core polls it beside the script's output, and a write to it is async-signal-safe:
        # threading.Event.set would deadlock in a handler.
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pid = os.getpid()
        self._cancelled = False
        weakref.finalize(self, os.close, self._fd).atexit = False

    def __reduce__(self) -> NoReturn:
        raise TypeError("a CancelToken holds a descriptor: it cannot be copied or pickled")

    def fileno(self) -> int:
        """Return the descriptor, which is readable once the token is cancelled."""
        return self._fd

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancelled

    def cancel(self) -> None:
        """End the scripts of all calls that have this token; they report ``CANCELLED``."""
        self._cancelled = True
        if os.getpid() == self._pid:
            os.eventfd_write(self._fd, 1)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait at most ``timeout`` seconds (``None``: without limit); return ``cancelled``."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._cancelled and (left := deadline - time.monotonic()) > 0:
            poll.poll(min(left * 1000, 2**31 - 1))  # it takes no more than an int
        return self._cancelled
