"""Scripts that print as fast as they can."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentscripts import Script
from benchmarks.golang import GO, time_go
from benchmarks.lab import SHELL, Lab
from benchmarks.meter import Meter
from benchmarks.ours import Counters, check, runner
from benchmarks.peers import BY_HAND, PEERS, Peer, run_at_once, write_without_tee
from benchmarks.row import FLOOR, OURS, Better, Cannot, Measure, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 30
MIB: Final = 1024 * 1024
SPLICE: Final = "floor, splice"


class Case(NamedTuple):
    """What is printed, by how many scripts, and where to."""

    length: int
    scripts: int
    target: str  # null, tmpfs, disk
    logger: bool

    @property
    def name(self) -> str:
        """The row's name."""
        many = f"-x{self.scripts}" if self.scripts > 1 else ""
        return f"{'lines' if self.logger else 'file'}-{self.length}-{self.target}{many}"

    def size(self, lab: Lab) -> int:
        """Return how many bytes each script prints: whole lines."""
        return _whole_lines(lab.pick(64, 32) * MIB // self.scripts, self.length)

    def logs(self, lab: Lab) -> list[Path]:
        """Return a log path for each script."""
        if self.target == "null":
            return [Path(os.devnull)] * self.scripts
        directory = lab.disk if self.target == "disk" else lab.memory
        if directory is None:
            raise Cannot("there is no /dev/shm")
        return [directory / f"log-{n}" for n in range(self.scripts)]

    def sample(self, size: int, wall: float, meter: Meter, *, own: bool = True) -> Sample:
        """Return the figures for so many bytes of each script."""
        total = size * self.scripts
        besides = {"M lines/s": total / self.length / wall / 1e6} if self.logger else {}
        if own:
            besides["own CPU s/GB"] = meter.own_cpu / (total / 1e9)
        return Sample(total / wall / 1e6, meter.cpu / (total / 1e9), besides)


def _remove(logs: Sequence[Path]) -> None:
    for log in logs:
        if log != Path(os.devnull):
            log.unlink(missing_ok=True)


def _floor(case: Case, how: str) -> Measure:
    def measure(lab: Lab) -> Sample:
        size = case.size(lab)
        logs = case.logs(lab)
        target = str(logs[0]).replace("log-0", "log-{}")
        with Meter() as meter:
            floors = lab.time_at_once(case.scripts, "floor", how, size, case.length, target)
        _remove(logs)
        return case.sample(size, max(floor.total for floor in floors), meter, own=False)

    return measure


def _go(case: Case) -> Measure:
    def measure(lab: Lab) -> Sample:
        size = case.size(lab)
        (log,), text = case.logs(lab), _script(lab, size, case.length)
        with Meter() as meter:
            go = time_go(lab, size // case.length, "each", 1, log, SHELL, text)
        _remove([log])
        return case.sample(size, go.total, meter, own=False)

    return measure


def _script(lab: Lab, size: int, length: int) -> str:
    return f"exec {lab.tool('gen')} {size} {length}"


def _ours(case: Case) -> Measure:
    def measure(lab: Lab) -> Sample:
        size = case.size(lab)
        logs, text = case.logs(lab), _script(lab, size, case.length)
        counters = Counters()
        logger: dict[str, Any] = {"get_script_logger": counters} if case.logger else {}
        scripts = [
            Script(name=str(n), script=text, log_path=str(log)) for n, log in enumerate(logs)
        ]
        with runner(lab.directory("output"), scripts, **logger) as made:
            with Meter() as meter:
                results = made.execute()
            check(results)
        if case.logger and counters.lines * case.length != size * case.scripts:
            raise RuntimeError(f"{counters.lines} lines came")
        _remove(logs)
        return case.sample(size, meter.wall, meter)

    return measure


def _whole_lines(size: int, length: int) -> int:
    return size // length * length


def _peer(case: Case, peer: Peer) -> Measure | str:
    def measure(lab: Lab) -> Sample:
        lines = min(peer.lines // lab.pick(1, 4), lab.pick(32, 8) * MIB // case.length)
        size = lines // case.scripts * case.length
        logs, text = case.logs(lab), _script(lab, size, case.length)
        with Meter() as meter:
            came = run_at_once(peer, [text] * case.scripts, logs, case.scripts)
        if came * case.length != size * case.scripts:
            raise RuntimeError(f"{came} lines came")
        _remove(logs)
        return case.sample(size, meter.wall, meter)

    return peer.lack or measure


def _without_tee(case: Case) -> Measure:
    def measure(lab: Lab) -> Sample:
        size = lab.pick(64, 32) * MIB // case.scripts
        logs, text = case.logs(lab), _script(lab, size, case.length)
        with Meter() as meter:
            write_without_tee([text] * case.scripts, logs)
        _remove(logs)
        return case.sample(size, meter.wall, meter)

    return measure


_LINES_BARS: Final = {
    "lines-16-null": "≥ 4 × Go",
    "lines-80-null": "≥ 2.5 × Go, ≤ 0.8 CPU s/GB",
    "lines-80-tmpfs": "≥ 2 × Go",
    "lines-1000-null": "≥ 1.4 × Go",
}


def _contenders(case: Case) -> Iterator[tuple[str, Measure | str]]:
    yield FLOOR, _floor(case, "copy")
    yield SPLICE, _floor(case, "splice")
    yield OURS, _ours(case)
    if not case.logger:
        yield "stdout=file, no tee", _without_tee(case)
    if case.name in _LINES_BARS:
        yield GO, _go(case)
    # The others differ little from row to row.
    all_peers = case in (Case(80, 1, "null", True), Case(16, 1, "null", True))
    for peer in PEERS if all_peers else (BY_HAND,):
        if case.logger:
            yield peer.name, _peer(case, peer)


def _row(case: Case) -> Row:
    scripts = "one script" if case.scripts == 1 else f"{case.scripts} scripts"
    place = {"null": "/dev/null", "tmpfs": "tmpfs", "disk": "disk"}[case.target]
    lines = "lines to a logger" if case.logger else "lines, no logger"
    bar = _LINES_BARS.get(case.name, "") if case.logger else "≥ 0.8 × floor"
    return Row(
        name=case.name,
        what=f"{case.length:,}-byte {lines}, {scripts}, log on {place}",
        unit="MB/s",
        better=Better.HIGHER,
        contenders=dict(_contenders(case)),
        base=FLOOR,
        bar=bar if case.scripts == 1 else "",
        cpu_unit="s/GB",
        quick=case.scripts == 1 and case.length == 80 and case.target != "disk",
    )


def _cases() -> Iterator[Case]:
    for scripts in (1, 4):
        for target in ("null", "tmpfs", "disk"):
            for length in (16, 80, 1000):
                yield Case(length, scripts, target, True)
    for scripts in (1, 4):
        for target in ("null", "tmpfs", "disk"):
            # Where no line is delivered its length hardly counts.
            for length in (16, 80, 1000) if (scripts, target) == (1, "tmpfs") else (80,):
                yield Case(length, scripts, target, False)


ROWS = tuple(map(_row, _cases()))
