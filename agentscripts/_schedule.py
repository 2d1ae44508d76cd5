"""When a schedule fires: its fields as sets of bits, and the walk over them. Reads no clock."""

from __future__ import annotations

import bisect
import dataclasses
from datetime import MAXYEAR, UTC, datetime, timedelta, tzinfo
from typing import Final, NamedTuple

__all__ = ["LAST", "Schedule", "fires_after"]

LAST: Final = -1
"""In ``Schedule.nth``: the last such weekday of the month."""

_YEARS: Final = 5
_SECOND: Final = timedelta(seconds=1)
_DAY: Final = timedelta(days=1)
# Times a set of weekdays: the same set in each of the six weeks that a month may touch.
_WEEKS: Final = sum(1 << 7 * week for week in range(6))


class _Change(NamedTuple):
    """A change of a zone's clock: its time in UTC (naive), the offsets before and after it."""

    at: datetime
    before: timedelta
    after: timedelta

    @property
    def is_gap(self) -> bool:
        """Whether it leaves readings out; else they come twice."""
        return self.after > self.before

    @property
    def stops(self) -> datetime:
        """What the clock would read at the change, had it not come."""
        return self.at + self.before

    @property
    def resumes(self) -> datetime:
        """What the clock reads right after the change."""
        return self.at + self.after


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """A parsed expression in its time zone.

    The fields are sets of bits: bit 30 of ``minutes`` is minute 30. Bit 0 of ``days`` is the last
    day of a month, bit 0 of ``weekdays`` Sunday.

    nth: weekdays with their number in the month, 1 to 5 or ``LAST``.
    any_day: whether a day may match either of day-of-month and day-of-week; else it must match
        both.
    real_time: whether it fires at each moment whose local time matches. Else it follows the wall
        clock: local times that a change of the clock leaves out fire once, at its end, and those
        that come twice fire the first time only.
    """

    expression: str
    zone: tzinfo
    seconds: int
    minutes: int
    hours: int
    days: int
    months: int
    weekdays: int
    nth: frozenset[tuple[int, int]]
    any_day: bool
    real_time: bool

    def next_after(self, moment: datetime) -> datetime | None:
        """Return the first fire after a moment, in UTC.

        ``None`` when none comes until the end of the fifth calendar year after that moment's, or
        of year 9999, in UTC or in the schedule's zone.
        """
        if moment.tzinfo is None:
            raise ValueError(f"moment is {moment!r}, expected a datetime with a time zone")
        try:
            return self._next_after(moment)
        except OverflowError:  # a datetime has no year 10000
            return None

    def _next_after(self, moment: datetime) -> datetime | None:
        local = moment.astimezone(self.zone)
        reading = local.replace(tzinfo=None, microsecond=0, fold=0)
        # A moment is never in a gap, so this is a change by which its reading comes twice.
        twice = _change_around(self.zone, reading)
        if self.real_time:
            fire = self._next_in_real_time(reading, twice, local.fold)
        else:
            fire = self._next_by_wall_clock(
                twice.stops - _SECOND if twice and local.fold else reading
            )
        return fire and fire.replace(tzinfo=UTC)

    def _next_by_wall_clock(self, reading: datetime) -> datetime | None:
        found = self._next_reading(reading)
        if not found:
            return None
        change = _change_around(self.zone, found)
        if change and change.is_gap:
            return change.at
        return found - _offset(self.zone, found)

    def _next_in_real_time(
        self, reading: datetime, twice: _Change | None, fold: int
    ) -> datetime | None:
        found = self._next_reading(reading)
        if twice and not fold:
            if found and found < twice.stops:
                return found - twice.before
            found = self._next_reading(twice.resumes - _SECOND)
        if twice and found and found < twice.stops:
            return found - twice.after
        while found:
            change = _change_around(self.zone, found)
            if not (change and change.is_gap):
                return found - _offset(self.zone, found)
            found = self._next_reading(change.resumes - _SECOND)
        return None

    def latest(self, fire: datetime, until: datetime) -> datetime:
        """Return the last fire up to a moment; ``fire`` is one that is not after it."""
        # Halving the time between takes 31 steps for 56 years: a machine whose clock has no
        # battery starts in 1970.
        seconds = range(int((until - fire) / _SECOND))

        def is_last(second: int) -> bool:
            following = self.next_after(fire + second * _SECOND)
            return following is None or following > until

        return fire + bisect.bisect_left(seconds, True, key=is_last) * _SECOND

    def count(self, after: datetime, until: datetime, *, days: int = 31) -> int:
        """Return how many fires there are in ``(after, until]``.

        days: of 24 hours that have fires; those after so many are not counted. A day costs the
            same for all schedules, unless the zone's clock changes in it.
        """
        total = 0
        for _ in range(days):
            fire = self.next_after(after)
            if fire is None or fire > until:
                break
            start, after = fire - _SECOND, min(fire - _SECOND + _DAY, until)
            total += self._count_in_day(start, after)
        return total

    def _count_in_day(self, after: datetime, until: datetime) -> int:
        start, end = after.astimezone(self.zone), until.astimezone(self.zone)
        if start.utcoffset() == end.utcoffset():
            days = (end.date() - start.date()).days
            whole = self._rank(start.replace(hour=23, minute=59, second=59))
            return days * whole - self._rank(start) + self._rank(end)
        total = 0
        while (fire := self.next_after(after)) and fire <= until:
            total, after = total + 1, fire
        return total

    def _rank(self, reading: datetime) -> int:
        """Return how many matches its day has up to a reading."""
        if not _has(self._days_of(reading.year, reading.month), reading.day):
            return 0
        minutes = _below(self.hours, reading.hour) * self.minutes.bit_count()
        seconds = 0
        if _has(self.hours, reading.hour):
            minutes += _below(self.minutes, reading.minute)
            if _has(self.minutes, reading.minute):
                seconds = _below(self.seconds, reading.second + 1)
        return minutes * self.seconds.bit_count() + seconds

    def _next_reading(self, reading: datetime) -> datetime | None:
        """Return the first match after a reading of the clock, as if the clock never changed."""
        # croniter's get_next takes 20 to 180 µs where next_after takes 7 to 15, and goes by rules
        # of its own where the clock changes; so croniter only reads the expression.
        year, month, day = reading.year, reading.month, reading.day
        days = self._days_of(year, month)
        if _has(days, day) and (time := self._next_time(reading)):
            return datetime(year, month, day, *time)
        day = _first(days, day + 1)
        while day < 0:
            month = _first(self.months, month + 1)
            if month < 0:
                year, month = year + 1, _first(self.months, 1)
                if year > min(reading.year + _YEARS, MAXYEAR):
                    return None
            day = _first(self._days_of(year, month), 1)
        return datetime(
            year, month, day, _first(self.hours), _first(self.minutes), _first(self.seconds)
        )

    def _next_time(self, reading: datetime) -> tuple[int, int, int] | None:
        """Return the hour, minute and second of the next match on the reading's day."""
        hour, minute = reading.hour, reading.minute
        if _has(self.hours, hour):
            if _has(self.minutes, minute):
                second = _first(self.seconds, reading.second + 1)
                if second >= 0:
                    return hour, minute, second
            minute = _first(self.minutes, minute + 1)
            if minute >= 0:
                return hour, minute, _first(self.seconds)
        hour = _first(self.hours, hour + 1)
        return None if hour < 0 else (hour, _first(self.minutes), _first(self.seconds))

    def _days_of(self, year: int, month: int) -> int:
        """Return the set of days of a month that match."""
        if not _has(self.months, month):
            return 0
        import calendar  # it takes 2 ms, which who has no schedules need not pay

        monday_based, length = calendar.monthrange(year, month)
        first = (monday_based + 1) % 7
        by_date = self.days | _has(self.days, 0) << length
        by_weekday = (self.weekdays * _WEEKS >> first) << 1
        for weekday, number in self.nth:
            day = (weekday - first) % 7 + 1
            weeks = (length - day) // 7
            by_weekday |= 1 << day + 7 * (weeks if number == LAST else number - 1)
        matching = by_date | by_weekday if self.any_day else by_date & by_weekday
        return matching & (2 << length) - 2


