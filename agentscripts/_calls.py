"""The ``execute`` calls that are under way, and what they select."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Collection
from typing import Final

from agentscripts._dispatch import Dispatch
from agentscripts._lifecycle import AgentLog, LazyCondition, WaitGroup
from agentscripts._model import Run, Script, Stage
from agentscripts._process import command_line
from agentscripts.errors import RunnerClosedError

__all__ = ["Calls", "Select", "selects", "stage_of"]

_REMIND: Final = 10.0  # seconds

Select = Stage | Callable[[Script], bool] | None


class Calls:
    """The calls of one runner. Thread-safe."""

    def __init__(self) -> None:
        self._pid: Final = os.getpid()
        self._group = WaitGroup()
        self._lock = threading.Lock()  # guards all below
        self._shut = False
        self._threads: list[threading.Thread] = []
        self._dispatches: set[Dispatch] = set()
        self._over = LazyCondition(self._lock)  # a dispatch left the set
        self._begun: set[Stage] = set()
        self._ending: dict[Stage, bool] = {}  # whose runs are to end; True: at once

    def check_process(self) -> None:
        """Raise ``RunnerClosedError`` in a forked child."""
        if os.getpid() != self._pid:
            raise RunnerClosedError(
                "this runner belongs to the parent process; make another Runner"
            )

    def check_open(self) -> None:
        """Raise ``RunnerClosedError`` when no call may begin any more, and in a forked child."""
        self.check_process()
        if self._shut:
            raise RunnerClosedError("this runner is closed; make another Runner")

    def begin(self, thread: threading.Thread | None = None) -> None:
        """Count a call of this thread, or of one that is about to start; pair with ``end``.

        Raises ``RunnerClosedError``.
        """
        with self._lock:
            self.check_open()
            self._threads.append(thread or threading.current_thread())
            self._group.add()

    def end(self, thread: threading.Thread | None = None) -> None:
        """Say that the thread's call is over."""
        with self._lock:
            self._threads.remove(thread or threading.current_thread())
        self._group.done()

    def shut_down(self) -> None:
        """Let no further call begin."""
        with self._lock:
            self._shut = True

    def is_own_thread(self) -> bool:
        """Whether the caller is inside one of the calls: a signal handler, or a predicate."""
        return threading.current_thread() in self._threads

    def run(self, dispatch: Dispatch, *, cancelled: bool) -> None:
        """Perform the runs of a call, so that the methods below reach them."""
        with self._lock:
            self._dispatches.add(dispatch)
            self._begun.add(dispatch.stage)
            ending = self._ending.get(dispatch.stage)
        try:
            if cancelled or ending is not None:
                dispatch.cancel(kill=bool(ending))
            dispatch.run()
        finally:
            with self._lock:
                self._dispatches.discard(dispatch)
                self._over.notify_all()

    def has_begun(self, stage: Stage) -> bool:
        """Whether scripts of a stage run or have run."""
        return stage in self._begun

    def is_ending(self, stage: Stage) -> bool:
        """Whether runs of a stage are cancelled, also those to come."""
        return stage in self._ending

    def wait_until_ended(self, stages: Collection[Stage]) -> None:
        """Wait for the runs of these stages that are under way."""
        with self._lock:
            self._over.wait_for(lambda: not any(one.stage in stages for one in self._dispatches))

    def runs(self) -> list[Run]:
        """Return what runs or waits now."""
        return [run for dispatch in self._under_way() for run in dispatch.unfinished()]

    def cancel(self, run_id: str) -> bool:
        """Cancel one run; return whether it had not ended yet."""
        for dispatch in self._under_way():
            for execution in dispatch.executions:
                if execution.run_id == run_id and execution.result is None:
                    dispatch.cancel_one(execution)
                    return True
        return False

    def cancel_all(self, stages: Collection[Stage] = tuple(Stage), *, kill: bool = False) -> None:
        """Cancel all runs, or those of some stages, also those to come."""
        with self._lock:
            for stage in stages:
                self._ending[stage] = kill or self._ending.get(stage, False)
            chosen = [one for one in self._dispatches if one.stage in stages]
        for dispatch in chosen:
            dispatch.hold()  # first, or the end of a run would start or skip one of another call
        for dispatch in chosen:
            dispatch.cancel(kill=kill)

    def finish(self, timeout: float | None, log: AgentLog) -> None:
        """Wait until all calls are over; cancel after ``timeout`` seconds what still runs then.

        Says every 10 s what it waits for.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self.wait(max(0.0, min(_REMIND, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                self.cancel_all()
                deadline = math.inf
            else:
                self._remind(log)

    def _remind(self, log: AgentLog) -> None:
        for run in self.runs():
            log(
                logging.INFO,
                'close waits for script "%s" (%s): %s',
                run.script.label,
                run.state.value,
                f"{command_line(run.pid)} (pid {run.pid})" if run.pid else "no process yet",
            )

    def wait(self, timeout: float) -> bool:
        """Wait until all calls are over, at most ``timeout`` seconds; return whether they are."""
        return self._group.wait(timeout)

    def _under_way(self) -> list[Dispatch]:
        with self._lock:
            return list(self._dispatches)


def stage_of(select: object) -> Stage:
    """Return the stage of the runs that this selects. Raises ``ValueError`` or ``TypeError``."""
    if isinstance(select, Stage):
        if select is Stage.MANUAL:
            raise ValueError(
                "select is Stage.MANUAL, expected another stage, a callable, or None for all"
            )
        return select
    if select is not None and not callable(select):
        raise TypeError(f"select is {select!r}, expected a Stage, a callable, or None for all")
    return Stage.MANUAL


def selects(select: Select, script: Script) -> bool:
    """Return whether this selects the script."""
    match select:
        case None:
            return True
        case Stage.START:
            return script.run_on_start
        case Stage.STOP:
            return script.run_on_stop
        case Stage.CRON:
            return bool(script.cron)
        case _:
            return bool(select(script))  # type: ignore[operator]
