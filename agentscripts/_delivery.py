"""The threads that call the users' loggers."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from agentscripts._lifecycle import AgentLog, LazyCondition, OwnThreads
from agentscripts._logs import LogBatch, LogLevel, ScriptLogger
from agentscripts._native import Batch, Pool

__all__ = ["Delivery", "Turn"]

_LEVELS: Final = (LogLevel.INFO, LogLevel.ERROR, LogLevel.WARN)
_NOTE: Final = 2  # the stream of what the library says itself


class Turn:
    """Whether a run's logger is being called, which attempts and reminders share. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _taken
        self._given = LazyCondition(self._lock)
        self._taken = False

    def take(self, wanted: Callable[[], bool], begin: Callable[[], object]) -> bool:
        """Wait for the turn for as long as it is wanted; return whether it is the caller's.

        begin: called when it is, before ``change`` can make it unwanted.
        """
        with self._lock:
            if self._taken:
                self._given.wait_for(lambda: not self._taken or not wanted())
            if not wanted():
                return False
            self._taken = True
            begin()
            return True

    def give(self) -> None:
        """Let the next one have it."""
        with self._lock:
            self._taken = False
            self._given.notify_all()

    def change(self, withdraw: Callable[[], object]) -> None:
        """Have those who wait see that it is not wanted any more, once this was called."""
        with self._lock:
            withdraw()
            self._given.notify_all()


@dataclasses.dataclass(eq=False, slots=True)
class _Sink:
    logger: ScriptLogger
    log_source_id: UUID
    label: str
    turn: Turn
    lines: int = 0  # for which the logger was called; guarded by turn

    def begin(self, batch: Batch) -> None:
        if batch.pointer.stream != _NOTE:
            self.lines += batch.pointer.lines


class Delivery:
    """A pool of threads that wait in the core, without the GIL, for runs that have lines.

    The thread that takes a run sees to it that another one waits before it calls the logger, so
    there is one more thread than there are loggers that take their time. Thread-safe.
    """

    def __init__(self, log: AgentLog, own: OwnThreads) -> None:
        self._log = log
        self._own = own
        self.pool = Pool()
        self._keys = itertools.count(1)
        self._sinks: dict[int, _Sink] = {}
        self._failed: set[int] = set()
        self._lock = threading.Lock()  # guards both below; held while a thread is started
        self._threads: set[threading.Thread] = set()
        self._closed = False

    def attach(self, logger: ScriptLogger, log_source_id: UUID, label: str, turn: Turn) -> int:
        """Return the key under which a run's lines go to this logger; pair with ``detach``.

        turn: held while the logger is called, by all attempts and reminders of one run.

        Raises ``OSError`` when there is no thread yet and none is left in the system.
        """
        # Before the script starts: a thread that starts during it would cost a wait for the GIL.
        if not self._threads:
            self._start_thread()
            if not self._threads:  # its lines would wait for nobody
                why = os.strerror(errno.EAGAIN)
                raise OSError(errno.EAGAIN, f"{why}: no thread for log delivery can be started")
        key = next(self._keys)
        self._sinks[key] = _Sink(logger, log_source_id, label, turn)
        return key

    def detach(self, key: int) -> int:
        """Forget a run: what it still has is dropped. Return for how many lines of the script its
        logger was called."""
        sink = self._sinks[key]
        # With a thread that is about to call the logger: it does so before, or never.
        sink.turn.change(lambda: self._sinks.pop(key))
        self._failed.discard(key)
        return sink.lines

    def close(self, timeout: float) -> list[str]:
        """End the threads; return the names of those that are stuck in a logger."""
        self.pool.close()
        with self._lock:
            self._closed = True
            threads = set(self._threads)
        deadline = time.monotonic() + timeout
        for thread in threads - {threading.current_thread()}:
            thread.join(max(0.0, deadline - time.monotonic()))
        return sorted(thread.name for thread in threads if thread.is_alive())

    def _start_thread(self) -> None:
        thread = self._own.new("agentscripts-delivery", self._serve)
        with self._lock:
            if self._closed:  # nobody would join it
                return
            with contextlib.suppress(OSError):
                thread.start()
                self._threads.add(thread)
                return
        # No thread is left in the system: those that are there go on.
        self._log(logging.WARNING, "no further thread for log delivery can be started")

    def _serve(self) -> None:
        batch = Batch()
        while self.pool.next(batch):
            if batch.pointer.waiting == 0:
                self._start_thread()
            self._deliver(batch)
        with self._lock:
            self._threads.discard(threading.current_thread())

    def _deliver(self, batch: Batch) -> None:
        key = batch.pointer.key
        sink = self._sinks.get(key)
        # What was given up meanwhile wants no turn.
        if sink is not None and sink.turn.take(
            lambda: key in self._sinks, lambda: sink.begin(batch)
        ):
            try:
                self._call(sink, batch)
            finally:
                sink.turn.give()

    def _call(self, sink: _Sink, batch: Batch) -> None:
        head = batch.pointer
        try:
            if head.lines == 0:
                sink.logger.flush()
            else:
                level = _LEVELS[head.stream]
                lines = batch.lines()
                sink.logger.send(LogBatch(sink.log_source_id, head.created / 1e9, level, lines))
        except BaseException:
            if head.key not in self._failed:
                self._failed.add(head.key)
                self._log(
                    logging.ERROR,
                    'logger of script "%s" failed; its further failures are not shown',
                    sink.label,
                    exc_info=True,
                )
