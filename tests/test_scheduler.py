"""The scheduler's thread, with a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from support import PATIENCE

from agentscripts._agenda import Agenda, Fire
from agentscripts._cron import CronSyntax, parse
from agentscripts._lifecycle import OwnThreads
from agentscripts._model import Overlap
from agentscripts._overlap import Overlaps
from agentscripts._scheduler import Scheduler, SkipReason

BEGIN = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ONE, TWO = UUID(int=1), UUID(int=2)


class MovedClock:
    """Time stands still until the test moves it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._now = BEGIN
        self._woken = False
        self._waits = 0
        self.waits_until: datetime | None = BEGIN
        self.closed = 0

    def now(self) -> datetime:
        with self._changed:
            return self._now

    def wait(self, until: datetime | None) -> None:
        with self._changed:
            self.waits_until = until
            self._waits += 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._woken)
            self._woken = False

    def wake(self) -> None:
        assert not self.closed, "the machine's clock has lost its descriptors then"
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def close(self) -> None:
        self.closed += 1

    def settle(self, action: Callable[[], object]) -> None:
        """Do something that wakes the scheduler; return when it waits again."""
        with self._changed:
            waits = self._waits
        action()
        with self._changed:
            assert self._changed.wait_for(lambda: self._waits > waits, PATIENCE)

    def move(self, by: timedelta) -> None:
        """Let time pass, or set the clock: for the scheduler it is the same."""

        def change() -> None:
            with self._changed:
                self._now += by
            self.wake()

        self.settle(change)


class Stage:
    """A scheduler of two scripts, and all that it did."""

    def __init__(self, one: Overlap = Overlap.SKIP) -> None:
        self.clock = MovedClock()
        self.started: list[tuple[UUID, datetime]] = []
        self.batches = 0
        self.skipped: list[tuple[UUID, datetime, SkipReason, int]] = []
        self.logged: list[str] = []
        self.broken = False
        agenda: Agenda[UUID] = Agenda(lambda: 0.0)
        for key, expression in (ONE, "0 * * * * *"), (TWO, "0 */2 * * * *"):
            schedule = parse(expression, syntax=CronSyntax.CODER, timezone=UTC)
            agenda.add(key, schedule, BEGIN)
        self.scheduler = Scheduler(
            agenda,
            Overlaps({ONE: one, TWO: Overlap.ALLOW}),
            clock=self.clock,
            fire=self._fire,
            skip=lambda *skip: self.skipped.append(skip),
            log=self._log,
            own_threads=OwnThreads(),
        )

    def _fire(self, fires: Sequence[Fire[UUID]]) -> None:
        if self.broken:
            raise LookupError
        self.batches += 1
        self.started += [(fire.key, fire.planned) for fire in fires]

    def _log(self, level: int, message: str, *args: object, exc_info: bool = False) -> None:
        self.logged.append(message % args)

    def begin(self) -> None:
        self.clock.settle(self.scheduler.start)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    made.begin()
    yield made
    made.scheduler.close(PATIENCE)


def test_due_scripts_start_together(stage: Stage) -> None:
    """C3: nothing starts before its time; what is due at one time starts in one go."""
    assert stage.started == []
    assert stage.clock.waits_until == BEGIN + MINUTE
    stage.clock.move(MINUTE - timedelta(microseconds=1))
    assert stage.started == []
    stage.clock.move(timedelta(microseconds=1))
    assert stage.started == [(ONE, BEGIN + MINUTE)]
    stage.scheduler.ended(ONE)
    stage.clock.move(MINUTE)
    assert stage.started[1:] == [(ONE, BEGIN + 2 * MINUTE), (TWO, BEGIN + 2 * MINUTE)]
    assert stage.batches == 2


def test_overlap(stage: Stage) -> None:
    """C4: a time that comes while its last run still runs is told as skipped."""
    stage.clock.move(MINUTE)
    stage.clock.move(MINUTE)
    assert stage.skipped == [(ONE, BEGIN + 2 * MINUTE, SkipReason.OVERLAP, 1)]
    stage.clock.settle(lambda: stage.scheduler.ended(ONE))
    stage.clock.move(MINUTE)
    assert stage.started[-1] == (ONE, BEGIN + 3 * MINUTE)


