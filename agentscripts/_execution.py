"""One run, from its turn to its result."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from agentscripts import _native
from agentscripts._context import Context
from agentscripts._launch import CANCELLED, EXHAUSTED, CallLimits, Launch, Started
from agentscripts._model import Run, RunState, RunStatus, Script, Stage
from agentscripts._native import Delivered, Outcome, Supervised
from agentscripts._outcome import exit_text, status_and_reason
from agentscripts._process import describe, pipe_holders
from agentscripts._result import RunResult

__all__ = ["Execution"]

_STATES: Final = {
    _native.RUNNING: RunState.RUNNING,
    _native.STOPPING: RunState.STOPPING,
    _native.DELIVERING: RunState.DELIVERING,
}
_LOOK_AGAIN: Final = 0.1  # seconds: a cancel or a deadline ends a start that waits, too
_UNSUPERVISED: Final = 5.0  # seconds that a child may wait for the descriptor to watch it by


class Execution:
    """One run of one script. ``perform`` belongs to one thread, the other methods to any."""

    def __init__(
        self,
        context: Context,
        script: Script,
        stage: Stage,
        limits: CallLimits,
        scheduled_at: datetime | None = None,
    ) -> None:
        self.script = script
        self.stage = stage
        self.run_id = os.urandom(16).hex()
        self.result: RunResult | None = None
        self._context = context
        self._limits = limits
        self._scheduled_at = scheduled_at
        self._lock = threading.Lock()  # guards the four below together
        self._core: Supervised | None = None  # while it may be asked and cancelled
        self._pid: int | None = None
        self._started_at: datetime | None = None
        self._cancel: bool | None = None  # None: not cancelled; True: kill at once

    def cancel(self, *, kill: bool = False) -> None:
        """End the run as soon as it has begun, or keep it from beginning."""
        with self._lock:
            self._cancel = kill or bool(self._cancel)
            if self._core is not None:
                self._core.cancel(kill=kill)

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancel is not None

    def snapshot(self) -> Run:
        """Return how the run is now."""
        state, last_line = RunState.WAITING, ""
        with self._lock:
            if self._core is not None:
                number, last_line = self._core.snapshot()
                state = _STATES[number]
            return Run(
                self.run_id, self.script, self.stage, state, self._pid, self._started_at, last_line
            )

    def perform(self, on_ended: Callable[[], None], *, permit: bool = False) -> bool:
        """Run the script and set ``result``; return whether the gate's permit is still held.

        on_ended: called once, when the script has ended; its last lines may still be delivered.
        """
        launch = Launch(self._context, self.script, self.run_id, self._limits, self._scheduled_at)
        with contextlib.ExitStack() as ended:
            ended.callback(on_ended)
            try:
                started = self._start(launch, permit)
                return permit if started is None else self._supervise(started, ended, permit)
            finally:
                with self._lock:
                    core, self._core = self._core, None
                launch.release()
                if core is not None:
                    core.close()
                self._context.ended.end()

    def set_unstarted(
        self,
        status: RunStatus,
        reason: str,
        cause: Exception | None = None,
    ) -> None:
        """Give a run its result that has no process."""
        now = datetime.now(UTC)
        self._set_result(
            RunResult(
                run_id=self.run_id,
                script=self.script,
                stage=self.stage,
                status=status,
                reason=reason,
                started_at=now,
                ended_at=now,
                duration=0.0,
                cause=cause,
            )
        )

    # ---- the run's thread, in the order of its life ----

    def _start(self, launch: Launch, permit: bool) -> Started | None:
        """Start the process; ``None``: it was not started, and the result says why."""
        ended, signals = self._context.ended, self._limits.signals
        count = ended.start()
        while True:
            over = CANCELLED if self.cancelled else self._limits.over()
            if over is not None:
                self.set_unstarted(*over)
                return None
            try:
                return launch.start(permit=permit)
            except Exception as error:
                launch.release()
                signals.check()
                more = None
                if getattr(error, "errno", None) in EXHAUSTED:
                    more = ended.wait_for_one(count, _LOOK_AGAIN)
                if more is None:
                    self.set_unstarted(RunStatus.NOT_STARTED, f"not started: {error}", error)
                    return None
                count = more

    def _supervise(self, started: Started, ended: contextlib.ExitStack, permit: bool) -> bool:
        with self._lock:
            self._core = core = started.core
            self._pid = started.child.popen.pid
            self._started_at = datetime.fromtimestamp(started.began_at, UTC)
            if self._cancel is not None:
                core.cancel(kill=self._cancel)
        metrics, between = self._context.metrics, self._limits.signals.check
        metrics.started(self.stage)
        try:
            outcome = self._outcome(core)
        except OSError as error:
            started.kill()
            reason = f"cannot be supervised: {error}"
            self.set_unstarted(RunStatus.NOT_STARTED, reason, error)
            return permit  # the core has not taken it
        finally:
            metrics.stopped(self.stage)
        started.set_ended(outcome)
        status, reason = self._explain(started, outcome)
        ended.close()
        delivered = core.finish(between)
        self._conclude(started, outcome, delivered, status, reason)
        return outcome.kept_permit

    def _outcome(self, core: Supervised) -> Outcome:
        give_up = time.monotonic() + _UNSUPERVISED
        while True:
            try:
                return core.supervise(self._limits.signals.check)
            except OSError as error:
                # No descriptor for the pidfd: another thread took the one that spawning gave back.
                if error.errno not in EXHAUSTED or time.monotonic() > give_up:
                    raise
                time.sleep(0.005)

    def _explain(self, started: Started, outcome: Outcome) -> tuple[RunStatus, str]:
        """Return how the run ended; tell the script's own log when its pipes stayed open."""
        pids = outcome.survivors
        if outcome.status == _native.PIPES_OPEN:
            pids = pipe_holders((started.child.stdout_fd, started.child.stderr_fd))
        status, reason = status_and_reason(outcome, limit=started.limit, processes=describe(pids))
        if status is RunStatus.PIPES_OPEN:
            started.core.note(started.log, f"agentscripts: {reason}")
        return status, reason

    def _conclude(
        self,
        started: Started,
        outcome: Outcome,
        delivered: Delivered,
        status: RunStatus,
        reason: str,
    ) -> None:
        duration = (outcome.ended - started.began) / 1e9
        stderr, stderr_lines = started.core.stderr() if outcome.output_bytes else ((), 0)
        self._set_result(
            RunResult(
                run_id=self.run_id,
                script=self.script,
                stage=self.stage,
                status=status,
                reason=reason,
                exit_code=outcome.exit_code,
                started_at=datetime.fromtimestamp(started.began_at, UTC),
                ended_at=datetime.fromtimestamp(started.began_at + duration, UTC),
                duration=duration,
                output_bytes=outcome.output_bytes,
                lines=delivered.lines,
                lines_dropped=delivered.dropped,
                log_path=self._context.places[self.script.id].log_path,
                log_error=outcome.log_error,
                survivors=outcome.survivors,
                tail=started.core.tail() if outcome.output_bytes else (),
                stderr=stderr,
                stderr_lines=stderr_lines,
                cpu_seconds=outcome.cpu_seconds,
                max_rss=outcome.max_rss,
            ),
            exit_text(outcome.exit_code),
        )

    def _set_result(self, result: RunResult, how: str = "") -> None:
        self.result = result
        self._context.report(result, self._limits.reports)
        self._context.log(
            logging.INFO if result.ok else logging.WARNING,
            'run agent script "%s": %s (%s after %.3f s)',
            self.script.label,
            result.reason or how,
            result.status.value,
            result.duration,
        )
        if result.log_error is not None or result.lines_dropped:
            self._warn_of_loss(result)

    def _warn_of_loss(self, result: RunResult) -> None:
        if result.log_error is not None:
            self._context.log(
                logging.WARNING,
                'log file %s of script "%s" is incomplete: %s',
                result.log_path,
                self.script.label,
                result.log_error,
            )
        if result.lines_dropped:
            self._context.log(
                logging.WARNING,
                'logger of script "%s" was too slow: %d of %d lines were dropped',
                self.script.label,
                result.lines_dropped,
                result.lines,
            )
