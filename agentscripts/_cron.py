"""Cron expressions: what they mean, and which are refused. Reads no clock."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from agentscripts._schedule import LAST, Schedule, fires_after
from agentscripts._zones import find_zone, local_zone

__all__ = ["CronSyntax", "five_field_warning", "names_zone", "next_fires", "parse"]


class CronSyntax(StrEnum):
    """The order of an expression's fields.

    ``CODER``: ``second minute hour day-of-month month [day-of-week]``.
    ``UNIX``: ``minute hour day-of-month month day-of-week``, as in a crontab.
    """

    CODER = "coder"
    UNIX = "unix"


class _Field(NamedTuple):
    """What a field takes; ``column`` is where croniter reads it."""

    column: int
    low: int
    high: int
    expected: str


_FIELDS: Final[Mapping[str, _Field]] = {
    "second": _Field(0, 0, 59, "0-59"),
    "minute": _Field(0, 0, 59, "0-59"),
    "hour": _Field(1, 0, 23, "0-23"),
    "day-of-month": _Field(2, 1, 31, "1-31, L (the last)"),
    "month": _Field(3, 1, 12, "1-12, JAN-DEC"),
    "day-of-week": _Field(
        4, 0, 6, "0-7 (0 and 7 are Sunday), SUN-SAT, 5#2 (the second Friday), L5 (the last)"
    ),
}
_FORMS: Final = "alone or as *, a-b, */n, a/n, a-b/n (n > 0) or a list of those"
_UNIX: Final = tuple(_FIELDS)[1:]
_ALIASES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class _Items(NamedTuple):
    """What a text stands for: numbers in the order that a step counts them, and weekdays
    with their number in the month."""

    numbers: tuple[int, ...]
    nth: frozenset[tuple[int, int]] = frozenset()


def parse(expression: str, *, syntax: CronSyntax, timezone: tzinfo | None) -> Schedule:
    """Return the schedule that an expression stands for.

    timezone: ``None`` is UTC. ``TZ=`` or ``CRON_TZ=`` and a name before the fields replaces it.

    Raises ``TypeError`` or ``ValueError``; the text goes after the name of what holds the
    expression.
    """
    if not isinstance(expression, str):
        raise TypeError(f"is {expression!r}, expected str")
    zone, words = _split(expression)
    try:
        texts = _name_fields(words, syntax)
        items = {name: _read_field(name, text) for name, text in texts.items()}
        found_zone = timezone or UTC if zone is None else find_zone(zone)
    except ValueError as error:
        raise ValueError(f"is {expression!r} and {error}") from None
    bits = {name: sum(1 << number for number in set(one.numbers)) for name, one in items.items()}
    return Schedule(
        expression=expression,
        zone=found_zone,
        seconds=bits["second"],
        minutes=bits["minute"],
        hours=bits["hour"],
        days=bits["day-of-month"],
        months=bits["month"],
        weekdays=bits["day-of-week"],
        nth=items["day-of-week"].nth,
        any_day=not (_has_star(texts["day-of-month"]) or _has_star(texts["day-of-week"])),
        real_time=texts["hour"].startswith(("*", "?")),
    )


def next_fires(
    expression: str,
    after: datetime,
    count: int,
    *,
    syntax: CronSyntax = CronSyntax.CODER,
    timezone: tzinfo | None = None,
) -> list[datetime]:
    """Return the next fires of an expression after a moment, in UTC.

    after: with a time zone; from year 1 to 9999 also in UTC and in the expression's zone.
    count: how many; fewer come when there is none until the end of the fifth year after one, or of
        year 9999.
    timezone: of an expression that names none. Default: ``None``, the machine's.

    Raises ``TypeError`` or ``ValueError`` for what cannot be used, be it the machine's zone.
    """
    _check_preview(after, count, syntax, timezone)
    if timezone is None and not names_zone(expression):
        timezone = local_zone()
    try:
        schedule = parse(expression, syntax=CronSyntax(syntax), timezone=timezone)
    except (TypeError, ValueError) as error:
        raise type(error)(f"expression {error}") from None
    try:
        after.astimezone(UTC).astimezone(schedule.zone)
    except OverflowError:
        expected = (
            f"expected one from year 1 to 9999 also in UTC and in the time zone {schedule.zone}"
        )
        raise ValueError(f"after is {after!r}, {expected}") from None
    return fires_after(schedule, after, count)


def names_zone(expression: str) -> bool:
    """Return whether an expression has a time zone of its own; what is no text has none."""
    return isinstance(expression, str) and _split(expression)[0] is not None


def five_field_warning(expression: str, syntax: CronSyntax) -> str | None:
    """Return what to tell of an expression of five fields that is read with the second first."""
    zone, words = _split(expression)
    if syntax is not CronSyntax.CODER or len(words) != 5:
        return None
    prefix = "" if zone is None else f"TZ={zone} "
    text = " ".join(words)
    return (
        f"{expression!r} has 5 fields and is read with the second first, like "
        f"'{prefix}{text} *'; if the minute is to come first, write '{prefix}0 {text}'"
    )


def _check_preview(after: object, count: object, syntax: object, timezone: object) -> None:
    if not isinstance(after, datetime):
        raise TypeError(f"after is {after!r}, expected a datetime")
    if after.utcoffset() is None:
        raise ValueError(f"after is {after!r}, expected a datetime with a time zone")
    if isinstance(count, bool) or not isinstance(count, int):
        raise TypeError(f"count is {count!r}, expected an integer >= 0")
    if count < 0:
        raise ValueError(f"count is {count!r}, expected an integer >= 0")
    if syntax not in tuple(CronSyntax):
        raise ValueError(f"syntax is {syntax!r}, expected one of {', '.join(CronSyntax)}")
    if timezone is not None and not isinstance(timezone, tzinfo):
        raise TypeError(f"timezone is {timezone!r}, expected a tzinfo such as a ZoneInfo, or None")


def _split(expression: str) -> tuple[str | None, list[str]]:
    """Return the name of the zone, if there is one, and the fields."""
    words = expression.split()
    if words and words[0].startswith(("TZ=", "CRON_TZ=")):
        return words[0].partition("=")[2], words[1:]
    return None, words


def _name_fields(words: list[str], syntax: CronSyntax) -> dict[str, str]:
    if len(words) == 1 and words[0].startswith("@"):
        if words[0].lower() not in _ALIASES:
            raise ValueError(f"has the name {words[0]!r}, expected one of {', '.join(_ALIASES)}")
        words, syntax = _ALIASES[words[0].lower()].split(), CronSyntax.UNIX
    if syntax is CronSyntax.UNIX:
        if len(words) != 5:
            raise ValueError(f"has {_count(words)}, expected 5: {' '.join(_UNIX)}")
        return {"second": "0", **dict(zip(_UNIX, words, strict=True))}
    if len(words) not in (5, 6):
        *others, last = _FIELDS
        raise ValueError(f"has {_count(words)}, expected 5 or 6: {' '.join(others)} [{last}]")
    return dict(zip(_FIELDS, [*words, "*"], strict=False))


def _count(words: list[str]) -> str:
    return "1 field" if len(words) == 1 else f"{len(words)} fields"


def _read_field(name: str, text: str) -> _Items:
    items = []
    for item in text.split(","):
        try:
            items.append(_read_item(_FIELDS[name], item.lower().replace("?", "*")))
        except ValueError:
            expected = f"expected {_FIELDS[name].expected}, {_FORMS}"
            raise ValueError(f"has the {name} {item!r}, {expected}") from None
    numbers = (number for one in items for number in one.numbers)
    return _Items(tuple(numbers), frozenset().union(*(one.nth for one in items)))


def _read_item(field: _Field, text: str) -> _Items:
    """Read a number, a name, a range or ``*``, with or without a step."""
    if field is _FIELDS["day-of-month"] and re.match("[0-9]+-l", text):
        text = text.replace("l", "31")  # as croniter reads it, but for 31-L
    base, slash, step = text.partition("/")
    if not slash:
        return _read_range(field, base)
    if not (step.isascii() and step.isdecimal() and int(step)):
        raise ValueError(step)
    if base != "*" and "-" not in base:
        base = f"{base}-{field.high}"
    found = _read_range(field, base)
    if found.nth:
        raise ValueError(base)
    # Not by croniter: it counts the steps of a range that wraps (50-9/3) wrong.
    return _Items(found.numbers[:: int(step)])


def _read_range(field: _Field, text: str) -> _Items:
    found = _expand(field, text)
    start, dash, end = text.partition("-")
    if not dash or found.nth:
        return found
    first = _expand(field, start)
    # croniter takes 5-5 for the whole field. It is right about 0-7, Sunday to Sunday.
    if first == _expand(field, end) and (start == end or end != "7"):
        return first
    (low,) = first.numbers
    return _Items(tuple(sorted(found.numbers, key=lambda number: (number < low, number))))


@functools.lru_cache(maxsize=4096)  # croniter needs 30 µs, and most fields are "*" or "0"
def _expand(field: _Field, text: str) -> _Items:
    """Let croniter read an item without a step; it looks at five fields at once."""
    from croniter import croniter

    is_random = text.startswith(("h", "r"))
    # It tells of 15W, the weekday next to the 15th, only by a private method.
    is_nearest = field is _FIELDS["day-of-month"] and "w" in text
    # Version 6 takes the digits of all scripts.
    if is_random or is_nearest or not text.isascii():
        raise ValueError(text)
    words = ["*"] * 5
    words[field.column] = text
    expanded, nth = croniter.expand(" ".join(words))
    if nth:
        pairs = ((day, LAST if one == "l" else one) for day, all_ in nth.items() for one in all_)
        return _Items((), frozenset(pairs))
    if expanded[field.column] == ["*"]:
        return _Items(tuple(range(field.low, field.high + 1)))
    # Bit 0 of the days is the last one, which croniter calls "l".
    return _Items(tuple(0 if one == "l" else int(one) for one in expanded[field.column]))


def _has_star(text: str) -> bool:
    """Whether a field leaves its days to the other one; ``*/2`` does not, ``*/1`` does."""
    return any(
        base in ("*", "?") and step.lstrip("0") in ("", "1")
        for base, _, step in (item.partition("/") for item in text.split(","))
    )
