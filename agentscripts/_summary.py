"""What is said of the runs at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from rich.cells import cell_len
from rich.text import Text

from agentscripts._columns import LONGEST_PADDED, fit, pad
from agentscripts._model import RunStatus
from agentscripts._result import RunResult
from agentscripts._text import escape, excerpt, hours_minutes_seconds, signal_name, words

__all__ = ["STYLES", "duration_text", "size_text", "summarize"]

STYLES: Final[Mapping[RunStatus, str]] = {
    RunStatus.SUCCEEDED: "green",
    RunStatus.FAILED: "bold red",
    RunStatus.TIMED_OUT: "bold red",
    RunStatus.CANCELLED: "yellow",
    RunStatus.PIPES_OPEN: "bold red",
    RunStatus.NOT_STARTED: "bold red",
    RunStatus.SKIPPED: "yellow",
}
"""How a terminal shows a status."""

_HEADINGS: Final = ("script", "status", "exit", "duration", "cpu", "memory")


def summarize(
    results: Sequence[RunResult],
    labels: Mapping[UUID, str],
    *,
    width: int | None = None,
    failures_only: bool = False,
) -> list[Text]:
    """Return the lines: a table, the reason and the last words of each failure, and the count.

    labels: what to call the scripts, by their ids.
    width: columns that the table may take; beyond that names are cut, and columns left out from
        the right.
    failures_only: leave the table out, and all when there is no failure.
    """
    failures = [result for result in results if not result.ok]
    if failures_only and not failures:
        return []
    lines = [] if failures_only else [Text(), *_table(results, labels, width)]
    for result in failures:
        # It was asked to end, so its last lines explain nothing.
        if result.status is not RunStatus.CANCELLED:
            lines += [Text(), *_failure(result, labels[result.script.id])]
    if failures:
        count = Text(f"{len(failures)} of {len(results)} scripts did not succeed", "bold red")
    else:
        said = "1 script succeeded" if len(results) == 1 else f"{len(results)} scripts succeeded"
        count = Text(said, "green")
    return [*lines, Text(), count]


def duration_text(seconds: float) -> str:
    """Return ``0.12s``, ``12.3s``, ``2m05s`` or ``1h00m05s``."""
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    hours, minutes, rest = hours_minutes_seconds(seconds)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def size_text(count: float) -> str:
    """Return bytes as ``12 KiB``, ``3.4 MiB`` or ``2.0 GiB``."""
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 999.5 or unit == "GiB":
            break
    return f"{count:.0f} {unit}" if unit == "KiB" else f"{count:.1f} {unit}"


def _table(
    results: Sequence[RunResult], labels: Mapping[UUID, str], width: int | None
) -> Iterator[Text]:
    rows = [_HEADINGS]
    for result in results:
        rows.append(
            (
                escape(labels[result.script.id]),
                words(result.status.value),
                _exit(result.exit_code),
                duration_text(result.duration),
                "-" if result.cpu_seconds is None else duration_text(result.cpu_seconds),
                "-" if result.max_rss is None else size_text(result.max_rss),
            )
        )
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    if width is None:
        widths[0] = min(widths[0], LONGEST_PADDED)
    else:
        widths = _narrowed(widths, width)
    styles = ["dim", *(STYLES[result.status] for result in results)]
    for row, style in zip(rows, styles, strict=True):
        line = Text()
        for index, (cell, columns) in enumerate(zip(row, widths, strict=False)):
            if index == 0 and width is not None:
                shown = fit(cell, columns)
            else:
                shown = pad(cell, columns) if index < 2 else f"{cell:>{columns}}"
            line.append("  " if index else "")
            line.append(shown, style if index == 1 or style == "dim" else "")
        line.rstrip()
        yield line


def _narrowed(widths: Sequence[int], width: int) -> list[int]:
    """Return the widths of as many columns as there is room for: names are cut to a third of it,
    then columns are left out from the right, then names get what is left."""
    name, *rest = widths
    shortest = min(name, max(8, width // 3))
    while len(rest) > 1 and shortest + sum(rest) + 2 * len(rest) > width:
        rest.pop()
    return [max(shortest, min(name, width - sum(rest) - 2 * len(rest))), *rest]


def _exit(code: int | None) -> str:
    if code is None:
        return "-"
    return signal_name(-code) if code < 0 else str(code)


def _failure(result: RunResult, label: str) -> Iterator[Text]:
    yield Text(f"{escape(label)}: {escape(result.reason)}", "bold")
    if result.log_path is not None:
        yield Text(f"  its log file: {escape(str(result.log_path))}")
    if result.stderr:
        yield Text("  its standard error:")
        yield from (Text(f"    {line}") for line in excerpt(result.stderr, result.stderr_lines))
    elif result.tail:
        yield Text("  its last lines:")
        yield from (Text(f"    {line}") for line in excerpt(result.tail, len(result.tail)))
