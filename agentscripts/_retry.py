"""Whether and when a script that failed is run again, and what its attempts add up to. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Final, TypeVar

from agentscripts._model import RunStatus, Script
from agentscripts._result import RunResult

__all__ = ["added_up", "delay_before_next"]

T = TypeVar("T")

_LONGEST: Final = 60.0  # seconds
_DOUBLINGS: Final = 64  # more make no difference, and too many are no float


def delay_before_next(
    script: Script, attempt: int, status: RunStatus, chance: Callable[[], float]
) -> float | None:
    """Return the seconds from the end of an attempt (1 is the first) to the next; ``None``: none.

    chance: returns a number from 0 to 1, by which the delay is spread over its upper half.
    """
    if attempt > script.retries or status not in (RunStatus.FAILED, RunStatus.TIMED_OUT):
        return None
    first = min(_LONGEST, script.retry_delay)  # before it is doubled: a float has an end
    delay = min(_LONGEST, math.ldexp(first, min(attempt - 1, _DOUBLINGS)))
    return delay * (1 - chance() / 2)


def added_up(before: RunResult, last: RunResult) -> RunResult:
    """Return the result of a run whose attempts so far had one result, and the last one another."""
    return dataclasses.replace(
        last,
        attempts=before.attempts + 1,
        output_bytes=before.output_bytes + last.output_bytes,
        lines=before.lines + last.lines,
        lines_dropped=before.lines_dropped + last.lines_dropped,
        log_error=before.log_error or last.log_error,
        survivors=before.survivors + last.survivors,
        cpu_seconds=_if_both(float.__add__, before.cpu_seconds, last.cpu_seconds),
        max_rss=_if_both(max, before.max_rss, last.max_rss),
    )


def _if_both(join: Callable[[T, T], T], one: T | None, other: T | None) -> T | None:
    return None if one is None or other is None else join(one, other)
