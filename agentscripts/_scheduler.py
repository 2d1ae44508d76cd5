"""The thread that starts scripts on time."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol
from uuid import UUID

from agentscripts._agenda import Agenda, Fire
from agentscripts._lifecycle import AgentLog
from agentscripts._native import Timer
from agentscripts._overlap import Decision, Overlaps

__all__ = ["Clock", "Scheduler", "SkipReason", "SystemClock"]

_PAUSE: Final = timedelta(seconds=1)


class SkipReason(StrEnum):
    """Why a schedule's time passes without a run."""

    OVERLAP = "overlap"
    MISSED = "missed"
    CLOSED = "closed"


Skip = Callable[[UUID, datetime, SkipReason, int], None]
"""Told of times that were skipped: the script, the (last) planned time, why, and how many."""


class Clock(Protocol):
    """What tells the time and waits for it."""

    def now(self) -> datetime:
        """Return the time, in UTC."""

    def wait(self, until: datetime | None) -> None:
        """Block until a time, a change of the clock, or ``wake``; it may also return early."""

    def wake(self) -> None:
        """End the wait, or the next one. Any thread."""

    def close(self) -> None:
        """Give back what it holds."""


class SystemClock:
    """The machine's clock. Raises ``OSError`` when there is no descriptor left."""

    def __init__(self) -> None:
        timer = Timer()
        self.wait, self.wake, self.close = timer.wait, timer.wake, timer.close

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(UTC)


class Scheduler:
    """Starts scripts on time: one thread that owns the agenda and what overlaps.

    fire: starts runs and returns; each must be reported by ``ended``.
    skip: told of each time that a script is not started.

    ``start``, ``ended`` and ``close`` may be called by any thread.
    """

    def __init__(
        self,
        agenda: Agenda[UUID],
        overlaps: Overlaps,
        *,
        clock: Clock,
        fire: Callable[[Sequence[Fire[UUID]]], None],
        skip: Skip,
        log: AgentLog,
    ) -> None:
        self._agenda: Final = agenda
        self._overlaps: Final = overlaps
        self._clock: Final = clock
        self._fire: Final = fire
        self._skip: Final = skip
        self._log: Final = log
        self._ended: queue.SimpleQueue[UUID] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards both below
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, once; after ``close`` it does nothing."""
        with self._lock:
            if self._closing or self._thread is not None:
                return
            self._thread = threading.Thread(
                target=self._serve, name="agentscripts-cron", daemon=True
            )
            self._thread.start()

    def ended(self, script_id: UUID) -> None:
        """Say that a run that ``fire`` started has ended."""
        self._ended.put(script_id)
        with self._lock:
            if not self._closing:
                self._clock.wake()

    def close(self) -> None:
        """End the thread; what waits for its turn is skipped. May be called again.

        Called by that thread itself, through a handler of the agent's log, it does not wait.
        """
        with self._lock:
            first, self._closing = not self._closing, True
            if first:
                self._clock.wake()
        if self._thread is None:
            if first:
                self._clock.close()
        elif self._thread is not threading.current_thread():
            self._thread.join()

    def _is_closing(self) -> bool:
        with self._lock:  # until close has done with the clock
            return self._closing

    def _serve(self) -> None:
        while not self._is_closing():
            pause = None
            try:
                self._look()
            except Exception:  # a bug here, which must neither end the schedules nor spin
                self._log(logging.ERROR, "the scheduler failed", exc_info=True)
                pause = self._clock.now() + _PAUSE
            next_time = self._agenda.next_time()
            self._clock.wait(max(pause, next_time) if pause and next_time else next_time)
        self._clock.close()
        for script_id, planned in self._overlaps.close():
            self._skip(script_id, planned, SkipReason.CLOSED, 1)

    def _look(self) -> None:
        """Start what is due, and what has waited for a run that has ended."""
        starts: list[Fire[UUID]] = []
        while not self._ended.empty():
            script_id = self._ended.get()
            waited = self._overlaps.ended(script_id)
            if waited is not None:
                starts.append(Fire(script_id, waited, 0))
        for fire in self._agenda.pop_due(self._clock.now()):
            if fire.missed:
                self._skip(fire.key, fire.planned, SkipReason.MISSED, fire.missed)
            match self._overlaps.due(fire.key, fire.planned):
                case Decision.START:
                    starts.append(fire)
                case Decision.SKIP:
                    self._skip(fire.key, fire.planned, SkipReason.OVERLAP, 1)
        try:
            if starts:
                self._fire(starts)
        except BaseException:
            for fire in starts:  # else they would count as running for ever
                self._ended.put(fire.key)
            raise
