"""Medians, spreads and ratios (pure)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

__all__ = ["UNCERTAIN", "Summary", "format_number", "ratios", "summarize"]

UNCERTAIN: Final = 0.3
"""The spread above which a median is marked."""


class Summary(NamedTuple):
    """What some rounds gave."""

    median: float
    minimum: float
    maximum: float

    @property
    def spread(self) -> float:
        """How far apart the rounds are, as a share of the median."""
        if self.minimum == self.maximum:
            return 0.0
        return (self.maximum - self.minimum) / abs(self.median) if self.median else math.inf

    @property
    def is_uncertain(self) -> bool:
        """Whether the rounds are too far apart to trust the median."""
        return self.spread > UNCERTAIN


def summarize(values: Sequence[float]) -> Summary:
    """Return the summary of at least one value."""
    return Summary(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], base: Sequence[float]) -> Summary | None:
    """Return the summary of each round's ratio; ``None`` when a base is zero or none is there.

    A machine that is slow for a while slows both sides of a round, so the ratio stays.
    """
    pairs = list(zip(values, base, strict=False))
    if not pairs or not all(below for _, below in pairs):
        return None
    return summarize([above / below for above, below in pairs])


def format_number(value: float) -> str:
    """Return three significant digits, thousands with a comma: ``1,230``, ``0.0456``."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{round(value, digits):,.{max(digits, 0)}f}"
