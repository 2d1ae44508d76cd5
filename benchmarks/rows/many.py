"""Many short scripts at once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from benchmarks.golang import GO, time_go
from benchmarks.lab import SHELL, Lab
from benchmarks.meter import Meter
from benchmarks.ours import Counters, check, runner
from benchmarks.peers import PEERS, Peer, run_at_once, run_at_once_in_trio
from benchmarks.row import FLOOR, OURS, Better, Measure, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 20
CORES: Final = os.cpu_count() or 1
# More threads than that only wait for each other and for the GIL.
THREADS: Final = 2 * CORES
_IN_THOUSANDS: Final = ("subprocess.run", "Popen and threads", "trio")


def _sample(count: int, meter: Meter) -> Sample:
    return Sample(count / meter.wall, meter.cpu / count * 1e6)


def _floor(count: int) -> Measure:
    def measure(lab: Lab) -> Sample:
        with Meter() as meter:
            floor = lab.time("floor", "spawn", count, CORES, SHELL, "-c", "true")
        return Sample(count / floor.total, meter.cpu / count * 1e6)

    return measure


def _go(count: int) -> Measure:
    def measure(lab: Lab) -> Sample:
        with Meter() as meter:
            go = time_go(lab, 0, "once", count, lab.directory("many"), SHELL, "true")
        return Sample(count / go.total, meter.cpu / count * 1e6)

    return measure


def _ours(count: int) -> Measure:
    def measure(lab: Lab) -> Sample:
        base, scripts = lab.directory("many"), ["true"] * count
        with runner(base, scripts, get_script_logger=Counters()) as made:
            check(made.execute(lambda script: script is made.scripts[0]))
            with Meter() as meter:
                results = made.execute()
            check(results)
        return _sample(count, meter)

    return measure


def _peer(peer: Peer, count: int) -> Measure | str:
    if not _is_measured(peer, count):
        return "left out to save time: a script takes as long as among fewer"

    def measure(lab: Lab) -> Sample:
        base, scripts = lab.directory("many"), ["true"] * count
        logs = [base / str(n) for n in range(count)]
        with Meter() as meter:
            _run(peer, scripts, logs)
        return _sample(count, meter)

    return peer.lack or measure


def _is_measured(peer: Peer, count: int) -> bool:
    return count <= 100 or (count <= 1000 and peer.name in _IN_THOUSANDS)


def _run(peer: Peer, scripts: list[str], logs: list[Path]) -> None:
    if peer.module == "trio":
        run_at_once_in_trio(scripts, logs, THREADS)
    else:
        run_at_once(peer, scripts, logs, THREADS)


def _row(count: int) -> Row:
    return Row(
        name=f"many-{count}",
        what=f"{count:,} scripts `true` in one call",
        unit="scripts/s",
        better=Better.HIGHER,
        contenders={
            FLOOR: _floor(count),
            OURS: _ours(count),
            GO: _go(count),
            **{peer.name: _peer(peer, count) for peer in PEERS},
        },
        base=FLOOR,
        bar="≥ 0.70 of the floor, the aim is 0.80; not slower than Go" if count == 1000 else "",
        cpu_unit="µs/script",
        # Among so many the noise is evened out within a round.
        rounds=2 if count > 1000 else None,
        quick=count <= 100,
    )


ROWS = tuple(_row(count) for count in (100, 1000, 3000))
