"""Interleaved rounds: A B C, A B C, ..."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Final

from benchmarks.lab import Lab, NoCompilerError
from benchmarks.report import Measured
from benchmarks.row import Cannot, Measure, Row

__all__ = ["ROUNDS", "measure_row", "rounds_of"]

ROUNDS: Final = 5


def rounds_of(row: Row, lab: Lab, *, slow: bool) -> int:
    """Return how many rounds count: the row's own number, else ``ROUNDS``, or 2 in a quick lab.

    On a slow machine half as many, rounded up.
    """
    count = row.rounds or lab.pick(ROUNDS, 2)
    return (count + 1) // 2 if slow else count


def measure_row(
    row: Row,
    lab: Lab,
    count: int,
    progress: Callable[[str], object] = lambda step: None,
) -> Measured:
    """Measure each contender of a row once a round, one after the other.

    count: how many rounds.
    progress: called with what is done now.
    """
    began = time.monotonic()
    measured = Measured.of(row)
    # The first round fills caches: the kernel's, the allocator's, that of compiled Python.
    first = -1 if row.warm_up else 0
    for number in range(first, count):
        for name, measure in row.contenders.items():
            if not isinstance(measure, str) and not measured.outcomes[name].reason:
                round_name = f"round {number + 1} of {count}" if number >= 0 else "warm-up"
                progress(f"{row.name}, {round_name}: {name}")
                _measure_once(measured, name, measure, lab, counts=number >= 0)
    measured.seconds = time.monotonic() - began
    return measured


def _measure_once(
    measured: Measured, name: str, measure: Measure, lab: Lab, *, counts: bool
) -> None:
    outcome = measured.outcomes[name]
    gc.collect()  # no contender pays for another one's garbage
    try:
        sample = measure(lab)
    except Cannot as reason:
        outcome.reason = str(reason)
    except NoCompilerError:
        raise
    except Exception as error:
        outcome.reason = f"failed: {type(error).__name__}: {error}"
        outcome.failed = True
    else:
        if counts:
            outcome.samples.append(sample)
