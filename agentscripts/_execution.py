"""One run, from its turn to its result."""

from __future__ import annotations

import logging
import os
import threading
import time
from datetime import UTC, datetime
from typing import Final

from agentscripts import _native
from agentscripts._context import Context
from agentscripts._interrupts import Interrupts
from agentscripts._launch import EXHAUSTED, CallLimits, Launch, Started
from agentscripts._model import Run, RunState, RunStatus, Script, Stage
from agentscripts._native import Delivered, Outcome, Supervised
from agentscripts._outcome import exit_text, pipes_note, status_and_reason
from agentscripts._process import describe, end_child, pipe_holders
from agentscripts._result import RunResult

__all__ = ["Execution"]

_STATES: Final = {
    _native.RUNNING: RunState.RUNNING,
    _native.STOPPING: RunState.STOPPING,
    _native.DELIVERING: RunState.DELIVERING,
}
_UNSUPERVISED: Final = 5.0  # seconds that a child may wait for the descriptor to watch it by


class Execution:
    """One run of one script. ``perform`` belongs to one thread, the other methods to any."""

    def __init__(self, context: Context, script: Script, stage: Stage, limits: CallLimits) -> None:
        self.script = script
        self.stage = stage
        self.run_id = os.urandom(16).hex()
        self.result: RunResult | None = None
        self._context = context
        self._limits = limits
        self._lock = threading.Lock()  # guards the four below together
        self._core: Supervised | None = None  # while it may be asked and cancelled
        self._pid: int | None = None
        self._started_at: datetime | None = None
        self._cancel: bool | None = None  # None: not cancelled; True: kill at once
        self._interrupts = Interrupts(lambda again: self.cancel(kill=again))

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

    def perform(self, *, permit: bool = False) -> bool:
        """Run the script and set ``result``; return whether the gate's permit is still held.

        What a signal handler raises meanwhile cancels the run, and is raised when that has ended.
        """
        launch = Launch(self._context, self.script, self.run_id, self._limits)
        self._context.ended.start()
        try:
            started = self._start(launch, permit)
            if started is not None:
                permit = self._supervise(started)
        except BaseException:
            # Only a signal handler gets here. It may have raised between a fork and the place
            # where the pid is noted, so the child is looked for.
            if self.result is None:
                end_child(self._context.census, self.run_id)
                self.set_unstarted(RunStatus.CANCELLED, "interrupted while it was started")
            raise
        finally:
            with self._lock:
                core, self._core = self._core, None
            launch.release()
            if core is not None:
                core.close()
            self._context.ended.end()
        self._interrupts.raise_first()
        return permit

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
        while not self.cancelled:
            try:
                return launch.start(permit=permit)
            except Exception as error:
                launch.release()
                if getattr(error, "errno", None) in EXHAUSTED and self._wait_for_another():
                    continue
                self.set_unstarted(RunStatus.NOT_STARTED, f"not started: {error}", error)
                return None
        self.set_unstarted(RunStatus.CANCELLED, "cancelled before it was started")
        return None

    def _wait_for_another(self) -> bool:
        ended = self._context.ended
        ended.end()  # this one holds nothing now, so that two that wait do not wait for each other
        try:
            return ended.wait_for_one(0.1)
        finally:
            ended.start()

    def _supervise(self, started: Started) -> bool:
        with self._lock:
            self._core = core = started.core
            self._pid = started.child.popen.pid
            self._started_at = datetime.fromtimestamp(started.began_at, UTC)
            if self._cancel is not None:
                core.cancel(kill=self._cancel)
        metrics = self._context.metrics
        metrics.started(self.stage)
        try:
            outcome = self._interrupts.persist(lambda: self._outcome(core))
        finally:
            metrics.stopped(self.stage)
        if isinstance(outcome, OSError):
            end_child(self._context.census, self.run_id)
            reason = f"cannot be supervised: {outcome}"
            self.set_unstarted(RunStatus.NOT_STARTED, reason, outcome)
            return False
        started.set_ended(outcome)
        processes = self._name_processes(started, outcome)
        core.finish()
        delivered = self._interrupts.persist(core.wait)
        self._conclude(started, outcome, delivered, processes)
        return outcome.kept_permit

    def _outcome(self, core: Supervised) -> Outcome | OSError:
        # No descriptor for the pidfd: another thread took the one that spawning gave back.
        give_up = time.monotonic() + _UNSUPERVISED
        while isinstance(outcome := core.supervise(), OSError):
            if outcome.errno not in EXHAUSTED or time.monotonic() > give_up:
                break
            time.sleep(0.005)
        return outcome

    def _name_processes(self, started: Started, outcome: Outcome) -> str:
        """Return who survived or who holds the pipes, and tell the script's log of the latter."""
        if outcome.status != _native.PIPES_OPEN:
            return describe(outcome.survivors)
        holders = describe(pipe_holders((started.child.stdout_fd, started.child.stderr_fd)))
        started.core.note(started.log, pipes_note(self._context.options.wait_delay, holders))
        return holders

    def _conclude(
        self,
        started: Started,
        outcome: Outcome,
        delivered: Delivered,
        processes: str,
    ) -> None:
        status, reason = status_and_reason(
            outcome,
            limit=started.limit,
            wait_delay=self._context.options.wait_delay,
            processes=processes,
        )
        duration = (outcome.ended - started.began) / 1e9
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
                cpu_seconds=outcome.cpu_seconds,
                max_rss=outcome.max_rss,
            ),
            exit_text(outcome.exit_code),
        )

    def _set_result(self, result: RunResult, how: str = "") -> None:
        self.result = result
        said = result.reason or how
        self._context.options.logger.log(
            logging.INFO if result.ok else logging.WARNING,
            'run agent script "%s": %s (%s after %.3f s)',
            self.script.label,
            said,
            result.status.value,
            result.duration,
        )
        if result.log_error is not None or result.lines_dropped:
            self._warn_of_loss(result)
        self._context.report(result, self._limits.reports)

    def _warn_of_loss(self, result: RunResult) -> None:
        logger, label = self._context.options.logger, self.script.label
        if result.log_error is not None:
            logger.warning(
                'log file %s of script "%s" is incomplete: %s',
                result.log_path,
                label,
                result.log_error,
            )
        if result.lines_dropped:
            logger.warning(
                'logger of script "%s" was too slow: %d of %d lines were dropped',
                label,
                result.lines_dropped,
                result.lines,
            )
