"""The commands: they connect a manifest, a runner and the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final

import click

from agentscripts._columns import align
from agentscripts._cron import CronSyntax, five_field_warning, names_zone, parse
from agentscripts._crontab import parse_schedules, schedule_warnings
from agentscripts._files import log_path_for
from agentscripts._follow import print_log
from agentscripts._foreground import Wishes, run_in_foreground
from agentscripts._manifest import Manifest
from agentscripts._metricspage import Address, parse_address
from agentscripts._model import Stage, has_fresh_source
from agentscripts._options import Options, absolute_path, data_directory
from agentscripts._parameters import (
    LOG_DIR,
    MANIFEST,
    Commands,
    Names,
    answer,
    answered,
    called,
    complete_names,
    converted,
    fail,
    load,
    option,
    parse_seconds,
    tell,
)
from agentscripts._preview import fire_text
from agentscripts._schedule import fires_after
from agentscripts._text import error_text, escape
from agentscripts._version import __version__
from agentscripts._zones import find_zone, local_zone

__all__ = ["commands"]

_NEVER: Final = "never within the next five years"

_CHECK_EXAMPLES: Final = """\b
Examples:
  agentscripts check workspace.toml
  agentscripts check agent.json && agentscripts run agent.json
"""

_RUN_EXAMPLES: Final = """\b
Examples:
  agentscripts run workspace.toml
  agentscripts run workspace.toml --only build --timeout 5m
  agentscripts run workspace.toml --stage stop
  agentscripts run workspace.toml --json 2>run.log | jq .status
  agentscripts run agent.json --cron --metrics 127.0.0.1:9100
"""

_LOGS_EXAMPLES: Final = """\b
Examples:
  agentscripts logs workspace.toml install
  agentscripts logs workspace.toml -f serve
"""

_TIMELINE_EXAMPLES: Final = """\b
Examples:
  agentscripts timeline report/results.jsonl
  agentscripts timeline report/results.jsonl -o monday.html
"""

_NEXT_EXAMPLES: Final = """\b
Examples:
  agentscripts next "0 30 2 * * *" --tz Europe/Berlin
  agentscripts next "*/5 8-18 * * 1-5" --syntax unix -n 3
