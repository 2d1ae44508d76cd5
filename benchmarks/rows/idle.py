"""What a runner costs while nothing happens."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path
from typing import Final

from agentscripts import CancelToken
from benchmarks.lab import Lab
from benchmarks.meter import cpu_time
from benchmarks.ours import Counters, runner
from benchmarks.row import OURS, Better, Measure, Row, Sample
from benchmarks.status import context_switches

__all__ = ["ORDER", "ROWS", "sleep"]

ORDER = 100
HELD: Final = 100
SECONDS: Final = 1.0
HOUR: Final = 3600.0


def sleep(seconds: float) -> dict[str, float]:
    """Return this process's CPU time and context switches while it sleeps."""
    time.sleep(0.2)  # what went before is over
    switches = context_switches()
    cpu = cpu_time(resource.RUSAGE_SELF)  # innermost: to count switches takes time
    time.sleep(seconds)
    cpu = cpu_time(resource.RUSAGE_SELF) - cpu
    # The sleep itself is one.
    return {"cpu": cpu, "switches": max(0, context_switches() - switches - 1)}


def sleep_bare(seconds: float, base: str) -> dict[str, float]:
    """Sleep in a process without a runner."""
    return sleep(seconds)


def sleep_idle(seconds: float, base: str) -> dict[str, float]:
    """Sleep beside a runner that has run a script."""
    with runner(Path(base), ["true"], get_script_logger=Counters()) as made:
        made.execute()
        return sleep(seconds)


def sleep_holding(seconds: float, base: str) -> dict[str, float]:
    """Sleep beside a runner that holds silent scripts."""
    scripts = ["exec sleep infinity"] * HELD
    cancel = CancelToken()
    with runner(Path(base), scripts, get_script_logger=Counters()) as made:
        call = threading.Thread(target=lambda: made.execute(cancel=cancel, check=False))
        call.start()
        while sum(run.pid is not None for run in made.runs()) < HELD:
            time.sleep(0.02)
        try:
            return sleep(seconds)
        finally:
            cancel.cancel()
            call.join()


def _fresh(function: object) -> Measure:
    def measure(lab: Lab) -> Sample:
        figures = lab.fresh(function, SECONDS, str(lab.directory("idle")))  # type: ignore[arg-type]
        per_hour = HOUR / SECONDS
        return Sample(
            figures["cpu"] * per_hour,
            besides={"context switches/h": figures["switches"] * per_hour},
        )

    return measure


ROWS = (
    Row(
        name="idle",
        what=f"CPU time of an idle hour, by {SECONDS:g} s in each round",
        unit="s/h",
        better=Better.LOWER,
        contenders={
            "bare Python": _fresh(sleep_bare),
            OURS: _fresh(sleep_idle),
            f"agentscripts, {HELD} scripts held": _fresh(sleep_holding),
        },
        bar="none (nothing polls)",
        rounds=3,
        warm_up=False,
    ),
)
