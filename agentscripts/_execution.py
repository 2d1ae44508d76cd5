"""One run, from its turn to its result."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agentscripts import _supervised
from agentscripts._context import Context
from agentscripts._delivery import Turn
from agentscripts._launch import CANCELLED, EXHAUSTED, CallLimits, Launch, Started
from agentscripts._model import Run, RunState, RunStatus, Script, Stage
from agentscripts._outcome import status_and_reason
from agentscripts._process import are_at_end, describe, pipe_holders
from agentscripts._result import RunResult, make_result
from agentscripts._retry import added_up, delay_before_next
from agentscripts._supervised import Outcome, Supervised
from agentscripts._text import error_text
from agentscripts._writers import WRITERS
from agentscripts.errors import ScriptError

__all__ = ["Execution"]

_LOOK_AGAIN: Final = 0.1  # seconds: a cancel or a deadline ends a start that waits, too
_REMINDER: Final = 1.0  # seconds that a logger has for one


def _chance() -> float:
    """Return a number from 0 to 1, so that not all come at once."""
    return int.from_bytes(os.urandom(4)) / 0xFFFFFFFF


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
        self.status: RunStatus | None = None
        """How it ended, as soon as its last process has."""
        self.result: RunResult | None = None
        """Follows when the last lines are delivered."""
        self.skip: tuple[str, bool] | None = None
        """Why it must not start, and whether that is a failure of its own."""
        self.retry_at: float | None = None
        """When it is to be performed again, in seconds of the monotonic clock."""
        self._context = context
        self._limits = limits
        self._scheduled_at = scheduled_at
        self._place = context.places[script.id]
        self._before: RunResult | None = None  # of the attempts so far
        self._first: tuple[int, float] | None = None  # when the first one began, as in Started
        self._sending = Turn()
        self._turn = threading.Lock()  # held while it writes to its log, as a run or a reminder
        self._begun = False  # it has written there; guarded by _turn
        # Between two attempts: it is writing still, so nobody else empties the file (L2).
        self._kept_log: tuple[int, int] | None = None
        self._on_ended: Callable[[], None] | None = None  # until it was called; guarded by _turn
        self._lock = threading.Lock()  # guards the two below together
        self._started: Started | None = None  # while it may be asked and cancelled
        self._cancel: bool | None = None  # None: not cancelled; True: kill at once

    def cancel(self, *, kill: bool = False) -> None:
        """End the run as soon as it has begun, or keep it from beginning."""
        with self._lock:
            self._cancel = kill or bool(self._cancel)
            if self._started is not None:
                self._started.core.cancel(kill=kill)

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._cancel is not None

    @property
    def failure(self) -> ScriptError | None:
        """What ``execute`` raises for it: not a skip whose cause is a failure of the same call."""
        if self.result is None or self.result.ok:
            return None
        blameless = self.skip is not None and not self.skip[1]
        return None if blameless else self.result.error

    @property
    def attempt(self) -> int:
        """Which attempt comes or is under way: 1 is the first."""
        return self._before.attempts + 1 if self._before else 1

    def snapshot(self, waits_for: tuple[str, ...] = ()) -> Run:
        """Return how the run is now."""
        state, last_line = RunState.WAITING, ""
        with self._lock:
            if (started := self._started) is not None:
                state, last_line = started.core.snapshot()
            return Run(
                run_id=self.run_id,
                script=self.script,
                stage=self.stage,
                state=state,
                pid=started and started.process.pid,
                started_at=started and datetime.fromtimestamp(started.began_at, UTC),
                last_line=last_line,
                waits_for=waits_for,
                attempt=self.attempt,
            )

    def perform(self, on_ended: Callable[[], None], *, permit: bool = False) -> bool:
        """Run the script; return whether the gate's permit is still held.

        Sets ``result``, or ``retry_at``: then it is to be called again at that time.

        on_ended: called once, when the script has ended; its last lines may still be delivered.
        """
        with self._turn:
            self.retry_at = None
            self._on_ended = on_ended
            launch = self._launch()
            try:
                if self.skip is not None:
                    self._skip(launch, *self.skip)
                    return permit
                started = self._start(launch, permit)
                return permit if started is None else self._supervise(started, launch)
            finally:
                self._say_ended()
                with self._lock:
                    known, self._started = self._started, None
                try:
                    self._keep_log(launch.keep_log() if self.retry_at is not None else None)
                    launch.release()
                finally:
                    if known is not None:
                        known.core.close()
                    self._context.ended.end()

    def _keep_log(self, log: tuple[int, int] | None) -> None:
        before, self._kept_log = self._kept_log, log
        if before is not None:
            WRITERS.let_go(before)

    def _say_ended(self) -> None:
        on_ended, self._on_ended = self._on_ended, None
        if on_ended is not None:
            on_ended()

    def remind(self, text: Callable[[], str]) -> None:
        """Tell the script's log why the run waits; ``""``: it does no longer."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            if not (now := text()):
                return
            launch = self._launch()
            core, _ = self._note(launch, now, _REMINDER)
        finally:
            self._turn.release()
        self._deliver(launch, core)  # the run need not wait for that

    def set_unstarted(
        self,
        status: RunStatus,
        reason: str,
        cause: Exception | None = None,
        *,
        log_path: Path | None = None,
        log_error: OSError | None = None,
    ) -> None:
        """Give a run its result that has no process, or no further one."""
        now = datetime.now(UTC)
        result = RunResult(
            run_id=self.run_id,
            script=self.script,
            stage=self.stage,
            status=status,
            reason=reason,
            started_at=now,
            ended_at=now,
            duration=0.0,
            attempts=0,
            cause=cause,
            log_path=log_path,
            log_error=log_error,
        )
        if before := self._before:
            why = f"{reason} ({self._which()}; the one before: {before.reason})"
            result = dataclasses.replace(before, status=status, reason=why, cause=cause)
        self.status = status
        self._set_result(result)

    # ---- the run's thread, in the order of its life ----

    def _launch(self) -> Launch:
        begun, self._begun = self._begun, True
        return Launch(
            self._context,
            self.script,
            self._place,
            self.run_id,
            self._limits,
            self._scheduled_at,
            self._sending,
            begun=begun,
        )

    def _note(
        self, launch: Launch, text: str, flush: float | None
    ) -> tuple[Supervised | None, OSError | None]:
        """Tell the script's log; a log that cannot be written is told to the agent's."""
        try:
            return launch.note(f"agentscripts: {text}", flush), None
        except BaseException as error:  # also what the user's parts raise
            self._context.log(
                logging.WARNING,
                'log file %s of script "%s" cannot be written: %s',
                self._place.log_path,
                self.script.label,
                error,
            )
            return None, error if isinstance(error, OSError) else None

    def _deliver(self, launch: Launch, core: Supervised | None) -> None:
        if core is not None:
            core.finish(self._limits.signals.check)
            core.close()
        launch.release()

    def _skip(self, launch: Launch, reason: str, blamed: bool) -> None:
        self._context.ended.start()
        flush = self._context.options.flush_timeout
        core, error = self._note(launch, f"not started: {reason}", flush)
        self._deliver(launch, core)
        path = self._place.log_path
        self.set_unstarted(RunStatus.SKIPPED, reason, log_path=path, log_error=error)

    def _which(self) -> str:
        return f"attempt {self.attempt} of {self.script.retries + 1}"

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
            except BaseException as error:  # also SystemExit of the user's parts
                launch.release()
                signals.check()
                more = None
                if getattr(error, "errno", None) in EXHAUSTED:
                    more = ended.wait_for_one(count, _LOOK_AGAIN)
                if more is None:
                    why = f"not started: {error_text(error)}"
                    cause = error if isinstance(error, Exception) else None
                    self.set_unstarted(RunStatus.NOT_STARTED, why, cause)
                    return None
                count = more

    def _supervise(self, started: Started, launch: Launch) -> bool:
        core = started.core
        with self._lock:
            self._started = started
            if self._cancel is not None:
                core.cancel(kill=self._cancel)
        metrics, between = self._context.metrics, self._limits.signals.check
        if metrics:
            metrics.started(self.stage)
        try:
            outcome = core.supervise(between)
        finally:
            if metrics:
                metrics.stopped(self.stage)
        started.set_ended(outcome)
        status, reason = self._explain(started, outcome)
        if not self._plan_retry(started, status, reason):
            self.status = status
        self._say_ended()
        lines, kept_permit = core.finish(between)
        dropped = launch.end_delivery(lines)
        self._conclude(self._result_of(started, outcome, lines, dropped, status, reason))
        return kept_permit

    def _plan_retry(self, started: Started, status: RunStatus, reason: str) -> bool:
        """Decide whether there is another attempt, and tell the script's log."""
        delay = delay_before_next(self.script, self.attempt, status, _chance)
        if delay is None or self.cancelled or self._limits.over() is not None:
            return False
        self.retry_at = time.monotonic() + delay
        text = f"{self._which()}: {reason}; the next one follows in {delay:.3g} s"
        started.core.note(started.log, f"agentscripts: {text}")
        return True

    def _explain(self, started: Started, outcome: Outcome) -> tuple[RunStatus, str]:
        """Return how the run ended; tell the script's own log when its pipes stayed open."""
        pids = outcome.survivors
        if outcome.status == _supervised.PIPES_OPEN:
            child = started.process.child
            pipes = child.stdout_fd, child.stderr_fd
            pids = pipe_holders(pipes)
            if not pids and are_at_end(pipes):  # who was about to exec has done so
                outcome = outcome._replace(status=_supervised.EXITED)
        processes = describe(pids) if pids else ""
        status, reason = status_and_reason(outcome, limit=started.limit, processes=processes)
        if status is RunStatus.PIPES_OPEN:
            started.core.note(started.log, f"agentscripts: {reason}")
        return status, reason

    def _result_of(
        self,
        started: Started,
        outcome: Outcome,
        lines: int,
        dropped: int,
        status: RunStatus,
        reason: str,
    ) -> RunResult:
        self._first = self._first or (started.began, started.began_at)
        began, began_at = self._first
        duration = (outcome.ended - began) / 1e9
        stderr, stderr_lines = started.core.stderr() if outcome.output_bytes else ((), 0)
        return make_result(
            run_id=self.run_id,
            script=self.script,
            stage=self.stage,
            status=status,
            reason=reason,
            exit_code=outcome.exit_code,
            started_at=datetime.fromtimestamp(began_at, UTC),
            ended_at=datetime.fromtimestamp(began_at + duration, UTC),
            duration=duration,
            output_bytes=outcome.output_bytes,
            lines=lines,
            lines_dropped=dropped,
            log_path=self._place.log_path,
            log_error=outcome.log_error,
            survivors=outcome.survivors,
            tail=started.core.tail() if outcome.output_bytes else (),
            stderr=stderr,
            stderr_lines=stderr_lines,
            cpu_seconds=outcome.cpu_seconds,
            max_rss=outcome.max_rss,
            attempts=1,
            cause=None,
        )

    def _conclude(self, result: RunResult) -> None:
        if self._before is not None:
            result = added_up(self._before, result)
        if self.retry_at is None:
            self._set_result(result)
            return
        which = self._which()
        self._before = result
        self._context.log(
            logging.WARNING,
            'run agent script "%s": %s: %s; the next one follows',
            self.script.label,
            which,
            result.reason,
        )

    def _set_result(self, result: RunResult) -> None:
        self.result = result
        self._keep_log(None)
        self._context.report(result, self._limits.reports)
