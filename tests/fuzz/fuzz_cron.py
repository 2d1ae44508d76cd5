"""Any expression is a schedule, or gets a ``ValueError`` that names it (C1)."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import atheris

with atheris.instrument_imports(include=["agentscripts"]):
    from agentscripts import CronSyntax, next_fires

AFTER = datetime(2024, 2, 28, 23, 59, 59, tzinfo=UTC)
FIELDS = ("0", "*", "*/5", "1-5", "1,2", "L", "?", "MON", "JAN-mar", "59", "60", "31", "5-5/2")


def words(data: atheris.FuzzedDataProvider) -> str:
    """Most inputs are fields that may be right: others end at the first check."""
    if data.ConsumeBool():
        return str(data.ConsumeUnicode(60))
    fields = [
        FIELDS[data.ConsumeIntInRange(0, len(FIELDS) - 1)]
        if data.ConsumeBool()
        else data.ConsumeUnicodeNoSurrogates(6)
        for _ in range(data.ConsumeIntInRange(4, 7))
    ]
    return " ".join(fields)


def test_one(raw: bytes) -> None:
    data = atheris.FuzzedDataProvider(raw)
    syntax = CronSyntax.CODER if data.ConsumeBool() else CronSyntax.UNIX
    text = words(data)
    problem = ""
    try:
        fires = next_fires(text, AFTER, 3, syntax=syntax, timezone=UTC)
    except ValueError as error:
        problem = str(error)
    if problem:
        assert problem.startswith("expression "), problem
        return
    # Each is later than the one before, and the same whichever moment the search begins at.
    previous = AFTER
    for fire in fires:
        assert previous < fire < AFTER + timedelta(days=366 * 41), (text, fires)
        assert fire.microsecond == 0
        assert next_fires(text, previous, 1, syntax=syntax, timezone=UTC) == [fire]
        previous = fire


if __name__ == "__main__":
    atheris.Setup(sys.argv, test_one)
    atheris.Fuzz()
