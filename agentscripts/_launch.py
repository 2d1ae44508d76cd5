"""All that a run holds: acquired before its process starts, given back after its end."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from agentscripts._cancel import CancelToken
from agentscripts._command import checked_command, script_environment
from agentscripts._context import Context, Place
from agentscripts._delivery import Turn
from agentscripts._lifecycle import WaitGroup
from agentscripts._logs import DISCARD
from agentscripts._model import RunStatus, Script
from agentscripts._native import LogFile, nanoseconds
from agentscripts._signals import DeferredSignals
from agentscripts._spawn import Process
from agentscripts._supervised import Outcome, Supervised
from agentscripts._text import error_text
from agentscripts._writers import WRITERS

__all__ = ["CANCELLED", "EXHAUSTED", "CallLimits", "Launch", "Started"]

# Descriptors, processes or memory may be there again when another run has ended.
EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})

CANCELLED: Final = (RunStatus.CANCELLED, "cancelled before it was started")
"""What becomes of a run that is cancelled while it waits."""


class CallLimits:
    """What the runs of one ``execute`` call share: deadline, cancel token, signals, environment."""

    def __init__(
        self,
        timeout: float | None,
        cancel: CancelToken | None,
        signals: DeferredSignals,
        base: dict[str, str],
    ) -> None:
        self.timeout = timeout
        self.deadline = _deadline(time.monotonic_ns(), timeout)
        self.cancel = cancel
        self.signals = signals
        self.base = base
        self.reports: WaitGroup | None = None

    def for_script(self, began: int, timeout: float | None) -> tuple[int, str]:
        """Return the deadline of a script, in monotonic nanoseconds, and what it stands for."""
        own = _deadline(began, timeout)
        if own < 0 or 0 <= self.deadline < own:
            return self.deadline, f"the call took longer than {self.timeout} s"
        return own, f"it ran longer than {timeout} s"

    def left(self) -> float | None:
        """Return how many seconds the call has; ``None`` is no limit."""
        return None if self.deadline < 0 else max(0, self.deadline - time.monotonic_ns()) / 1e9

    def over(self) -> tuple[RunStatus, str] | None:
        """Return what becomes of a run that has not begun by now, and why; ``None``: it may."""
        if self.cancel is not None and self.cancel.cancelled:
            return CANCELLED
        if self.left() == 0:
            return RunStatus.TIMED_OUT, f"not started within the {self.timeout} s of the call"
        return None


def _deadline(begin: int, timeout: float | None) -> int:
    duration = nanoseconds(timeout)
    return duration if duration < 0 else begin + duration


class Started(NamedTuple):
    """A run whose process is there."""

    core: Supervised
    process: Process
    log: LogFile
    began: int  # just before the process, in nanoseconds of the monotonic clock
    began_at: float  # the same moment in seconds of the wall clock
    limit: str  # what its deadline stands for, in words

    def set_ended(self, outcome: Outcome) -> None:
        """Tell ``Popen`` that its child was waited for, or its ``__del__`` would wait again."""
        if outcome.reaped:
            self.process.returncode = outcome.exit_code or 0


class Launch:
    """What one run holds besides its process. One thread's."""

    def __init__(
        self,
        context: Context,
        script: Script,
        place: Place,
        run_id: str,
        limits: CallLimits,
        scheduled_at: datetime | None,
        turn: Turn,
        *,
        begun: bool = False,
    ) -> None:
        self._context = context
        self._turn = turn  # of the logger, which what is left of an attempt before may still hold
        self._script = script
        self._place = place
        self._run_id = run_id
        self._limits = limits
        self._scheduled_at = scheduled_at
        self._begun = begun  # the run has written to its log file before
        self._log: LogFile | None = None
        self._key: int | None = None
        self._cleanup: tuple[Path, ...] = ()
        self._cgroup: Path | None = None
        self._cgroup_fd = -1

    def start(self, *, permit: bool) -> Started:
        """Start the process, ready to be supervised.

        Raises ``OSError``, and what the user's parts raise; ``release`` is due in any case.
        """
        context, options, script = self._context, self._context.options, self._script
        log = self._open_log()
        data_dir = self._place.data_dir
        context.make_directories(self._place)
        env = script_environment(
            self._limits.base,
            options.env,
            script.env,
            data_dir=data_dir,
            bin_dir=context.script_bin_dir,
            run_id=self._run_id,
            scheduled_at=self._scheduled_at,
        )
        command = checked_command(options.command_factory.create_command(script, env))
        self._cleanup = command.cleanup
        if options.cgroup is not None:
            self._join_cgroup(options.cgroup)
        core = self._make_core(options.flush_timeout)
        directories = context.working_dirs(command.cwd, env)
        began_at, began = time.time(), time.monotonic_ns()
        try:
            process = context.spawner.spawn(command, directories, self._cgroup)
        except BaseException:
            core.close()  # else the result's cause would hold it, by its traceback
            raise
        context.tell_entered(directories, process.child.entered)
        deadline, limit = self._limits.for_script(began, script.timeout)
        core.prepare(
            process.child,
            log,
            context.gate if permit else None,
            self._run_id,
            cgroup_fd=self._cgroup_fd,
            cancel_fd=self._limits.cancel.fileno() if self._limits.cancel else -1,
            signal_fd=self._limits.signals.fd,
            deadline=deadline,
        )
        return Started(core, process, log, began, began_at, limit)

    def note(self, text: str, flush: float | None) -> Supervised:
        """Tell the log file and the logger a line, without a process; return what delivers it.

        flush: how many seconds the logger may take.

        Raises like ``start``; ``release`` is due in any case.
        """
        log = self._open_log()
        try:
            core = self._make_core(flush)
        except BaseException as error:  # the user's part raises; the file gets it all the same
            self._context.log(
                logging.WARNING,
                'logger of script "%s" cannot be had: %s',
                self._script.label,
                error_text(error),
            )
            core = Supervised(self._context.rules, 0, flush)
        core.note(log, text)
        return core

    def _open_log(self) -> LogFile:
        options = self._context.options
        self._log = WRITERS.open(
            options.filesystem,
            self._place.log_path,
            append=options.append_logs or self._begun,
            max_bytes=options.max_log_bytes,
            backups=options.log_backups,
            max_line=options.max_line,
        )
        return self._log

    def _join_cgroup(self, parent: Path) -> None:
        self._cgroup = self._context.make_cgroup(parent, self._run_id)
        self._cgroup_fd = os.open(self._cgroup, os.O_DIRECTORY | os.O_CLOEXEC)

    def _make_core(self, flush: float | None) -> Supervised:
        context, script = self._context, self._script
        logger = context.options.get_script_logger(script.log_source_id)
        if logger is not DISCARD:
            self._key = context.delivery.attach(
                logger, script.log_source_id, script.label, self._turn
            )
        return Supervised(context.rules, self._key or 0, flush)

    def end_delivery(self, lines: int) -> int:
        """Call the logger no more; return for how many of so many lines it was not called."""
        if self._key is None:  # there is none
            return 0
        key, self._key = self._key, None
        return lines - self._context.delivery.detach(key)

    def keep_log(self) -> tuple[int, int] | None:
        """Have nobody empty the log file; return what ``WRITERS.let_go`` takes."""
        return None if self._log is None else WRITERS.keep(self._log)

    def release(self) -> None:
        """Give everything back; may be called in any state, and again."""
        self.end_delivery(0)
        if self._log is not None:
            WRITERS.close(self._log)
            self._log = None
        for path in self._cleanup:
            with contextlib.suppress(OSError, TypeError, ValueError):  # the user's, of any kind
                os.unlink(path)
        self._cleanup = ()
        if self._cgroup_fd >= 0:
            os.close(self._cgroup_fd)
            self._cgroup_fd = -1
        if self._cgroup is not None:
            self._context.remove_cgroup(self._cgroup)
            self._cgroup = None
