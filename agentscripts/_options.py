"""The settings of a runner."""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from agentscripts._command import CommandFactory, ShellCommandFactory
from agentscripts._cron import CronSyntax
from agentscripts._files import Filesystem, OSFilesystem
from agentscripts._logs import ScriptLogger, discard_logs
from agentscripts._model import ReadOnlyDict
from agentscripts._validation import (
    JOB_CONTROL,
    check_bool,
    check_duration,
    check_environment,
    check_integer,
    check_text,
)

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["Options", "absolute_path", "data_directory", "from_current_directory"]


def _state_directory() -> Path:
    import platformdirs

    return platformdirs.user_state_path("agentscripts", appauthor=False)


class _OwnFactory(ShellCommandFactory):
    """The factory that ``Options`` made for its own shell; ``replace`` makes it anew."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of a runner; checked when made.

    Durations are in seconds; ``None`` is no limit and ``0`` is now. Paths may be given as ``str``,
    though type checkers want a ``Path``; ``~`` expands, and a relative one counts from the current
    directory.

    data_dir_base: holds the scripts' data and programs; no ``:`` may be in its path. Default: the
        user's state directory.
    log_dir: where relative log paths start. Default: the user's state directory.
    logger: the agent's own log. Default: ``logging.getLogger("agentscripts")``.
    get_script_logger: returns the logger for a ``log_source_id``. Default: drops all lines.
    shell: runs the scripts. Default: the user's login shell.
    command_factory: chooses what is executed. Default: ``ShellCommandFactory(shell)``; another
        one decides itself what ``shell`` means.
    filesystem: opens logs and makes directories. Default: the real one.
    working_dir: where scripts start. Default: ``None``, the home directory. That one, else ``/``,
        takes the place of a directory that cannot be entered.
    env: variables for all scripts; ``$VAR`` expands. Stored as a read-only copy, not hashed and
        not in ``repr()``.
    wait_delay: how long output pipes may stay open after a script's exit; 0.1 s more, for what is
        just being started has copies of them.
    kill_delay: from the stop signal to SIGKILL.
    stop_signal: asks scripts to end; none that stops or continues a process.
    max_parallel: how many scripts of the runner run at once. Default: ``None``, all.
    cgroup: a writable cgroup v2 directory for a child group per run, which ``init`` looks for.
        Default: ``None``, none.
    die_with_parent: whether a script's process gets SIGKILL when this process is killed. What it
        has started goes on; so does a program with set-user-ID. Default: it goes on, too.
    max_line: bytes (4 to 65536) after which a line is cut into pieces.
    max_log_bytes: the size at which a log file rotates. Default: ``None``, never.
    log_backups: how many rotated files are kept, 1000 at most. ``init`` refuses a script whose
        ``log_path`` is one of another script's.
    append_logs: whether a run keeps what the log file holds. Default: it empties it.
    stall_timeout: how long one ``send`` may hold up a script's output.
    flush_timeout: how long delivery may make no progress after a script's end; then the rest is
        dropped. While lines wait for a thread, those of other runs count as progress, here and for
        ``stall_timeout``. With ``0`` even a quick logger loses the last lines.
    timezone: where ``Script.cron`` counts the hours, unless it names a zone itself. Default:
        ``None``, the zone of this machine.
    cron_syntax: how ``Script.cron`` is read.

    Raises ``TypeError`` or ``ValueError``; the text names the field.
    """

    data_dir_base: Path = dataclasses.field(default_factory=_state_directory)
    log_dir: Path = dataclasses.field(default_factory=_state_directory)
    logger: logging.Logger = dataclasses.field(
        default_factory=lambda: logging.getLogger("agentscripts")
    )
    get_script_logger: Callable[[UUID], ScriptLogger] = discard_logs
    shell: str | None = None
    command_factory: CommandFactory = dataclasses.field(default_factory=_OwnFactory)
    filesystem: Filesystem = dataclasses.field(default_factory=OSFilesystem)
    working_dir: Path | None = None
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False, repr=False)
    wait_delay: float | None = 10.0
    kill_delay: float | None = 10.0
    stop_signal: signal.Signals = signal.SIGHUP
    max_parallel: int | None = None
    cgroup: Path | None = None
    die_with_parent: bool = False
    max_line: int = 65536
    max_log_bytes: int | None = None
    log_backups: int = 1
    append_logs: bool = False
    stall_timeout: float | None = 5.0
    flush_timeout: float | None = 10.0
    timezone: ZoneInfo | None = None
    cron_syntax: CronSyntax = CronSyntax.CODER

    def __post_init__(self) -> None:
        for field, prepare in _PREPARE.items():
            try:
                value = prepare(getattr(self, field))
            except (TypeError, ValueError) as error:
                raise type(error)(f"Options.{field} {error}") from None
            object.__setattr__(self, field, value)
        if isinstance(self.command_factory, _OwnFactory):
            object.__setattr__(self, "command_factory", _OwnFactory(self.shell))


