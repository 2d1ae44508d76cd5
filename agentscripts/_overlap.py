"""What becomes of a schedule that fires while its last run still runs. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from enum import Enum, auto
from typing import Final
from uuid import UUID

from agentscripts._model import Overlap

__all__ = ["Decision", "Overlaps"]


class Decision(Enum):
    """What to do with a script whose time has come."""

    START = auto()
    WAIT = auto()
    SKIP = auto()


@dataclasses.dataclass
class _State:
    overlap: Overlap
    running: int = 0
    waiting: datetime | None = None  # the planned time of the one that waits


class Overlaps:
    """Which scripts run, and which wait for their last run. One thread's."""

    def __init__(self, overlaps: Mapping[UUID, Overlap]) -> None:
        self._states: Final = {key: _State(overlap) for key, overlap in overlaps.items()}

    def due(self, script_id: UUID, planned: datetime) -> Decision:
        """Decide on a script whose time has come; ``START`` counts it as running."""
        state = self._states[script_id]
        if state.running == 0 or state.overlap is Overlap.ALLOW:
            state.running += 1
            return Decision.START
        if state.overlap is Overlap.QUEUE and state.waiting is None:
            state.waiting = planned
            return Decision.WAIT
        return Decision.SKIP

    def ended(self, script_id: UUID) -> datetime | None:
        """Count a run's end; return the planned time of the one that starts now, if one waits."""
        state = self._states[script_id]
        state.running -= 1
        planned, state.waiting = state.waiting, None
        if planned is not None:
            state.running += 1
        return planned

    def close(self) -> list[tuple[UUID, datetime]]:
        """Return those that wait, and let none of them start any more."""
        waiting = [
            (key, state.waiting) for key, state in self._states.items() if state.waiting is not None
        ]
        for key, _ in waiting:
            self._states[key].waiting = None
        return waiting
