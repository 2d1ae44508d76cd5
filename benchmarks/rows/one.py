"""One short script after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from benchmarks.golang import GO, time_go
from benchmarks.lab import SHELL, Lab
from benchmarks.meter import Meter
from benchmarks.ours import Counters, check, runner
from benchmarks.peers import PEERS, Peer
from benchmarks.row import FLOOR, OURS, Better, Measure, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 10


def _loop(lab: Lab, call: Callable[[], object]) -> Sample:
    """Return the median time of one call, in µs, and its mean CPU time."""
    count = lab.pick(80, 30)
    for _ in range(3):
        call()
    times = []
    with Meter() as meter:
        for _ in range(count):
            began = time.perf_counter()
            call()
            times.append(time.perf_counter() - began)
    return Sample(statistics.median(times) * 1e6, meter.cpu / count * 1e6)


def _floor(lab: Lab) -> Sample:
    count = lab.pick(80, 30)
    with Meter() as meter:
        floor = lab.time("floor", "spawn", count, 1, SHELL, "-c", "true")
    return Sample(statistics.median(floor.each) * 1e6, meter.cpu / count * 1e6)


def _go(lab: Lab) -> Sample:
    count = lab.pick(80, 30)
    with Meter() as meter:
        go = time_go(lab, 0, "each", count, lab.directory("one") / "go", SHELL, "true")
    return Sample(statistics.median(go.each) * 1e6, meter.cpu / count * 1e6)


def _ours(lab: Lab) -> Sample:
    base = lab.directory("one")
    with runner(base, ["true"], get_script_logger=Counters()) as made:
        check(made.execute())
        return _loop(lab, made.execute)


def _peer(peer: Peer) -> Measure | str:
    def measure(lab: Lab) -> Sample:
        log = lab.directory("one") / "log"
        return _loop(lab, lambda: peer.run("true", log))

    return peer.lack or measure


ROWS = (
    Row(
        name="one",
        what="one script `true`, median of a loop",
        unit="µs",
        better=Better.LOWER,
        contenders={
            FLOOR: _floor,
            OURS: _ours,
            GO: _go,
            **{peer.name: _peer(peer) for peer in PEERS},
        },
        base=FLOOR,
        bar="≤ 1.40 × floor, the aim is 1.25; not slower than Go",
        cpu_unit="µs/script",
        quick=True,
    ),
)
