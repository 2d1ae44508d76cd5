"""What fires next, among many schedules. Reads no clock: the time is passed in."""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Generic, NamedTuple, TypeVar

from agentscripts._schedule import Schedule

__all__ = ["Agenda", "Fire"]

K = TypeVar("K")

_WAITED_OUT: Final = timedelta(hours=3)
_MARGIN: Final = timedelta(seconds=1)


class Fire(NamedTuple, Generic[K]):
    """A schedule that is due.

    planned: its time, in UTC; the last one, when several have passed.
    missed: how many times before ``planned`` have passed and will not fire; of a long absence
        those of the first 31 days that have any.
    """

    key: K
    planned: datetime
    missed: int


@dataclasses.dataclass(slots=True)
class _Entry(Generic[K]):
    key: K
    schedule: Schedule
    jitter: float
    planned: datetime | None


class Agenda(Generic[K]):
    """Schedules by the time that they fire next.

    A fire costs the logarithm of how many schedules there are. All times have a time zone.

    When the clock goes forward, each schedule fires once at most for the times that it missed.
    When it goes back by 3 hours or less, fires wait until it is again where it was; when it goes
    back further, counted from the latest time that the agenda was told, all schedules start
    afresh.

    random: returns numbers from 0 to 1, without 1, for the jitter.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._entries: list[_Entry[K]] = []
        # Times with positions in the list, so that those due together come in the order added.
        self._heap: list[tuple[datetime, int]] = []
        self._latest: datetime | None = None

    def add(self, key: K, schedule: Schedule, now: datetime, *, jitter: float = 0.0) -> None:
        """Add a schedule, to fire for the first time after now.

        jitter: seconds that a fire may come late, each time anew; the last second before the next
            planned time is left free, or the last half of less than two.
        """
        self._notice(now)
        self._entries.append(_Entry(key, schedule, jitter, schedule.next_after(now)))
        self._push(len(self._entries) - 1)

    def next_time(self) -> datetime | None:
        """Return when to call ``pop_due``; ``None`` when nothing comes."""
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: datetime) -> list[Fire[K]]:
        """Return what is due, in order, and plan the next time of each."""
        self._notice(now)
        fires = []
        while self._heap and self._heap[0][0] <= now:
            _, position = heapq.heappop(self._heap)
            fires.append(self._fire(self._entries[position], now))
            self._push(position)
        return fires

    def _notice(self, now: datetime) -> None:
        """Take note of the time; start afresh when the clock went back too far to wait."""
        if self._latest is None or now >= self._latest:
            self._latest = now
        elif self._latest - now > _WAITED_OUT:
            self._latest = now
            self._heap.clear()
            for position, entry in enumerate(self._entries):
                entry.planned = entry.schedule.next_after(now)
                self._push(position)

    def _fire(self, entry: _Entry[K], now: datetime) -> Fire[K]:
        """Fire for the last planned time that has come; plan the first one that has not."""
        planned, missed = entry.planned, 0
        assert planned is not None
        entry.planned = entry.schedule.next_after(planned)
        if entry.planned is not None and entry.planned <= now:
            last = entry.schedule.latest(entry.planned, now)
            planned, missed = last, entry.schedule.count(planned, last)
            entry.planned = entry.schedule.next_after(last)
        return Fire(entry.key, planned, missed)

    def _push(self, position: int) -> None:
        entry = self._entries[position]
        if entry.planned is not None:
            due = entry.planned + self._delay(entry, entry.planned)
            heapq.heappush(self._heap, (due, position))

    def _delay(self, entry: _Entry[K], planned: datetime) -> timedelta:
        if not entry.jitter:
            return timedelta()
        longest = entry.jitter
        # A fire that came with the next planned time would count as a missed one. Waking up takes
        # its time, too, above all while another thread holds the GIL.
        following = entry.schedule.next_after(planned)
        if following is not None:
            gap = following - planned
            longest = min(longest, (gap - min(gap / 2, _MARGIN)).total_seconds())
        return timedelta(seconds=longest * self._random())
