"""A logger that takes its time for each line."""

from __future__ import annotations

import time
from typing import Final
from uuid import UUID

from agentscripts import LogBatch
from benchmarks.golang import GO, run_go
from benchmarks.lab import SHELL, Lab
from benchmarks.meter import Meter
from benchmarks.ours import runner
from benchmarks.row import OURS, Better, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 60
LINES: Final = 600
DELAY: Final = 0.04
# A pipe holds them all.
SCRIPT: Final = f"i=0; while [ $i -lt {LINES} ]; do printf '%-99s\\n' $i; i=$((i+1)); done"


class _Slow:
    lines = 0

    def send(self, batch: LogBatch) -> None:
        time.sleep(DELAY * len(batch.lines))
        self.lines += len(batch.lines)

    def flush(self) -> None:
        pass


def _ours(lab: Lab) -> Sample:
    logger = _Slow()

    def get_logger(log_source_id: UUID) -> _Slow:
        return logger

    base = lab.directory("slow")
    with runner(base, [SCRIPT], get_script_logger=get_logger) as made, Meter() as meter:
        (result,) = made.execute(check=False)
    return Sample(
        LINES - logger.lines,
        meter.cpu,
        {"succeeded": float(result.ok), "s": meter.wall},
    )


def _go(lab: Lab) -> Sample:
    log = lab.directory("slow") / "go"
    with Meter() as meter:
        go = run_go(lab, "each", "-delay", f"{DELAY}s", 1, log, SHELL, SCRIPT)
    succeeded = 1.0 - go.besides["failed"]
    return Sample(LINES - go.lines, meter.cpu, {"succeeded": succeeded, "s": go.total})


_HELD_BACK = "calls the logger where it reads, so its script waits and no line is lost"

ROWS = (
    Row(
        name="slow-logger",
        what=f"{LINES} lines to a logger that takes {DELAY * 1000:.0f} ms each, lines lost",
        unit="lines",
        better=Better.LOWER,
        contenders={OURS: _ours, GO: _go, "Popen and threads": _HELD_BACK},
        bar="0 lost, the run succeeds",
        cpu_unit="s",
        # It takes 24 s, nearly all of them asleep, and a count does not vary with the machine.
        rounds=1,
        warm_up=False,
    ),
)
