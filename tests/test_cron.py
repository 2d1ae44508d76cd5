"""C1: what a cron expression means, and which are refused."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agentscripts._cron import CronSyntax, five_field_warning, next_fires, parse
from agentscripts._schedule import Schedule

BERLIN = ZoneInfo("Europe/Berlin")
WEST, EAST = timezone(timedelta(hours=-1)), timezone(timedelta(hours=1))
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def vectors() -> list[Any]:
    path = Path(__file__).with_name("cron_vectors.tsv")
    lines = [one for one in path.read_text().splitlines() if not one.startswith("#")]
    return [pytest.param(*one.split("\t"), id=f"{i}: {one}"[:60]) for i, one in enumerate(lines)]


def read(expression: str, syntax: CronSyntax = CronSyntax.CODER, zone: tzinfo = UTC) -> Schedule:
    return parse(expression, syntax=syntax, timezone=zone)


def members(bits: int) -> list[int]:
    return [number for number in range(bits.bit_length()) if bits >> number & 1]


@pytest.mark.parametrize(("expression", "after", "zone", "expected"), vectors())
def test_vectors(expression: str, after: str, zone: str, expected: str) -> None:
    """C1: the fire times and the refusals are those of coder's parser."""
    start = datetime.fromisoformat(after).replace(tzinfo=ZoneInfo(zone))
    try:
        fires = next_fires(expression, start, 5, timezone=start.tzinfo)
    except ValueError:
        assert expected == "ERR"
        return
    local = [fire.astimezone(start.tzinfo).isoformat() for fire in fires]
    assert " ".join(local) == ("" if expected == "NONE" else expected)
    assert all(fire.tzinfo is UTC for fire in fires)


# ---- what is refused ----

