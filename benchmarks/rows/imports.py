"""What an import costs."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Final

from benchmarks.lab import Lab
from benchmarks.meter import Meter
from benchmarks.peers import BY_HAND, PEERS, Peer
from benchmarks.row import OURS, Better, Measure, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 90
FIRST_RUN: Final = "agentscripts and a first run"
_FIRST_RUN_CODE: Final = """
import sys
from agentscripts import Options, Runner, Script
with Runner(Options(data_dir_base=sys.argv[1], log_dir=sys.argv[1], shell="/bin/sh")) as runner:
    runner.init([Script(name="first", script="true")])
    runner.execute()
"""


def _time(code: str, argument: str) -> float:
    began = time.perf_counter()
    # -I: nothing but what is installed can be found.
    subprocess.run([sys.executable, "-I", "-c", code, argument], check=True)
    return time.perf_counter() - began


def _beyond_bare(code: str) -> Measure:
    """Measure a program's time beyond that of an empty one, which runs right after it."""

    def measure(lab: Lab) -> Sample:
        argument = str(lab.directory("import"))
        with Meter() as meter:
            beyond = _time(code, argument) - _time("pass", argument)
        return Sample(beyond * 1e3, meter.cpu / 2 * 1e3)

    return measure


def _peer(peer: Peer) -> Measure | str:
    return peer.lack or _beyond_bare(f"import {peer.module}")


# The two of the standard library are one import.
_PEERS: Final = [peer for peer in PEERS if peer is not BY_HAND]

ROWS = (
    Row(
        name="import",
        what="import, time beyond bare Python",
        unit="ms",
        better=Better.LOWER,
        contenders={
            OURS: _beyond_bare("import agentscripts"),
            FIRST_RUN: _beyond_bare(_FIRST_RUN_CODE),
            **{peer.name: _peer(peer) for peer in _PEERS},
        },
        base=OURS,
        bar="≤ 50 ms",
        cpu_unit="ms, mean with bare",
        quick=True,
    ),
)
