"""What becomes of a schedule that fires while its last run still runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from agentscripts._model import Overlap
from agentscripts._overlap import Decision, Overlaps

ONE, TWO = UUID(int=1), UUID(int=2)
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = [FIRST + timedelta(minutes=number) for number in range(5)]


@pytest.mark.parametrize(
    ("overlap", "decisions"),
    [
        (Overlap.SKIP, [Decision.START, Decision.SKIP, Decision.SKIP]),
        (Overlap.ALLOW, [Decision.START, Decision.START, Decision.START]),
        (Overlap.QUEUE, [Decision.START, Decision.WAIT, Decision.SKIP]),
    ],
)
def test_while_it_runs(overlap: Overlap, decisions: list[Decision]) -> None:
    """C4: a time that comes meanwhile is skipped, starts too, or waits, one at most."""
    overlaps = Overlaps({ONE: overlap})
    assert [overlaps.due(ONE, planned) for planned in TIMES[:3]] == decisions


def test_after_its_end() -> None:
    """C4: a skipped time never comes back, and the next one starts."""
    overlaps = Overlaps({ONE: Overlap.SKIP})
    overlaps.due(ONE, TIMES[0])
    overlaps.due(ONE, TIMES[1])
    assert overlaps.ended(ONE) is None
    assert overlaps.due(ONE, TIMES[2]) is Decision.START


def test_what_waited_starts_at_the_end() -> None:
    """C4: it keeps its planned time, counts as running, and leaves room for another to wait."""
    overlaps = Overlaps({ONE: Overlap.QUEUE})
    assert overlaps.due(ONE, TIMES[0]) is Decision.START
    assert overlaps.due(ONE, TIMES[1]) is Decision.WAIT
    assert overlaps.ended(ONE) == TIMES[1]
    assert overlaps.due(ONE, TIMES[2]) is Decision.WAIT
    assert overlaps.ended(ONE) == TIMES[2]
    assert overlaps.ended(ONE) is None
    assert overlaps.due(ONE, TIMES[3]) is Decision.START


def test_all_of_several_runs_count() -> None:
    """C4: with ALLOW the last of several runs is the one that ends the overlap."""
    overlaps = Overlaps({ONE: Overlap.ALLOW, TWO: Overlap.SKIP})
    for planned in TIMES:
        assert overlaps.due(ONE, planned) is Decision.START
    assert overlaps.due(TWO, FIRST) is Decision.START
    assert overlaps.due(TWO, FIRST) is Decision.SKIP


def test_close() -> None:
    """C4: what waits is told at the close, and does not start any more."""
    overlaps = Overlaps({ONE: Overlap.QUEUE, TWO: Overlap.QUEUE})
    overlaps.due(ONE, TIMES[0])
    overlaps.due(ONE, TIMES[1])
    overlaps.due(TWO, TIMES[1])
    assert overlaps.close() == [(ONE, TIMES[1])]
    assert overlaps.ended(ONE) is None
    assert overlaps.close() == []
