"""How a runner ends: by ``close``, by a signal, with the process."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from agentscripts import _atexit
from agentscripts._calls import Calls
from agentscripts._closing import OnSignal, SignalClose
from agentscripts._context import Context
from agentscripts._lifecycle import OwnThread, OwnThreads
from agentscripts._model import Stage
from agentscripts.errors import RunnerClosedError

if TYPE_CHECKING:
    from agentscripts._cronruns import CronRuns

__all__ = ["Shutdown"]

T = TypeVar("T")

_EXIT_GRACE: Final = 1.0  # seconds that scripts have when the process ends without close
_GRACE: Final = 1.0  # seconds until a thread that closes counts as stuck
_ALL_BUT_STOP: Final = frozenset(Stage) - {Stage.STOP}


class Shutdown:
    """Ends what a runner has opened. Thread-safe.

    A signal handler that raises in the main thread leaves the locks free: only those that are
    written in C have no moment for handlers between the taking and the ``with`` block. A
    ``Condition`` has, and so has a context manager in Python.

    run_stop_scripts: ends with the last of them; raises ``RunnerClosedError``.
    """

    def __init__(
        self, calls: Calls, own_threads: OwnThreads, run_stop_scripts: Callable[[], object]
    ) -> None:
        self._pid: Final = os.getpid()
        self._calls: Final = calls
        self._own_threads: Final = own_threads
        self._run_stop_scripts: Final = run_stop_scripts
        self._signals: Final = SignalClose(self._wind_down, self._kill)
        self._lock = threading.Lock()  # guards all four below
        self._context: Context | None = None
        self._cron: CronRuns | None = None
        self._closers: list[OwnThread] = []  # those that callbacks have had close
        self._deadline = math.inf  # of the last of them, the earliest
        # Held by the thread that closes the context; a signal handler above it may come here, too.
        self._closing = threading.RLock()  # guards both below
        self._is_closing = False
        self._closed = False
        _atexit.watch(self, Shutdown.end_with_process)

    def hold_off(self, do: Callable[[], T]) -> T:
        """Let nobody close while this is done, so that what it opens is closed later.

        Raises ``RunnerClosedError`` when somebody does already.
        """
        self._calls.check_process()  # first: in a forked child another thread may hold the lock
        with self._lock:
            self._calls.check_open()
            return do()

    def take_context(self, context: Context) -> None:
        """Close this, too; while held off."""
        self._context = context

    def take_cron(self, cron: CronRuns) -> None:
        """Stop these, too; while held off."""
        self._cron = cron
        _atexit.keep(self)

    def close_on_signals(self, signals: tuple[int, ...], on_signal: OnSignal | None) -> None:
        """Close at these signals, too."""
        self._calls.check_open()
        self._signals.add(signals, on_signal)

    def close(self, timeout: float | None) -> None:
        """Let nothing begin, wait for what runs, close all; all callers return when it is done."""
        if os.getpid() != self._pid:
            return
        if self._own_threads.has_current() or self._calls.is_own_thread():
            self._close_elsewhere(timeout)
            return
        self._close(timeout)
        # Else they wait for the close below this signal handler, or for a signal's effect.
        if self._closed and not self._signals.is_busy:
            self._join_closers()

    @staticmethod
    def end_with_process(runners: Sequence[Shutdown]) -> None:
        """The process ends without close: leave no script behind."""
        own = [one for one in runners if one._pid == os.getpid()]
        winding_down = [one for one in own if one._signals.is_busy]
        Shutdown._end([one for one in own if one not in winding_down])
        for one in winding_down:
            one._signals.wait()
        Shutdown._end(winding_down)

    @staticmethod
    def _end(runners: Sequence[Shutdown]) -> None:
        """Give the scripts of all runners the same time to end."""

        def each(do: Callable[[Shutdown], object]) -> None:
            for one in runners:
                with contextlib.suppress(Exception):  # the others are ended all the same
                    do(one)

        def wait(seconds: float) -> bool:
            deadline = time.monotonic() + seconds
            return all(one._calls.wait(max(0.0, deadline - time.monotonic())) for one in runners)

        each(lambda one: one._calls.shut_down())
        each(lambda one: one._calls.cancel_all())
        each(Shutdown._stop_cron)  # last: a scheduler may be stuck in a handler of the agent's log
        if not wait(_EXIT_GRACE):
            each(Shutdown._kill)
            wait(2 * _EXIT_GRACE)

    def _close_elsewhere(self, timeout: float | None) -> None:
        """Close in another thread, unless one does that cancels no later."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        with self._lock:
            if not self._closers or deadline < self._deadline:
                thread = self._own_threads.new("agentscripts-close", self._close, timeout)
                thread.start()
                self._closers.append(thread)
                self._deadline = deadline

    def _join_closers(self) -> None:
        deadline = time.monotonic() + _GRACE
        for thread in self._closers:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._warn_of([thread.name for thread in self._closers if thread.is_alive()])

    def _close(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        self._signals.wait(timeout)
        self._let_nothing_begin()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        self._calls.finish(left, self._log)
        self._close_once()
        self._signals.close()
        if not self._signals.is_busy:  # else the process's exit waits for the effect
            _atexit.forget(self)

    def _wind_down(self) -> None:
        """End all but the stop scripts, run those, and close."""
        self._calls.cancel_all(_ALL_BUT_STOP)
        self._stop_cron()
        self._calls.wait_until_ended(_ALL_BUT_STOP)
        if self._context and not self._calls.has_begun(Stage.STOP):
            with contextlib.suppress(RunnerClosedError):  # somebody closes already
                self._run_stop_scripts()
        self.close(None)

    def _kill(self) -> None:
        self._calls.cancel_all(kill=True)

    def _let_nothing_begin(self) -> None:
        self._calls.shut_down()
        self._stop_cron()

    def _stop_cron(self) -> None:
        with self._lock:  # an init or a start_cron under way ends first
            cron = self._cron
        if cron:
            cron.close()

    def _close_once(self) -> None:
        """Close the context in one thread; the others wait for that."""
        with self._closing:
            if self._closed or self._is_closing:
                return
            self._is_closing = True
            try:
                stuck = self._context.close() if self._context else []
                stuck += self._cron.stuck() if self._cron else []
                self._closed = True
            finally:  # after an interrupt another call goes on with it
                self._is_closing = False
        self._warn_of(stuck)

    def _warn_of(self, stuck: Sequence[str]) -> None:
        if stuck:
            self._log(
                logging.WARNING,
                "closed, but these threads are still in a logger, in on_complete, or in a handler "
                "of the agent's log: %s",
                ", ".join(stuck),
            )

    def _log(self, level: int, message: str, *args: object, exc_info: bool = False) -> None:
        if self._context:
            self._context.log(level, message, *args, exc_info=exc_info)