"""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=answered(lambda _: f"agentscripts, version {__version__}"),
    help="Show the version and exit.",
)
def commands() -> None:
    """Run the shell scripts that a manifest lists.

    A manifest whose name ends in .json is a list of coder's WorkspaceAgentScript objects: script,
    display_name, id, log_source_id, log_path, cron, run_on_start, run_on_stop, and timeout in
    nanoseconds. Fields that are unknown are a warning there.

    Else it is TOML and has a [[script]] table for each script, with the fields script (the text,
    required), name, run_on_start, run_on_stop, cron, overlap ("skip", "allow" or "queue"), jitter,
    timeout, depends_on (names, or tables such as {on = "build", requires = "completion"}), retries,
    retry_delay, env, log_path, log_source_id and id. An [options] table may set data_dir, log_dir,
    working_dir, shell, env, max_parallel, wait_delay, kill_delay, stop_signal, max_log_bytes,
    log_backups, append_logs, cgroup, die_with_parent, timezone and cron_syntax ("coder" or
    "unix"). Durations are seconds or texts such as "1m30s"; relative paths count from the
    manifest's directory, log_path from log_dir.
    """


@commands.command(epilog=_CHECK_EXAMPLES, short_help="Tell all mistakes of a manifest.")
@MANIFEST
def check(manifest: Path) -> None:
    """Tell all mistakes of MANIFEST, and when its schedules fire next; run nothing.

    Times are those of each schedule's zone. Standard error gets warnings of schedules that are
    legal and may be a mistake.

    Exit status: 0 without a mistake, 2 with one, 1 if the answer cannot be written, 141 if standard
    output was closed early.
    """
    loaded = load(manifest)
    count = len(loaded.scripts)
    scripts = "1 script" if count == 1 else f"{count} scripts"
    answer(f"{manifest}: {scripts}, no mistake", *_next_fires(loaded))
    warnings = schedule_warnings(loaded.scripts, loaded.preview())
    tell(
        *(
            f'{manifest}: schedule of script "{loaded.labels[script.id]}": {warning}'
            for script, warning in warnings
        )
    )


@commands.command(epilog=_RUN_EXAMPLES, short_help="Run the scripts of a manifest.")
@MANIFEST
@option(
    "--only",
    metavar="NAME",
    type=Names(),
    multiple=True,
    shell_complete=complete_names,
    help="Run this script and what it depends on, whatever its stage. May be given again; in the"
    " environment, commas are between the names. With --cron those without run_on_start run on"
    " their schedules only.",
)
@option(
    "--stage",
    type=click.Choice([str(Stage.START), str(Stage.STOP)]),
    help="Run the scripts with run_on_start = true (the default), or those with run_on_stop.",
)
@option(
    "--cron",
    is_flag=True,
    help="Go on with the schedules until a signal ends them.",
)
@option(
    "--timeout",
    metavar="DURATION",
    callback=converted(parse_seconds),
    help="End all scripts after so long (seconds, or a text such as 1m30s), but for schedules.",
)
@option(
    "--max-parallel",
    type=click.IntRange(1),
    help="Run so many scripts at once.",
)
@LOG_DIR
@option(
    "--data-dir",
    type=click.Path(),
    callback=converted(data_directory),
    help="Keep the scripts' data there.",
)
@option(
    "--cgroup",
    type=click.Path(),
    callback=converted(absolute_path),
    help="Give each script a group of its own in this writable cgroup v2 directory.",
)
@option(
    "--metrics",
    metavar="ADDRESS",
    callback=converted(parse_address),
    help="Serve metrics for Prometheus there, such as 127.0.0.1:9100, or :9100 for all of IPv4.",
)
@option(
    "--plain",
    is_flag=True,
    help="Print lines, also on a terminal.",
)
@option(
    "--quiet",
    is_flag=True,
    help="Show warnings and failures only.",
)
@option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print results to standard output, a line of JSON each, all else to standard error.",
)
@option(
    "--report",
    type=click.Path(file_okay=False),
    callback=converted(absolute_path),
    metavar="DIR",
    help="Write DIR/results.jsonl, a result per line, and DIR/timeline.html, a page of all.",
)
def run(
    manifest: Path,
    only: tuple[str, ...],
    stage: str | None,
    cron: bool,
    timeout: float | None,
    max_parallel: int | None,
    log_dir: Path | None,
    data_dir: Path | None,
    cgroup: Path | None,
    metrics: Address | None,
    plain: bool,
    quiet: bool,
    as_json: bool,
    report: Path | None,
) -> None:
    """Run the scripts of MANIFEST that have run_on_start = true, side by side, but for those that
    wait for others.

    On a terminal a row for each script tells its state, how long it has run, how long it may go on
    (1m30s left), and its last line. In CI, with TERM=dumb, --plain or --cron, and where there is no
    terminal, lines are printed instead, each with the script's name before it. Standard output gets
    every line that the scripts print, on either of their streams. Standard error gets all else:
    warnings as they come, and a summary at the end, with the first and last lines of standard error
    of each script that failed, else its last lines. A - there means unknown, as is the memory of a
    script that had less than agentscripts itself. The log files hold all. Control characters other
    than the tab are shown as \\x1b, so that no script can steer the terminal. NO_COLOR is honoured.

    No line is dropped: a reader that is slow, such as a pager, holds the scripts back. Where
    standard output is closed, as it may be for a service, scripts run all the same, unless with
    --json.

    Ctrl-C, SIGTERM and SIGHUP end the scripts and all that they started; a second one kills them
    at once. What a finished script left running goes on.

    With --cron the scripts that have a cron run on their schedules once the start scripts have
    ended, whatever became of them. A signal then also stops the schedules, and those with
    run_on_stop = true run at last.

    Options take precedence over environment variables, and these over MANIFEST. As process 1 of a
    container it reaps orphans and passes signals on.

    Exit status: 0 if all went well, 1 if a script failed or the metrics or the report fail, 2 for a
    mistake in MANIFEST or an option, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 if
    standard output was closed early.
    """
    loaded = load(
        manifest,
        max_parallel=max_parallel,
        log_dir=log_dir,
        data_dir_base=data_dir,
        cgroup=cgroup,
    )
    try:
        Options(**loaded.options)
    except ValueError as error:  # of a default that the user's environment has made unusable
        fail(f"{str(error).removeprefix('Options.')}; --data-dir gives another one")
    if only:
        try:
            loaded = loaded.only(only)
        except ValueError as error:
            fail(f"{called('only')} {error}")
        if cron and not any(one.run_on_start or one.cron for one in loaded.scripts):
            fail(f"{called('only')}: no such script has run_on_start = true or a cron")
    if cron and stage == Stage.STOP:
        fail(f"{called('stage')} is stop, expected start: with --cron stop scripts run at the end")
    default = None if only and not cron else Stage.START
    wishes = Wishes(
        stage=Stage(stage) if stage else default,
        timeout=timeout,
        cron=cron,
        metrics=metrics,
        report=report,
        plain=plain,
        quiet=quiet,
        json=as_json,
    )
    raise SystemExit(run_in_foreground(manifest, loaded, wishes))


@commands.command(epilog=_LOGS_EXAMPLES, short_help="Show a script's log file, or follow it.")
@MANIFEST
@click.argument("name", shell_complete=complete_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added until Ctrl-C.")
@LOG_DIR
def logs(manifest: Path, name: str, follow: bool, log_dir: Path | None) -> None:
    """Show the log file of the script NAME of MANIFEST.

    A terminal gets it with control characters shown as \\x1b, all else gets its bytes. --follow
    waits for a file that is not there yet, and goes on when it rotates or a new run empties it. A
    script without name, log_path and log_source_id has another log file in each run, so it is
    refused.

    Exit status: 0, 1 if the file cannot be read, 2 for a mistake in MANIFEST or NAME, 130 after
    Ctrl-C, 141 if standard output was closed early.
    """
    loaded = load(manifest, log_dir=log_dir)
    try:
        script = loaded.find(name)
    except ValueError as error:
        fail(f"NAME {error}")
    if not script.log_path and has_fresh_source(script):
        expected = "expected a script with a name of its own, a log_path or a log_source_id"
        fail(f'NAME "{name}" has another log file in each run, {expected}')
    path = log_path_for(script, loaded.preview().log_dir)
    raise SystemExit(print_log(path, follow=follow))


@commands.command(
    epilog=_TIMELINE_EXAMPLES, short_help="Make a page of the results of run --report."
)
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

    Exit status: 0, 2 when RESULTS cannot be read or the page cannot be written, 1 if its name
    cannot be told, 141 if standard output was closed early.
    """
    from agentscripts._report import TIMELINE, read_results, write_timeline

    output = output or results.parent / TIMELINE
    try:
        write_timeline(output, read_results(results), str(results))
    except OSError as error:
        fail(error_text(error))
    except ValueError as error:
        fail(str(error))
    answer(str(output))


