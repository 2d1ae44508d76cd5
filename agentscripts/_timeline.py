"""Results of runs become one page: a bar for each over time. Pure, but for the template's file."""

from __future__ import annotations

import collections
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from agentscripts._model import Requires, RunStatus, Stage
from agentscripts._text import escape, excerpt, hours_minutes_seconds, words

__all__ = ["Record", "critical_path", "parse_record", "render_timeline", "waited_for"]

_TICKS: Final = 6  # at most so many steps on the axis

_SYMBOLS: Final[Mapping[RunStatus, str]] = {
    RunStatus.SUCCEEDED: "✓",
    RunStatus.FAILED: "✗",
    RunStatus.TIMED_OUT: "!",
    RunStatus.CANCELLED: "■",
    RunStatus.PIPES_OPEN: "≡",
    RunStatus.NOT_STARTED: "⊘",
    RunStatus.SKIPPED: "↷",
}


class _Part(BaseModel):
    """A part of ``docs/result.schema.json``: what the page shows of it."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _DependencyPart(_Part):
    on: str
    requires: Requires


class _ScriptPart(_Part):
    name: str
    label: str
    depends_on: tuple[_DependencyPart, ...]


class Record(_Part):
    """One run, as ``RunResult.as_dict`` tells it."""

    schema_: Literal[1]
    run_id: str
    script: _ScriptPart
    stage: Stage
    status: RunStatus
    reason: str
    exit_code: int | None
    signal: str | None
    started_at: AwareDatetime
    ended_at: AwareDatetime
    duration: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    attempts: int
    output_bytes: int
    lines: int
    log_path: str | None
    tail: tuple[str, ...]
    stderr: tuple[str, ...]
    stderr_lines: int
    cpu_seconds: float | None
    max_rss: int | None


def parse_record(data: object) -> Record:
    """Return the record of what ``RunResult.as_dict`` made.

    Raises ``ValueError`` with a line that names each field that is wrong, and what was expected.
    """
    if not isinstance(data, dict):
        raise ValueError("is no object, expected a result")
    try:
        return Record.model_validate({**data, "schema_": data.get("schema")})
    except ValidationError as error:
        problems = (
            f"{'.'.join(str(part).rstrip('_') for part in one['loc'])}: {one['msg']}"
            for one in error.errors(include_url=False)
        )
        raise ValueError("; ".join(problems)) from None


def waited_for(records: Sequence[Record]) -> list[list[int]]:
    """Return for each run those that it waited for: of each dependency the last one by then."""
    by_name: dict[str, list[int]] = collections.defaultdict(list)
    for number, record in enumerate(records):
        by_name[record.script.name].append(number)
    found: list[list[int]] = []
    for record in records:
        before = (
            [number for number in by_name[one.on] if records[number].ended_at <= record.ended_at]
            for one in record.script.depends_on
        )
        found.append([max(some, key=lambda n: records[n].ended_at) for some in before if some])
    return found


def critical_path(records: Sequence[Record], waited: Sequence[Sequence[int]]) -> list[int]:
    """Return the runs that took the whole its time: from the one that ended last back through the
    dependency that each waited for longest, in the order of time."""
    path: list[int] = []
    before: Sequence[int] = [number for number, record in enumerate(records) if record.attempts]
    while before:
        path.append(max(before, key=lambda number: records[number].ended_at))
        before = [number for number in waited[path[-1]] if number not in path]
    return path[::-1]


class _Bar(NamedTuple):
    """What the template shows of a run."""

    number: int
    record: Record
    symbol: str
    left: float  # in percent of the time, as is the width
    width: float
    critical: bool
    facts: Sequence[tuple[str, str]]
    stderr: Sequence[str]


class _Arrow(NamedTuple):
    """From the end of one bar to the begin of another, in percent and in rows."""

    x1: float
    y1: float
    x2: float
    y2: float
    critical: bool


def render_timeline(records: Sequence[Record], title: str) -> str:
    """Return the page, complete in itself."""
    environment = Environment(
        loader=PackageLoader("agentscripts", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"seconds": seconds_text, "visible": escape, "words": words}
    ordered = sorted(records, key=lambda record: (record.started_at, record.ended_at))
    waited = waited_for(ordered)
    path = critical_path(ordered, waited)
    begin = min((record.started_at for record in ordered), default=datetime.min)
    end = max((record.ended_at for record in ordered), default=datetime.min)
    span = max((end - begin).total_seconds(), 0.001)
    steps = set(itertools.pairwise(path))

    def percent(moment: datetime) -> float:
        return round((moment - begin).total_seconds() / span * 100, 3)

    bars = [
        _Bar(
            number=number,
            record=record,
            symbol=_SYMBOLS[record.status],
            left=percent(record.started_at),
            width=round(percent(record.ended_at) - percent(record.started_at), 3),
            critical=number in path,
            facts=list(_facts(record)),
            stderr=list(excerpt(record.stderr, record.stderr_lines)),
        )
        for number, record in enumerate(ordered)
    ]
    arrows = [
        _Arrow(
            percent(ordered[before].ended_at),
            before + 0.5,
            percent(record.started_at),
            number + 0.5,
            (before, number) in steps,
        )
        for number, record in enumerate(ordered)
        for before in waited[number]
    ]
    counts = {status: sum(one.status is status for one in ordered) for status in RunStatus}
    return environment.get_template("timeline.html.jinja").render(
        title=title,
        bars=bars,
        arrows=arrows,
        ticks=[(round(at / span * 100, 3), seconds_text(at)) for at in ticks(span)],
        begin=begin,
        span=span,
        path=[ordered[number] for number in path],
        counts=[(status, _SYMBOLS[status], count) for status, count in counts.items() if count],
    )


def ticks(span: float) -> list[float]:
    """Return moments for an axis of so many seconds: 1, 2 or 5 times a power of ten apart."""
    step = 10.0 ** math.floor(math.log10(span / _TICKS))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= _TICKS)
    return [number * step for number in range(math.floor(span / step) + 1)]


def seconds_text(seconds: float) -> str:
    """Return ``0 s``, ``2.5 ms``, ``0.25 s``, ``12.3 s``, ``2 min 5 s`` or ``1 h 0 min``."""
    if 0 < seconds < 0.1:
        return f"{seconds * 1000:.2g} ms"
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    hours, minutes, rest = hours_minutes_seconds(seconds)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    yield "status", words(record.status.value)
    if record.reason:
        yield "why", escape(record.reason)
    if record.exit_code is not None:
        yield "exit code", record.signal or str(record.exit_code)
    yield "stage", record.stage.value
    yield "started", record.started_at.isoformat(" ", "milliseconds")
    yield "duration", seconds_text(record.duration)
    if record.attempts > 1:
        yield "attempts", str(record.attempts)
    if record.script.depends_on:
        yield (
            "depends on",
            ", ".join(
                f"{escape(one.on)} ({one.requires.value})" for one in record.script.depends_on
            ),
        )
    if record.cpu_seconds is not None:
        yield "CPU time", seconds_text(record.cpu_seconds)
    if record.max_rss is not None:
        yield "memory", f"{record.max_rss / 2**20:.1f} MiB"
    if record.output_bytes:
        lines = "1 line" if record.lines == 1 else f"{record.lines:,} lines"
        yield "output", f"{lines}, {record.output_bytes:,} bytes"
    if record.log_path:
        yield "log file", escape(record.log_path)
