"""The commands: they connect a manifest, a runner and the terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final, TextIO

import click

from agentscripts._cancel import CancelToken
from agentscripts._console import Output, escape
from agentscripts._foreground import run_in_foreground
from agentscripts._manifest import Manifest, ManifestError, load_manifest
from agentscripts._version import __version__

__all__ = ["commands"]

_MISTAKE: Final = 2

_MANIFEST: Final = click.argument("manifest", type=click.Path(path_type=Path))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def commands() -> None:
    """Run the shell scripts that a TOML manifest lists.

    A manifest has a [[script]] table for each script, with the fields script (the text, required),
    name, run_on_start, timeout, env, log_path, run_on_stop, log_source_id and id. An [options]
    table may set data_dir, log_dir, working_dir, shell, env, max_parallel, wait_delay, kill_delay,
    stop_signal, max_log_bytes, log_backups, append_logs and cgroup. Durations are seconds or
    texts such as "1m30s"; relative paths count from the manifest's directory.
    """


@commands.command()
@_MANIFEST
def check(manifest: Path) -> None:
    """Tell all mistakes of MANIFEST and run nothing.

    Exit status: 0 without a mistake, else 2.
    """
    count = len(_load(manifest).scripts)
    scripts = "1 script" if count == 1 else f"{count} scripts"
    _print(sys.stdout, f"{manifest}: {scripts}, no mistake")


@commands.command()
@_MANIFEST
def run(manifest: Path) -> None:
    """Run the scripts of MANIFEST that have run_on_start = true, side by side.

    Standard output gets every line that the scripts print, on either of their streams, with the
    script's name before it. Standard error gets all else: warnings as they come, and a summary at
    the end, with the last lines of each script that failed. Control characters other than the tab
    are shown as \\x1b, so that no script can steer the terminal.

    No line is dropped: a reader that is slow, such as a pager, holds the scripts back.

    Ctrl-C, SIGTERM and SIGHUP end the scripts and all that they started; a second one kills them
    at once. What a finished script left running goes on.

    Exit status: 0 if all went well, 1 if a script failed, 2 for a mistake in MANIFEST, 130 after
    Ctrl-C, 143 after SIGTERM, 129 after SIGHUP, 141 if standard output was closed early.
    """
    raise SystemExit(run_in_foreground(manifest, _load(manifest)))


def _load(path: Path) -> Manifest:
    try:
        return load_manifest(path)
    except ManifestError as error:
        _print(sys.stderr, *error.problems)
        raise SystemExit(_MISTAKE) from None


def _print(stream: TextIO | None, *lines: str) -> None:
    Output(stream, CancelToken()).write("".join(f"{escape(line)}\n" for line in lines))
