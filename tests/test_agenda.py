"""C2, C3: what fires, when the clock goes on, stands still, or is set."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscripts._agenda import Agenda, Fire
from agentscripts._cron import CronSyntax, parse
from agentscripts._schedule import Schedule

NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)  # a Monday
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def read(expression: str, zone: str = "UTC") -> Schedule:
    return parse(expression, syntax=CronSyntax.CODER, timezone=ZoneInfo(zone))


def make(
    *expressions: str, jitter: float = 0.0, uniform: Callable[[], float] = lambda: 0.0
) -> Agenda[str]:
    """Return an agenda with schedules, made at noon, whose keys are the expressions."""
    agenda: Agenda[str] = Agenda(uniform)
    for expression in expressions:
        agenda.add(expression, read(expression), NOON, jitter=jitter)
    return agenda


def wait(agenda: Agenda[str], until: datetime) -> list[Fire[str]]:
    """Let the time pass without a hitch: look at the agenda whenever it wants it."""
    fires: list[Fire[str]] = []
    while (due := agenda.next_time()) and due <= until:
        fires += agenda.pop_due(due)
    assert agenda.pop_due(until) == []
    return fires


HOURLY, QUARTERLY, DAILY = "0 0 * * * *", "0 */15 * * * *", "0 30 13 * * *"


# ---- the clock goes on ----


def test_fires_in_order() -> None:
    """C3: each schedule fires at its times, all of them in order."""
    agenda = make(HOURLY, DAILY)
    assert agenda.next_time() == NOON + HOUR
    assert wait(agenda, NOON + 2 * HOUR) == [
        Fire(HOURLY, NOON + HOUR, 0),
        Fire(DAILY, NOON + 1.5 * HOUR, 0),
        Fire(HOURLY, NOON + 2 * HOUR, 0),
    ]
    assert agenda.next_time() == NOON + 3 * HOUR


def test_nothing_comes_before_its_time() -> None:
    """C3: a look at the agenda before a time finds nothing, at that time it finds the fire."""
    agenda = make(HOURLY)
    assert agenda.pop_due(NOON) == []
    assert agenda.pop_due(NOON + HOUR - timedelta.resolution) == []
    assert agenda.pop_due(NOON + HOUR) == [Fire(HOURLY, NOON + HOUR, 0)]
    assert agenda.pop_due(NOON + HOUR) == []


def test_together_in_the_order_added() -> None:
    """C3: schedules that are due together come in the order in which they were added."""
    agenda: Agenda[int] = Agenda(lambda: 0.0)
    for key in (3, 1, 2):
        agenda.add(key, read(HOURLY), NOON)
    for hour in (1, 2):
        assert [fire.key for fire in agenda.pop_due(NOON + hour * HOUR)] == [3, 1, 2]


def test_late_is_not_missed() -> None:
    """C3: a fire that is popped late keeps its planned time, and so do those after it."""
    agenda = make(HOURLY)
    assert agenda.pop_due(NOON + 1.9 * HOUR) == [Fire(HOURLY, NOON + HOUR, 0)]
    assert agenda.next_time() == NOON + 2 * HOUR


def test_what_never_fires() -> None:
    """C3: a schedule without a next time is no trouble, and neither is an empty agenda."""
    agenda = make("0 0 0 30 2 *")
    assert agenda.next_time() is None
    assert agenda.pop_due(NOON + 1000 * DAY) == []
    assert Agenda[str](lambda: 0.0).pop_due(NOON) == []


def test_added_later() -> None:
    """C3: a schedule may come at any time, and fires after that one only."""
    agenda = make(HOURLY)
    agenda.add(QUARTERLY, read(QUARTERLY), NOON + HOUR + MINUTE)
    assert agenda.pop_due(NOON + HOUR + MINUTE) == [Fire(HOURLY, NOON + HOUR, 0)]
    assert agenda.pop_due(NOON + 1.25 * HOUR) == [Fire(QUARTERLY, NOON + 1.25 * HOUR, 0)]


@pytest.mark.slow
def test_a_year() -> None:
    """C3: 1,000 schedules fire as often in a year as the calendar says, each time in time."""
    start, end = datetime(2025, 12, 31, 23, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC)
    agenda: Agenda[int] = Agenda(lambda: 0.0)
    expected = {}
    for key, (expression, count) in enumerate(_year_of_schedules()):
        agenda.add(key, read(expression, "Europe/Berlin"), start - SECOND)
        expected[key] = count
    counts: Counter[int] = Counter()
    while (now := agenda.next_time()) and now < end:
        for fire in agenda.pop_due(now):
            assert (fire.planned, fire.missed) == (now, 0)
            counts[fire.key] += 1
    assert len(expected) == 1000
    assert counts == expected


def _year_of_schedules() -> list[tuple[str, int]]:
    """Return expressions, and how often they fire in 2026; the year begins on a Thursday."""
    daily = [(f"{n % 60} {n % 59} {n % 24} * * *", 365) for n in range(300)]
    weekly = [(f"0 {n % 60} 2 * * {n % 7}", 53 if n % 7 == 4 else 52) for n in range(300)]
    months = {29: 11, 30: 11, 31: 7}
    monthly = [(f"0 30 {n % 24} {n % 31 + 1} * *", months.get(n % 31 + 1, 12)) for n in range(310)]
    yearly = [(f"0 0 3 {n + 1} {n % 12 + 1} *", 1) for n in range(28)]
    either = [(f"0 {n} 0 13 * FRI", 61) for n in range(30)]  # 52 Fridays, 3 of them a 13th
    last = [(f"{n} 0 12 L * *", 12) for n in range(20)]
    hourly = [(f"0 {n} * * * *", 8760) for n in range(6)]
    every_four_hours = [(f"0 {n} 1-23/4 * * *", 2190) for n in range(6)]
    return [*daily, *weekly, *monthly, *yearly, *either, *last, *hourly, *every_four_hours]


# ---- the clock goes forward ----


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (
            2 * HOUR,
            [
                Fire(QUARTERLY, NOON + 2 * HOUR, 7),
                Fire(HOURLY, NOON + 2 * HOUR, 1),
                Fire(DAILY, NOON + 1.5 * HOUR, 0),
            ],
        ),
        (
            8 * HOUR + MINUTE,
            [
                Fire(QUARTERLY, NOON + 8 * HOUR, 31),
                Fire(HOURLY, NOON + 8 * HOUR, 7),
                Fire(DAILY, NOON + 1.5 * HOUR, 0),
            ],
        ),
        (
            3 * DAY + 1.5 * HOUR - SECOND,
            [
                Fire(QUARTERLY, NOON + 3 * DAY + 1.25 * HOUR, 3 * 96 + 4),
                Fire(HOURLY, NOON + 3 * DAY + HOUR, 3 * 24),
                Fire(DAILY, NOON + 2 * DAY + 1.5 * HOUR, 2),
            ],
        ),
    ],
    ids=["2 h", "8 h", "3 days"],
)
def test_suspend(away: timedelta, expected: list[Fire[str]]) -> None:
    """C3: after a suspend or a jump a schedule fires once, for the last time that it missed."""
    agenda = make(QUARTERLY, HOURLY, DAILY)
    assert agenda.pop_due(NOON + away) == expected
    assert agenda.pop_due(NOON + away) == []
    following = wait(agenda, NOON + away + DAY)
    assert len(following) == 96 + 24 + 1
    assert all(fire.planned > NOON + away and fire.missed == 0 for fire in following)


def test_56_years_forward() -> None:
    """C3: a machine that starts in 1970 and then learns the time fires once, and at once."""
    agenda: Agenda[str] = Agenda(lambda: 0.0)
    for expression in ("* * * * * *", HOURLY):
        agenda.add(expression, read(expression), datetime(1970, 1, 1, tzinfo=UTC))
    # Of so long a time the misses of 31 days are counted.
    assert agenda.pop_due(NOON) == [
        Fire("* * * * * *", NOON, 31 * 86400),
        Fire(HOURLY, NOON, 31 * 24),
    ]
    assert agenda.next_time() == NOON + SECOND


class Asked(NamedTuple):
    """A schedule that fires each second, and counts how often it is asked."""

    calls: list[str]

    def next_after(self, moment: datetime) -> datetime:
        self.calls.append("next_after")
        return moment.replace(microsecond=0) + SECOND

    def latest(self, fire: datetime, until: datetime) -> datetime:
        self.calls.append("latest")
        return until.replace(microsecond=0)

    def count(self, after: datetime, until: datetime) -> int:
        self.calls.append("count")
        return int((until - after) / SECOND)


def test_work_is_bounded() -> None:
    """C3: what is not due costs nothing, and a long absence costs as much as a short one."""
    calls: list[str] = []
    agenda: Agenda[int] = Agenda(lambda: 0.0)
    daily = read(DAILY)
    for key in range(10_000):
        agenda.add(key, daily, NOON)
    agenda.add(-1, Asked(calls), NOON)  # type: ignore[arg-type]
    calls.clear()
    agenda.pop_due(NOON + SECOND)
    assert calls == ["next_after"]
    calls.clear()
    assert agenda.pop_due(NOON + HOUR) == [Fire(-1, NOON + HOUR, 3598)]
    assert calls == ["next_after", "latest", "count", "next_after"]


# ---- the clock goes back ----


@pytest.mark.parametrize("step", [SECOND, 2 * HOUR, 3 * HOUR], ids=["1 s", "2 h", "3 h"])
def test_a_small_step_back_is_waited_out(step: timedelta) -> None:
    """C2: after a step back of 3 h at most nothing fires until the clock is where it was."""
    agenda = make(QUARTERLY)
    now = NOON + 4 * HOUR
    assert len(wait(agenda, now)) == 16
    assert agenda.pop_due(now - step) == []
    assert agenda.next_time() == now + 0.25 * HOUR
    assert wait(agenda, now + 0.5 * HOUR) == [
        Fire(QUARTERLY, now + 0.25 * HOUR, 0),
        Fire(QUARTERLY, now + 0.5 * HOUR, 0),
    ]


@pytest.mark.parametrize(
    ("step", "first"), [(3 * HOUR + SECOND, 13), (8 * HOUR, 9)], ids=["3 h 1 s", "8 h"]
)
def test_a_large_step_back_starts_afresh(step: timedelta, first: int) -> None:
    """C2: after a step back of more than 3 h all schedules go by the new time."""
    agenda = make(HOURLY, DAILY)
    now = NOON + 4 * HOUR
    wait(agenda, now)
    assert agenda.pop_due(now - step) == []
    fires = wait(agenda, now)
    hours = [fire.planned.hour for fire in fires if fire.key == HOURLY]
    assert hours == list(range(first, 17))
    assert [fire.planned for fire in fires if fire.key == DAILY] == [NOON + 1.5 * HOUR]
    assert all(fire.missed == 0 for fire in fires)


def test_steps_back_add_up() -> None:
    """C2: a step counts from the latest time there was, so no wait is longer than 3 h."""
    agenda = make(HOURLY)
    now = NOON + 5 * HOUR
    wait(agenda, now)
    assert agenda.pop_due(now - 2 * HOUR) == []
    assert agenda.next_time() == now + HOUR
    assert agenda.pop_due(now - 4 * HOUR) == []
    assert agenda.next_time() == now - 3 * HOUR


def test_forward_and_back() -> None:
    """C2, C3: a clock set 8 h wrong and right again costs one fire; 2 h wrong, a wait."""
    agenda = make(HOURLY)
    assert agenda.pop_due(NOON + 8 * HOUR) == [Fire(HOURLY, NOON + 8 * HOUR, 7)]
    assert agenda.pop_due(NOON) == []
    assert wait(agenda, NOON + HOUR) == [Fire(HOURLY, NOON + HOUR, 0)]
    assert agenda.pop_due(NOON + 3 * HOUR) == [Fire(HOURLY, NOON + 3 * HOUR, 1)]
    assert agenda.pop_due(NOON + HOUR) == []
    assert wait(agenda, NOON + 4 * HOUR) == [Fire(HOURLY, NOON + 4 * HOUR, 0)]


def test_back_brings_schedules_to_life() -> None:
    """C2: starting afresh holds for a schedule that had no next time, too."""
    agenda = make(HOURLY)
    agenda.add("leap", read("0 0 0 29 2 *"), datetime(2097, 1, 1, tzinfo=UTC))
    agenda.pop_due(datetime(2095, 1, 1, tzinfo=UTC))
    assert Fire("leap", datetime(2096, 2, 29, tzinfo=UTC), 0) in wait(
        agenda, datetime(2096, 3, 1, tzinfo=UTC)
    )


def test_back_by_an_addition() -> None:
    """C2: the time of an addition counts as well."""
    agenda = make(HOURLY)
    wait(agenda, NOON + 8 * HOUR)
    agenda.add(DAILY, read(DAILY), NOON)
    assert agenda.next_time() == NOON + HOUR


# ---- jitter ----


def test_jitter() -> None:
    """C3: a fire comes up to so many seconds after its time, which moves no other time."""
    delays = iter([0.5, 0.0, 0.999, 0.25])
    agenda = make(HOURLY, jitter=60, uniform=lambda: next(delays))
    for hour, delay in (1, 30), (2, 0), (3, 59.94):
        due = NOON + hour * HOUR + delay * SECOND
        assert agenda.next_time() == due
        assert agenda.pop_due(due - timedelta.resolution) == []
        assert agenda.pop_due(due) == [Fire(HOURLY, NOON + hour * HOUR, 0)]


def test_jitter_beyond_the_next_time() -> None:
    """C3: a fire never comes so late that the next one is due: none is missed for it."""
    agenda = make("0 * * * * *", jitter=3600, uniform=lambda: 1 - 2**-53)
    fires = wait(agenda, NOON + HOUR)
    assert fires == [Fire("0 * * * * *", NOON + n * MINUTE, 0) for n in range(1, 60)]


@pytest.mark.parametrize(
    ("expression", "gap", "late"),
    [("* * * * * *", SECOND, 0.49), ("*/2 * * * * *", 2 * SECOND, 0.99), (HOURLY, HOUR, 0.99)],
)
def test_jitter_and_a_late_wake_up(expression: str, gap: timedelta, late: float) -> None:
    """C3: a thread that wakes up late after the longest jitter has missed nothing."""
    agenda = make(expression, jitter=3600, uniform=lambda: 1 - 2**-53)
    for n in range(1, 10):
        due = agenda.next_time()
        assert due is not None
        assert NOON + n * gap < due < NOON + (n + 1) * gap
        assert agenda.pop_due(due + late * SECOND) == [Fire(expression, NOON + n * gap, 0)]


def test_jitter_after_a_suspend() -> None:
    """C3: with jitter, too, one fire makes up for all times that were missed."""
    agenda = make(QUARTERLY, jitter=600, uniform=random.Random(1).random)
    now = NOON + 8 * HOUR + MINUTE
    assert agenda.pop_due(now) == [Fire(QUARTERLY, NOON + 8 * HOUR, 31)]
    assert agenda.pop_due(now) == []
    following = agenda.next_time()
    assert following is not None
    assert now + 14 * MINUTE <= following < now + 24 * MINUTE


def test_jitter_is_uniform() -> None:
    """C3: the jitter takes the whole span, evenly."""
    agenda = make(HOURLY, jitter=100, uniform=random.Random(1).random)
    delays = []
    for _ in range(1000):
        due = agenda.next_time()
        assert due
        (fire,) = agenda.pop_due(due)
        delays.append((due - fire.planned) / SECOND)
    assert 0 <= min(delays) < 1
    assert 99 < max(delays) < 100
    assert 47 < sum(delays) / len(delays) < 53


# ---- any course of the clock ----

EXPRESSIONS = ["*/7 * * * * *", "0 */10 * * * *", HOURLY, DAILY, "0 0 0 * * MON", "0 0 3 1 * *"]
MOVES = st.one_of(
    st.timedeltas(timedelta(0), MINUTE),
    st.timedeltas(timedelta(0), 2 * HOUR),
    st.timedeltas(timedelta(0), 20 * DAY),
    st.timedeltas(-3 * HOUR, timedelta(0)),
    st.timedeltas(-5 * DAY, -3 * HOUR),
)


@pytest.mark.slow
@settings(derandomize=True, database=None, max_examples=100)
@given(
    expressions=st.lists(st.sampled_from(EXPRESSIONS), min_size=1, unique=True),
    moves=st.lists(MOVES, min_size=1, max_size=20),
    jitter=st.sampled_from([0.0, 5.0, 1000.0]),
    seed=st.integers(0, 1000),
)
def test_any_clock(
    expressions: list[str], moves: list[timedelta], jitter: float, seed: int
) -> None:
    """C2, C3: whatever the clock does, no fire comes before its time, twice, in a burst or
    outside its expression, and what is missed is counted."""
    agenda = make(*expressions, jitter=jitter, uniform=random.Random(seed).random)
    now = latest = NOON
    past = dict.fromkeys(expressions, NOON)  # up to when all fires are accounted for
    for move in moves:
        now += move
        if latest - now > 3 * HOUR:
            latest = now
            past = dict.fromkeys(expressions, now)
        latest = max(latest, now)
        fires = agenda.pop_due(now)
        assert len({fire.key for fire in fires}) == len(fires)
        for key, planned, missed in fires:
            schedule = read(key)
            assert past[key] < planned <= now
            assert schedule.next_after(planned - SECOND) == planned
            assert missed == schedule.count(past[key], planned) - 1
            past[key] = planned
        if not jitter:
            for key, moment in past.items():
                following = read(key).next_after(moment)
                assert following
                assert following > now
        due = agenda.next_time()
        assert due is None or due > now
