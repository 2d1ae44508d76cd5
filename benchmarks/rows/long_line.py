"""One line that does not end."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.golang import GO, time_go
from benchmarks.lab import SHELL, Lab
from benchmarks.meter import Meter
from benchmarks.ours import Counters, check, runner
from benchmarks.peers import PEERS, Peer
from benchmarks.row import OURS, Better, Measure, Row, Sample
from benchmarks.status import memory, peak_memory, reset_peak

__all__ = ["ORDER", "ROWS"]

ORDER = 50
MIB: Final = 1024 * 1024
SIZE: Final = 256 * MIB
_CANNOT: Final = {"subprocess-tee": "hangs when a line is longer than 8 MiB"}


class _Peak:
    """How much memory this process takes meanwhile, above what it has at the beginning."""

    def __init__(self) -> None:
        reset_peak()
        self._before = memory()

    def figures(self, size: int, meter: Meter) -> dict[str, float]:
        """Return the figures for a line of so many bytes."""
        return _figures(peak_memory() - self._before, size, meter.cpu, meter.wall)


def _figures(peak: float, size: int, cpu: float, wall: float) -> dict[str, float]:
    return {"peak": peak / MIB, "cpu": cpu / (size / 1e9), "rate": size / wall / 1e6}


def run_ours(script: str, size: int, base: str) -> dict[str, float]:
    """Run a script that prints so many bytes; return what that takes."""
    counters = Counters()
    with runner(Path(base), ["true", script], get_script_logger=counters) as made:
        first, other = made.scripts
        made.execute(lambda one: one is first)
        peak = _Peak()
        with Meter() as meter:
            results = made.execute(lambda one: one is other)
        check(results)
        return peak.figures(size, meter)


def run_peer(name: str, script: str, size: int, base: str) -> dict[str, float]:
    """Do the same by a peer."""
    peer = next(peer for peer in PEERS if peer.name == name)
    log = Path(base, "peer")
    peer.run("true", log)
    peak = _Peak()
    with Meter() as meter:
        peer.run(script, log)
    if log.stat().st_size < size:
        raise RuntimeError(f"{log.stat().st_size} bytes came")
    return peak.figures(size, meter)


def _script(lab: Lab) -> tuple[str, int]:
    return f"exec {lab.tool('gen')} {SIZE} 0", SIZE


def _sample(figures: dict[str, float]) -> Sample:
    return Sample(figures["peak"], figures["cpu"], {"MB/s": figures["rate"]})


def _ours(lab: Lab) -> Sample:
    return _sample(lab.fresh(run_ours, *_script(lab), str(lab.directory("long"))))


def _go(lab: Lab) -> Sample:
    text, size = _script(lab)
    with Meter() as meter:
        go = time_go(lab, 1, "each", 1, lab.directory("long") / "go", SHELL, text)
    return _sample(_figures(go.besides["peak"], size, meter.cpu, go.total))


def _peer(peer: Peer) -> Measure | str:
    def measure(lab: Lab) -> Sample:
        figures = lab.fresh(run_peer, peer.name, *_script(lab), str(lab.directory("long")))
        return _sample(figures)

    return _CANNOT.get(peer.name) or peer.lack or measure


ROWS = (
    Row(
        name="long-line",
        what="one line of 256 MiB, peak memory above idle",
        unit="MiB",
        better=Better.LOWER,
        contenders={OURS: _ours, GO: _go, **{peer.name: _peer(peer) for peer in PEERS}},
        base=OURS,
        bar="≤ 10 MiB",
        cpu_unit="s/GB",
        # Memory hardly varies from round to round.
        rounds=1,
        warm_up=False,
    ),
)
