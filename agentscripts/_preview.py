"""When schedules fire, in words that a person reads. Reads no clock: the time is passed in."""

from __future__ import annotations

from datetime import datetime

from agentscripts._schedule import Schedule

__all__ = ["fire_text", "in_words"]

_MINUTE, _HOUR, _DAY = 60, 60 * 60, 24 * 60 * 60


def in_words(seconds: float) -> str:
    """Return ``now``, ``in 12 s``, ``in 3 min 12 s``, ``in 2 h 5 min`` or ``in 4 days``.

    Two units at most, rounded to the smaller one; a second one that is 0 is left out.
    """
    total = round(seconds)
    if total < 1:
        return "now"
    if total < _HOUR:
        return _join(divmod(total, _MINUTE), ("min", "min"), "s")
    minutes = round(seconds / _MINUTE)
    if minutes * _MINUTE < _DAY:
        return _join(divmod(minutes, 60), ("h", "h"), "min")
    return _join(divmod(round(seconds / _HOUR), 24), ("day", "days"), "h")


def _join(counts: tuple[int, int], larger: tuple[str, str], smaller: str) -> str:
    """larger: the unit of one, and of several."""
    first, second = counts
    parts = [f"{first} {larger[first > 1]}"] if first else []
    parts += [f"{second} {smaller}"] if second else []
    return f"in {' '.join(parts)}"


def fire_text(schedule: Schedule, fire: datetime, now: datetime) -> str:
    """Return a fire as ``Sun 2026-03-29 03:00:00 +02:00  in 3 min 12 s``.

    The time is that of the schedule's zone.
    """
    local = fire.astimezone(schedule.zone)
    # Not by strftime, whose weekdays follow the locale.
    weekday = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[local.weekday()]
    time, offset = local.isoformat(" ", "seconds")[:19], local.isoformat()[19:]
    return f"{weekday} {time} {offset}  {in_words((fire - now).total_seconds())}"
