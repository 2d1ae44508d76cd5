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
from agentscripts._lifecycle import AgentLog, OwnThreads
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
        own_threads: OwnThreads,
    ) -> None:
        self._agenda: Final = agenda
        self._overlaps: Final = overlaps
        self._clock: Final = clock
        self._fire: Final = fire
        self._skip: Final = skip
        self._log: Final = log
        self._own_threads: Final = own_threads
        self._ended: queue.SimpleQueue[UUID] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards both below
        self._closing = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread, once; after ``close`` it does nothing.

        Raises ``OSError`` when no thread is left in the system.
        """
        with self._lock:
            if self._closing or self._thread is not None:
                return
            self._thread = self._own_threads.new("agentscripts-cron", self._serve)
            self._thread.start()

    def ended(self, script_id: UUID) -> None:
        """Say that a run that ``fire`` started has ended."""
        self._ended.put(script_id)
        with self._lock:
            if not self._closing:
                self._clock.wake()

    def close(self, timeout: float) -> None:
        """End the thread; what waits for its turn is skipped. May be called again.

        timeout: seconds to wait for it; it may be in a handler of the agent's log that hangs.
        """
        with self._lock:
            first, self._closing = not self._closing, True
            if first:
                self._clock.wake()
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join(timeout)
        elif first:  # a thread that is about to begin will look whether it is to end
            self._clock.close()

    def stuck(self) -> list[str]:
        """Return the thread's name when it has not ended."""
        return [self._thread.name] if self._thread is not None and self._thread.is_alive() else []

    def _is_closing(self) -> bool:
        with self._lock:  # until close has done with the clock
            return self._closing

    def _serve(self) -> None:
        pause: datetime | None = None
        while not self._is_closing():
            try:
                if pause is None:
                    self._look()
                    self._clock.wait(self._agenda.next_time())
                else:
                    self._clock.wait(pause)
                    pause = None
            except Exception:  # a bug here, which must neither end the schedules nor spin
                self._log(logging.ERROR, "the scheduler failed", exc_info=True)
                pause = self._clock.now() + _PAUSE
        self._clock.close()
        for script_id, planned in self._overlaps.close():
            self._skip(script_id, planned, SkipReason.CLOSED, 1)

    def _look(self) -> None:
        """Start what is due, and what has waited for a run that has ended."""
        starts: list[Fire[UUID]] = []
        try:
            while not self._ended.empty():
                script_id = self._ended.get()
                waited = self._overlaps.ended(script_id)
                if waited is not None:
                    starts.append(Fire(script_id, waited, 0))
            for fire in self._agenda.pop_due(self._clock.now()):
                self._decide(fire, starts)
            if starts:
                self._fire(starts)
        except BaseException:
            for fire in starts:  # else they would count as running for ever
                self._ended.put(fire.key)
            raise

    def _decide(self, fire: Fire[UUID], starts: list[Fire[UUID]]) -> None:
        if fire.missed:
            self._skip(fire.key, fire.planned, SkipReason.MISSED, fire.missed)
        match self._overlaps.due(fire.key, fire.planned):
            case Decision.START:
                starts.append(fire)
            case Decision.SKIP:
                self._skip(fire.key, fire.planned, SkipReason.OVERLAP, 1)
