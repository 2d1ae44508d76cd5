"""What was measured, and its JSON (pure)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.row import Better, Row, Sample
from benchmarks.stats import Summary, ratios, summarize

__all__ = ["Measured", "Outcome", "Report"]


@dataclasses.dataclass
class Outcome:
    """What became of one contender.

    reason: why there is no sample, or not one of each round; ``""`` when there is.
    failed: whether that is an error, and no property of the contender or the machine.
    """

    samples: list[Sample] = dataclasses.field(default_factory=list)
    reason: str = ""
    failed: bool = False

    def values(self) -> list[float]:
        """Return the rounds' values."""
        return [sample.value for sample in self.samples]

    def summary(self) -> Summary | None:
        """Return the summary of the values; ``None`` without samples."""
        return summarize(self.values()) if self.samples else None

    def cpu(self) -> float | None:
        """Return the median CPU time; ``None`` where it says nothing."""
        known = [sample.cpu for sample in self.samples if sample.cpu is not None]
        return summarize(known).median if known else None

    def besides(self) -> dict[str, float]:
        """Return the medians of the further figures."""
        names = self.samples[0].besides if self.samples else ()
        return {
            name: summarize([sample.besides[name] for sample in self.samples]).median
            for name in names
        }


@dataclasses.dataclass
class Measured:
    """One row's outcomes, and how long all rounds took; the other fields are the row's."""

    name: str
    what: str
    unit: str
    better: Better
    base: str | None
    bar: str
    cpu_unit: str
    outcomes: dict[str, Outcome]
    seconds: float = 0.0

    @classmethod
    def of(cls, row: Row) -> Measured:
        """Return a row's result before the first round."""
        outcomes = {
            name: Outcome(reason=measure) if isinstance(measure, str) else Outcome()
            for name, measure in row.contenders.items()
        }
        return cls(
            row.name, row.what, row.unit, row.better, row.base, row.bar, row.cpu_unit, outcomes
        )

    def ratio(self, name: str) -> Summary | None:
        """Return a contender's ratio to the base; ``None`` for the base itself, or without one."""
        if self.base is None or name == self.base:
            return None
        return ratios(self.outcomes[name].values(), self.outcomes[self.base].values())

    def times_as_good(self, name: str) -> Summary | None:
        """Return the ratio turned so that more is better."""
        ratio = self.ratio(name)
        if ratio is None or self.better is Better.HIGHER:
            return ratio
        if ratio.minimum <= 0:
            return None
        return Summary(1 / ratio.median, 1 / ratio.maximum, 1 / ratio.minimum)


@dataclasses.dataclass
class Report:
    """One run of the benchmarks.

    machine: facts, by name; a text or a number each.
    """

    machine: Mapping[str, Any]
    rows: list[Measured]

    @property
    def has_failed(self) -> bool:
        """Whether a contender raised."""
        return any(outcome.failed for row in self.rows for outcome in row.outcomes.values())

    def to_json(self) -> dict[str, Any]:
        """Return a value for ``json.dumps``, with each round's figures."""
        rows = [{**dataclasses.asdict(row), "better": row.better.value} for row in self.rows]
        return {"machine": dict(self.machine), "rows": rows}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Report:
        """Return what ``to_json`` made a value of."""
        return cls(data["machine"], [_measured(row) for row in data["rows"]])


def _measured(data: Mapping[str, Any]) -> Measured:
    outcomes = {
        name: Outcome(
            [Sample(**sample) for sample in outcome["samples"]],
            outcome["reason"],
            outcome["failed"],
        )
        for name, outcome in data["outcomes"].items()
    }
    return Measured(**{**data, "better": Better(data["better"]), "outcomes": outcomes})
