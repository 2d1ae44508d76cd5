"""A run in the C core as a Python object."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from agentscripts._core import ffi, lib
from agentscripts._model import RunState
from agentscripts._native import Census, Child, Gate, LogFile, Pool, Starts, made, nanoseconds

__all__ = ["CANCELLED", "EXITED", "PIPES_OPEN", "TIMED_OUT", "Outcome", "Rules", "Supervised"]

_TAIL_BYTES: Final = 32768
_LINE_BYTES: Final = 4096

_RULES, _OUTCOME = ffi.typeof("as_rules *"), ffi.typeof("as_outcome *")
_DELIVERY, _LENGTH = ffi.typeof("as_delivery *"), ffi.typeof("size_t *")
_TEXT = ffi.typeof("char[]")

_STATES: Final = {
    lib.AS_RUNNING: RunState.RUNNING,
    lib.AS_STOPPING: RunState.STOPPING,
    lib.AS_DELIVERING: RunState.DELIVERING,
}
EXITED, TIMED_OUT = lib.AS_EXITED, lib.AS_TIMED_OUT
CANCELLED, PIPES_OPEN = lib.AS_CANCELLED, lib.AS_PIPES_OPEN


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


class Rules:
    """What many runs have in common; durations in seconds, ``None`` is no limit."""

    def __init__(
        self,
        pool: Pool,
        census: Census,
        starts: Starts,
        *,
        max_line: int,
        stall_timeout: float | None,
        wait_delay: float | None,
        kill_delay: float | None,
        stop_signal: int,
    ) -> None:
        self._kept = pool, census, starts
        self.pointer = ffi.new(
            _RULES,
            (
                *(one.pointer for one in self._kept),
                max_line,
                nanoseconds(stall_timeout),
                nanoseconds(wait_delay),
                nanoseconds(kill_delay),
                stop_signal,
            ),
        )


class Supervised:
    """One run in the core.

    ``supervise``, ``note``, ``finish`` and ``stderr`` belong to one thread; the other methods may
    be called from any.
    """

    def __init__(self, rules: Rules, key: int, flush_timeout: float | None) -> None:
        """key: under which a logger takes the lines; 0: none does."""
        run = lib.as_run_new(rules.pointer, key, nanoseconds(flush_timeout))
        self._run = made(run, lib.as_run_free, ffi.errno)
        self._rules = rules  # outlive the run
        self._job: tuple[Child, Any, Any, bytes, int, int, int, int] | None = None

    def prepare(
        self,
        child: Child,
        log: LogFile,
        gate: Gate | None,
        run_id: str,
        *,
        cgroup_fd: int,
        cancel_fd: int,
        signal_fd: int,
        deadline: int,
    ) -> None:
        """Say what to supervise; from here on the child's descriptors belong to the core."""
        permit = gate.pointer if gate else ffi.NULL
        which = run_id.encode()
        assert len(which) == lib.AS_RUN_ID_LENGTH
        self._job = (child, log.pointer, permit, which, cgroup_fd, cancel_fd, signal_fd, deadline)

    def supervise(self, between: Callable[[], None]) -> Outcome:
        """Block until the child, its tree and its output have ended.

        between: called when a signal came.
        """
        assert self._job is not None
        out = ffi.new(_OUTCOME)
        while lib.as_run_supervise(self._run, *self._job, out) == lib.AS_INTERRUPTED:
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

    def finish(self, between: Callable[[], None]) -> tuple[int, bool]:
        """Close the pipes; block until all lines are delivered, or the logger is given up.

        between: called when a signal came.

        Returns how many lines there were, and whether the gate's permit is still held.
        """
        out = ffi.new(_DELIVERY)
        while lib.as_run_finish(self._run, out) == lib.AS_INTERRUPTED:
            between()
        return out.lines, bool(out.kept_permit)

    def close(self) -> None:
        """Give it back; nothing may use it any more."""
        ffi.release(self._run)

    def cancel(self, *, kill: bool) -> None:
        """Stop the script, or kill it at once."""
        lib.as_run_cancel(self._run, lib.AS_CANCEL_KILL if kill else lib.AS_CANCEL_STOP)

    def snapshot(self) -> tuple[RunState, str]:
        """Return the state and the last line."""
        line, length = ffi.new(_TEXT, _LINE_BYTES), ffi.new(_LENGTH)
        state = lib.as_run_snapshot(self._run, line, _LINE_BYTES, length)
        lines = _text_lines(ffi.buffer(line, length[0])[:])
        return _STATES[state], lines[-1] if lines else ""

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
