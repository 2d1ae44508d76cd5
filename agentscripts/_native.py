"""The C core as Python objects: the only importer of ``agentscripts._core``.

Memory is owned by ``ffi.gc``. Return codes become ``OSError`` in one place, ``_check``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from agentscripts import _strings
from agentscripts._core import ffi, lib

__all__ = [
    "Batch",
    "Census",
    "Child",
    "Delivered",
    "Gate",
    "LogFile",
    "Outcome",
    "Pool",
    "Starts",
    "Supervised",
    "Timer",
    "code_environment",
    "nanoseconds",
    "open_plain_directory",
    "plain_directory_owner",
]

_TAIL_BYTES: Final = 32768
_LINE_BYTES: Final = 4096

# Named once: ffi.new parses a text each time.
_BATCH, _LENGTH = ffi.typeof("as_batch *"), ffi.typeof("size_t *")
_LIMITS, _JOB = ffi.typeof("as_limits *"), ffi.typeof("as_job *")
_OUTCOME, _DELIVERY = ffi.typeof("as_outcome *"), ffi.typeof("as_delivery *")
_COMMAND, _CHILD = ffi.typeof("as_command *"), ffi.typeof("as_child *")
_TEXT = ffi.typeof("char[]")

code_environment: Final = _strings.environment
RUNNING, STOPPING, DELIVERING = lib.AS_RUNNING, lib.AS_STOPPING, lib.AS_DELIVERING
EXITED, TIMED_OUT = lib.AS_EXITED, lib.AS_TIMED_OUT
CANCELLED, PIPES_OPEN = lib.AS_CANCELLED, lib.AS_PIPES_OPEN


def nanoseconds(seconds: float | None) -> int:
    """Return a duration for the core; ``None`` is no limit, and so is more than 292 years."""
    if seconds is None or seconds > 9e9:
        return lib.AS_FOREVER
    return int(seconds * 1e9)


def _check(code: int) -> int:
    if code < 0:
        raise OSError(-code, os.strerror(-code))
    return code


def _made(pointer: Any, free: Callable[[Any], None], error: int) -> Any:
    if not pointer:
        raise OSError(error, os.strerror(error))
    return ffi.gc(pointer, free)


def open_plain_directory(path: str) -> int:
    """Open a directory (``O_PATH``) if there is no symbolic link on its whole path.

    Raises ``OSError``; ``ENOSYS`` and ``EPERM`` may mean that the kernel cannot tell.
    """
    return _check(lib.as_open_directory(os.fsencode(path)))


def plain_directory_owner(path: str) -> int:
    """Return the user id of the owner of such a directory. Raises likewise."""
    return _check(lib.as_directory_owner(os.fsencode(path)))


class LogFile:
    """The one writer of a log file; thread-safe. Takes both descriptors over."""

    def __init__(
        self, fd: int, dir_fd: int | None, name: str, max_bytes: int | None, backups: int, line: int
    ) -> None:
        limit = lib.AS_FOREVER if max_bytes is None else max_bytes
        directory = -1 if dir_fd is None else dir_fd
        try:
            log = lib.as_logfile_new(fd, directory, os.fsencode(name), limit, backups, line)
        except (TypeError, ValueError, OverflowError):  # then the core has not got them
            for one in {fd, directory} - {-1}:
                os.close(one)
            raise
        self.pointer = _made(log, lib.as_logfile_free, ffi.errno)

    def identity(self) -> tuple[int, int]:
        """Return device and inode of the file that is written now."""
        identity = lib.as_logfile_identity(self.pointer)
        return identity.device, identity.inode

    def begin(self, *, empty: bool) -> None:
        """Take the size, once no other writer is left; or empty the file. Raises ``OSError``."""
        _check(lib.as_logfile_begin(self.pointer, empty))

    def close(self) -> None:
        """Close the descriptors; nothing may use the writer any more."""
        ffi.release(self.pointer)


class Gate:
    """Permits for scripts that are starting; thread-safe."""

    def __init__(self, permits: int) -> None:
        self.pointer = _made(lib.as_gate_new(permits), lib.as_gate_free, errno.ENOMEM)

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
        self._timer = _made(lib.as_timer_new(), lib.as_timer_free, ffi.errno)

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


class Child(NamedTuple):
    """A process that was just started; ``as_child`` of the header."""

    pid: int
    pidfd: int
    stdout_fd: int
    stderr_fd: int


class Starts:
    """Where processes are started, and forks of the host kept apart from that. Thread-safe."""

    def __init__(self) -> None:
        self.pointer = _made(lib.as_starts_new(), lib.as_starts_free, errno.ENOMEM)

    def hold(self) -> None:
        """Wait for the starts under way, and hold up others: the host is about to fork."""
        lib.as_starts_hold(self.pointer)

    def resume_in_parent(self) -> None:
        """Let starts go on after a fork."""
        lib.as_starts_resume(self.pointer, False)

    def resume_in_child(self) -> None:
        """Let there be starts in the child of a fork."""
        lib.as_starts_resume(self.pointer, True)

    def spawn(
        self,
        programs: Sequence[bytes],
        argv: Sequence[bytes],
        variables: bytes,
        variable_count: int,
        cwd: bytes,
        cgroup_procs: bytes | None,
        stdin: int,
        die_with_parent: bool,
    ) -> Child:
        """Start a process; return when it is the program.

        programs: paths to try in turn. None of the words, nor the paths, may hold a NUL.
        variables: from ``code_environment``.
        die_with_parent: whether it gets SIGKILL when the calling thread ends.

        Raises ``OSError`` that names what it is about; then nothing is left of the child.
        """
        words = ffi.from_buffer(b"\0".join((*programs, *argv, variables)))
        directory = ffi.from_buffer(cwd + b"\0")
        procs = ffi.NULL if cgroup_procs is None else ffi.from_buffer(cgroup_procs + b"\0")
        counts = len(programs), len(argv), variable_count
        command = ffi.new(_COMMAND, (words, *counts, stdin, directory, procs, die_with_parent))
        out = ffi.new(_CHILD)
        code = lib.as_spawn(self.pointer, command, out)
        if code < 0:
            subject = (None, cgroup_procs, cwd, argv[0])[out.step]  # AS_FORKING, AS_JOINING, …
            name = None if subject is None else os.fsdecode(subject)
            raise OSError(-code, os.strerror(-code), name)
        return Child(out.pid, out.pidfd, out.stdout_fd, out.stderr_fd)


class Census:
    """The machine's processes; thread-safe. Raises ``OSError`` where there is no ``/proc``."""

    def __init__(self) -> None:
        census = lib.as_census_new()
        self.pointer = _made(census, lib.as_census_free, ffi.errno)

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
        self.pointer = _made(lib.as_pool_new(), lib.as_pool_free, errno.ENOMEM)

    def next(self, batch: Batch) -> bool:
        """End the batch that is held and wait for another one; ``False``: the thread may end."""
        return lib.as_pool_next(self.pointer, batch.pointer) == 0

    def close(self) -> None:
        """Let all threads end once nothing is left to deliver."""
        lib.as_pool_close(self.pointer)


