"""Whether a signal is the first that asks to end, or the second, which means at once."""

from __future__ import annotations

import itertools
from enum import Enum, auto
from typing import Final

__all__ = ["SAME_REQUEST", "Escalation", "Request", "Requested"]

SAME_REQUEST: Final = 0.1  # seconds
"""timeout(1) sends a signal to its child and then to its group, systemd may send SIGHUP right after
SIGTERM: both mean one request. Two presses of Ctrl-C are further apart."""


class Request(Enum):
    """What a signal asks for."""

    FIRST = auto()
    SECOND = auto()
    NONE = auto()  # nothing that was not asked for before


class Requested(KeyboardInterrupt):
    """What a handler raises that has told the requests apart itself.

    Whoever gets it later counts no more: by his own clock the second one may follow the first at
    once, and nothing follows the second.
    """

    def __init__(self, request: Request) -> None:
        super().__init__()
        self.request = request


class Escalation:
    """Tells the first request and the second from what only repeats them.

    A signal handler may call it, also above another one that is in here.
    """

    def __init__(self) -> None:
        self._first_at: float | None = None
        # Each of these gives 0 once, whatever interrupts whom.
        self._firsts = itertools.count()
        self._seconds = itertools.count()

    def note(self, now: float) -> Request:
        """Return what a signal asks for that came at this time, in seconds on any steady clock."""
        if next(self._firsts) == 0:
            self._first_at = now
            return Request.FIRST
        if self._first_at is None or now - self._first_at < SAME_REQUEST:
            return Request.NONE
        return Request.SECOND if next(self._seconds) == 0 else Request.NONE
