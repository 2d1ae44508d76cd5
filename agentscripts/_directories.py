"""Directories opened and made without following what other users may have put on the way."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Final, NamedTuple, NoReturn

from agentscripts._native import is_plain_own_directory, open_plain_directory

__all__ = ["close_quietly", "is_foreign", "make_directory", "make_private", "open_directory"]

_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LINKS: Final = 40  # as in the kernel


def close_quietly(fd: int) -> None:
    """Close a descriptor that nothing was written to; Linux does, whatever it reports."""
    try:  # not contextlib.suppress, here and below: each run comes here
        os.close(fd)
    except OSError:
        pass


def make_private(fd: int) -> None:
    """Give a new file mode 0600, for a umask may take the owner's rights, too."""
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(fd, 0o600)


def open_directory(path: str) -> int:
    """Open a directory (``O_PATH``); the caller closes it.

    A symbolic link on the way is followed if it belongs to this user or to root. Raises
    ``OSError``.
    """
    try:
        # One call that follows no link: most paths have none.
        return open_plain_directory(path)
    except OSError:
        return _Walk(path, None).walk()


def make_directory(path: str, mode: int) -> None:
    """Make a directory and its missing parents with exactly this mode, whatever the umask.

    Links are followed as by ``open_directory``; one that leads to nothing is in the way. What a
    directory that others may write to holds must belong to this user, to root, or to that
    directory's owner. Raises ``OSError``.
    """
    if not is_plain_own_directory(path):
        close_quietly(_Walk(path, mode).walk())


def is_foreign(entry: os.stat_result, dir_fd: int) -> bool:
    """Return whether any other user may have put this entry into the directory.

    The kernel asks likewise where ``fs.protected_regular`` is set, which not every machine has.
    """
    if _is_trusted(entry.st_uid):
        return False
    directory = os.fstat(dir_fd)
    return bool(directory.st_mode & stat.S_IWOTH) and entry.st_uid != directory.st_uid


def _is_trusted(uid: int) -> bool:
    return uid in (0, os.geteuid())


class _Step(NamedTuple):
    """A name to go into; ``shown`` is the path up to it, or up to the link that it comes from."""

    name: str
    shown: str
    of_link: bool


class _Walk:
    """One name after the other, each relative to the directory before and none followed unseen:
    so nothing that is swapped in between the look and the step goes unnoticed.

    mode: of directories that are made; ``None``: none is.
    """

    def __init__(self, path: str, mode: int | None) -> None:
        self._path = path
        self._mode = mode
        self._links = 0
        self._fd = -1

    def walk(self) -> int:
        """Return the descriptor of the last directory."""
        self._fd = os.open("/" if self._path.startswith("/") else ".", _FLAGS)
        try:
            parts = self._path.split("/")
            steps = [
                _Step(name, "/".join(parts[:end]), False)
                for end, name in enumerate(parts, 1)
                if name not in ("", ".")
            ]
            while steps:
                step, *rest = steps
                steps = [*self._take(step), *rest]
        except BaseException:
            close_quietly(self._fd)
            raise
        return self._fd

    def _take(self, step: _Step) -> list[_Step]:
        """Go into a directory; return the steps that a link means instead."""
        try:
            fd = os.open(step.name, _FLAGS | os.O_NOFOLLOW, dir_fd=self._fd)
        except FileNotFoundError:
            if self._mode is None:
                _fail(errno.ENOENT, os.strerror(errno.ENOENT), step)
            if step.of_link:
                _in_the_way(step)
            fd = self._make(step, self._mode)
        except NotADirectoryError:
            return self._follow(step)
        except OSError as error:
            _fail(error.errno or 0, error.strerror or "", step)
        if self._mode is not None and is_foreign(os.fstat(fd), self._fd):
            owner = os.fstat(fd).st_uid
            close_quietly(fd)
            problem = (
                f"belongs to user {owner}, in a directory that all may write to; "
                "remove it or choose another path"
            )
            _fail(errno.EPERM, problem, step)
        close_quietly(self._fd)
        self._fd = fd
        return []

    def _make(self, step: _Step, mode: int) -> int:
        try:
            with contextlib.suppress(FileExistsError):  # somebody else was quicker
                os.mkdir(step.name, mode, dir_fd=self._fd)
            fd = os.open(step.name, _FLAGS | os.O_NOFOLLOW, dir_fd=self._fd)
        except NotADirectoryError:
            _in_the_way(step)
        except OSError as error:
            _fail(error.errno or 0, error.strerror or "", step)
        try:
            _undo_umask(fd, mode)
        except BaseException:
            close_quietly(fd)
            raise
        return fd

    def _follow(self, step: _Step) -> list[_Step]:
        """Return the steps that a symbolic link means."""
        try:
            link = os.open(step.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError as error:
            _fail(error.errno or 0, error.strerror or "", step)
        try:
            status = os.fstat(link)
            if not stat.S_ISLNK(status.st_mode):
                if self._mode is not None:
                    _in_the_way(step)
                _fail(errno.ENOTDIR, os.strerror(errno.ENOTDIR), step)
            if not _is_trusted(status.st_uid):
                problem = (
                    f"is a symbolic link of user {status.st_uid}, expected one of this user or "
                    "of root; name the directory that is meant"
                )
                _fail(errno.ELOOP, problem, step)
            self._links += 1
            if self._links > _MOST_LINKS:
                _fail(errno.ELOOP, os.strerror(errno.ELOOP), step)
            target = os.readlink("", dir_fd=link)
        finally:
            close_quietly(link)
        if target.startswith("/"):
            root = os.open("/", _FLAGS)
            close_quietly(self._fd)
            self._fd = root
        names = (name for name in target.split("/") if name not in ("", "."))
        return [_Step(name, step.shown, True) for name in names]


def _undo_umask(fd: int, mode: int) -> None:
    """Give a directory that was just made the bits that the umask took."""
    status = os.fstat(fd)
    actual = status.st_mode & 0o777
    # Another one may have been put in its place: then it is not for us to change.
    if actual != mode and actual | mode == mode and status.st_uid == os.geteuid():
        # By /proc, since fchmod refuses O_PATH and without read permission nothing else opens it.
        os.chmod(f"/proc/self/fd/{fd}", (stat.S_IMODE(status.st_mode) & ~0o777) | mode)


def _in_the_way(step: _Step) -> NoReturn:
    problem = "exists and is not a directory; remove it or choose another path"
    _fail(errno.ENOTDIR, problem, step)


def _fail(number: int, problem: str, step: _Step) -> NoReturn:
    raise OSError(number, problem, step.shown) from None