def test_what_waits_starts_at_the_end() -> None:
    """C4: with QUEUE it starts when the run before it has ended, without waiting for a time."""
    stage = Stage(Overlap.QUEUE)
    stage.begin()
    stage.clock.move(MINUTE)
    stage.clock.move(MINUTE)
    assert (ONE, BEGIN + 2 * MINUTE) not in stage.started
    stage.clock.settle(lambda: stage.scheduler.ended(ONE))
    assert stage.started[-1] == (ONE, BEGIN + 2 * MINUTE)
    stage.scheduler.close(PATIENCE)


@pytest.mark.parametrize("hours", [1, 8])
def test_forward_jump(stage: Stage, hours: int) -> None:
    """C3: after a suspend or a jump each schedule fires once, and the rest is told as missed."""
    stage.clock.move(timedelta(hours=hours))
    now = BEGIN + timedelta(hours=hours)
    assert stage.started == [(ONE, now), (TWO, now)]
    assert stage.skipped == [
        (ONE, now, SkipReason.MISSED, 60 * hours - 1),
        (TWO, now, SkipReason.MISSED, 30 * hours - 1),
    ]


def test_small_backward_jump(stage: Stage) -> None:
    """C2: a step back of up to 3 h is waited out."""
    stage.clock.move(MINUTE)
    stage.clock.move(timedelta(hours=-2))
    assert stage.clock.waits_until == BEGIN + 2 * MINUTE
    assert len(stage.started) == 1


def test_large_backward_jump(stage: Stage) -> None:
    """C2: after a longer one the schedules start afresh."""
    stage.clock.move(timedelta(hours=-8))
    assert stage.clock.waits_until == BEGIN - timedelta(hours=8) + MINUTE
    stage.clock.move(MINUTE)
    assert stage.started == [(ONE, BEGIN - timedelta(hours=8) + MINUTE)]
    assert stage.skipped == []


def test_start_twice(stage: Stage) -> None:
    """C3: a second start changes nothing."""
    stage.scheduler.start()
    stage.clock.move(MINUTE)
    assert stage.started == [(ONE, BEGIN + MINUTE)]


def test_close_tells_what_waits() -> None:
    """C4, S1: what waits is told as skipped; a second close returns, too, and a start after it."""
    stage = Stage(Overlap.QUEUE)
    stage.begin()
    stage.clock.move(MINUTE)
    stage.clock.move(MINUTE)
    stage.scheduler.close(PATIENCE)
    stage.scheduler.close(PATIENCE)
    stage.scheduler.start()
    stage.scheduler.ended(ONE)
    assert stage.skipped == [(ONE, BEGIN + 2 * MINUTE, SkipReason.CLOSED, 1)]
    assert stage.clock.closed == 1


def test_close_before_start() -> None:
    """S2: a scheduler that was never started gives its clock back, and stays closed."""
    stage = Stage()
    stage.scheduler.close(PATIENCE)
    stage.scheduler.start()
    stage.scheduler.close(PATIENCE)
    assert stage.clock.closed == 1
    assert stage.started == []


def test_close_after_a_start_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: a scheduler that got no thread gives its clock back, too."""

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stage = Stage()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(OSError, match="no thread"):
        stage.scheduler.start()
    stage.scheduler.close(PATIENCE)
    assert stage.clock.closed == 1


def test_a_failure_ends_no_schedule(stage: Stage) -> None:
    """C3: a start that fails is logged; the schedules go on, after a second at the earliest."""
    stage.broken = True
    stage.clock.move(MINUTE)
    assert stage.logged == ["the scheduler failed"]
    assert stage.clock.waits_until is not None
    assert stage.clock.waits_until >= BEGIN + MINUTE + timedelta(seconds=1)
    stage.broken = False
    stage.clock.move(MINUTE)
    assert stage.started == [(ONE, BEGIN + 2 * MINUTE), (TWO, BEGIN + 2 * MINUTE)]


def test_a_wait_that_fails(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: it is logged, and the scheduler does not spin: it looks again after a second."""
    usual = stage.clock.wait
    failures = [OSError("no wait")]

    def wait(until: datetime | None) -> None:
        if failures:
            raise failures.pop()
        usual(until)

    monkeypatch.setattr(stage.clock, "wait", wait)
    stage.clock.settle(stage.clock.wake)
    assert stage.logged == ["the scheduler failed"]
    assert stage.clock.waits_until == BEGIN + timedelta(seconds=1)
