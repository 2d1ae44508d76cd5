"""From a script to its command line and its environment. Starts nothing."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import stat
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from agentscripts._coding import coded, from_host, to_host
from agentscripts._directories import make_private
from agentscripts._frozen import maker
from agentscripts._model import Script

if TYPE_CHECKING:
    import pwd

__all__ = [
    "Command",
    "CommandFactory",
    "ShellCommandFactory",
    "base_environment",
    "checked_command",
    "login_shell",
    "private_script_file",
    "script_environment",
]

# MAX_ARG_STRLEN of the kernel: 32 pages of 4 KiB for one argument, with its NUL.
_MAX_ARGUMENT: Final = 131072
_SCHEDULED_AT: Final = "AGENTSCRIPTS_SCHEDULED_AT"
_NO_SHELLS: Final = frozenset({"nologin", "false"})
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{([^{}]+)\})", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Command:
    """What a run executes.

    argv: the program and its arguments; the program is found as by ``execvpe``.
    env: the whole environment; nothing is added to it.
    cwd: the working directory. Default: ``None``, that of the runner's options.
    cleanup: files that the runner removes after the run, however it ended.

    Arguments and environment stay out of ``repr()``, for they may hold secrets.
    """

    argv: Sequence[str] = dataclasses.field(repr=False)
    env: Mapping[str, str] = dataclasses.field(repr=False)
    cwd: Path | None = None
    cleanup: tuple[Path, ...] = ()


_make_command: Final = maker(Command)


def checked_command(made: object) -> Command:
    """Return what a factory has made, if it is a command.

    Raises ``TypeError`` or ``ValueError``, whose texts hold nothing of what may be a secret.
    """
    if not isinstance(made, Command):
        kind = type(made).__name__
        raise TypeError(f"create_command returned an object of type {kind}, expected a Command")
    for name, words in (("argv", made.argv), ("cleanup", made.cleanup)):
        if not isinstance(words, tuple | list) and (
            isinstance(words, str | bytes) or not isinstance(words, Collection)
        ):
            kind = type(words).__name__
            raise TypeError(f"the command's {name} is of type {kind}, expected a sequence of words")
    if not made.argv:
        raise ValueError("the command's argv is empty, expected a program and its arguments")
    if made.cwd is not None and not isinstance(made.cwd, str | Path):
        kind = type(made.cwd).__name__
        raise TypeError(f"the command's cwd is of type {kind}, expected a path")
    return made


class CommandFactory(Protocol):
    """Chooses what is executed for a script. Called from several threads at once."""

    def create_command(self, script: Script, env: Mapping[str, str]) -> Command:
        """Return the command for a script that is to run with this environment.

        An ``OSError`` becomes the cause of a ``ScriptNotStartedError``.
        """


@dataclasses.dataclass(frozen=True)
class ShellCommandFactory:
    """Runs a script in a shell, or in the interpreter that its ``#!`` line names.

    shell: the program that gets ``-c`` and the script. Default: the user's login shell, looked
        up at the first use.

    ``#!`` may follow white space. Its line is split as a shell would, the interpreter is found
    by its path or on the ``PATH`` of the script's environment, and it gets the path of a private
    file that holds the script from the ``#!`` on. With nothing behind the ``#!`` the shell runs
    the script, as it does for such a file. The shell, too, gets a file when the script is too
    long for an argument (128 KiB).
    """

    shell: str | None = None

    @cached_property
    def shell_program(self) -> str:
        """The shell that is used."""
        return self.shell or login_shell()

    def create_command(self, script: Script, env: Mapping[str, str]) -> Command:
        """Return the command; thread-safe.

        Raises ``FileNotFoundError`` or ``PermissionError`` when the interpreter cannot be used,
        ``OSError`` when the ``#!`` line cannot be split or the file cannot be written.
        """
        text = script.script
        stripped = text.lstrip()
        if stripped.startswith("#!"):
            line = text.count("\n", 0, len(text) - len(stripped)) + 1
            interpreter = _split_interpreter(stripped, line)
            if interpreter:
                interpreter[0] = _find_interpreter(interpreter[0], line, env)
                return _file_command(interpreter, stripped, env)
        if _is_too_long(text):
            return _file_command([from_host(self.shell_program)], text, env)
        # A shell would take a script that begins so for another option.
        argument = f" {text}" if text.startswith(("-", "+")) else text
        argv = (from_host(self.shell_program), "-c", argument)
        return _make_command(argv=argv, env=env, cwd=None, cleanup=())


def _is_too_long(text: str) -> bool:
    # UTF-8 takes at most 4 bytes for a character; room is left for the NUL and a space before.
    limit = _MAX_ARGUMENT - 2
    return len(text) > limit // 4 and len(coded(text)) > limit


def _file_command(program: list[str], text: str, env: Mapping[str, str]) -> Command:
    path = private_script_file(text)
    return Command((*program, from_host(str(path))), env, cleanup=(path,))


def _split_interpreter(text: str, line: int) -> list[str]:
    """Return the words behind the ``#!`` with which the text begins."""
    import shlex

    try:
        return shlex.split(text[2:].partition("\n")[0])
    except ValueError as error:
        problem = f'the "#!" in line {line} of the script cannot be split into words: {error}'
        raise OSError(errno.ENOEXEC, problem) from None