FORMS = "alone or as *, a-b, */n, a/n, a-b/n (n > 0) or a list of those"
SIXTY = f"expected 0-59, {FORMS}"
HOURS = f"expected 0-23, {FORMS}"
DAYS = f"expected 1-31, L (the last), {FORMS}"
MONTHS = f"expected 1-12, JAN-DEC, {FORMS}"
WEEKDAYS = (
    "expected 0-7 (0 and 7 are Sunday), SUN-SAT, 5#2 (the second Friday), L5 (the last), " + FORMS
)
CODER = "expected 5 or 6: second minute hour day-of-month month [day-of-week]"
UNIX = "expected 5: minute hour day-of-month month day-of-week"
NAMES = "expected one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly"
ZONE = "expected one of the IANA database, such as 'Europe/Berlin'"


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", f"has 0 fields, {CODER}"),
        (" \t", f"has 0 fields, {CODER}"),
        ("* * * *", f"has 4 fields, {CODER}"),
        ("* * * * * * *", f"has 7 fields, {CODER}"),
        ("TZ=UTC", f"has 0 fields, {CODER}"),
        ("60 * * * * *", f"has the second '60', {SIXTY}"),
        ("-1 * * * * *", f"has the second '-1', {SIXTY}"),
        ("a * * * * *", f"has the second 'a', {SIXTY}"),
        ("1.5 * * * * *", f"has the second '1.5', {SIXTY}"),
        ("٣ * * * * *", f"has the second '٣', {SIXTY}"),  # a digit, but not of ASCII
        ("*/٣ * * * * *", f"has the second '*/٣', {SIXTY}"),
        ("*5 * * * * *", f"has the second '*5', {SIXTY}"),
        ("5* * * * * *", f"has the second '5*', {SIXTY}"),
        ("*-5 * * * * *", f"has the second '*-5', {SIXTY}"),
        ("1-2-3 * * * * *", f"has the second '1-2-3', {SIXTY}"),
        ("1/2/3 * * * * *", f"has the second '1/2/3', {SIXTY}"),
        ("0,60 * * * * *", f"has the second '60', {SIXTY}"),
        ("0,,1 * * * * *", f"has the second '', {SIXTY}"),
        (", * * * * *", f"has the second '', {SIXTY}"),
        ("0 */0 * * * *", f"has the minute '*/0', {SIXTY}"),
        ("0 */ * * * *", f"has the minute '*/', {SIXTY}"),
        ("0 /5 * * * *", f"has the minute '/5', {SIXTY}"),
        ("0 */-5 * * * *", f"has the minute '*/-5', {SIXTY}"),
        ("0 50-60 * * * *", f"has the minute '50-60', {SIXTY}"),
        ("0 60/2 * * * *", f"has the minute '60/2', {SIXTY}"),
        ("0 5- * * * *", f"has the minute '5-', {SIXTY}"),
        ("0 L * * * *", f"has the minute 'L', {SIXTY}"),
        ("0 0 24 * * *", f"has the hour '24', {HOURS}"),
        ("0 0 1,2,24,25 * * *", f"has the hour '24', {HOURS}"),
        ("0 0 0 0 * *", f"has the day-of-month '0', {DAYS}"),
        ("0 0 0 0-5 * *", f"has the day-of-month '0-5', {DAYS}"),
        ("0 0 0 0-0 * *", f"has the day-of-month '0-0', {DAYS}"),
        ("0 0 0 0/2 * *", f"has the day-of-month '0/2', {DAYS}"),
        ("0 0 0 32 * *", f"has the day-of-month '32', {DAYS}"),
        ("0 0 0 L/2 * *", f"has the day-of-month 'L/2', {DAYS}"),
        ("0 0 0 L-3 * *", f"has the day-of-month 'L-3', {DAYS}"),
        ("0 0 0 15W * *", f"has the day-of-month '15W', {DAYS}"),
        ("0 0 0 w15 * *", f"has the day-of-month 'w15', {DAYS}"),
        ("0 0 0 LW * *", f"has the day-of-month 'LW', {DAYS}"),
        ("0 0 0 MON * *", f"has the day-of-month 'MON', {DAYS}"),
        ("0 0 0 1 0 *", f"has the month '0', {MONTHS}"),
        ("0 0 0 1 13", f"has the month '13', {MONTHS}"),
        ("0 0 0 1 January *", f"has the month 'January', {MONTHS}"),
        ("0 0 0 * * 8", f"has the day-of-week '8', {WEEKDAYS}"),
        ("0 0 0 * * JAN", f"has the day-of-week 'JAN', {WEEKDAYS}"),
        ("0 0 0 * * L", f"has the day-of-week 'L', {WEEKDAYS}"),
        ("0 0 0 * * 5L", f"has the day-of-week '5L', {WEEKDAYS}"),
        ("0 0 0 * * 5#0", f"has the day-of-week '5#0', {WEEKDAYS}"),
        ("0 0 0 * * 5#6", f"has the day-of-week '5#6', {WEEKDAYS}"),
        ("0 0 0 * * *#2", f"has the day-of-week '*#2', {WEEKDAYS}"),
        ("0 0 0 * * MON-FRI#2/2", f"has the day-of-week 'MON-FRI#2/2', {WEEKDAYS}"),
        ("R * * * * *", f"has the second 'R', {SIXTY}"),
        ("0 r(0-5) * * * *", f"has the minute 'r(0-5)', {SIXTY}"),
        ("0 R/15 * * * *", f"has the minute 'R/15', {SIXTY}"),
        ("0 0 H * * *", f"has the hour 'H', {HOURS}"),
        ("0 0 0 h(1-5)/2 * *", f"has the day-of-month 'h(1-5)/2', {DAYS}"),
        ("0 0 0 * * R", f"has the day-of-week 'R', {WEEKDAYS}"),
        ("@reboot", f"has the name '@reboot', {NAMES}"),
        ("TZ=UTC @every 1h", f"has 2 fields, {CODER}"),
        ("TZ=Nowhere/City * * * * * *", f"has the time zone 'Nowhere/City', {ZONE}"),
        ("TZ= * * * * * *", f"has the time zone '', {ZONE}"),
        ("CRON_TZ=../UTC * * * * * *", f"has the time zone '../UTC', {ZONE}"),
        ("TZ=America * * * * * *", f"has the time zone 'America', {ZONE}"),
    ],
)
def test_refusals(expression: str, problem: str) -> None:
    """C1: a refusal names the field, the value and what was expected."""
    with pytest.raises(ValueError, match="has") as caught:
        read(expression)
    assert str(caught.value) == f"is {expression!r} and {problem}"


