"""How late scheduled scripts start, and what schedules cost that wait."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from agentscripts import RunResult, Script, Stage
from benchmarks.lab import SHELL, Lab
from benchmarks.ours import runner
from benchmarks.row import OURS, Better, Cannot, Measure, Row, Sample
from benchmarks.rows.idle import sleep

__all__ = ["ORDER", "ROWS"]

ORDER = 95
LOADED: Final = 10_000
SECONDS: Final = 5
ENDLESS: Final = "exec yes"


class _Late:
    """Collects how late things start, in ms; all of them are planned for a full second."""

    def __init__(self) -> None:
        self._all: list[float] = []
        self._enough = threading.Event()

    def note(self, started_at: float) -> None:
        """Note a start, by the wall clock."""
        self._all.append(started_at % 1 * 1000)
        if len(self._all) >= SECONDS:
            self._enough.set()

    def figures(self) -> dict[str, float]:
        """Wait until there are enough of them."""
        if not self._enough.wait(10 * SECONDS):
            raise RuntimeError(f"only {len(self._all)} scripts started in time")
        late = self._all[:SECONDS]
        percentiles = statistics.quantiles(late, n=100, method="inclusive")
        return {"p50": percentiles[49], "p99": percentiles[98], "max": max(late)}


def _scripts() -> list[Script]:
    held = [Script(name=f"held {n}", script="true", cron="0 0 0 1 1 *") for n in range(LOADED)]
    return [*held, Script(name="tick", script="true", cron="* * * * * *")]


def late_ours(flood: bool, base: str) -> dict[str, float]:
    """Start scripts beside many schedules that wait."""
    late = _Late()

    def note(result: RunResult) -> None:
        if result.stage is Stage.CRON:
            late.note(result.started_at.timestamp())

    endless = Script(name="endless", script=ENDLESS, log_path="/dev/null")
    with runner(Path(base), [*_scripts(), endless], on_complete=note) as made:
        if flood:
            call = threading.Thread(
                target=lambda: made.execute(lambda script: script is endless, check=False)
            )
            call.start()
        made.start_cron()
        figures = late.figures()
        for run in made.runs():
            made.cancel(run.run_id)
    return figures


@contextlib.contextmanager
def _endless(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with subprocess.Popen(
        [SHELL, "-c", ENDLESS], stdout=subprocess.PIPE, start_new_session=True
    ) as flood:
        assert flood.stdout is not None
        reader = threading.Thread(target=_drain, args=(flood.stdout,))
        reader.start()
        try:
            yield
        finally:
            flood.kill()
            reader.join()


def _drain(stream: Any) -> None:
    while stream.read1(65536):
        pass


def late_apscheduler(flood: bool, base: str) -> dict[str, float]:
    """Do the same with APScheduler: its jobs note when they start, then run the script."""
    from apscheduler.schedulers.background import BackgroundScheduler
    from apscheduler.triggers.cron import CronTrigger

    late = _Late()

    def tick() -> None:
        late.note(time.time())
        subprocess.run([SHELL, "-c", "true"], check=True)

    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.add_job(tick, CronTrigger(second="*", timezone=UTC))
    held = CronTrigger(month=1, day=1, timezone=UTC)
    for _ in range(LOADED):
        scheduler.add_job(tick, held)
    with _endless(flood):
        scheduler.start()
        try:
            return late.figures()
        finally:
            scheduler.shutdown()


def held_ours(base: str) -> dict[str, float]:
    """Sleep beside schedules that wait."""
    with runner(Path(base), _scripts()[:LOADED]) as made:
        made.start_cron()
        return sleep(2.0)


def _measure_late(
    function: Callable[..., dict[str, float]], *, flood: bool, needs: str = ""
) -> Measure:
    def measure(lab: Lab) -> Sample:
        if needs and find_spec(needs) is None:
            raise Cannot("is not installed")
        figures = lab.fresh(function, flood, str(lab.directory("cron")))
        return Sample(figures["p99"], besides={"p50": figures["p50"], "max": figures["max"]})

    return measure


def _measure_held(lab: Lab) -> Sample:
    figures = lab.fresh(held_ours, str(lab.directory("cron")))
    return Sample(figures["cpu"] * 5, besides={"context switches": figures["switches"] * 5})


def _late_row(name: str, what: str, *, flood: bool, bar: str) -> Row:
    return Row(
        name=name,
        what=f"{what}: how late a scheduled script starts, p99 of {SECONDS} fires in each round",
        unit="ms",
        better=Better.LOWER,
        contenders={
            OURS: _measure_late(late_ours, flood=flood),
            "APScheduler": _measure_late(late_apscheduler, flood=flood, needs="apscheduler"),
        },
        bar=bar,
        rounds=2,
        warm_up=False,
    )


ROWS = (
    _late_row("cron-late", f"{LOADED:,} schedules loaded", flood=False, bar="≤ 5 ms"),
    _late_row("cron-late-flood", "the same beside a script that floods", flood=True, bar="none"),
    Row(
        name="cron-held",
        what=f"CPU time of {LOADED:,} schedules that wait for 10 s, by 2 s in each round",
        unit="s",
        better=Better.LOWER,
        contenders={OURS: _measure_held},
        bar="none",
        rounds=2,
        warm_up=False,
    ),
)