@commands.command("next", epilog=_NEXT_EXAMPLES, short_help="Tell when a schedule fires next.")
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

    Exit status: 0, 2 for a mistake, 1 if the answer cannot be written, 141 if standard output was
    closed early.
    """
    timezone: tzinfo | None = None
    try:
        if zone is not None:
            timezone = find_zone(zone)
        elif not names_zone(expression):
            timezone = local_zone()
    except ValueError as error:
        fail(f"{'' if zone is None else '--tz '}{error}")
    try:
        schedule = parse(expression, syntax=CronSyntax(syntax), timezone=timezone)
    except ValueError as error:
        fail(f"EXPRESSION {error}")
    if warning := five_field_warning(expression, CronSyntax(syntax)):
        tell(warning)
    now = datetime.now(UTC)
    fires = fires_after(schedule, now, count)
    answer(*(fire_text(schedule, fire, now) for fire in fires))
    if not fires:
        answer(_NEVER)


def _next_fires(manifest: Manifest) -> Iterator[str]:
    """Yield a line for each script that has a schedule."""
    schedules = parse_schedules(manifest.scripts, manifest.preview())
    labels = {key: label for key, label in manifest.labels.items() if key in schedules}
    now = datetime.now(UTC)
    for key, label in zip(labels, align([*map(escape, labels.values())]), strict=True):
        fires = fires_after(schedules[key], now, 1)
        text = fire_text(schedules[key], fires[0], now) if fires else _NEVER
        yield f"  {label}  {text}"
