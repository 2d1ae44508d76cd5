"""The thread that calls the user's ``on_complete``."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from agentscripts._lifecycle import WaitGroup
from agentscripts._result import RunResult

__all__ = ["Reports"]


class Reports:
    """Calls ``on_complete`` for one result after the other, in a thread of its own. Thread-safe."""

    def __init__(self, on_complete: Callable[[RunResult], object], logger: logging.Logger) -> None:
        self._on_complete = on_complete
        self._logger = logger
        self._queue: queue.SimpleQueue[tuple[RunResult, WaitGroup] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._serve, name="agentscripts-reports", daemon=True
        )
        self._thread.start()

    def put(self, result: RunResult, group: WaitGroup) -> None:
        """Report a result; ``group`` counts the call until it has returned."""
        group.add()
        self._queue.put((result, group))

    def wait(self, group: WaitGroup, timeout: float | None) -> None:
        """Wait for the calls of a group, at most ``timeout`` seconds."""
        if not group.wait(timeout):
            self._logger.warning("on_complete is too slow: execute does not wait for it any longer")

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
                self._logger.exception('on_complete failed for script "%s"', result.script.label)
            group.done()
            del item, result, group  # wait for the next one without holding this one's memory
