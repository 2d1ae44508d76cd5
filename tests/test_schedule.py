"""C1, C2: when a schedule fires, and what it does when a zone's clock changes."""

from __future__ import annotations

import dataclasses
import pickle
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentscripts._cron import CronSyntax, parse
from agentscripts._schedule import Schedule

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def read(expression: str, zone: str) -> Schedule:
    return parse(expression, syntax=CronSyntax.CODER, timezone=ZoneInfo(zone))


def fires(schedule: Schedule, after: datetime, until: datetime) -> list[datetime]:
    """Return the fires in ``(after, until]``."""
    found: list[datetime] = []
    while (fire := schedule.next_after(found[-1] if found else after)) and fire <= until:
        found.append(fire)
    return found


BERLIN, NEW_YORK, LORD_HOWE, SAO_PAULO, APIA = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Pacific/Apia",
)

# From one local time to another, what fires. The offsets tell the two passes of a fold apart.
CHANGES = [
    # Berlin, 29 March: 02:00 is followed by 03:00.
    (
        BERLIN,
        ("2026-03-29T01:00+01:00", "2026-03-30T02:59+02:00"),
        {
            "0 15 2 * * *": "03-29T03:00+02:00 03-30T02:15+02:00",
            "0 0 2 * * *": "03-29T03:00+02:00 03-30T02:00+02:00",
            "0 59 1 * * *": "03-29T01:59+01:00 03-30T01:59+02:00",
            "0 0 3 * * *": "03-29T03:00+02:00",
            "0 0 2,3 * * *": "03-29T03:00+02:00 03-30T02:00+02:00",
            "0 0 2-4 29 3 *": "03-29T03:00+02:00 03-29T04:00+02:00",
            "0 */20 1-3 29 3 *": "03-29T01:20+01:00 03-29T01:40+01:00 03-29T03:00+02:00 "
            "03-29T03:20+02:00 03-29T03:40+02:00",
            "0 30 2 29 3 *": "03-29T03:00+02:00",
        },
    ),
    (
        BERLIN,
        ("2026-03-29T00:30+01:00", "2026-03-29T06:00+02:00"),
        {
            "0 0 * * * *": "03-29T01:00+01:00 03-29T03:00+02:00 03-29T04:00+02:00 "
            "03-29T05:00+02:00 03-29T06:00+02:00",
            "0 30 */2 * * *": "03-29T04:30+02:00",
            "0 0 0-23 * * *": "03-29T01:00+01:00 03-29T03:00+02:00 03-29T04:00+02:00 "
            "03-29T05:00+02:00 03-29T06:00+02:00",
        },
    ),
    # Berlin, 25 October: 02:59:59 is followed by 02:00.
    (
        BERLIN,
        ("2026-10-25T01:00+02:00", "2026-10-26T02:59+01:00"),
        {
            "0 15 2 * * *": "10-25T02:15+02:00 10-26T02:15+01:00",
            "0 0 2 * * *": "10-25T02:00+02:00 10-26T02:00+01:00",
            "0 0 3 * * *": "10-25T03:00+01:00",
            "0 30 1-3 25 10 *": "10-25T01:30+02:00 10-25T02:30+02:00 10-25T03:30+01:00",
            "59 59 2 * * *": "10-25T02:59:59+02:00",
        },
    ),
    (
        BERLIN,
        ("2026-10-25T01:00+02:00", "2026-10-25T04:00+01:00"),
        {
            "0 0 * * * *": "10-25T02:00+02:00 10-25T02:00+01:00 10-25T03:00+01:00 "
            "10-25T04:00+01:00",
            "0 30 */2 * * *": "10-25T02:30+02:00 10-25T02:30+01:00",
            "0 0,59 * * * *": "10-25T01:59+02:00 10-25T02:00+02:00 10-25T02:59+02:00 "
            "10-25T02:00+01:00 10-25T02:59+01:00 10-25T03:00+01:00 10-25T03:59+01:00 "
            "10-25T04:00+01:00",
        },
    ),
    # Between the passes.
    (
        BERLIN,
        ("2026-10-25T02:30:00.5+02:00", "2026-10-25T03:00+01:00"),
        {
            "0 15 2 * * *": "",
            "0 0 */3 * * *": "10-25T03:00+01:00",
            "0 15 * * * *": "10-25T02:15+01:00",
            "0 0 * * * *": "10-25T02:00+01:00 10-25T03:00+01:00",
            "0 0 3 * * *": "10-25T03:00+01:00",
        },
    ),
    # In the second pass.
    (
        BERLIN,
        ("2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"),
        {
            "0 45 2 * * *": "",
            "0 45 * * * *": "10-25T02:45+01:00",
            "0 */45 2-3 * * *": "10-25T03:00+01:00",
        },
    ),
    # New York, 8 March: 02:00 is followed by 03:00.
    (
        NEW_YORK,
        ("2026-03-08T00:59-05:00", "2026-03-09T02:59-04:00"),
        {
            "0 30 2 * * *": "03-08T03:00-04:00 03-09T02:30-04:00",
            "0 30 1 * * SUN": "03-08T01:30-05:00",
            "0 30 * 8 3 *": "03-08T01:30-05:00 "
            + " ".join(f"03-08T{hour:02}:30-04:00" for hour in range(3, 24)),
        },
    ),
    # New York, 1 November: 01:59:59 is followed by 01:00.
    (
        NEW_YORK,
        ("2026-11-01T00:59-04:00", "2026-11-02T01:59-05:00"),
        {
            "0 30 1 * * *": "11-01T01:30-04:00 11-02T01:30-05:00",
            "0 0 2 * * *": "11-01T02:00-05:00",
            "0 30 * 1 11 *": "11-01T01:30-04:00 11-01T01:30-05:00 "
            + " ".join(f"11-01T{hour:02}:30-05:00" for hour in range(2, 24)),
        },
    ),
    # Lord Howe, 5 April: 01:59:59 is followed by 01:30.
    (
        LORD_HOWE,
        ("2026-04-05T00:59+11:00", "2026-04-05T03:00+10:30"),
        {
            "0 15,45 1 * * *": "04-05T01:15+11:00 04-05T01:45+11:00",
            "0 15,45 * * * *": "04-05T01:15+11:00 04-05T01:45+11:00 04-05T01:45+10:30 "
            "04-05T02:15+10:30 04-05T02:45+10:30",
            "0 0 2 * * *": "04-05T02:00+10:30",
            "0 30 1 * * *": "04-05T01:30+11:00",
        },
    ),
    # Lord Howe, 4 October: 02:00 is followed by 02:30.
    (
        LORD_HOWE,
        ("2026-10-04T00:59+10:30", "2026-10-04T03:00+11:00"),
        {
            "0 15 2 * * *": "10-04T02:30+11:00",
            "0 15,45 2 * * *": "10-04T02:30+11:00 10-04T02:45+11:00",
            "0 15,45 * * * *": "10-04T01:15+10:30 10-04T01:45+10:30 10-04T02:45+11:00",
            "0 0 2 * * *": "10-04T02:30+11:00",
        },
    ),
    # São Paulo 2018, 18 February: 23:59:59 of the 17th is followed by 23:00.
    (
        SAO_PAULO,
        ("2018-02-17T22:59-02:00", "2018-02-18T23:59-03:00"),
        {
            "0 30 23 * * *": "02-17T23:30-02:00 02-18T23:30-03:00",
            "0 0 0 * * *": "02-18T00:00-03:00",
            "0 30 * 17 2 *": "02-17T23:30-02:00 02-17T23:30-03:00",
        },
    ),
    # São Paulo 2018, 4 November: the day begins at 01:00.
    (
        SAO_PAULO,
        ("2018-11-03T22:59-03:00", "2018-11-05T00:59-02:00"),
        {
            "0 0 0 * * *": "11-04T01:00-02:00 11-05T00:00-02:00",
            "0 30 0 4 11 *": "11-04T01:00-02:00",
            "0 0 0,1 4 * *": "11-04T01:00-02:00",
            "0 30 * 3-4/2 11 *": "11-03T23:30-03:00",
            "0 30 */12 * * *": "11-04T12:30-02:00 11-05T00:30-02:00",
        },
    ),
    # Apia had no 30 December 2011.
    (
        APIA,
        ("2011-12-29T23:00-10:00", "2012-01-01T00:00+14:00"),
        {
            "0 0 12 * * *": "12-31T00:00+14:00 12-31T12:00+14:00",
            "0 0 12 30 12 *": "12-31T00:00+14:00",
            "0 0 */12 * * *": "12-31T00:00+14:00 12-31T12:00+14:00 01-01T00:00+14:00",
        },
    ),
]