def _has(bits: int, number: int) -> bool:
    return bool(bits >> number & 1)


def _first(bits: int, start: int = 0) -> int:
    """Return the smallest number of a set from ``start`` on, -1 when there is none."""
    rest = bits >> start
    return start + (rest & -rest).bit_length() - 1 if rest else -1


def _below(bits: int, number: int) -> int:
    """Return how many numbers of a set are smaller."""
    return (bits & (1 << number) - 1).bit_count()


def _offset(zone: tzinfo, reading: datetime) -> timedelta:
    return zone.utcoffset(reading) or timedelta()


def _change_around(zone: tzinfo, reading: datetime) -> _Change | None:
    """Return the change of a zone's clock that leaves out a reading, or brings it twice."""
    # PEP 495: fold=0 asks for the offset before the change in both cases.
    before, after = _offset(zone, reading), _offset(zone, reading.replace(fold=1))
    if before == after:
        return None
    start = (reading - max(before, after)).replace(tzinfo=zone)
    seconds = range(int(abs(after - before) / _SECOND))

    def has_come(second: int) -> bool:
        return zone.fromutc(start + second * _SECOND).utcoffset() != before

    second = bisect.bisect_left(seconds, True, key=has_come)
    return _Change(start.replace(tzinfo=None) + second * _SECOND, before, after)


def fires_after(schedule: Schedule, after: datetime, count: int) -> list[datetime]:
    """Return the next fires, in UTC; fewer when there are no more within five years."""
    fires: list[datetime] = []
    while len(fires) < count and (fire := schedule.next_after(fires[-1] if fires else after)):
        fires.append(fire)
    return fires