def test_huge_numbers_are_refused() -> None:
    """C1: not even a number that Python does not convert ends in another error."""
    huge = "9" * 5000
    for field in (huge, f"*/{huge}", f"1-{huge}"):
        with pytest.raises(ValueError, match="has the second '"):
            read(f"{field} * * * * *")


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("", f"has 0 fields, {UNIX}"),
        ("0 * * * * *", f"has 6 fields, {UNIX}"),
        ("60 * * * *", f"has the minute '60', {SIXTY}"),
        ("0 0 * * 8", f"has the day-of-week '8', {WEEKDAYS}"),
    ],
)
def test_refusals_of_unix(expression: str, problem: str) -> None:
    """C1: the UNIX reading has five fields, minute first, and names them so."""
    with pytest.raises(ValueError, match="has") as caught:
        read(expression, CronSyntax.UNIX)
    assert str(caught.value) == f"is {expression!r} and {problem}"


def test_refusals_of_types() -> None:
    """C1: what is no text is a TypeError."""
    with pytest.raises(TypeError, match=r"^is 5, expected str$"):
        read(5)  # type: ignore[arg-type]


# ---- what fields mean ----


@pytest.mark.parametrize(
    ("hour", "expected"),
    [
        ("*", list(range(24))),
        ("?", list(range(24))),
        ("7", [7]),
        ("007", [7]),
        ("5,3,5", [3, 5]),
        ("9-11", [9, 10, 11]),
        ("*/6", [0, 6, 12, 18]),
        ("?/6", [0, 6, 12, 18]),
        ("*/1", list(range(24))),
        ("*/100", [0]),
        ("5/6", [5, 11, 17, 23]),
        ("23/6", [23]),
        ("8-18/4", [8, 12, 16]),
        ("8-10/9", [8]),
        # croniter takes these for the whole field.
        ("5-5", [5]),
        ("5-5/2", [5]),
        ("23-23", [23]),
        # Coder refuses ranges that wrap; croniter takes them, but counts their steps wrong.
        ("22-2", [0, 1, 2, 22, 23]),
        ("22-4/3", [1, 4, 22]),
        ("22-4/5", [3, 22]),
    ],
)
def test_forms(hour: str, expected: list[int]) -> None:
    """C1: ``*``, numbers, ranges, steps and lists stand for these values."""
    assert members(read(f"0 0 {hour} * * *").hours) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SUN", [0]),
        ("sat", [6]),
        ("7", [0]),
        ("0,7", [0]),
        ("MON-fri", [1, 2, 3, 4, 5]),
        ("5-7", [0, 5, 6]),
        ("0-7", list(range(7))),
        ("SUN-7", list(range(7))),
        ("7-7", [0]),
        ("7-SUN", [0]),
        ("SUN-SUN", [0]),
        ("1-7/2", [0, 1, 3, 5]),
        ("FRI-MON", [0, 1, 5, 6]),
        ("MON/2", [1, 3, 5]),
        ("7/2", [0, 2, 4, 6]),
    ],
)
def test_weekdays(text: str, expected: list[int]) -> None:
    """C1: names stand for numbers, and both 0 and 7 for Sunday."""
    assert members(read(f"0 0 0 * * {text}").weekdays) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("JAN", [1]), ("dec", [12]), ("JAN-JAN", [1]), ("NOV-FEB", [1, 2, 11, 12]), ("DEC/3", [12])],
)
def test_months(text: str, expected: list[int]) -> None:
    """C1: names stand for months, in any case."""
    assert members(read(f"0 0 0 1 {text} *").months) == expected


def days(expression: str, count: int = 6) -> list[str]:
    return [f"{fire:%m-%d}" for fire in next_fires(expression, NEW_YEAR, count, timezone=UTC)]


