"""What a row is: one claim, and who is measured for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Final

from benchmarks.lab import Lab

__all__ = ["FLOOR", "OURS", "Better", "Cannot", "Measure", "Row", "Sample"]

OURS: Final = "agentscripts"
FLOOR: Final = "floor"


class Cannot(Exception):
    """A contender cannot do this, here; the text says why."""


class Better(Enum):
    """Which way is better."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclasses.dataclass(frozen=True)
class Sample:
    """What one round gave.

    value: in the row's unit.
    cpu: CPU time in the row's ``cpu_unit``, children included; ``None`` where it says nothing.
    besides: further figures, by name and unit.
    """

    value: float
    cpu: float | None = None
    besides: Mapping[str, float] = dataclasses.field(default_factory=dict)


Measure = Callable[[Lab], Sample]
"""Measures one round; raises ``Cannot`` when that is impossible on this machine."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One claim.

    contenders: by name; a text instead of a callable says why that one cannot do the row.
    base: the contender that the others are divided by. Default: none.
    bar: what the library is to reach.
    rounds: how many, where not ``ROUNDS``.
    warm_up: whether a round that does not count comes first; not needed in fresh processes.
    quick: whether ``--quick`` has it.
    """

    name: str
    what: str
    unit: str
    better: Better
    contenders: Mapping[str, Measure | str]
    base: str | None = None
    bar: str = ""
    cpu_unit: str = ""
    rounds: int | None = None
    warm_up: bool = True
    quick: bool = False
