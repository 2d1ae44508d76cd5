"""The command line."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import ROOT, machine
from benchmarks.chart import chart
from benchmarks.choice import UnknownRowError, choose
from benchmarks.lab import NoCompilerError, open_lab
from benchmarks.limits import default_signals, raise_limits
from benchmarks.measure import measure_row, rounds_of
from benchmarks.report import Report
from benchmarks.row import Row
from benchmarks.rows import all_rows
from benchmarks.table import machine_line, markdown, row_table

__all__ = ["main"]

# How long the row "one" takes where all rows would take more than the 5 minutes that they may.
_SLOW: Final = 9.0


class _BadFileError(Exception):
    """A file or directory that the user named is of no use."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure every claim, against the floor and the peers, within 5 minutes.",
    )
    add = parser.add_argument
    add("--row", action="append", default=[], metavar="NAME", help="a name, its beginning, or *")
    add("--list", action="store_true", help="list the rows and measure nothing")
    add("--quick", action="store_true", help="the main rows with small sizes, in 30 s")
    add("--rounds", type=_positive, metavar="N", help="how many rounds that count (default: 5)")
    add("--markdown", action="store_true", help="print one table in Markdown")
    add("--load", type=Path, metavar="FILE", help="show an earlier result and measure nothing")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="DIRECTORY")
    return parser


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds")
    return int(text)


def main() -> int:
    """Run the command line of this process; return its exit status."""
    options = _parser().parse_args()
    # Ended so, too, it removes its scratch files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        return _run(options)
    except (NoCompilerError, UnknownRowError, _BadFileError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace) -> int:
    # A width of its own where the output is no terminal: a table must not be cut.
    console = Console(width=None if sys.stdout.isatty() else 160)
    if options.load:
        _show(_load(options.load), console, as_markdown=options.markdown)
        return 0
    rows = choose(all_rows(), options.row, quick=options.quick)
    if options.list:
        for row in rows:
            console.print(f"{row.name:20} {row.what} ({row.unit})", highlight=False)
        return 0
    try:  # what is measured must not be lost
        options.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _BadFileError(f"{options.results}: {error.strerror}") from None
    raise_limits()
    default_signals()
    report = _measure(rows, options, console)
    if options.markdown:
        print(markdown(report), end="")
    for path in _save(report, options):
        print(f"benchmarks: wrote {path}", file=sys.stderr)
    print(f"benchmarks: took {sum(row.seconds for row in report.rows):.0f} s", file=sys.stderr)
    return 1 if report.has_failed else 0


def _load(path: Path) -> Report:
    try:
        return Report.from_json(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise _BadFileError(f"{path}: {error.strerror}") from None
    except (KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise _BadFileError(f"{path}: is no JSON of a run ({what})") from None


def _measure(rows: list[Row], options: argparse.Namespace, console: Console) -> Report:
    errors = Console(stderr=True)

    def warn(text: str) -> None:
        errors.print(f"benchmarks: {text}", style="yellow", highlight=False)

    with open_lab(quick=options.quick) as lab:
        facts = machine.facts(lab)
        report = Report(facts, [])
        if not options.markdown:
            console.print(machine_line(facts), highlight=False)
        for warning in machine.warnings(facts):
            warn(warning)
        slow, whole = False, not (options.row or options.rounds or options.quick)
        for row in rows:
            count = options.rounds or rounds_of(row, lab, slow=slow)
            measured = measure_row(row, lab, count, _show_progress)
            _show_progress("")
            report.rows.append(measured)
            if not options.markdown:
                console.print(row_table(measured))
            if row.name == "one" and whole and measured.seconds > _SLOW:
                slow = True
                warn("the machine is slow: the rows that follow have fewer rounds")
    return report


def _show_progress(step: str) -> None:
    # No spinner: its thread would take part in what is measured.
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{step}", end="", file=sys.stderr, flush=True)


def _show(report: Report, console: Console, *, as_markdown: bool) -> None:
    if as_markdown:
        print(markdown(report), end="")
        return
    console.print(machine_line(report.machine), highlight=False)
    for row in report.rows:
        console.print(row_table(row))


def _save(report: Report, options: argparse.Namespace) -> list[Path]:
    """Write the rounds and the picture; return the files."""
    stem = _stem(report.machine, options)
    data, picture = (options.results / f"{stem}.{kind}" for kind in ("json", "svg"))
    data.write_text(json.dumps(report.to_json(), indent=1) + "\n", "utf-8")
    picture.write_text(chart(report), "utf-8")
    return [data, picture]


def _stem(facts: Any, options: argparse.Namespace) -> str:
    """Return the files' name; a part of the rows must not replace a whole run of the same day."""
    part = "-rows" if options.row else "-quick" if options.quick else ""
    return f"{facts['date'][:10]}-{facts['host']}{part}"
