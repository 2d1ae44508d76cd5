"""Log files and directories: where they are, and how they are opened without being tricked."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, Protocol

from agentscripts._directories import (
    close_quietly,
    is_foreign,
    make_directory,
    make_private,
    open_directory,
)
from agentscripts._model import Script
from agentscripts._native import LogFile
from agentscripts.errors import InvalidScriptError

__all__ = [
    "Filesystem",
    "LogTarget",
    "OSFilesystem",
    "log_path_for",
    "rotation_problems",
]

_OPEN_FLAGS: Final = (
    os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
)
_LOG_MODE: Final = 0o600
_NULL: Final = "/dev/null"
_NULL_DEVICE: Final = os.makedev(1, 3)
_STANDARD_STREAMS: Final = {"/dev/stdout": 1, "/dev/stderr": 2}
_BACKUP: Final = re.compile(r"[1-9][0-9]{0,3}")
_ADVICE: Final = "expected a regular file with one link; remove it or choose another log_path"
_REFUSED: Final = {
    stat.S_IFLNK: (errno.ELOOP, "is a symbolic link"),
    stat.S_IFDIR: (errno.EISDIR, "is a directory"),
    stat.S_IFIFO: (errno.EINVAL, "is a FIFO"),
    stat.S_IFSOCK: (errno.EINVAL, "is a socket"),
    stat.S_IFCHR: (errno.EINVAL, "is a character device"),
    stat.S_IFBLK: (errno.EINVAL, "is a block device"),
}


class LogTarget(NamedTuple):
    """An open log file; who gets it closes both descriptors.

    fd: open for appending, close-on-exec.
    dir_fd: the directory in which ``name`` may be renamed for rotation; ``None``: no rotation.
    name: the file's name in that directory.
    truncate: whether a run may empty it first; not so for devices and the host's own streams.
    """

    fd: int
    dir_fd: int | None
    name: str
    truncate: bool = True


class Filesystem(Protocol):
    """Where logs and directories are made. Called from several threads at once."""

    def make_dirs(self, path: Path, mode: int) -> None:
        """Make a directory and its missing parents; one that exists is left as it is."""

    def open_log(self, path: Path) -> LogTarget:
        """Open a log file for appending and make it if need be; truncate nothing.

        An ``OSError`` becomes the cause of a ``ScriptNotStartedError``.
        """


def _log_text(script: Script) -> str:
    """Return the path of a script's log as it was written, else the usual name."""
    return script.log_path or f"coder-script-{script.log_source_id}.log"


def log_path_for(script: Script, log_dir: Path) -> Path:
    """Return the path of a script's log (L1); unknown variables and users stay as they are."""
    return log_dir / os.path.expandvars(os.path.expanduser(_log_text(script)))


def rotation_problems(
    scripts: Iterable[Script], log_dir: Path, log_backups: int
) -> Iterator[tuple[int, InvalidScriptError]]:
    """Yield the places of scripts whose logs another script's log would overwrite when it rotates
    (L4), each with its error."""
    paths = [(script, _resolved(log_path_for(script, log_dir))) for script in scripts]
    texts = {path: _log_text(script) for script, path in paths}
    for index, (script, path) in enumerate(paths):
        base, _, number = path.rpartition(".")
        if base in texts and _BACKUP.fullmatch(number) and int(number) <= log_backups:
            problem = (
                # As it was written: a variable of the agent's environment may be a secret.
                f"is {script.log_path!r}, where the log {texts[base]!r} rotates to, "
                f"expected another path than that with .1 to .{log_backups}"
            )
            yield index, InvalidScriptError(script.label, "log_path", problem)


def _resolved(path: Path) -> str:
    """Return the path without ``..`` and links, of which a log itself is none.

    What is missing yet is made without links.
    """
    return os.path.join(os.path.realpath(path.parent), path.name)


