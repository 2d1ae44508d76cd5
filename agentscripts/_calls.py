"""The ``execute`` calls that are under way, and what they select."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

from agentscripts._dispatch import Dispatch
from agentscripts._execution import Execution
from agentscripts._lifecycle import WaitGroup
from agentscripts._model import Run, Script, Stage
from agentscripts.errors import RunnerClosedError

__all__ = ["Calls", "Select", "selects", "stage_of"]

Select = Stage | Callable[[Script], bool] | None


class Calls:
    """The calls of one runner. Thread-safe."""

    def __init__(self) -> None:
        self._group = WaitGroup()
        self._lock = threading.Lock()  # guards all below
        self._shut = False
        self._threads: list[threading.Thread] = []
        self._dispatches: set[Dispatch] = set()
        self._ending: bool | None = None  # all runs are to end; True: at once

    @property
    def shut(self) -> bool:
        """Whether no call may begin any more."""
        return self._shut

    def begin(self) -> None:
        """Count a call of this thread; pair with ``end``. Raises ``RunnerClosedError``."""
        with self._lock:
            if self._shut:
                raise RunnerClosedError("this runner is closed; make another Runner")
            self._threads.append(threading.current_thread())
            self._group.add()

    def end(self) -> None:
        """Say that this thread's call is over."""
        with self._lock:
            self._threads.remove(threading.current_thread())
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
            ending = self._ending
        try:
            if ending is not None or cancelled:
                dispatch.cancel(kill=bool(ending))
            dispatch.run()
        finally:
            with self._lock:
                self._dispatches.discard(dispatch)

    def runs(self) -> list[Run]:
        """Return what runs or waits now."""
        return [execution.snapshot() for _, execution in self._unfinished()]

    def cancel(self, run_id: str) -> bool:
        """Cancel one run; return whether it had not ended yet."""
        for dispatch, execution in self._unfinished():
            if execution.run_id == run_id:
                dispatch.cancel_one(execution)
                return True
        return False

    def cancel_all(self, *, kill: bool = False) -> None:
        """Cancel all runs, also those of calls that are just beginning."""
        with self._lock:
            self._ending = kill
            dispatches = list(self._dispatches)
        for dispatch in dispatches:
            dispatch.cancel(kill=kill)

    def wait(self, timeout: float) -> bool:
        """Wait until all calls are over, at most ``timeout`` seconds; return whether they are."""
        return self._group.wait(timeout)

    def _unfinished(self) -> Iterator[tuple[Dispatch, Execution]]:
        with self._lock:
            dispatches = list(self._dispatches)
        for dispatch in dispatches:
            for execution in dispatch.executions:
                if execution.result is None:
                    yield dispatch, execution


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
        case _:
            return bool(select(script))  # type: ignore[operator]
