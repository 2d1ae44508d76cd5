"""The thread that calls the user's ``on_complete``."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable

from agentscripts._lifecycle import AgentLog, OwnThreads, WaitGroup
from agentscripts._result import RunResult
from agentscripts._signals import DeferredSignals

__all__ = ["Reports"]


class Reports:
    """Calls ``on_complete`` for one result after the other, in a thread of its own. Thread-safe."""

    def __init__(
        self, on_complete: Callable[[RunResult], object], log: AgentLog, own: OwnThreads
    ) -> None:
        self._on_complete = on_complete
        self._log = log
        self._queue: queue.SimpleQueue[tuple[RunResult, WaitGroup] | None] = queue.SimpleQueue()
        self._thread = own.new("agentscripts-reports", self._serve)

    def start(self) -> None:
        """Start the thread, once. Raises ``OSError`` when none is left in the system."""
        self._thread.start()

    def put(self, result: RunResult, group: WaitGroup) -> None:
        """Report a result; ``group`` counts the call until it has returned."""
        group.add()
        self._queue.put((result, group))

    def wait(self, group: WaitGroup, timeout: float | None, signals: DeferredSignals) -> None:
        """Wait for the calls of a group, at most ``timeout`` seconds, unless a handler raises."""
        if self.is_own_thread():
            return
        deadline = None if timeout is None else time.monotonic() + timeout
        before = signals.interrupts
        while not group.wait(signals.slice(deadline)):
            signals.check()
            if signals.interrupts > before:
                return
            if deadline is not None and time.monotonic() >= deadline:
                self._log(logging.WARNING, "on_complete is too slow: execute waits no longer")
                return

    def is_own_thread(self) -> bool:
        """Whether the caller is ``on_complete``."""
        return threading.current_thread() is self._thread

    def close(self, timeout: float | None) -> list[str]:
        """End the thread after the calls that wait; return its name if it is stuck."""
        self._queue.put(None)
        if not self.is_own_thread():
            self._thread.join(timeout)
        return [self._thread.name] if self._thread.is_alive() else []

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            result, group = item
            try:
                self._on_complete(result)
            except BaseException:
                self._log(
                    logging.ERROR,
                    'on_complete failed for script "%s"',
                    result.script.label,
                    exc_info=True,
                )
            group.done()
            del item, result, group  # wait for the next one without holding this one's memory
