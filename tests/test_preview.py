"""When schedules fire, in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from agentscripts._cron import CronSyntax, parse
from agentscripts._preview import fire_text, in_words
from agentscripts._schedule import fires_after

_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "now"),
        (0, "now"),
        (0.4, "now"),
        (0.6, "in 1 s"),
        (12, "in 12 s"),
        (59.4, "in 59 s"),
        (59.6, "in 1 min"),
        (3 * _MINUTE + 12, "in 3 min 12 s"),
        (3 * _MINUTE, "in 3 min"),
        (_HOUR - 1, "in 59 min 59 s"),
        (_HOUR - 0.4, "in 1 h"),
        (_HOUR, "in 1 h"),
        (2 * _HOUR + 5 * _MINUTE, "in 2 h 5 min"),
        (2 * _HOUR + 5 * _MINUTE + 29, "in 2 h 5 min"),
        (2 * _HOUR - 10, "in 2 h"),
        (_DAY - 31, "in 23 h 59 min"),
        (_DAY - 10, "in 1 day"),
        (_DAY, "in 1 day"),
        (_DAY + 3 * _HOUR, "in 1 day 3 h"),
        (4 * _DAY, "in 4 days"),
        (4 * _DAY - 10, "in 4 days"),
        (4 * _DAY + 2 * _HOUR, "in 4 days 2 h"),
        (400 * _DAY, "in 400 days"),
    ],
)
def test_in_words(seconds: float, words: str) -> None:
    """Preview: two units at most, rounded to the smaller one, and never 60 of one."""
    assert in_words(seconds) == words


def test_fire_text() -> None:
    """Preview: a time is the schedule's zone's, with the offset that holds then."""
    berlin = ZoneInfo("Europe/Berlin")
    schedule = parse("0 30 2 * * *", syntax=CronSyntax.CODER, timezone=berlin)
    now = datetime(2026, 3, 28, 1, 26, 48, tzinfo=UTC)
    fires = fires_after(schedule, now, 2)
    assert [fire_text(schedule, fire, now) for fire in fires] == [
        "Sat 2026-03-28 02:30:00 +01:00  in 3 min 12 s",
        "Sun 2026-03-29 03:00:00 +02:00  in 23 h 33 min",
    ]


def test_fires_after() -> None:
    """Preview: fewer fires come where there are no more, and none is the moment itself."""
    never = parse("0 0 0 30 2 *", syntax=CronSyntax.CODER, timezone=UTC)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert fires_after(never, now, 5) == []
    each = parse("* * * * * *", syntax=CronSyntax.CODER, timezone=UTC)
    assert fires_after(each, now, 2) == [now + timedelta(seconds=one) for one in (1, 2)]
