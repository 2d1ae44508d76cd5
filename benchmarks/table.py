"""Tables of what was measured: for a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from rich.table import Table

from benchmarks.report import Measured, Outcome, Report
from benchmarks.row import FLOOR, OURS
from benchmarks.stats import Summary, format_number

__all__ = ["machine_line", "markdown", "row_table"]

MARK: Final = "⚠"
"""Stands beside a median whose rounds are far apart."""


def row_table(row: Measured) -> Table:
    """Return the table of one row, a line for each contender."""
    bar = f" · to reach: {row.bar}" if row.bar else ""
    table = Table(
        title=f"{row.name} · {row.what}",
        caption=f"{row.unit}, {row.better.value} is better{bar}",
        title_justify="left",
        caption_justify="left",
        title_style="bold",
    )
    table.add_column("")
    cells = {name: _cells(row, name, outcome) for name, outcome in row.outcomes.items()}
    titles = ("median", "min to max", f"× {row.base}", f"CPU {row.cpu_unit}", "besides")
    used = [n for n in range(len(titles)) if any(line[n] for line in cells.values())]
    for n in used:
        table.add_column(titles[n], justify="left" if titles[n] == "besides" else "right")
    for name, line in cells.items():
        table.add_row(name, *(line[n] for n in used), style="bold" if name == OURS else None)
    return table


def _cells(row: Measured, name: str, outcome: Outcome) -> tuple[str, ...]:
    summary = outcome.summary()
    if summary is None:
        return ("–", "", "", "", outcome.reason)
    ratio, cpu = row.ratio(name), outcome.cpu()
    besides = [_besides(what, value) for what, value in outcome.besides().items()]
    return (
        _median(summary),
        _range(summary),
        "" if ratio is None else _ratio(ratio),
        "" if cpu is None else format_number(cpu),
        "; ".join([*besides, outcome.reason] if outcome.reason else besides),
    )


def _besides(what: str, value: float) -> str:
    return f"{what} {format_number(value)}"


def _median(summary: Summary) -> str:
    mark = f" {MARK}" if summary.is_uncertain else ""
    return f"{format_number(summary.median)}{mark}"


def _range(summary: Summary) -> str:
    return f"{format_number(summary.minimum)} to {format_number(summary.maximum)}"


def _ratio(ratio: Summary) -> str:
    mark = f" {MARK}" if ratio.is_uncertain else ""
    return f"{format_number(ratio.median)}{mark}"


# ---- Markdown ----


def machine_line(machine: Mapping[str, Any]) -> str:
    """Return the machine's facts in one sentence."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())


def markdown(report: Report) -> str:
    """Return one table of all rows, and who could not do which."""
    lines = [
        f"Measured with: {machine_line(report.machine)}.",
        "",
        "| row | what | unit | to reach | floor | agentscripts | ratio | CPU | peers |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_markdown_row(row) for row in report.rows),
    ]
    reasons = _reasons(report)
    if reasons:
        lines += ["", "Without a figure:", "", *(f"- {line}" for line in reasons)]
    return "\n".join(lines) + "\n"


def _markdown_row(row: Measured) -> str:
    ours = row.outcomes.get(OURS, Outcome())
    cells = (
        f"`{row.name}`",
        row.what,
        f"{row.unit}, {row.better.value} is better",
        row.bar,
        _figure(row.outcomes.get(FLOOR, Outcome())),
        _figure(ours),
        _ratio_cell(row),
        _cpu_cell(row, ours),
        "; ".join(_peer_figures(row)),
    )
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _figure(outcome: Outcome) -> str:
    summary = outcome.summary()
    if summary is None:
        return "–"
    besides = [_besides(what, value) for what, value in outcome.besides().items()]
    text = f"{_median(summary)} ({_range(summary)})"
    return "; ".join([text, *besides])


def _ratio_cell(row: Measured) -> str:
    ratio = row.ratio(OURS) if OURS in row.outcomes else None
    return "" if ratio is None else f"{_ratio(ratio)} × {row.base}"


def _cpu_cell(row: Measured, ours: Outcome) -> str:
    cpu = ours.cpu()
    return "" if cpu is None else f"{format_number(cpu)} {row.cpu_unit}"


def _peer_figures(row: Measured) -> Iterator[str]:
    for name, outcome in row.outcomes.items():
        summary = outcome.summary()
        if name not in (OURS, FLOOR) and summary is not None:
            yield f"{name} {_median(summary)}"


def _reasons(report: Report) -> list[str]:
    """Return who has no figure and why, with the rows of one reason together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for row in report.rows:
        for name, outcome in row.outcomes.items():
            if outcome.reason:
                rows.setdefault((name, outcome.reason), []).append(f"`{row.name}`")
    return [f"{name}, {', '.join(names)}: {why}" for (name, why), names in rows.items()]
