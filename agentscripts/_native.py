"""The C core as Python objects, but for its runs. With ``_supervised`` its only importer.

Memory is owned by ``ffi.gc``. Return codes become ``OSError``.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol, Self

from agentscripts import _strings
from agentscripts._core import ffi, lib

__all__ = [
    "Batch",
    "Census",
    "Child",
    "Directories",
    "Gate",
    "LogFile",
    "Pool",
    "Starts",
    "Timer",
    "code_environment",
    "is_plain_own_directory",
    "made",
    "nanoseconds",
    "open_plain_directory",
]

# Named once: ffi.new parses a text each time.
_BATCH, _CHILD = ffi.typeof("as_batch *"), ffi.typeof("as_child *")
_IDENTITY = ffi.typeof("as_identity *")

_PATH: Final = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

# One that takes longer hangs in the kernel, as on a dead mount: forks do not wait for it.
_LONGEST_START: Final = 0.5  # seconds

code_environment: Final = _strings.environment


def nanoseconds(seconds: float | None) -> int:
    """Return a duration for the core; ``None`` is no limit, and so is more than 292 years."""
    if seconds is None or seconds > 9e9:
        return lib.AS_FOREVER
    return int(seconds * 1e9)


def _check(code: int) -> int:
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return code


def made(pointer: Any, free: Callable[[Any], None], error: int) -> Any:
    """Have a pointer freed when nobody holds it any more; NULL: raise ``OSError``."""
    if not pointer:
        raise OSError(error, os.strerror(error))
    return ffi.gc(pointer, free)


def open_plain_directory(path: str) -> int:
    """Open a directory (``O_PATH``) if there is no symbolic link on its whole path.

    Raises ``OSError``; ``ENOSYS`` and ``EPERM`` may mean that the kernel cannot tell.
    """
    return _check(lib.as_open_directory(path.encode(*_PATH)))


def is_plain_own_directory(path: str) -> bool:
    """Whether there is such a directory, and it belongs to this user or to root."""
    return bool(lib.as_is_own_directory(path.encode(*_PATH), ffi.new(_IDENTITY)))


class Directories:
    """A directory and some in it, to see whether they are still there. Thread-safe."""

    def __init__(self, path: Path, *inside: Path) -> None:
        self._path = bytes(path)
        self._all = b"\0".join((self._path, *map(bytes, inside)))
        self._count = 1 + len(inside)

    def identity(self) -> Any:
        """Return what tells ``are_there`` of this directory's, if it has no symbolic link on its
        path and belongs to this user or to root."""
        identity = ffi.new(_IDENTITY)
        return identity if lib.as_is_own_directory(self._path, identity) else None

    def are_there(self, identity: Any) -> bool:
        """Whether the directory still is the one, and those in it are this user's or root's."""
        if identity is None:
            return False
        return bool(lib.as_has_own_directories(identity, self._all, self._count))


class LogFile:
    """The one writer of a log file; thread-safe. Takes both descriptors over.

    opened_as: device and inode of the file.
    """

    opened_as: tuple[int, int]

    def __init__(
        self, fd: int, dir_fd: int | None, name: str, max_bytes: int | None, backups: int, line: int
    ) -> None:
        limit = lib.AS_FOREVER if max_bytes is None else max_bytes
        directory = -1 if dir_fd is None else dir_fd
        identity = ffi.new(_IDENTITY)
        try:
            coded = os.fsencode(name)
            log = lib.as_logfile_new(fd, directory, coded, limit, backups, line, identity)
        except (TypeError, ValueError, OverflowError):  # then the core has not got them
            for one in {fd, directory} - {-1}:
                os.close(one)
            raise
        self.pointer = made(log, lib.as_logfile_free, ffi.errno)
        self.opened_as = identity.device, identity.inode

    @classmethod
    def open_usual(cls, path: str, line: int) -> Self | None:
        """Open a log that does not rotate, if there is a file of ours with nothing unusual on the
        way; else nothing is open, and nothing said."""
        identity = ffi.new(_IDENTITY)
        log = lib.as_logfile_open(path.encode(*_PATH), line, identity)
        if not log:
            return None
        usual = cls.__new__(cls)
        usual.pointer = ffi.gc(log, lib.as_logfile_free)
        usual.opened_as = identity.device, identity.inode
        return usual

    def identity(self) -> tuple[int, int]:
        """Return device and inode of the file that is written now."""
        identity = lib.as_logfile_identity(self.pointer)
        return identity.device, identity.inode

    def writes(self, identity: tuple[int, int]) -> bool:
        """Whether that is the file, or the one that is about to take its place."""
        return bool(lib.as_logfile_writes(self.pointer, *identity))

    def begin(self, *, empty: bool) -> None:
        """Take the size, once no other writer is left; or empty the file. Raises ``OSError``."""
        _check(lib.as_logfile_begin(self.pointer, empty))

    def close(self) -> None:
        """Close the descriptors; nothing may use the writer any more."""
        ffi.release(self.pointer)


class Gate:
    """Permits for scripts that are starting; thread-safe."""

    def __init__(self, permits: int) -> None:
        self.pointer = made(lib.as_gate_new(permits), lib.as_gate_free, errno.ENOMEM)

    def acquire(self, timeout: float) -> bool:
        """Take a permit; ``False`` after ``timeout`` seconds, or when a signal came."""
        return lib.as_gate_acquire(self.pointer, nanoseconds(timeout)) == 0

    def release(self) -> None:
        """Give a permit back."""
        lib.as_gate_release(self.pointer)


class Timer:
    """Where one thread waits for a moment of the system's clock.

    Raises ``OSError`` when there is no descriptor left.
    """

    def __init__(self) -> None:
        self._timer = made(lib.as_timer_new(), lib.as_timer_free, ffi.errno)

    def wait(self, until: datetime | None) -> None:
        """Block until a moment (``None``: none), a change of the clock, ``wake``, or a signal."""
        # A hair later, never before: datetime's microseconds are exact, the float is not.
        when = lib.AS_FOREVER if until is None else int(until.timestamp() * 1e6) * 1000
        _check(lib.as_timer_wait(self._timer, when))

    def wake(self) -> None:
        """End the wait, or the next one. Any thread; safe in a signal handler."""
        lib.as_timer_wake(self._timer)

    def close(self) -> None:
        """Close its descriptors; nothing may use it any more."""
        ffi.release(self._timer)


class Child(Protocol):
    """A process that was just started: a pointer to the header's ``as_child``."""

    pid: int
    pidfd: int
    stdout_fd: int
    stderr_fd: int
    entered: int