class Outcome(NamedTuple):
    """How a supervised child ended; ``as_outcome`` of the header, with ``None`` for the unknown."""

    status: int
    exit_code: int | None
    reaped: bool
    log_error: OSError | None
    exited: int
    ended: int
    output_bytes: int
    cpu_seconds: float | None
    max_rss: int | None
    survivors: tuple[int, ...]


class Delivered(NamedTuple):
    """How the delivery of a run's lines ended; ``as_delivery`` of the header."""

    lines: int
    kept_permit: bool


class Supervised:
    """One run in the core.

    ``supervise``, ``note``, ``finish`` and ``stderr`` belong to one thread; the other methods may
    be called from any.
    """

    def __init__(
        self, pool: Pool | None, key: int, max_line: int, stall: float | None, flush: float | None
    ) -> None:
        limits = ffi.new(_LIMITS, (key, max_line, nanoseconds(stall), nanoseconds(flush)))
        run = lib.as_run_new(pool.pointer if pool else ffi.NULL, limits)
        self._run = _made(run, lib.as_run_free, ffi.errno)
        self._pool = pool  # outlives the run
        self._job: Any = None
        self._kept: tuple[object, ...] = ()

    def prepare(
        self,
        *,
        child: Child,
        cancel_fd: int,
        cgroup_fd: int,
        signal_fd: int,
        stop_signal: int,
        deadline: int,
        wait_delay: float | None,
        kill_delay: float | None,
        run_id: str,
        log: LogFile,
        census: Census,
        starts: Starts,
        gate: Gate | None,
    ) -> None:
        """Say what to supervise; from here on the child's descriptors belong to the core."""
        text = ffi.new(_TEXT, run_id.encode())
        self._kept = (text, log, census, starts, gate)
        self._job = ffi.new(
            _JOB,
            (
                child,
                cancel_fd,
                cgroup_fd,
                signal_fd,
                stop_signal,
                deadline,
                nanoseconds(wait_delay),
                nanoseconds(kill_delay),
                text,
                log.pointer,
                census.pointer,
                starts.pointer,
                gate.pointer if gate else ffi.NULL,
            ),
        )

    def supervise(self, between: Callable[[], None]) -> Outcome:
        """Block until the child, its tree and its output have ended.

        between: called when a signal came.
        """
        out = ffi.new(_OUTCOME)
        while lib.as_run_supervise(self._run, self._job, out) == lib.AS_INTERRUPTED:
            between()
        known = bool(out.exit_known)
        return Outcome(
            out.status,
            out.exit_code if known else None,
            bool(out.reaped),
            OSError(out.log_errno, os.strerror(out.log_errno)) if out.log_errno else None,
            out.exited,
            out.ended,
            out.output_bytes,
            out.cpu_ns / 1e9 if known and out.cpu_ns else None,
            out.max_rss or None,
            tuple(out.survivors[0 : out.survivor_count]) if out.survivor_count else (),
        )

    def note(self, log: LogFile, text: str) -> None:
        """Write a line of the library's own to the log file and to the logger, if they can."""
        data = text.encode("utf-8", "replace") + b"\n"
        lib.as_run_note(self._run, log.pointer, data, len(data))

    def finish(self, between: Callable[[], None]) -> Delivered:
        """Close the pipes; block until all lines are delivered, or the logger is given up.

        between: called when a signal came.
        """
        out = ffi.new(_DELIVERY)
        while lib.as_run_finish(self._run, out) == lib.AS_INTERRUPTED:
            between()
        return Delivered(out.lines, bool(out.kept_permit))

    def close(self) -> None:
        """Give it back; nothing may use it any more."""
        ffi.release(self._run)

    def cancel(self, *, kill: bool) -> None:
        """Stop the script, or kill it at once."""
        lib.as_run_cancel(self._run, lib.AS_CANCEL_KILL if kill else lib.AS_CANCEL_STOP)

    def snapshot(self) -> tuple[int, str]:
        """Return the state (``RUNNING`` …) and the last line."""
        line, length = ffi.new(_TEXT, _LINE_BYTES), ffi.new(_LENGTH)
        state = lib.as_run_snapshot(self._run, line, _LINE_BYTES, length)
        lines = _text_lines(ffi.buffer(line, length[0])[:])
        return state, lines[-1] if lines else ""

    def stderr(self) -> tuple[tuple[str, ...], int]:
        """Return the first 3 and the last 3 lines of stderr, and how many there were."""
        text, length = ffi.new(_TEXT, lib.AS_STDERR_SIZE), ffi.new(_LENGTH)
        count = lib.as_run_stderr(self._run, text, length)
        return _text_lines(ffi.buffer(text, length[0])[:]), count

    def tail(self) -> tuple[str, ...]:
        """Return the last lines, 20 and 32 KiB at most."""
        text = ffi.new(_TEXT, _TAIL_BYTES)
        length = lib.as_run_tail(self._run, text, _TAIL_BYTES)
        return _text_lines(ffi.buffer(text, length)[:])


def _text_lines(data: bytes) -> tuple[str, ...]:
    if not data:
        return ()
    text = data.decode("utf-8", "replace").replace("\0", "\ufffd")
    return tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))
