"""The runner: wiring only."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from agentscripts._calls import Calls, Select, selects, stage_of
from agentscripts._cancel import CancelToken
from agentscripts._closing import OnSignal
from agentscripts._context import Context
from agentscripts._crontab import parse_schedules, schedule_warnings
from agentscripts._dispatch import Dispatch
from agentscripts._execution import Execution
from agentscripts._files import rotation_problems
from agentscripts._launch import CallLimits
from agentscripts._lifecycle import OwnThreads, Slots, WaitGroup
from agentscripts._metrics import Metrics, metrics_of
from agentscripts._model import Run, Script, Stage
from agentscripts._options import Options
from agentscripts._reports import Reports
from agentscripts._result import RunResult
from agentscripts._schedule import Schedule
from agentscripts._shutdown import Shutdown
from agentscripts._signals import DeferredSignals
from agentscripts._validation import check_duration, validate_scripts
from agentscripts.errors import (
    AlreadyInitializedError,
    ExecuteError,
    NotInitializedError,
)

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from agentscripts._cronruns import CronRuns

__all__ = ["Runner", "Select"]


class Runner:
    """Runs scripts. All methods are thread-safe; a context manager that closes at its end.

    In a child made by ``os.fork`` every method raises ``RunnerClosedError``, but for ``close``,
    which does nothing there.
    """

    def __init__(self, options: Options | None = None) -> None:
        if options is not None and not isinstance(options, Options):
            raise TypeError(f"Runner: options is {options!r}, expected Options or None")
        self._options = options or Options()
        self._calls = Calls()
        self._own_threads = OwnThreads()
        self._slots = Slots(self._options.max_parallel)
        self._shutdown = Shutdown(
            self._calls, self._own_threads, lambda: self.execute(Stage.STOP, check=False)
        )
        # All below is changed only while that is held off.
        self._context: Context | None = None  # there is one from init on
        self._metrics: Metrics | None = None
        self._schedules: Mapping[UUID, Schedule] = {}  # likewise
        self._cron: CronRuns | None = None
        self._cron_wanted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def data_dir(self) -> Path:
        """Where the scripts' data directories are: ``data_dir_base/coder-script-data``."""
        return self._options.data_dir_base / "coder-script-data"

    @property
    def script_bin_dir(self) -> Path:
        """The directory that is first on each script's ``PATH``."""
        return self.data_dir / "bin"

    @property
    def scripts(self) -> tuple[Script, ...]:
        """The scripts given to ``init``, in order; empty before."""
        return self._context.scripts if self._context else ()

    def init(
        self,
        scripts: Iterable[Script],
        *,
        on_complete: Callable[[RunResult], object] | None = None,
    ) -> None:
        """Say which scripts there are. Works once; after an error it may be tried again.

        on_complete: called with each run's result, in a thread of its own, one after the other.

        Raises ``AlreadyInitializedError``, ``InvalidScriptError``, ``RunnerClosedError``;
        ``TypeError`` for a bad argument; ``ValueError`` when a schedule needs the machine's time
        zone and that is unknown; ``OSError`` when the directories cannot be made, ``cgroup`` is
        not usable, or there is no ``/proc``.
        """
        _check_callable("init: on_complete", on_complete)
        checked = validate_scripts(scripts)
        schedules = parse_schedules(checked, self._options)
        if self._options.max_log_bytes is not None:
            log_dir, backups = self._options.log_dir, self._options.log_backups
            for _, error in rotation_problems(checked, log_dir, backups):
                raise error
        self._shutdown.hold_off(self._check_new)
        context = Context(self._options, checked, self._own_threads)
        try:
            self._options.filesystem.make_dirs(self.script_bin_dir, 0o700)
            self._shutdown.hold_off(lambda: self._begin(context, schedules, on_complete))
        except BaseException:
            if self._context is not context:  # else an interrupt came when all was done
                context.close()
            raise
        for script, warning in schedule_warnings(checked, self._options):
            context.log(logging.WARNING, 'schedule of script "%s": %s', script.label, warning)

    def execute(
        self,
        select: Select = None,
        *,
        cancel: CancelToken | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> list[RunResult]:
        """Run scripts side by side; return their results, in script order, when all have ended.

        select: a stage, a predicate, or ``None`` for all scripts.
        cancel: ends the call's scripts when it is cancelled.
        timeout: seconds for the whole call; what runs then, or waits for its turn, is timed out,
            and what waits for another script is cancelled. Default: no limit.
        check: whether to raise ``ExecuteError`` when a script did not succeed.

        What a signal handler raises meanwhile (``KeyboardInterrupt``) cancels the scripts, and is
        raised when they have ended; a second one kills them at once.

        Raises ``ExecuteError``, ``NotInitializedError``, ``RunnerClosedError``; ``ValueError`` or
        ``TypeError`` for a bad argument.
        """
        stage = stage_of(select)
        _check_timeout("execute", timeout)
        if cancel is not None and not isinstance(cancel, CancelToken):
            raise TypeError(f"execute: cancel is {cancel!r}, expected a CancelToken or None")
        if not isinstance(check, bool):
            raise TypeError(f"execute: check is {check!r}, expected True or False")
        self._calls.check_open()
        context = self._context
        if context is None:
            raise NotInitializedError("call init(scripts) before execute")
        with DeferredSignals(context.wakeup) as signals:
            self._calls.begin()
            try:
                limits = CallLimits(timeout, cancel, signals, context.environment())
                executions = self._run(context, select, stage, limits)
            finally:
                self._calls.end()
        results = [one.result for one in executions if one.result is not None]
        if check and (failures := [error for one in executions if (error := one.failure)]):
            raise ExecuteError(failures, results)
        return results

    def start_cron(self) -> None:
        """Run the scripts on their schedules from now on, until ``close``; return at once.

        May be called before ``init``, and again. A scheduled run has ``Stage.CRON``, and tells
        when it was planned in ``AGENTSCRIPTS_SCHEDULED_AT``. Times that pass without a run are
        logged and counted: after a suspend or a jump of the clock a script runs once.

        Raises ``RunnerClosedError``, and ``OSError`` when there is no descriptor or thread left.
        """
        self._shutdown.hold_off(self._want_cron)

    def close_on_signals(self, *signals: int, on_signal: OnSignal | None = None) -> None:
        """Close, and end the process, when one of these signals comes. Default: SIGTERM.

        At the first one the schedules stop, all runs are cancelled, the stop scripts run (unless
        ``execute(Stage.STOP)`` has begun), and the runner closes. Then the process ends as by
        that signal: no ``finally`` and no exit hook runs. Where the signal had a handler in
        Python, that one is called instead. A second signal kills all scripts at once, and the
        process ends likewise. What comes within 0.1 s of the first is no second one: ``timeout``
        and ``systemd`` send two at once. A signal that is ignored stays ignored.

        on_signal: called at these two with the signal's number and whether it is the second. It
        is called in the signal handler, so it should return at once and take no lock.

        Each call adds signals. ``close`` puts the handlers back, when the main thread calls it.
        Like all handlers in Python they run only when the main thread runs Python, or blocks in a
        call that a signal interrupts.

        Raises ``RuntimeError`` outside of the main thread, inside ``execute``, and for a signal
        whose handler is not Python's; ``RunnerClosedError``; ``ValueError`` or ``TypeError`` for
        what is no signal or cannot be caught; ``OSError`` when no thread is left in the system.
        """
        _check_callable("close_on_signals: on_signal", on_signal)
        self._shutdown.close_on_signals(signals or (signal.SIGTERM,), on_signal)

    def runs(self) -> list[Run]:
        """Return what runs or waits now. Raises ``RunnerClosedError`` in a forked child."""
        self._calls.check_process()
        return self._calls.runs()

    def cancel(self, run_id: str) -> bool:
        """Cancel one run; return whether it had not ended yet. Returns before it ends."""
        self._calls.check_process()
        return self._calls.cancel(run_id)

    def register_metrics(self, registry: CollectorRegistry | None) -> None:
        """Count in this registry from now on; ``None`` changes nothing.

        Several runners may use one registry: they add up. Raises ``ValueError`` when the registry
        has other metrics of these names.
        """
        self._calls.check_process()
        metrics = None if registry is None else metrics_of(registry)
        self._shutdown.hold_off(lambda: self._use(metrics or self._metrics))

    def close(self, timeout: float | None = None) -> None:
        """Stop the schedules and cancel their runs; wait for running ``execute`` calls; end all
        threads and close all descriptors.

        timeout: seconds after which what still runs is cancelled. Default: never.

        May be called again and from several threads: all of them return when all is done. Called
        by a logger, by ``on_complete``, by a handler of the agent's log in a thread of the
        library, or by a signal handler or predicate inside ``execute``, it starts to close and
        returns. Says every 10 s what it waits for. A thread that is stuck in
        the user's code is named in a warning, and left. After a signal (``close_on_signals``) it
        waits for the stop scripts, too.
        """
        _check_timeout("close", timeout)
        self._shutdown.close(timeout)

    def _run(
        self, context: Context, select: Select, stage: Stage, limits: CallLimits
    ) -> list[Execution]:
        chosen = [script for script in context.scripts if selects(select, script)]
        if not chosen:
            return []
        limits.reports = WaitGroup() if context.reports else None
        executions = [Execution(context, script, stage, limits) for script in chosen]
        slots = _UNLIMITED if stage is Stage.STOP else self._slots
        dispatch = Dispatch(context, executions, limits, slots)
        limits.signals.on_interrupt = lambda second: dispatch.cancel(kill=second)
        self._calls.run(dispatch, cancelled=limits.signals.interrupts > 0)
        if context.reports and limits.reports:
            context.reports.wait(limits.reports, self._options.flush_timeout, limits.signals)
        return executions

    def _check_new(self) -> None:
        if self._context is not None:
            raise AlreadyInitializedError("this runner has its scripts; make another Runner")

    def _begin(
        self,
        context: Context,
        schedules: Mapping[UUID, Schedule],
        on_complete: Callable[[RunResult], object] | None,
    ) -> None:
        self._check_new()
        context.metrics = self._metrics
        self._schedules = schedules
        if on_complete:
            context.reports = Reports(on_complete, context.log, self._own_threads)
            context.reports.start()
        self._begin_cron(context)
        self._context = context
        self._shutdown.take_context(context)

    def _want_cron(self) -> None:
        self._cron_wanted = True
        if self._context:
            self._begin_cron(self._context)

    def _use(self, metrics: Metrics | None) -> None:
        self._metrics = metrics
        if self._context:
            self._context.metrics = metrics

    def _begin_cron(self, context: Context) -> None:
        wanted = self._cron_wanted and self._schedules and self._cron is None
        if wanted and not self._calls.is_ending(Stage.CRON):
            from agentscripts._cronruns import CronRuns  # most runners have no schedules

            cron = CronRuns(context, self._calls, self._slots, self._schedules)
            try:
                self._shutdown.take_cron(cron)
                cron.start()
            except BaseException:
                cron.close()
                raise
            self._cron = cron


def _check_timeout(call: str, timeout: object) -> None:
    try:
        check_duration(timeout)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{call}: timeout {error}") from None


def _check_callable(what: str, value: object) -> None:
    if value is not None and not callable(value):
        raise TypeError(f"{what} is {value!r}, expected a callable or None")


_UNLIMITED: Final = Slots(None)