@dataclasses.dataclass(frozen=True)
class OSFilesystem:
    """The real file system. Thread-safe; holds nothing."""

    def make_dirs(self, path: Path, mode: int) -> None:
        """Make a directory and its missing parents with exactly this mode, whatever the umask.

        Raises ``NotADirectoryError`` when something else is in the way, ``PermissionError`` when
        what is there may be another user's doing.
        """
        make_directory(str(path), mode)

    def open_usual(self, path: Path, max_line: int) -> LogFile | None:
        """Open a log that never rotates, with one call, if it is there and as most are."""
        return LogFile.open_usual(str(path), max_line)

    def open_log(self, path: Path) -> LogTarget:
        """Open a regular file with one link, ``/dev/null``, ``/dev/stdout`` or ``/dev/stderr``.

        A missing file is made with mode 0600. Anything else raises ``OSError`` with a text that
        says what is there; it stays untouched.
        """
        text = str(path)
        if text in _STANDARD_STREAMS:
            fd = _reopen_stream(_STANDARD_STREAMS[text], text)
            return LogTarget(fd, None, text, truncate=False)
        # The file is opened relative to the directory that a rotation uses, so both are the same
        # even if someone moves the path's directories meanwhile.
        directory, slash, name = text.rpartition("/")
        dir_fd = open_directory(directory or slash or os.curdir)
        try:
            target = _open_in(dir_fd, name, text)
        except BaseException:
            close_quietly(dir_fd)
            raise
        if target.dir_fd is None:
            close_quietly(dir_fd)
        return target


def _reopen_stream(number: int, text: str) -> int:
    # A new open file description, so that O_NONBLOCK and O_APPEND do not change the host's own
    # stream. It cannot be had for a socket, without /proc, or for another user's terminal.
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    try:
        # A regular file is no matter of blocking, and its offset has to be the host's.
        if not stat.S_ISREG(os.fstat(number).st_mode):
            return os.open(f"/proc/self/fd/{number}", flags)
    except OSError:
        pass
    try:
        return os.dup(number)
    except OSError as error:
        raise OSError(
            error.errno, f"descriptor {number} is closed, expected an open one", text
        ) from None


def _open_in(dir_fd: int, name: str, path: str) -> LogTarget:
    if not name:
        _refuse(stat.S_IFDIR, path)
    try:
        try:
            fd = os.open(name, _OPEN_FLAGS, dir_fd=dir_fd)
        except FileNotFoundError:
            if path == _NULL:  # root would make a regular file of that name
                raise
            fd = _make_in(dir_fd, name)
    except OSError as error:
        _explain(error, dir_fd, name, path)
    try:
        null = _check(os.fstat(fd), dir_fd, path)
    except BaseException:
        close_quietly(fd)
        raise
    return LogTarget(fd, None if null else dir_fd, name, truncate=not null)


def _make_in(dir_fd: int, name: str) -> int:
    try:
        fd = os.open(name, _OPEN_FLAGS | os.O_CREAT | os.O_EXCL, _LOG_MODE, dir_fd=dir_fd)
    except FileExistsError:  # somebody else was quicker
        return os.open(name, _OPEN_FLAGS, dir_fd=dir_fd)
    make_private(fd)
    return fd


def _check(status: os.stat_result, dir_fd: int, path: str) -> bool:
    """Refuse what is no place for a log; return whether it is ``/dev/null``."""
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL_DEVICE:
        return True
    if not stat.S_ISREG(status.st_mode):
        _refuse(stat.S_IFMT(status.st_mode), path)
    if status.st_nlink == 0:  # by a rotation, too; who opens it again gets the one in use
        raise FileNotFoundError(errno.ENOENT, "was removed while it was opened", path)
    if status.st_nlink != 1:
        # With a second name, another user could point the log at a file of this one's.
        problem = f"has {status.st_nlink} hard links, {_ADVICE}"
        raise OSError(errno.EMLINK, problem, path)
    if status.st_mode & (stat.S_ISUID | stat.S_ISGID):
        # Who moved it here would have a script's output run with the rights of its owner.
        raise OSError(errno.EPERM, f"is a program that changes its user, {_ADVICE}", path)
    if is_foreign(status, dir_fd):
        # Who made it may read it.
        problem = (
            f"belongs to user {status.st_uid}, in a directory that all may write to; "
            "remove it or choose another log_path"
        )
        raise OSError(errno.EPERM, problem, path)
    return False


def _explain(error: OSError, dir_fd: int, name: str, path: str) -> NoReturn:
    """Raise what an open that failed has met: a link, or a FIFO without a reader (ENXIO)."""
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except OSError:
        pass
    else:
        _check(status, dir_fd, path)
    raise OSError(error.errno, os.strerror(error.errno or 0), path) from None


def _refuse(kind: int, path: str) -> NoReturn:
    number, what = _REFUSED[kind]
    raise OSError(number, f"{what}, {_ADVICE}", path) from None