def _find_interpreter(name: str, line: int, env: Mapping[str, str]) -> str:
    """Return the path of the interpreter.

    A relative path is left to ``exec``, for it depends on the working directory; so would a
    relative directory in ``PATH``, and that one is passed over.
    """
    subject = f'interpreter {name!r}, named by the "#!" in line {line} of the script,'
    if "/" in name:
        if os.path.isabs(name):
            _require_program(to_host(name), f"{subject} is")
        return name
    directories = [to_host(entry) for entry in os.get_exec_path(env) if os.path.isabs(entry)]
    found = [path for entry in directories if os.path.isfile(path := os.path.join(entry, name))]
    for path in found:
        if os.access(path, os.X_OK):
            return from_host(path)
    if found:
        problem = f"{subject} is found on PATH at {', '.join(found)}, but is not executable"
        raise PermissionError(errno.EACCES, problem)
    problem = f"{subject} is not found on PATH: {os.pathsep.join(directories)}"
    raise FileNotFoundError(errno.ENOENT, problem)


def _require_program(path: str, subject: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, f"{subject} not found at this path") from None
    except OSError as error:
        problem = f"{subject} out of reach: {os.strerror(error.errno or 0)}"
        raise OSError(error.errno, problem) from None
    if not stat.S_ISREG(mode) or not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, f"{subject} not an executable file")


def private_script_file(text: str) -> Path:
    """Write a script to a new file that only this user can read (0600); the caller removes it."""
    import tempfile

    fd, path = tempfile.mkstemp(prefix="agentscripts-")
    try:
        with open(fd, "wb") as file:
            make_private(fd)
            file.write(coded(text))
    except BaseException:
        os.unlink(path)
        raise
    return Path(path)


def login_shell(environ: Mapping[str, str] = os.environ) -> str:
    """Return the path of the user's shell.

    It is that of the password database, else ``$SHELL``, else ``/bin/sh``. One that is missing,
    not executable, or a ``nologin`` or ``false`` is passed over.
    """
    entry = _password_entry()
    # passwd(5): an empty field is /bin/sh.
    candidates = [(entry.pw_shell or "/bin/sh") if entry else "", environ.get("SHELL", "")]
    return next(filter(_is_shell, candidates), "/bin/sh")


def _is_shell(path: str) -> bool:
    if not os.path.isabs(path) or os.path.basename(path) in _NO_SHELLS:
        return False
    return os.path.isfile(path) and os.access(path, os.X_OK)


def _password_entry() -> pwd.struct_passwd | None:
    import pwd

    try:
        return pwd.getpwuid(os.getuid())
    except KeyError:  # usual in containers that run as an arbitrary user
        return None


def base_environment(environ: Mapping[str, str], shell: str) -> dict[str, str]:
    """Return the agent's environment with what every script gets (R5).

    ``USER`` and ``LOGNAME`` come from the password database; a user who is not in it goes by
    number. ``HOME`` is added from there when the agent has none.
    """
    env = dict(environ)
    entry = _password_entry()
    env["USER"] = env["LOGNAME"] = entry.pw_name if entry else str(os.getuid())
    env["SHELL"] = shell
    if entry and not env.get("HOME"):
        env["HOME"] = entry.pw_dir
    return {from_host(name): from_host(value) for name, value in env.items()}


def script_environment(
    base: Mapping[str, str],
    options_env: Mapping[str, str],
    script_env: Mapping[str, str],
    *,
    data_dir: Path,
    bin_dir: Path,
    run_id: str,
    scheduled_at: datetime | None = None,
) -> dict[str, str]:
    """Return the environment of one run (R5); ``base`` is from ``base_environment``.

    scheduled_at: when a schedule has planned the run.

    ``$VAR`` and ``${VAR}`` in ``options_env`` expand to what is there so far, its own earlier
    variables included; an unknown one is left as it is, as by ``os.path.expandvars``.
    """
    env = dict(base)
    for name, value in options_env.items():
        env[name] = _expand(value, env) if "$" in value else value
    env.update(script_env)
    env["CODER_SCRIPT_DATA_DIR"] = from_host(str(data_dir))
    env["CODER_SCRIPT_BIN_DIR"] = directory = from_host(str(bin_dir))
    # Without a PATH a shell has a default one, which ours would hide.
    path = env.get("PATH", os.defpath)
    env["PATH"] = f"{directory}:{path}" if path else directory
    outer = env.get("AGENTSCRIPTS_RUN_ID")
    env["AGENTSCRIPTS_RUN_ID"] = f"{outer}:{run_id}" if outer else run_id
    if scheduled_at is None:
        env.pop(_SCHEDULED_AT, None)  # that of an outer run
    else:
        env[_SCHEDULED_AT] = scheduled_at.isoformat()
    return env


def _expand(value: str, env: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda match: env.get(match[1] or match[2], match[0]), value)
