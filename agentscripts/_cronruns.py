"""The scripts that a schedule starts, as runs of a runner."""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from agentscripts._agenda import Agenda, Fire
from agentscripts._calls import Calls
from agentscripts._context import Context
from agentscripts._dispatch import Dispatch
from agentscripts._execution import Execution
from agentscripts._launch import CallLimits
from agentscripts._lifecycle import Slots, WaitGroup
from agentscripts._model import RunStatus, Script, Stage
from agentscripts._overlap import Overlaps
from agentscripts._schedule import Schedule
from agentscripts._scheduler import Scheduler, SkipReason, SystemClock
from agentscripts._signals import DeferredSignals
from agentscripts.errors import RunnerClosedError

__all__ = ["CronRuns"]

_GRACE: Final = 1.0  # seconds

_WHY: Final = {
    SkipReason.OVERLAP: "its last run still runs",
    SkipReason.MISSED: "the machine slept, or its clock was set forward",
    SkipReason.CLOSED: "the runner closes",
}


class CronRuns:
    """Starts the scripts of a runner on their schedules. Thread-safe.

    schedules: of the scripts that have one, by ``Script.id``.

    Raises ``OSError`` when there is no descriptor left.
    """

    def __init__(
        self,
        context: Context,
        calls: Calls,
        slots: Slots,
        schedules: Mapping[UUID, Schedule],
    ) -> None:
        self._context: Final = context
        self._calls: Final = calls
        self._slots: Final = slots
        self._scripts: Final = {s.id: s for s in context.scripts if s.id in schedules}
        clock = SystemClock()
        agenda: Agenda[UUID] = Agenda(random.random)
        now = clock.now()
        for script in self._scripts.values():
            agenda.add(script.id, schedules[script.id], now, jitter=script.jitter)
        self._scheduler: Final = Scheduler(
            agenda,
            Overlaps({script.id: script.overlap for script in self._scripts.values()}),
            clock=clock,
            fire=self._fire,
            skip=self._skip,
            log=context.log,
            own_threads=context.own_threads,
        )
        self._lock = threading.Lock()  # guards both below
        self._closing = False
        self._dispatches: set[Dispatch] = set()

    def start(self) -> None:
        """Start the schedules, once. Raises ``OSError`` when no thread is left in the system."""
        self._scheduler.start()

    def close(self) -> None:
        """Stop the schedules and cancel the runs that they started; does not wait for these."""
        with self._lock:
            self._closing = True
            dispatches = list(self._dispatches)
        # First, for the scheduler may be held up in a handler of the agent's log.
        for dispatch in dispatches:
            dispatch.cancel()
        self._scheduler.close(_GRACE)

    def stuck(self) -> list[str]:
        """Return the names of threads that have not ended."""
        return self._scheduler.stuck()

    def _fire(self, fires: Sequence[Fire[UUID]]) -> None:
        limits = CallLimits(
            None, None, DeferredSignals(self._context.wakeup), self._context.environment()
        )
        limits.reports = WaitGroup()
        executions = [
            Execution(self._context, self._scripts[one.key], Stage.CRON, limits, one.planned)
            for one in fires
        ]
        dispatch = Dispatch(self._context, executions, limits, self._slots, self._ended)
        thread = self._context.own_threads.new("agentscripts-cron-runs", self._perform, dispatch)
        try:
            if self._calls.is_ending(Stage.CRON):
                raise RunnerClosedError("the schedules' runs are cancelled")
            self._calls.begin(thread)
        except RunnerClosedError:
            for one in fires:
                self._skip(one.key, one.planned, SkipReason.CLOSED, 1)
            return
        try:
            thread.start()
        except OSError as error:
            dispatch.give_up(RunStatus.NOT_STARTED, f"not started: {error}", error)
            self._calls.end(thread)

    def _perform(self, dispatch: Dispatch) -> None:
        with self._lock:
            self._dispatches.add(dispatch)
            closing = self._closing
        try:
            self._calls.run(dispatch, cancelled=closing)
        finally:
            with self._lock:
                self._dispatches.discard(dispatch)
            self._calls.end()

    def _ended(self, execution: Execution) -> None:
        self._scheduler.ended(execution.script.id)

    def _skip(self, script_id: UUID, planned: datetime, reason: SkipReason, count: int) -> None:
        script: Script = self._scripts[script_id]
        if self._context.metrics:
            self._context.metrics.skipped(reason.value, count)
        times = "1 time" if count == 1 else f"{count} times"
        self._context.log(
            logging.WARNING,
            'schedule of script "%s": %s skipped, the last of %s (%s): %s',
            script.label,
            times,
            planned.isoformat(),
            reason.value,
            _WHY[reason],
        )