class Starts:
    """Where processes are started, and forks of the host kept apart from that. Thread-safe.

    hold: waits for the starts under way, and holds up others: the host is about to fork.
    resume_in_parent, resume_in_child: let starts go on after it.
    """

    def __init__(self) -> None:
        self.pointer = made(lib.as_starts_new(), lib.as_starts_free, errno.ENOMEM)
        # No functions of Python, in which a signal handler that raises would end them half done.
        longest = nanoseconds(_LONGEST_START)
        self.hold: Final = functools.partial(lib.as_starts_hold, self.pointer, longest)
        self.resume_in_parent: Final = functools.partial(lib.as_starts_resume, self.pointer)
        self.resume_in_child: Final = functools.partial(lib.as_starts_begin_anew, self.pointer)

    def spawn(
        self,
        programs: Sequence[bytes],
        directories: Sequence[bytes],
        argv: Sequence[bytes],
        variables: bytes,
        variable_count: int,
        cgroup_procs: bytes | None,
        stdin: int,
        die_with_parent: bool,
    ) -> Child:
        """Start a process; return when it is the program.

        programs: paths to try in turn.
        directories: where it starts, to try in turn where one is missing or out of reach.
        variables: from ``code_environment``.
        die_with_parent: whether it gets SIGKILL when the calling thread ends.

        Raises ``OSError`` that names what it is about; then nothing is left of the child.
        ``ValueError`` for a NUL.
        """
        words = (*programs, *directories, *argv)
        joined = b"\0".join(words)
        if joined.count(b"\0") >= len(words):
            at = next(number for number, word in enumerate(words) if b"\0" in word)
            argument = at - len(programs) - len(directories)
            what = f"argument {argument}" if argument >= 0 else "program or working directory"
            raise ValueError(f"{what} of the command holds a NUL")  # not the word: X1
        child = ffi.new(_CHILD)
        code = lib.as_spawn(
            self.pointer,
            b"%b\0%b" % (joined, variables),
            len(programs),
            len(directories),
            len(argv),
            variable_count,
            stdin,
            cgroup_procs or ffi.NULL,
            die_with_parent,
            child,
        )
        if code < 0:
            # By step: AS_FORKING, AS_JOINING, …
            subject = (None, cgroup_procs, directories[child.entered], argv[0])[child.step]
            name = None if subject is None else os.fsdecode(subject)
            raise OSError(-code, os.strerror(-code), name)
        started: Child = child
        return started


class Census:
    """The machine's processes; thread-safe. Raises ``OSError`` where there is no ``/proc``."""

    def __init__(self) -> None:
        census = lib.as_census_new()
        self.pointer = made(census, lib.as_census_free, ffi.errno)

    def close(self) -> None:
        """Close its descriptor; nothing may use it any more."""
        ffi.release(self.pointer)


class Batch:
    """What a thread of the pool holds: some lines of one run, or the call to flush (no lines)."""

    def __init__(self) -> None:
        self.pointer = ffi.new(_BATCH)

    def lines(self) -> list[str]:
        """Return the lines as text."""
        batch = self.pointer
        lines = _strings.split(ffi.buffer(batch.text, batch.size), batch.lines, batch.ascii)
        return [line.replace("\0", "\ufffd") for line in lines] if batch.has_nul else lines


class Pool:
    """Where threads wait for lines; thread-safe."""

    def __init__(self) -> None:
        self.pointer = made(lib.as_pool_new(), lib.as_pool_free, errno.ENOMEM)

    def next(self, batch: Batch) -> bool:
        """End the batch that is held and wait for another one; ``False``: the thread may end."""
        return lib.as_pool_next(self.pointer, batch.pointer) == 0

    def close(self) -> None:
        """Let all threads end once nothing is left to deliver."""
        lib.as_pool_close(self.pointer)
