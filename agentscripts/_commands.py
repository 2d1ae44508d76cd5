"""The commands: they connect a manifest, a runner and the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final, NoReturn, TextIO

import click

from agentscripts._cancel import CancelToken
from agentscripts._console import Output
from agentscripts._cron import CronSyntax, five_field_warning, parse
from agentscripts._crontab import parse_schedules, schedule_warnings
from agentscripts._foreground import run_in_foreground
from agentscripts._manifest import Manifest, ManifestError, load_manifest
from agentscripts._metricspage import Address, parse_address
from agentscripts._model import Stage
from agentscripts._options import Options
from agentscripts._preview import fire_text
from agentscripts._schedule import fires_after
from agentscripts._text import escape
from agentscripts._version import __version__
from agentscripts._zones import find_zone, local_zone

__all__ = ["commands"]

_MISTAKE: Final = 2
_NEVER: Final = "never within the next five years"

_MANIFEST: Final = click.argument("manifest", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Run the shell scripts that a TOML manifest lists.

    A manifest has a [[script]] table for each script, with the fields script (the text, required),
    name, run_on_start, run_on_stop, cron, overlap ("skip", "allow" or "queue"), jitter, timeout,
    depends_on (names, or tables such as {on = "build", requires = "completion"}), retries,
    retry_delay, env, log_path, log_source_id and id. An [options] table may set data_dir, log_dir,
    working_dir, shell, env, max_parallel, wait_delay, kill_delay, stop_signal, max_log_bytes,
    log_backups, append_logs, cgroup, timezone and cron_syntax ("coder" or "unix"). Durations are
    seconds or texts such as "1m30s"; relative paths count from the manifest's directory.
    """


@commands.command()
@_MANIFEST
def check(manifest: Path) -> None:
    """Tell all mistakes of MANIFEST, and when its schedules fire next; run nothing.

    Times are those of each schedule's zone. Standard error gets warnings of schedules that are
    legal and may be a mistake.

    Exit status: 0 without a mistake, else 2.
    """
    loaded = _load(manifest)
    count = len(loaded.scripts)
    scripts = "1 script" if count == 1 else f"{count} scripts"
    _print(sys.stdout, f"{manifest}: {scripts}, no mistake", *_next_fires(loaded))
    warnings = schedule_warnings(loaded.scripts, Options(**loaded.options))
    _print(sys.stderr, *(f"{manifest}: {warning}" for warning in warnings))


@commands.command()
@_MANIFEST
@click.option("--cron", is_flag=True, help="Go on with the schedules until a signal ends them.")
@click.option(
    "--stage",
    type=click.Choice([str(Stage.START), str(Stage.STOP)]),
    default=str(Stage.START),
    help="Which scripts: start (the default) has those with run_on_start = true, stop the others.",
)
@click.option(
    "--metrics",
    metavar="ADDRESS",
    callback=lambda context, option, value: value and _address(value),
    help="Serve metrics for Prometheus there, such as 127.0.0.1:9100, or :9100 for all of IPv4.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write DIR/results.jsonl, a result per line, and DIR/timeline.html, a page of all.",
)
def run(
    manifest: Path, cron: bool, stage: str, metrics: Address | None, report: Path | None
) -> None:
    """Run the scripts of MANIFEST that have run_on_start = true, side by side, but for those that
    wait for others.

    Standard output gets every line that the scripts print, on either of their streams, with the
    script's name before it. Standard error gets all else: warnings as they come, and a summary at
    the end, with the last lines of each script that failed. Control characters other than the tab
    are shown as \\x1b, so that no script can steer the terminal.

    No line is dropped: a reader that is slow, such as a pager, holds the scripts back.

    Ctrl-C, SIGTERM and SIGHUP end the scripts and all that they started; a second one kills them
    at once. What a finished script left running goes on.

    With --cron the scripts that have a cron run on their schedules once the start scripts have
    ended, whatever became of them. A signal then also stops the schedules, and those with
    run_on_stop = true run at last.

    As process 1 of a container it reaps orphans and passes signals on.

    Exit status: 0 if all went well, 1 if a script failed or the metrics or the report fail, 2 for a
    mistake in MANIFEST or ADDRESS, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 if
    standard output was closed early.
    """
    loaded = _load(manifest)
    raise SystemExit(
        run_in_foreground(
            manifest, loaded, stage=Stage(stage), cron=cron, metrics=metrics, report=report
        )
    )


@commands.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the page. Default: timeline.html beside RESULTS.",
)
def timeline(results: Path, output: Path | None) -> None:
    """Make the page of RESULTS, a results.jsonl that run --report wrote.

    The page is complete in itself: it needs no network and runs no code.

    Exit status: 0, or 2 when RESULTS cannot be read or the page cannot be written.
    """
    from agentscripts._report import TIMELINE, read_results, write_timeline

    output = output or results.parent / TIMELINE
    try:
        write_timeline(output, read_results(results), str(results))
    except (OSError, ValueError) as error:
        _fail(str(error))
    _print(sys.stdout, str(output))


@commands.command("next")
@click.argument("expression")
@click.option("-n", "count", type=click.IntRange(1), default=5, help="How many times. Default: 5.")
@click.option("--tz", "zone", metavar="ZONE", help="The time zone. Default: the machine's.")
@click.option(
    "--syntax",
    type=click.Choice([str(syntax) for syntax in CronSyntax]),
    default=str(CronSyntax.CODER),
    help="coder (the default): the second comes first; unix: five fields, as in a crontab.",
)
def next_(expression: str, count: int, zone: str | None, syntax: str) -> None:
    """Tell when a schedule of this cron EXPRESSION fires next, in its time zone.

    Exit status: 0, or 2 for a mistake.
    """
    try:
        timezone: tzinfo = local_zone() if zone is None else find_zone(zone)
    except ValueError as error:
        _fail(f"{'' if zone is None else '--tz '}{error}")
    try:
        schedule = parse(expression, syntax=CronSyntax(syntax), timezone=timezone)
    except ValueError as error:
        _fail(f"EXPRESSION {error}")
    if warning := five_field_warning(expression, CronSyntax(syntax)):
        _print(sys.stderr, warning)
    now = datetime.now(UTC)
    fires = fires_after(schedule, now, count)
    _print(sys.stdout, *(fire_text(schedule, fire, now) for fire in fires))
    if not fires:
        _print(sys.stdout, _NEVER)


def _next_fires(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each script that has a schedule."""
    schedules = parse_schedules(manifest.scripts, Options(**manifest.options))
    labels = {key: label for key, label in manifest.labels.items() if key in schedules}
    width = max(map(len, labels.values()), default=0)
    now = datetime.now(UTC)
    for key, label in labels.items():
        fires = fires_after(schedules[key], now, 1)
        text = fire_text(schedules[key], fires[0], now) if fires else _NEVER
        yield f"  {label:<{width}}  {text}"


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        _fail(f"--metrics {error}")


def _load(path: Path) -> Manifest:
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        _fail(*error.problems)
    _print(sys.stderr, *manifest.warnings)
    return manifest


def _fail(*lines: str) -> NoReturn:
    _print(sys.stderr, *lines)
    raise SystemExit(_MISTAKE)


def _print(stream: TextIO | None, *lines: str) -> None:
    Output(stream, CancelToken()).write("".join(f"{escape(line)}\n" for line in lines))
