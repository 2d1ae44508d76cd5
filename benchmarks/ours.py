"""The library, set up as an agent would do it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from agentscripts import LogBatch, Options, Runner, RunResult, Script
from benchmarks.lab import SHELL

__all__ = ["Counters", "check", "runner"]


# What an agent's log says is no part of the work: it goes nowhere, as most agents' INFO does.
_LOG: Final = logging.getLogger("benchmarks")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


class _Counter:
    lines = 0

    def send(self, batch: LogBatch) -> None:
        self.lines += len(batch.lines)

    def flush(self) -> None:
        pass


class Counters:
    """Makes a logger for each run that gets its lines, as ``str``, and counts them."""

    def __init__(self) -> None:
        self._all: list[_Counter] = []

    def __call__(self, log_source_id: UUID) -> _Counter:
        counter = _Counter()
        self._all.append(counter)
        return counter

    @property
    def lines(self) -> int:
        """How many lines came so far, in all runs."""
        return sum(counter.lines for counter in self._all)


@contextlib.contextmanager
def runner(
    base: Path,
    scripts: Sequence[Script | str],
    on_complete: Callable[[RunResult], object] | None = None,
    **options: Any,
) -> Iterator[Runner]:
    """Make a runner with its files under ``base``; lines go nowhere unless a logger is given."""
    defaults = {
        "data_dir_base": base,
        "log_dir": base / "logs",
        "logger": _LOG,
        "shell": SHELL,
    }
    with Runner(Options(**{**defaults, **options})) as made:
        made.init(
            [_script(number, one) for number, one in enumerate(scripts)], on_complete=on_complete
        )
        yield made


def _script(number: int, script: Script | str) -> Script:
    # With a name it has the same directory and log file in each round.
    return Script(name=str(number), script=script) if isinstance(script, str) else script


def check(results: Sequence[RunResult]) -> None:
    """Make sure that the work was done."""
    for result in results:
        if not result.ok or result.log_error or result.lines_dropped:
            raise RuntimeError(f"the run is not as it should be: {result}")
