"""The parameters of the commands: what they may hold, and what a shell may complete."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class

from agentscripts._console import SIGNALLED, Output, complain
from agentscripts._manifest import Manifest, ManifestError, load_manifest
from agentscripts._options import absolute_path
from agentscripts._tables import parse_duration
from agentscripts._text import escape

__all__ = [
    "LOG_DIR",
    "MANIFEST",
    "Commands",
    "Names",
    "answer",
    "answered",
    "called",
    "complete_names",
    "converted",
    "fail",
    "load",
    "option",
    "parse_seconds",
    "tell",
]

_MISTAKE: Final = 2
# To some shell: they begin or end a command, a variable, a comment, or a pattern.
_SPECIAL: Final = frozenset("\"'`$&|;<>()*?[]{}!#~^\\")

MANIFEST: Final = click.argument("manifest", type=click.Path(path_type=Path))


def answered(text: Callable[[click.Context], str]) -> Callable[..., None]:
    """Return the callback of a flag that has a command answer with a text and do nothing else."""

    def callback(context: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value and not context.resilient_parsing:
            answer(*text(context).splitlines())
            context.exit()

    return callback


class _Command(click.Command):
    """One whose help is an answer: click itself tells of none that cannot be written."""

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """Return the option ``--help``."""
        option = super().get_help_option(ctx)
        if option is not None:
            option.callback = answered(click.Context.get_help)
        return option


class Commands(_Command, click.Group):
    """Commands of which the same holds. Ctrl-C ends them as it ends scripts: click has 1 for it."""

    command_class = _Command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise SystemExit(SIGNALLED + signal.SIGINT) from None


def option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    """Return an option that may also be given in the environment: ``AGENTSCRIPTS_LOG_DIR``."""
    variable = names[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=f"AGENTSCRIPTS_{variable}", show_envvar=True, **attributes)


def converted(convert: Callable[[str], object]) -> Callable[..., object]:
    """Return a callback that makes a value; a ``ValueError`` is a mistake of the user."""

    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> object:
        try:
            return None if text is None else convert(text)
        except ValueError as error:
            fail(f"{called(str(parameter.name))} {error}")

    return callback


LOG_DIR: Final = option(
    "--log-dir",
    type=click.Path(),
    callback=converted(absolute_path),
    help="Where relative log paths start.",
)


def called(name: str) -> str:
    """Return what the user has written to give a parameter: its option, or its variable."""
    context = click.get_current_context()
    parameter = next(one for one in context.command.params if one.name == name)
    if context.get_parameter_source(name) is click.core.ParameterSource.ENVIRONMENT:
        return str(parameter.envvar)
    return parameter.opts[0]


class Names(click.types.StringParamType):
    """Names, which may have spaces in them: so commas are between them in the environment."""

    def split_envvar_value(self, rv: str) -> Sequence[str]:
        """Return the names."""
        return [name.strip() for name in rv.split(",")]


def parse_seconds(text: str) -> float | None:
    """Return the seconds of ``90`` or ``1m30s``. Raises ``ValueError``."""
    value: object = text
    with contextlib.suppress(ValueError):
        value = float(text)
    try:
        return parse_duration(value)
    except ValueError:
        expected = "expected seconds or a text such as 1m30s"
        raise ValueError(f'is "{text}", which is no duration, {expected}') from None


def complete_names(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the scripts of the manifest that the line names, if it can be read."""
    # An option that lacks its value keeps click from telling which argument is which.
    given = [context.params.get("manifest"), *context.args]
    path = next((one for one in given if one), None)
    if path is None:
        return []
    try:
        manifest = load_manifest(Path(path))
    except ManifestError:
        return []
    return [
        CompletionItem(label)
        for label in manifest.labels.values()
        if label.startswith(incomplete) and _is_harmless(label)
    ]


def _is_harmless(label: str) -> bool:
    """Return whether a shell that has this on its command line takes it for words, nothing else."""
    return label.isprintable() and not label.startswith("-") and not _SPECIAL & set(label)


@add_completion_class
class QuotingBashComplete(BashComplete):
    """Bash takes what is offered as it would be typed, so a name with a space needs quotes."""

    def format_completion(self, item: CompletionItem) -> str:
        """Return the line that click's function in the shell reads."""
        try:
            shlex.split(os.environ["COMP_WORDS"])
        except ValueError:  # the user has begun to quote it
            pass
        else:
            item.value = shlex.quote(item.value) if item.value else ""
        return super().format_completion(item)


def load(path: Path, **options: Any) -> Manifest:
    """Return the manifest with those options that were given on the command line, its warnings
    told; exit when there are mistakes.
    """
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        fail(*error.problems)
    tell(*manifest.warnings)
    given = {name: value for name, value in options.items() if value is not None}
    return dataclasses.replace(manifest, options={**manifest.options, **given})


def fail(*lines: str) -> NoReturn:
    """Exit with the status of a mistake."""
    tell(*lines)
    raise SystemExit(_MISTAKE)


def tell(*lines: str) -> None:
    """Print lines on standard error, harmless."""
    complain(_text(lines))


def answer(*lines: str) -> None:
    """Print lines on standard output, likewise; exit when they cannot be written."""
    output = Output(sys.stdout)
    output.write(_text(lines))
    if status := output.exit_status(complain):
        raise SystemExit(status)


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{escape(line)}\n" for line in lines)
