"""What the live view shows: a row per script, cut to the terminal. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from enum import IntEnum
from typing import Final
from uuid import UUID

from rich.cells import cell_len
from rich.text import Text

from agentscripts._columns import fit, visible
from agentscripts._model import Run, RunState, RunStatus, Script
from agentscripts._result import RunResult
from agentscripts._summary import STYLES, duration_text
from agentscripts._text import words

__all__ = ["Row", "Urgency", "frame", "rows_of"]

_STATE: Final = 11  # columns: "not started"
_TIME: Final = 9  # "1h00m05s"
_LEFT: Final = _TIME + len(" left")
_WIDE: Final = 60  # columns from which there is room for the time that is left
_DETAIL: Final = 8  # a last line that is shorter tells nothing


class Urgency(IntEnum):
    """Which rows stay when the terminal has no room for all: the smallest first."""

    ACTIVE = 0
    FAILED = 1
    WAITING = 2
    DONE = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """What there is to say of a script.

    state: a word or two, shown in ``style``. elapsed, left: seconds. detail: what it waits for,
    its last line, or why it failed; not yet escaped.
    """

    label: str
    urgency: Urgency
    state: str
    style: str = ""
    elapsed: float | None = None
    left: float | None = None
    detail: str = ""


def rows_of(
    scripts: Iterable[Script],
    labels: Mapping[UUID, str],
    runs: Iterable[Run],
    results: Mapping[UUID, RunResult],
    now: datetime,
) -> list[Row]:
    """Return a row for each script, in order.

    labels, results: by the ids of the scripts.
    """
    current = {run.script.id: run for run in runs}
    rows = []
    for script in scripts:
        label = labels[script.id]
        if (result := results.get(script.id)) is not None:
            rows.append(_ended(label, result))
        else:
            rows.append(_unfinished(label, current.get(script.id), now))
    return rows


def _ended(label: str, result: RunResult) -> Row:
    return Row(
        label,
        Urgency.DONE if result.ok else Urgency.FAILED,
        words(result.status.value),
        STYLES[result.status],
        None if result.status is RunStatus.SKIPPED else result.duration,
        detail=result.reason,
    )


def _unfinished(label: str, run: Run | None, now: datetime) -> Row:
    if run is None or run.state is RunState.WAITING:
        detail = f"for {', '.join(run.waits_for)}" if run and run.waits_for else ""
        if run and run.attempt > 1:
            detail = f"to try again ({run.attempt})"
        return Row(label, Urgency.WAITING, "waiting", "dim", detail=detail)
    elapsed = None if run.started_at is None else max(0.0, (now - run.started_at).total_seconds())
    left = None
    if elapsed is not None and run.script.timeout is not None and run.state is RunState.RUNNING:
        left = max(0.0, run.script.timeout - elapsed)
    state, style = _STATES[run.state]
    again = f"(try {run.attempt}) " if run.attempt > 1 else ""
    return Row(label, Urgency.ACTIVE, state, style, elapsed, left, again + run.last_line)


_STATES: Final = {
    RunState.RUNNING: ("running", "cyan"),
    RunState.STOPPING: ("stopping", "yellow"),
    RunState.DELIVERING: ("finishing", "cyan"),
}


def frame(rows: Sequence[Row], width: int, height: int, encoding: str = "utf-8") -> list[Text]:
    """Return lines that fit into so many columns and rows, the cursor's row left free.

    Where there is no room for all scripts, the last line counts them.
    """
    room = max(1, height - 1)
    shown, counts = rows, []
    if len(rows) > room:
        order = sorted(range(len(rows)), key=lambda index: (rows[index].urgency, index))
        shown = [rows[index] for index in sorted(order[: room - 1])]
        counts = [_counts(rows, width - 1)]
    # The last column stays empty: a line that fills it wraps in some terminals.
    return [*(_Layout(rows, width - 1, encoding).line(row) for row in shown), *counts]


def _counts(rows: Sequence[Row], width: int) -> Text:
    number = [0] * len(Urgency)
    for row in rows:
        number[row.urgency] += 1
    active, failed, waiting, done = number
    parts = [f"{done + failed} of {len(rows)} ended", f"{active} running", f"{waiting} waiting"]
    if failed:
        parts.insert(1, f"{failed} failed")
    text = ", ".join(parts)
    return Text(fit(text, width).rstrip(), style="bold")


class _Layout:
    def __init__(self, rows: Sequence[Row], width: int, encoding: str) -> None:
        longest = max((cell_len(visible(row.label, encoding)) for row in rows), default=0)
        self._label = min(longest, max(8, width // 3))
        self._left = (
            _TIME + 2 if width >= _WIDE and any(row.left is not None for row in rows) else 0
        )
        self._width = width
        self._encoding = encoding

    def line(self, row: Row) -> Text:
        text = Text(no_wrap=True, end="")
        text.append(fit(row.label, self._label, self._encoding))
        text.append("  ")
        text.append(f"{row.state:<{_STATE}}", row.style)
        elapsed = "" if row.elapsed is None else duration_text(row.elapsed)
        text.append(f"{elapsed:>{_TIME}}")
        if self._left:
            left = "" if row.left is None else f"{duration_text(row.left)} left"
            text.append(f"  {left:>{_LEFT}}", "dim")
        room = self._width - text.cell_len - 2
        if row.detail and room >= _DETAIL:
            text.append("  ")
            text.append(fit(row.detail, room, self._encoding).rstrip(), "dim")
        text.truncate(self._width)
        return text
