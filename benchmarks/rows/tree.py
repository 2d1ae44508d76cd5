"""The end of a large process tree."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from agentscripts import RunStatus, Script
from benchmarks.deadlines import TIMED, Timed
from benchmarks.lab import Lab
from benchmarks.meter import Meter
from benchmarks.ours import Counters, runner
from benchmarks.peers import PEERS, Peer
from benchmarks.row import OURS, Better, Measure, Row, Sample
from benchmarks.status import count_processes

__all__ = ["ORDER", "ROWS"]

ORDER = 80
COUNT: Final = 1000
TIMEOUT: Final = 0.5  # the tree is there after some 0.1 s


def _script(lab: Lab, own_sessions: bool) -> str:
    return f"exec {lab.tool('victim')} tree {COUNT} {own_sessions:d}"


def _end(lab: Lab, call: Callable[[], bool]) -> Sample:
    """Return how late a call came back; it returns whether the whole tree was there before."""
    began = time.monotonic()
    with Meter() as meter:
        was_complete = call()
    late = time.monotonic() - began - TIMEOUT
    alive = count_processes(lab.tool("victim"))
    if not was_complete:
        raise RuntimeError(f"the tree was not complete after {TIMEOUT} s")
    return Sample(late * 1e3, meter.own_cpu * 1e3, {"alive": float(alive)})


def _ours(own_sessions: bool) -> Measure:
    def measure(lab: Lab) -> Sample:
        counters = Counters()
        script = Script(name="tree", script=_script(lab, own_sessions), timeout=TIMEOUT)
        with runner(lab.directory("tree"), [script], get_script_logger=counters) as made:

            def call() -> bool:
                (result,) = made.execute(check=False)
                return result.status is RunStatus.TIMED_OUT and counters.lines == 1

            return _end(lab, call)

    return measure


def _peer(peer: Peer, own_sessions: bool) -> Measure | str:
    timed = TIMED[peer.name]
    if isinstance(timed, str):
        return timed
    if own_sessions:
        return "ends the process group; what has a session of its own lives on"
    return peer.lack or _timed_peer(timed)


def _timed_peer(timed: Timed) -> Measure:
    def measure(lab: Lab) -> Sample:
        log = lab.directory("tree") / "peer"
        text = _script(lab, False)

        def call() -> bool:
            timed(text, log, TIMEOUT)
            return log.read_text() == "ready\n"

        return _end(lab, call)

    return measure


def _row(name: str, what: str, bar: str, *, own_sessions: bool) -> Row:
    peers = {peer.name: _peer(peer, own_sessions) for peer in PEERS}
    return Row(
        name=name,
        what=what,
        unit="ms",
        better=Better.LOWER,
        contenders={OURS: _ours(own_sessions), **peers},
        base=OURS,
        bar=bar,
        cpu_unit="ms, own",
        quick=own_sessions,
    )


ROWS = (
    _row(
        "tree-1000",
        "timeout of a tree of 1,000 processes, return's lateness",
        "none alive",
        own_sessions=False,
    ),
    _row(
        "tree-1000-sessions",
        "the same tree, each process in a session of its own",
        "none alive",
        own_sessions=True,
    ),
)