@pytest.mark.parametrize(
    ("day", "weekday", "expected"),
    [
        ("*", "MON", ["01-05", "01-12", "01-19"]),
        ("?", "MON", ["01-05", "01-12", "01-19"]),
        ("*/1", "MON", ["01-05", "01-12", "01-19"]),
        ("*/10", "*", ["01-11", "01-21", "01-31"]),
        ("*/10", "?", ["01-11", "01-21", "01-31"]),
        ("*/10", "MON", ["01-05", "01-11", "01-12"]),
        ("10", "MON", ["01-05", "01-10", "01-12"]),
        ("10", "*/3", ["01-03", "01-04", "01-07"]),
        ("10,*", "MON", ["01-05", "01-12", "01-19"]),
        ("1-31", "MON", ["01-02", "01-03", "01-04"]),
    ],
)
def test_day_of_month_and_of_week(day: str, weekday: str, expected: list[str]) -> None:
    """C1: with both restricted either may match; ``*`` restricts nothing, but ``*/10`` does."""
    assert days(f"0 0 0 {day} * {weekday}", 3) == expected


@pytest.mark.parametrize(
    ("day", "weekday", "expected"),
    [
        ("L", "*", ["01-31", "02-28", "03-31"]),
        ("30,L", "*", ["01-30", "01-31", "02-28"]),
        ("28-L", "*", ["01-28", "01-29", "01-30"]),
        ("31-L", "*", ["01-31", "03-31", "05-31"]),
        ("27-L/2", "*", ["01-27", "01-29", "01-31"]),
        ("L", "WED", ["01-07", "01-14", "01-21"]),
        ("*", "5#2", ["01-09", "02-13", "03-13"]),
        ("*", "FRI#2", ["01-09", "02-13", "03-13"]),
        ("*", "7#1", ["01-04", "02-01", "03-01"]),
        ("*", "THU#5", ["01-29", "04-30", "07-30"]),
        ("*", "L5", ["01-30", "02-27", "03-27"]),
        ("*", "MON-TUE#1", ["01-05", "01-06", "02-02"]),
        ("*", "5#2,L5", ["01-09", "01-30", "02-13"]),
        ("*", "3,5#2", ["01-07", "01-09", "01-14"]),
        ("3", "5#2", ["01-03", "01-09", "02-03"]),
    ],
)
def test_last_and_numbered_days(day: str, weekday: str, expected: list[str]) -> None:
    """C1: ``L`` and ``#`` are allowed."""
    assert days(f"0 0 0 {day} * {weekday}", 3) == expected


@pytest.mark.parametrize(
    ("name", "expression"),
    [
        ("@yearly", "0 0 0 1 1 *"),
        ("@annually", "0 0 0 1 1 *"),
        ("@monthly", "0 0 0 1 * *"),
        ("@weekly", "0 0 0 * * 0"),
        ("@Daily", "0 0 0 * * *"),
        ("@midnight", "0 0 0 * * *"),
        ("TZ=Europe/Berlin @hourly", "TZ=Europe/Berlin 0 0 * * * *"),
    ],
)
@pytest.mark.parametrize("syntax", CronSyntax)
def test_names_of_expressions(name: str, expression: str, syntax: CronSyntax) -> None:
    """C1: ``@daily`` and the like mean the same in both readings."""
    fires = next_fires(name, NEW_YEAR, 5, syntax=syntax, timezone=UTC)
    assert fires == next_fires(expression, NEW_YEAR, 5, timezone=UTC)
    assert read(name, syntax).real_time == read(expression).real_time


def test_unix_reading() -> None:
    """C1: under UNIX the minute comes first and the second is 0."""
    fires = next_fires("30 6 * * *", NEW_YEAR, 2, syntax=CronSyntax.UNIX, timezone=UTC)
    assert fires == [datetime(2026, 1, day, 6, 30, tzinfo=UTC) for day in (1, 2)]


@pytest.mark.parametrize("prefix", ["TZ", "CRON_TZ"])
def test_zone_prefix(prefix: str) -> None:
    """C1: a zone before the fields replaces the given one."""
    schedule = read(f"  {prefix}=Asia/Tokyo\t0 0 9 * * * ", zone=BERLIN)
    assert schedule.zone == ZoneInfo("Asia/Tokyo")
    assert schedule.next_after(NEW_YEAR) == datetime(2026, 1, 2, tzinfo=UTC)
    assert read("0 0 9 * * *", zone=BERLIN).zone is BERLIN


