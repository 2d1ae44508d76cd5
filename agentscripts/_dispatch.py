"""Many runs of one call at once: who starts which, and when."""

from __future__ import annotations

import collections
import os
import select
import threading
from collections.abc import Sequence
from typing import Final

from agentscripts._cancel import CancelToken
from agentscripts._context import Context
from agentscripts._execution import Execution
from agentscripts._interrupts import SLICE, Interrupts, in_main_thread
from agentscripts._launch import CallLimits
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
            if self._free == 0:
                self._waiting.add(who)
                return False
            return True

    def take(self, who: Dispatch) -> bool:
        """Take a slot, or have ``who`` woken when there is one."""
        with self._lock:
            if self._free is None:
                return True
            if self._free == 0:
                self._waiting.add(who)
                return False
            self._free -= 1
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
        cancel: CancelToken | None,
        slots: Slots,
    ) -> None:
        self._context = context
        self._executions = executions
        self._limits = limits
        self._token = cancel
        self._slots = slots
        self._lock = threading.Lock()  # guards _pending, _left and _cancelled
        self._pending = collections.deque(executions)
        self._left = len(executions)
        self._cancelled = False
        self._wake = -1
        self._workers: list[threading.Thread] = []

    def cancel(self, *, kill: bool = False) -> None:
        """End all runs; those that wait do not start. Any thread."""
        with self._lock:
            self._cancelled = True
        for execution in self._executions:
            if execution.result is None:
                execution.cancel(kill=kill)
        self.wake()

    def wake(self) -> None:
        """Have the caller's thread look again. Any thread."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def run(self) -> None:
        """Perform all runs; what a signal handler raises cancels them and is raised at the end."""
        if len(self._executions) == 1 and self._may_start() and self._slots.take(self):
            # A lone script needs no other thread: to hand it over takes a tenth of its time.
            try:
                self._executions[0].perform()
            finally:
                self._slots.give()
            return
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        interrupts = Interrupts(lambda again: self.cancel(kill=again))
        try:
            interrupts.persist(self._drive)
        finally:
            with self._lock:
                wake, self._wake = self._wake, -1
            os.close(wake)
        interrupts.raise_first()

    def _drive(self) -> None:
        """Start workers until all runs have ended; may be left by an exception and called again."""
        while self._left:
            self._start_workers()
            self._wait()
        for worker in self._workers:
            worker.join()

    def _may_start(self) -> bool:
        return (
            not self._cancelled and not (self._token and self._token.cancelled) and not self._late()
        )

    def _late(self) -> bool:
        return self._limits.left() == 0

    def _start_workers(self) -> None:
        while self._pending:
            if not self._may_start():
                self._give_up_pending()
                return
            if not self._slots.is_free(self):
                return
            self._start_worker()

    def _start_worker(self) -> None:
        # A worker takes its run itself, so that what a signal handler raises here loses none.
        permit = self._context.gate.acquire(_PERMIT_TIMEOUT)
        worker = threading.Thread(
            target=self._work, args=(permit,), name="agentscripts-run", daemon=True
        )
        self._workers.append(worker)
        try:
            worker.start()
        except RuntimeError:  # no thread is left in the system: this one does the work
            self._workers.remove(worker)
            self._work(permit)
        except BaseException:
            if worker.ident is None:
                self._workers.remove(worker)
                if permit:
                    self._context.gate.release()
            raise

    def _take(self) -> Execution | None:
        """Return the next run that may start, its slot taken."""
        with self._lock:
            if not self._pending or not self._may_start():
                return None
            if not self._slots.take(self):
                return None
            return self._pending.popleft()

    def _work(self, permit: bool) -> None:
        gate = self._context.gate
        while (execution := self._take()) is not None:
            try:
                permit = execution.perform(permit=permit)
            finally:
                self._end_one()
            permit = permit or gate.acquire(0)
            if not permit:
                return
        if permit:
            gate.release()

    def _end_one(self) -> None:
        self._slots.give()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self.wake()

    def _give_up_pending(self) -> None:
        late = self._late() and not self._cancelled and not (self._token and self._token.cancelled)
        status = RunStatus.TIMED_OUT if late else RunStatus.CANCELLED
        reason = "cancelled before it was started"
        if late:
            reason = f"not started within the {self._limits.timeout:g} s that the call had"
        while True:
            with self._lock:
                if not self._pending:
                    return
                execution = self._pending.popleft()
            execution.set_unstarted(status, reason)
            with self._lock:
                self._left -= 1

    def _wait(self) -> None:
        """Sleep until a slot is free, all runs have ended, or the call is cancelled or late."""
        with self._lock:
            if self._left == 0:
                return
            pending = bool(self._pending)
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        timeout = None
        if pending:
            if self._token is not None:
                poll.register(self._token, select.POLLIN)
            left = self._limits.left()
            timeout = None if left is None else left * 1000
        if in_main_thread():
            timeout = SLICE * 1000 if timeout is None else min(timeout, SLICE * 1000)
        for fd, _ in poll.poll(timeout):
            if fd == self._wake:
                os.eventfd_read(self._wake)