def _checked(check: Callable[..., None], *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
    def prepare(value: Any) -> Any:
        check(value, *args, **kwargs)
        return value

    return prepare


def from_current_directory(path: Path) -> Path:
    """Return where a path leads, which counts from the current directory when it is relative.

    Raises ``ValueError`` when there is none.
    """
    try:
        return path.absolute()
    except OSError as error:  # who removed it may be another process
        expected = "expected an absolute path, for there is no current directory"
        raise ValueError(f"{expected}: {error.strerror}") from None


def absolute_path(value: Any) -> Path:
    """Return where a path leads: ``~`` expands, a relative one counts from the current directory.

    Raises ``TypeError`` or ``ValueError``; the text goes after the name of what holds the path.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"is {value!r}, expected a path")
    text = os.fspath(value)
    check_text(text)
    if not text:
        raise ValueError("is '', expected a path")
    # A script has another current directory, so a relative path would mislead it.
    try:
        return from_current_directory(Path(os.path.expanduser(text)))
    except ValueError as error:
        raise ValueError(f"is {text!r}, {error}") from None


def data_directory(value: Any) -> Path:
    """Return a value of ``data_dir_base`` as an absolute path. Raises ``TypeError``,
    ``ValueError``."""
    path = absolute_path(value)
    if os.pathsep in str(path):
        raise ValueError(
            f"is {str(path)!r} and has a {os.pathsep!r}, expected none: "
            "a directory in it goes on the scripts' PATH"
        )
    return path


def _optional_path(value: Any) -> Path | None:
    return None if value is None else absolute_path(value)


def _shell(value: Any) -> str | None:
    if value is not None:
        check_text(value)
        if not value:
            raise ValueError("is '', expected the path of a shell, or None")
    return value  # type: ignore[no-any-return]


def _environment(value: Any) -> Mapping[str, str]:
    check_environment(value)
    return ReadOnlyDict(value)


def _stop_signal(value: Any) -> signal.Signals:
    expected = "expected a signal of signal.Signals that can ask a process to end"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"is {value!r}, {expected}")
    try:
        number = signal.Signals(value)
    except ValueError:
        raise ValueError(f"is {value!r}, {expected}") from None
    if number in JOB_CONTROL:
        raise ValueError(f"is {number.name}, {expected}")
    return number


def _logger(value: Any) -> logging.Logger:
    if not isinstance(value, logging.Logger):
        raise TypeError(f"is {value!r}, expected a logging.Logger")
    return value


def _check_methods(value: object, *names: str) -> None:
    for name in names:
        if not callable(getattr(value, name, None)):
            raise TypeError(f"is {value!r}, expected an object with the method {name}()")


def _check_callable(value: object) -> None:
    if not callable(value):
        raise TypeError(f"is {value!r}, expected a callable that takes a UUID")


def _timezone(value: Any) -> ZoneInfo | None:
    if value is None:
        return None
    from zoneinfo import ZoneInfo

    if not isinstance(value, ZoneInfo):
        raise TypeError(f"is {value!r}, expected a zoneinfo.ZoneInfo, or None")
    return value


def _check_syntax(value: object) -> None:
    if not isinstance(value, CronSyntax):
        raise TypeError(f"is {value!r}, expected a member of CronSyntax")


_PREPARE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "data_dir_base": data_directory,
    "log_dir": absolute_path,
    "logger": _logger,
    "get_script_logger": _checked(_check_callable),
    "shell": _shell,
    "command_factory": _checked(_check_methods, "create_command"),
    "filesystem": _checked(_check_methods, "make_dirs", "open_log"),
    "working_dir": _optional_path,
    "env": _environment,
    "wait_delay": _checked(check_duration),
    "kill_delay": _checked(check_duration),
    "stop_signal": _stop_signal,
    "max_parallel": _checked(check_integer, 1, none=True),
    "cgroup": _optional_path,
    "die_with_parent": _checked(check_bool),
    "max_line": _checked(check_integer, 4, 65536),
    "max_log_bytes": _checked(check_integer, 1, 2**62, none=True),
    "log_backups": _checked(check_integer, 1, 1000),
    "append_logs": _checked(check_bool),
    "stall_timeout": _checked(check_duration),
    "flush_timeout": _checked(check_duration),
    "timezone": _timezone,
    "cron_syntax": _checked(_check_syntax),
}
