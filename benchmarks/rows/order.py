"""How soon a script starts once what it depends on has ended."""

from __future__ import annotations

import statistics
from itertools import pairwise

from agentscripts import Dependency, Script
from benchmarks.lab import Lab
from benchmarks.ours import check, runner
from benchmarks.peers import PEERS
from benchmarks.row import OURS, Better, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 25


def _measure(lab: Lab) -> Sample:
    names = [str(number) for number in range(lab.pick(200, 50))]
    chain = [Script(name=names[0], script="true")] + [
        Script(name=name, script="true", depends_on=(Dependency(before),))
        for before, name in pairwise(names)
    ]
    with runner(lab.directory("order"), chain) as made:
        results = made.execute()
    check(results)
    gaps = [
        (after.started_at - before.ended_at).total_seconds() * 1e3
        for before, after in pairwise(results)
    ]
    return Sample(
        statistics.median(gaps),
        besides={"p99 ms": statistics.quantiles(gaps, n=100)[98], "max ms": max(gaps)},
    )


ROWS = (
    Row(
        name="order",
        what="200 scripts in a chain: from an end to the start that waits for it, p50",
        unit="ms",
        better=Better.LOWER,
        contenders={
            OURS: _measure,
            **{peer.name: "knows no dependencies" for peer in PEERS},
        },
        base=OURS,
        bar="≤ 5 ms",
        quick=True,
    ),
)