@pytest.mark.parametrize(
    ("hour", "expected"),
    [("*", True), ("*/2", True), ("*,5", True), ("?", True), ("0-23", False), ("5,*", False)],
)
def test_what_follows_real_time(hour: str, expected: bool) -> None:
    """C2: a schedule whose hour field begins with ``*`` follows real time."""
    assert read(f"0 0 {hour} * * *").real_time is expected


# ---- the warning ----


@pytest.mark.parametrize(
    ("expression", "second_first", "minute_first"),
    [
        ("*/5 * * * *", "*/5 * * * * *", "0 */5 * * * *"),
        (" 0  3 * * 1 ", "0 3 * * 1 *", "0 0 3 * * 1"),
        ("CRON_TZ=Asia/Tokyo 0 3 * * 1", "TZ=Asia/Tokyo 0 3 * * 1 *", "TZ=Asia/Tokyo 0 0 3 * * 1"),
    ],
)
def test_warning_of_five_fields(expression: str, second_first: str, minute_first: str) -> None:
    """C1: five fields under CODER are legal; the warning has both readings, which hold."""
    assert five_field_warning(expression, CronSyntax.CODER) == (
        f"{expression!r} has 5 fields and is read with the second first, like '{second_first}'; "
        f"if the minute is to come first, write '{minute_first}'"
    )
    for syntax, same in (CronSyntax.CODER, second_first), (CronSyntax.UNIX, minute_first):
        fires = next_fires(expression, NEW_YEAR, 5, syntax=syntax, timezone=UTC)
        assert fires == next_fires(same, NEW_YEAR, 5, timezone=UTC)


@pytest.mark.parametrize(
    ("expression", "syntax"),
    [
        ("0 0 3 * * *", CronSyntax.CODER),
        ("@daily", CronSyntax.CODER),
        ("0 3 * * *", CronSyntax.UNIX),
        ("TZ=UTC 0 0 3 * * *", CronSyntax.CODER),
    ],
)
def test_no_warning(expression: str, syntax: CronSyntax) -> None:
    """C1: where there is one reading there is nothing to warn of."""
    assert five_field_warning(expression, syntax) is None


# ---- the preview ----


def test_next_fires() -> None:
    """C1: the preview takes any zone and returns UTC, each after the one before."""
    after = datetime(2026, 6, 1, 9, 0, 0, 1, tzinfo=BERLIN)
    fires = next_fires("0 0 9 * * MON", after, 2, timezone=BERLIN)
    assert fires == [datetime(2026, 6, day, 7, tzinfo=UTC) for day in (8, 15)]
    assert next_fires("0 0 9 * * *", after, 0) == []
    assert next_fires("0 0 0 30 2 *", after, 3) == []


