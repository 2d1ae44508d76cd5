"""Many runs of one call at once: who starts which, and when."""

from __future__ import annotations

import collections
import os
import select
import threading
from collections.abc import Callable, Sequence
from typing import Final

from agentscripts._context import Context
from agentscripts._execution import Execution
from agentscripts._launch import CANCELLED, CallLimits
from agentscripts._model import RunStatus

__all__ = ["Dispatch", "Slots"]

# A permit is held for some milliseconds. One that is held longer belongs to a start that hangs,
# as on a dead mount, and the others go on without it.
_PERMIT_TIMEOUT: Final = 0.05


class Slots:
    """How many scripts of a runner may run at once (``max_parallel``). Thread-safe."""

    def __init__(self, count: int | None) -> None:
        self._free = count
        self._lock = threading.Lock()  # guards _free and _waiting
        self._waiting: set[Dispatch] = set()

    def is_free(self, who: Dispatch) -> bool:
        """Whether there is a slot; if not, ``who`` is woken when there is one."""
        with self._lock:
            return self._has_room(who)

    def take(self, who: Dispatch) -> bool:
        """Take a slot, or have ``who`` woken when there is one."""
        with self._lock:
            room = self._has_room(who)
            if room and self._free is not None:
                self._free -= 1
            return room

    def _has_room(self, who: Dispatch) -> bool:
        if self._free == 0:
            self._waiting.add(who)
            return False
        return True

    def give(self) -> None:
        """Give a slot back."""
        with self._lock:
            if self._free is None:
                return
            self._free += 1
            waiting, self._waiting = self._waiting, set()
        for dispatch in waiting:
            dispatch.wake()


class Dispatch:
    """The runs of one ``execute`` call. ``run`` belongs to the caller's thread; workers take turns.

    A worker performs one run after the other for as long as it keeps its permit of the gate; one
    whose script takes longer loses it, and the caller's thread starts another worker.
    """

    def __init__(
        self,
        context: Context,
        executions: Sequence[Execution],
        limits: CallLimits,
        slots: Slots,
        on_end: Callable[[Execution], None] | None = None,
    ) -> None:
        self.executions: Final = executions
        self.stage: Final = executions[0].stage
        self._context = context
        self._limits = limits
        self._slots = slots
        self._on_end = on_end
        self._lock = threading.Lock()  # guards all below
        self._pending = collections.deque(executions)
        self._left = len(executions)
        self._wake = -1
        self._workers: list[threading.Thread] = []

    def cancel(self, *, kill: bool = False) -> None:
        """End all runs; those that wait do not start. Any thread."""
        for execution in self.executions:
            if execution.result is None:
                self.cancel_one(execution, kill=kill)

    def cancel_one(self, execution: Execution, *, kill: bool = False) -> None:
        """End one of the runs. Any thread."""
        execution.cancel(kill=kill)
        with self._lock:
            if execution not in self._pending:
                return
            self._pending.remove(execution)
        execution.set_unstarted(*CANCELLED)
        self._end(execution)

    def wake(self) -> None:
        """Have the caller's thread look again. Any thread."""
        with self._lock:
            self._wake_now()

    def run(self) -> None:
        """Perform all runs."""
        if len(self.executions) == 1 and (execution := self._take()) is not None:
            # A lone script needs no other thread: to hand it over takes a tenth of its time.
            self._perform(execution, permit=False)
            return
        try:
            self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError as error:
            self.give_up(RunStatus.NOT_STARTED, f"not started: {error}", error)
            return
        try:
            while self._left:
                self._start_workers()
                self._wait()
                self._limits.signals.check()
        except BaseException:  # a bug here, which must not leave scripts without a caller
            self.cancel(kill=True)
            raise
        finally:
            for worker in self._workers:
                worker.join()
            with self._lock:
                wake, self._wake = self._wake, -1
            os.close(wake)

    def _wake_now(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _start_workers(self) -> None:
        while self._pending:
            if (over := self._limits.over()) is not None:
                self.give_up(*over)
                return
            if not self._slots.is_free(self):
                return
            permit = self._context.gate.acquire(_PERMIT_TIMEOUT)
            worker = self._context.own_threads.new("agentscripts-run", self._work, permit)
            try:
                worker.start()
            except RuntimeError:  # no thread is left in the system: this one does the work
                self._work(permit)
            else:
                self._workers.append(worker)

    def _work(self, permit: bool) -> None:
        gate = self._context.gate
        try:
            while (execution := self._take()) is not None:
                permit = self._perform(execution, permit=permit) or gate.acquire(0)
                if not permit:
                    return
        finally:
            if permit:
                gate.release()

    def _perform(self, execution: Execution, *, permit: bool) -> bool:
        try:
            return execution.perform(self._slots.give, permit=permit)
        finally:
            self._end(execution)

    def _take(self) -> Execution | None:
        """Return the next run that may start, its slot taken."""
        with self._lock:
            if not self._pending or self._limits.over() is not None:
                return None
            if not self._slots.take(self):
                return None
            return self._pending.popleft()

    def _end(self, execution: Execution) -> None:
        if execution.result is None:  # perform raised: a bug here, which must not hang the call
            execution.set_unstarted(RunStatus.NOT_STARTED, "not started: internal error")
        if self._on_end is not None:
            self._on_end(execution)
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._wake_now()

    def give_up(self, status: RunStatus, reason: str, cause: Exception | None = None) -> None:
        while self._pending:
            with self._lock:
                execution = self._pending.popleft() if self._pending else None
            if execution is not None:
                execution.set_unstarted(status, reason, cause)
                self._end(execution)

    def _wait(self) -> None:
        """Sleep until a slot is free, all runs have ended, the call is over, or a signal comes."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self._limits.signals.fd >= 0:
            poll.register(self._limits.signals.fd, select.POLLIN)
        with self._lock:
            pending = bool(self._pending)
        left = self._limits.left() if pending else None
        if pending and self._limits.cancel is not None:
            poll.register(self._limits.cancel, select.POLLIN)
        # poll takes no more than an int; the caller looks again anyway.
        for fd, _ in poll.poll(None if left is None else min(left * 1000, 2**31 - 1)):
            if fd == self._wake:
                os.eventfd_read(self._wake)