@pytest.mark.parametrize(
    ("zone", "span", "expression", "expected"),
    [
        pytest.param(zone, span, expression, expected, id=f"{zone} {span[0]} {expression}")
        for zone, span, table in CHANGES
        for expression, expected in table.items()
    ],
)
def test_changes_of_the_clock(
    zone: str, span: tuple[str, str], expression: str, expected: str
) -> None:
    """C2: real time is followed through a change, or the wall clock: a gap's times fire once, at
    its end, and a fold's only in its first pass."""
    after, until = map(datetime.fromisoformat, span)
    found = fires(read(expression, zone), after, until)
    assert " ".join(short(fire.astimezone(ZoneInfo(zone))) for fire in found) == expected


def short(local: datetime) -> str:
    return local.isoformat(timespec="seconds" if local.second else "minutes")[5:]


def test_after_is_not_counted() -> None:
    """C1: the next fire is after the moment, be it within the second or in another zone."""
    schedule = read("* * * * * *", "UTC")
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert schedule.next_after(moment) == moment + SECOND
    assert schedule.next_after(moment + SECOND - timedelta.resolution) == moment + SECOND
    assert schedule.next_after(moment.astimezone(ZoneInfo("Asia/Kolkata"))) == moment + SECOND
    with pytest.raises(ValueError, match=r"^moment is .*, expected a datetime with a time zone$"):
        schedule.next_after(moment.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 0 29 2 *", "2096-03-01", None),  # 2104 is the next leap year
        ("0 0 0 29 2 *", "2099-01-01", "2104-02-29"),
        ("0 0 0 29 2 *", "2098-12-31", None),
        ("0 0 0 31 2,4,6,9,11 *", "2026-01-01", None),
        ("0 0 0 29 2 MON", "2026-01-01", "2026-02-02"),
        ("0 0 0 * * *", "9999-12-31", None),
        ("0 0 0 1 1 *", "9997-01-01", "9998-01-01"),
    ],
)
def test_five_years(expression: str, after: str, expected: str | None) -> None:
    """C1: what does not come until the end of the fifth year from now never comes."""
    found = read(expression, "UTC").next_after(datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert (found and f"{found:%Y-%m-%d}") == expected


def test_it_is_a_value() -> None:
    """API: schedules compare, hash, pickle and are frozen."""
    one, two = (read("0 0 9 * * 5#2", BERLIN) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.hours = 0  # type: ignore[misc]


# ---- against brute force ----


@dataclasses.dataclass(frozen=True)
class Sample:
    """An expression, and what its fields were made from."""

    text: str
    seconds: frozenset[int]
    minutes: frozenset[int]
    hours: frozenset[int]
    weekdays: frozenset[int]
    real_time: bool

    def matches(self, reading: datetime) -> bool:
        return (
            reading.second in self.seconds
            and reading.minute in self.minutes
            and reading.hour in self.hours
            and reading.isoweekday() % 7 in self.weekdays
        )


def _field(size: int) -> st.SearchStrategy[tuple[str, frozenset[int]]]:
    """Fields of all forms, with the numbers that they stand for."""
    numbers, steps = st.integers(0, size - 1), st.integers(1, size)

    def stepped(first: int, last: int, step: int) -> tuple[str, frozenset[int]]:
        low, high = min(first, last), max(first, last)
        return f"{low}-{high}/{step}", frozenset(range(low, high + 1, step))

    def listed(chosen: list[int]) -> tuple[str, frozenset[int]]:
        return ",".join(map(str, chosen)), frozenset(chosen)

    return st.one_of(
        st.just(("*", frozenset(range(size)))),
        st.builds(lambda step: (f"*/{step}", frozenset(range(0, size, step))), steps),
        st.builds(
            lambda low, step: (f"{low}/{step}", frozenset(range(low, size, step))),
            numbers,
            steps,
        ),
        st.builds(stepped, numbers, numbers, steps),
        st.builds(listed, st.lists(numbers, min_size=1, max_size=4)),
    )


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    second, minute, hour = draw(_field(60)), draw(_field(60)), draw(_field(24))
    weekday = draw(st.one_of(st.just(("*", frozenset(range(7)))), _field(7)))
    text = f"{second[0]} {minute[0]} {hour[0]} * * {weekday[0]}"
    sets = (second[1], minute[1], hour[1], weekday[1])
    return Sample(text, *sets, real_time=hour[0].startswith("*"))


# A moment near each change of the clocks, in UTC.
MOMENTS = [
    (BERLIN, datetime(2026, 3, 29, 1, tzinfo=UTC)),
    (BERLIN, datetime(2026, 10, 25, 1, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 3, 8, 7, tzinfo=UTC)),
    (NEW_YORK, datetime(2026, 11, 1, 6, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 4, 4, 15, tzinfo=UTC)),
    (LORD_HOWE, datetime(2026, 10, 3, 15, 30, tzinfo=UTC)),
    (SAO_PAULO, datetime(2018, 2, 18, 2, tzinfo=UTC)),
    (SAO_PAULO, datetime(2018, 11, 4, 3, tzinfo=UTC)),
    ("Asia/Kolkata", datetime(2026, 12, 31, 18, 30, tzinfo=UTC)),
]


def brute_force(
    sample: Sample, zone: ZoneInfo, after: datetime, until: datetime
) -> Iterator[datetime]:
    """Yield the fires in ``(after, until]``, by a look at each second."""
    moment = after
    before = moment.astimezone(zone).replace(tzinfo=None)
    while (moment := moment + SECOND) <= until:
        local = moment.astimezone(zone)
        reading = local.replace(tzinfo=None)
        left_out = int((reading - before) / SECOND)
        if sample.real_time:
            due = sample.matches(reading)
        else:
            readings = (reading - n * SECOND for n in range(max(left_out, 1)))
            due = not local.fold and any(map(sample.matches, readings))
        if due:
            yield moment
        before = reading


REPRODUCIBLE = settings(derandomize=True, database=None)


@pytest.mark.slow
@settings(REPRODUCIBLE, max_examples=60)
@given(sample=samples(), place=st.sampled_from(MOMENTS), offset=st.integers(-5400, 3600))
def test_against_brute_force(sample: Sample, place: tuple[str, datetime], offset: int) -> None:
    """C1, C2: it fires at exactly the seconds that the expression and the zone's clock give."""
    zone, change = place
    after = change + offset * SECOND
    until = after + 1.5 * HOUR
    expected = list(brute_force(sample, ZoneInfo(zone), after, until))
    assert fires(read(sample.text, zone), after, until) == expected


@pytest.mark.slow
@settings(REPRODUCIBLE, max_examples=100)
@given(
    sample=samples(),
    place=st.sampled_from(MOMENTS),
    start=st.timedeltas(-400 * DAY, 400 * DAY),
    count=st.integers(1, 30),
)
def test_a_fire_is_of_the_expression(
    sample: Sample, place: tuple[str, datetime], start: timedelta, count: int
) -> None:
    """C1: each fire is after the one before, and one of the expression (or at a gap's end)."""
    zone, change = place
    schedule = read(sample.text, zone)
    moment = change + start
    for _ in range(count):
        fire = schedule.next_after(moment)
        assert fire is not None
        assert fire > moment
        reading = fire.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        before = (fire - SECOND).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
        assert sample.matches(reading) or (not sample.real_time and reading - before > SECOND)
        moment = fire


@pytest.mark.slow
@settings(REPRODUCIBLE, max_examples=100)
@given(
    sample=samples(),
    place=st.sampled_from(MOMENTS),
    start=st.timedeltas(-2 * DAY, 2 * DAY),
    many=st.integers(0, 300),
    extra=st.timedeltas(timedelta(0), HOUR),
)
def test_count_and_latest(
    sample: Sample, place: tuple[str, datetime], start: timedelta, many: int, extra: timedelta
) -> None:
    """C3: what is counted without a look at each fire is what a look at each gives."""
    zone, change = place
    schedule = read(sample.text, zone)
    after = change + start
    first = until = schedule.next_after(after)
    for _ in range(many):
        until = until and schedule.next_after(until)
    assert first
    assert until
    until += extra
    found = fires(schedule, after, until)
    days = (until - after).days + 2
    assert schedule.count(after, until, days=days) == len(found)
    assert schedule.latest(first, until) == found[-1]


def test_count_of_a_long_time() -> None:
    """C3: the count ends after 31 days that have fires, so 56 years take no longer."""
    start, end = datetime(1970, 1, 1, tzinfo=UTC), datetime(2026, 6, 1, tzinfo=UTC)
    assert read("* * * * * *", "UTC").count(start, end) == 31 * 86400
    assert read("0 0 * * * *", "UTC").count(start, end) == 31 * 24
    assert read("0 0 0 1 1 *", "UTC").count(start, end) == 31
    assert read("0 0 0 1 1 *", "UTC").count(start, end, days=100) == 56
    assert read("0 0 0 1 1 *", "UTC").latest(datetime(1971, 1, 1, tzinfo=UTC), end) == datetime(
        2026, 1, 1, tzinfo=UTC
    )


def test_a_year_in_berlin() -> None:
    """C2: in a year the wall clock's times come as often as the calendar has them."""
    start, end = (datetime(year, 1, 1, tzinfo=ZoneInfo(BERLIN)) for year in (2026, 2027))
    source = random.Random(1)
    for _ in range(10):
        hour, minute = source.randrange(24), source.randrange(60)
        schedule = read(f"0 {minute} {hour} * * *", BERLIN)
        assert len(fires(schedule, start - SECOND, end - SECOND)) == 365
    hourly = read("0 0 * * * *", BERLIN)
    assert len(fires(hourly, start - SECOND, end - SECOND)) == 365 * 24