def test_next_fires_ends_with_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: fewer come when there is none for five years after one."""
    monkeypatch.setenv("TZ", "UTC")
    after = datetime(2095, 1, 1, tzinfo=UTC)  # 2100 is no leap year
    assert next_fires("0 0 0 29 2 *", after, 3) == [datetime(2096, 2, 29, tzinfo=UTC)]


@pytest.mark.parametrize("hours", [-12, 0, 14])
def test_next_fires_ends_with_the_calendar(hours: int) -> None:
    """C1: where the years end, in UTC or in the time zone, fewer fires come, and no error."""
    zone = timezone(timedelta(hours=hours))
    end = datetime.max.replace(microsecond=0)
    last = min(end.replace(tzinfo=UTC), end.replace(tzinfo=zone))
    before = [last - timedelta(seconds=count) for count in (2, 1)]
    assert next_fires("* * * * * *", before[0], 5, timezone=zone) == [before[1], last]
    assert next_fires("* * * * * *", last, 5, timezone=zone) == []
    assert next_fires("0 0 12 * * *", last, 1, timezone=zone) == []


@pytest.mark.parametrize(
    ("after", "zone"),
    [
        (datetime.max.replace(tzinfo=UTC), BERLIN),
        (datetime.min.replace(tzinfo=UTC), WEST),
        (datetime.min.replace(tzinfo=EAST), EAST),
        (datetime.max.replace(tzinfo=WEST), WEST),
    ],
)
def test_next_fires_of_no_calendar(after: datetime, zone: tzinfo) -> None:
    """C1: a moment that UTC or the time zone has no date for is refused, and named."""
    with pytest.raises(
        ValueError, match=r"^after is datetime\.datetime\(.*\), expected "
    ) as caught:
        next_fires("0 0 0 * * *", after, 1, timezone=zone)
    assert str(caught.value).endswith(
        f"expected one from year 1 to 9999 also in UTC and in the time zone {zone}"
    )


def test_next_fires_in_the_machines_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: without a time zone it is the machine's."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert next_fires("0 0 9 * * *", NEW_YEAR, 1) == [datetime(2026, 1, 2, tzinfo=UTC)]


def test_next_fires_asks_for_no_zone_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: the machine's zone, which may be unknown, is read where an expression names none; then
    the expression is not blamed."""
    monkeypatch.setenv("TZ", "UTC0")
    expected = [datetime(2026, 1, 1, 9, tzinfo=UTC)]
    assert next_fires("TZ=UTC 0 0 9 * * *", NEW_YEAR, 1) == expected
    assert next_fires("0 0 9 * * *", NEW_YEAR, 1, timezone=UTC) == expected
    with pytest.raises(ValueError, match=r"^TZ is 'UTC0', expected the name of one of the IANA"):
        next_fires("0 0 9 * * *", NEW_YEAR, 1)


@pytest.mark.parametrize(
    ("expression", "after", "count", "error", "text"),
    [
        ("* * * *", NEW_YEAR, 1, ValueError, f"expression is '* * * *' and has 4 fields, {CODER}"),
        (None, NEW_YEAR, 1, TypeError, "expression is None, expected str"),
        (
            "@daily",
            datetime(2026, 1, 1),
            1,
            ValueError,
            "after is datetime.datetime(2026, 1, 1, 0, 0), expected a datetime with a time zone",
        ),
        ("@daily", "now", 1, TypeError, "after is 'now', expected a datetime"),
        ("@daily", NEW_YEAR, -1, ValueError, "count is -1, expected an integer >= 0"),
        ("@daily", NEW_YEAR, True, TypeError, "count is True, expected an integer >= 0"),
        ("@daily", NEW_YEAR, 1.5, TypeError, "count is 1.5, expected an integer >= 0"),
    ],
)
def test_what_next_fires_refuses(
    expression: Any, after: Any, count: Any, error: type[Exception], text: str
) -> None:
    """C1: the preview names the argument, its value and what was expected."""
    with pytest.raises(error) as caught:
        next_fires(expression, after, count)
    assert str(caught.value) == text


def test_options_of_next_fires() -> None:
    """C1: the syntax may be its value; another one, or a zone's mere name, is refused."""
    fires = next_fires("0 9 * * *", NEW_YEAR, 1, syntax="unix", timezone=UTC)  # type: ignore[arg-type]
    assert fires == [datetime(2026, 1, 1, 9, tzinfo=UTC)]
    with pytest.raises(ValueError, match=r"^syntax is 'quartz', expected one of coder, unix$"):
        next_fires("@daily", NEW_YEAR, 1, syntax="quartz")  # type: ignore[arg-type]
    expected = "expected a tzinfo such as a ZoneInfo, or None"
    with pytest.raises(TypeError, match=rf"^timezone is 'Asia/Tokyo', {expected}$"):
        next_fires("@daily", NEW_YEAR, 1, timezone="Asia/Tokyo")  # type: ignore[arg-type]


def test_croniter_is_loaded_late() -> None:
    """API: croniter takes 63 ms to import, so only an expression loads it."""
    program = "import sys; from agentscripts import _cron; assert 'croniter' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_fixed_offset_will_do() -> None:
    """C1: a time zone need not be one of the database."""
    schedule = read("0 0 9 * * *", zone=timezone(timedelta(hours=5, minutes=30)))
    assert schedule.next_after(NEW_YEAR) == datetime(2026, 1, 1, 3, 30, tzinfo=UTC)
