"""Many runs of one call at once: who starts which, and when."""

from __future__ import annotations

import collections
import contextlib
import functools
import heapq
import logging
import math
import os
import select
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from agentscripts._context import Context
from agentscripts._execution import Execution
from agentscripts._launch import CANCELLED, CallLimits
from agentscripts._lifecycle import Slots
from agentscripts._model import Run, RunStatus, Stage
from agentscripts._order import Order, Verdict

__all__ = ["Dispatch"]

# A permit is held for some milliseconds. One that is held longer belongs to a start that hangs,
# as on a dead mount, and the others go on without it.
_PERMIT_TIMEOUT: Final = 0.05
_REMIND: Final = 30.0  # seconds
_LOOK_AGAIN: Final = 0.01  # seconds, where nothing can wake the caller's thread


class Dispatch:
    """The runs of one ``execute`` call. ``run`` belongs to the caller's thread; workers take turns.

    A worker performs one run after the other for as long as it keeps its permit of the gate; one
    whose script takes longer loses it, and the caller's thread starts another worker. A run that
    waits for its dependencies, or to be tried again, has no thread. Who cancels only says so: the
    caller's thread ends the runs that wait, for no signal handler interrupts it.
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
        self._order: Order[Execution, Dispatch] = context.order
        self._lock = threading.Lock()  # guards all below
        at_once = self._order.never_waits  # as in most runners
        self._waiting = set(() if at_once else executions)
        self._again: list[tuple[float, str, Execution]] = []  # a heap: when, of those that wait
        self._pending = collections.deque(executions if at_once else ())
        self._cancelled: list[Execution] = []  # those that wait are yet to be ended
        self._left = len(executions)
        self._wake = -1
        self._held = False  # for good, once it is set; needs no lock
        self._ended: collections.deque[threading.Thread] = collections.deque()  # likewise; workers
        # The caller's thread's alone:
        self._workers: set[threading.Thread] = set()
        self._reminder: threading.Thread | None = None
        self._remind_at = time.monotonic() + _REMIND

    # ---- any thread ----

    def hold(self) -> None:
        """Let no run begin, and none be skipped, from now on; ``cancel`` is to follow."""
        self._held = True

    def cancel(self, *, kill: bool = False) -> None:
        """End all runs; those that wait do not start."""
        self.hold()  # first, or the end of one would start or skip another
        for execution in self.executions:
            if execution.result is None:
                execution.cancel(kill=kill)
        self.wake()

    def cancel_one(self, execution: Execution, *, kill: bool = False) -> None:
        """End one of the runs."""
        execution.cancel(kill=kill)
        with self._lock:
            self._cancelled.append(execution)
            self._wake_now()

    def give_up(self, status: RunStatus, reason: str, cause: Exception | None = None) -> None:
        """End the runs that wait: in the caller's thread, or where none calls ``run``."""
        self._conclude(self._withdraw(), status, reason, cause)

    def wake(self) -> None:
        """Have the caller's thread look again."""
        with self._lock:
            self._wake_now()

    def unfinished(self) -> list[Run]:
        """Return the runs that have not ended, as they are now."""
        left = [one for one in self.executions if one.result is None]
        return [one.snapshot(self._order.waits_for(one)) for one in left]

    def _wake_now(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _conclude(
        self,
        executions: Iterable[Execution],
        status: RunStatus,
        reason: str,
        cause: Exception | None = None,
    ) -> None:
        for execution in executions:
            execution.set_unstarted(status, reason, cause)
            self._end(execution)

    def _end(self, execution: Execution) -> None:
        if execution.result is None:  # perform raised: a bug here, which must not hang the call
            execution.set_unstarted(RunStatus.NOT_STARTED, "not started: internal error")
        self._tell(execution)
        if self._on_end is not None:
            self._on_end(execution)
        with self._lock:
            self._left -= 1
            if self._left == 0:
                self._wake_now()

    def _tell(self, execution: Execution) -> None:
        """Tell the runs that wait for this one, of any call, how it ended."""
        if execution.status is not None and not self._order.never_waits:
            for verdict in self._order.end(execution, execution.status):
                # Those of a call that is over are cancelled like the rest of it (K1).
                if verdict.call._over() is None:
                    verdict.call._decide(verdict)

    def _over(self) -> tuple[RunStatus, str] | None:
        """Return what becomes of a run that has not begun by now, and why; ``None``: it may."""
        return CANCELLED if self._held else self._limits.over()

    def _decide(self, verdict: Verdict[Execution, Dispatch]) -> None:
        execution = verdict.run
        with self._lock:
            if execution not in self._waiting:
                return
            self._waiting.remove(execution)
            if verdict.reason:
                execution.skip = (verdict.reason, verdict.blamed)
                self._pending.appendleft(execution)  # it needs no slot
            else:
                self._pending.append(execution)
            self._wake_now()

    # ---- the caller's thread ----

    def run(self) -> None:
        """Perform all runs."""
        if self._waiting:
            self._begin()
        if len(self.executions) == 1 and (execution := self._take()) is not None:
            # A lone script needs no other thread: to hand it over takes a tenth of its time.
            self._perform(execution, permit=False)
        if not self._left:
            return
        try:
            while True:
                self._open_wake()  # first: whatever happens from here on ends the wait
                if not self._left:
                    return
                self._end_cancelled()
                self._start_workers()
                self._wait()
                self._limits.signals.check()
        except BaseException:  # a bug here, which must not leave scripts without a caller
            self.cancel(kill=True)
            self.give_up(*CANCELLED)
            raise
        finally:
            for thread in [*self._workers, self._reminder]:
                if thread is not None:
                    thread.join()
            with self._lock:
                wake, self._wake = self._wake, -1
            if wake >= 0:
                os.close(wake)

    def _begin(self) -> None:
        runs = [(one, one.script) for one in self.executions]
        verdicts, warnings = self._order.begin(self, runs, alone=self.stage is Stage.STOP)
        for warning in warnings:
            self._context.log(logging.WARNING, "%s", warning)
        for verdict in verdicts:
            self._decide(verdict)

    def _open_wake(self) -> None:
        if self._wake < 0:
            with contextlib.suppress(OSError):  # no descriptor is left: it looks now and then
                wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
                with self._lock:
                    self._wake = wake

    def _end_cancelled(self) -> None:
        with self._lock:
            cancelled, self._cancelled = set(self._cancelled), []
        if cancelled:
            self._conclude(self._withdraw(cancelled), *CANCELLED)

    def _withdraw(self, some: set[Execution] | None = None) -> list[Execution]:
        """Take runs that wait, all or those of some, out of their turn."""
        with self._lock:
            here = self._waiting.union(self._pending)
            taken = here if some is None else here & some
            self._waiting -= taken
            self._pending = collections.deque(one for one in self._pending if one not in taken)
        return [one for one in self.executions if one in taken]

    def _start_workers(self) -> None:
        while self._ended:
            thread = self._ended.popleft()
            thread.join()
            self._workers.remove(thread)
        while self._pending or self._waiting:
            if (over := self._over()) is not None:
                # It was not yet the turn of those that wait for others, so theirs is not the fault.
                early = {one for one in set(self._waiting) if one.attempt == 1}
                self._conclude(self._withdraw(early), RunStatus.CANCELLED, over[1])
                self.give_up(*over)
                return
            self._bring_back()
            if not self._may_take():
                return
            permit = self._context.gate.acquire(_PERMIT_TIMEOUT)
            worker = self._context.own_threads.new("agentscripts-run", self._serve, permit)
            try:
                worker.start()
            except OSError:  # no thread is left in the system: this one does the work
                self._work(permit)
            else:
                self._workers.add(worker)

    def _bring_back(self) -> None:
        """Let those run again whose time has come."""
        now = time.monotonic()
        with self._lock:
            while self._again and self._again[0][0] <= now:
                _, _, execution = heapq.heappop(self._again)
                if execution in self._waiting:
                    self._waiting.remove(execution)
                    self._pending.append(execution)

    def _may_take(self) -> bool:
        with self._lock:
            if not self._pending:
                return False
            return self._pending[0].skip is not None or self._slots.is_free(self)

    def _wait(self) -> None:
        """Sleep until there may be something to do, the call is over, or a signal comes."""
        poll = select.poll()
        if self._wake >= 0:
            poll.register(self._wake, select.POLLIN)
        if self._limits.signals.fd >= 0:
            poll.register(self._limits.signals.fd, select.POLLIN)
        with self._lock:
            unstarted = bool(self._pending or self._waiting)
            again = self._again[0][0] if self._again else math.inf
        until = math.inf if self._wake >= 0 else time.monotonic() + _LOOK_AGAIN
        if unstarted:
            self._remind()
            left = self._limits.left()
            over = math.inf if left is None else time.monotonic() + left
            until = min(until, over, again, self._remind_at)
            if self._limits.cancel is not None:
                poll.register(self._limits.cancel, select.POLLIN)
        # poll takes no more than an int; the caller looks again anyway.
        timeout = min(max(0.0, until - time.monotonic()) * 1000, 2**31 - 1)
        try:
            events = poll.poll(None if math.isinf(until) else math.ceil(timeout))
        except OSError:  # ENOMEM; the caller looks again, but not as fast as it goes
            time.sleep(_LOOK_AGAIN)
            return
        for fd, _ in events:
            if fd == self._wake:
                os.eventfd_read(self._wake)

    def _remind(self) -> None:
        """Have the runs that wait for others say so in their logs, now and then (D4)."""
        if time.monotonic() < self._remind_at:
            return
        self._remind_at = time.monotonic() + _REMIND
        if self._reminder is not None and self._reminder.is_alive():
            return  # loggers that take their time
        self._reminder = self._context.own_threads.new("agentscripts-remind", self._remind_all)
        try:
            self._reminder.start()
        except OSError:  # no thread is left in the system: next time, then
            self._reminder = None

    def _remind_all(self) -> None:
        for execution in self.executions:
            if self._order.waits_for(execution):
                execution.remind(functools.partial(self._reminder_of, execution))

    def _reminder_of(self, execution: Execution) -> str:
        awaited = self._order.waits_for(execution)
        names = ", ".join(f'"{name}"' for name in awaited[:10])
        more = f" and {len(awaited) - 10} more" if len(awaited) > 10 else ""
        return f"waits for {names}{more}" if awaited else ""

    # ---- the workers ----

    def _serve(self, permit: bool) -> None:
        try:
            self._work(permit)
        finally:
            self._ended.append(threading.current_thread())

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
        def process_ended() -> None:
            if execution.skip is None:
                self._slots.give()
            self._tell(execution)

        if permit and execution.skip is not None:
            # It starts nothing, and its logger may take its time: others start meanwhile.
            self._context.gate.release()
            permit = False
        try:
            return execution.perform(process_ended, permit=permit)
        finally:
            if execution.retry_at is None or execution.result is not None:
                self._end(execution)
            else:
                self._try_again(execution, execution.retry_at)

    def _try_again(self, execution: Execution, when: float) -> None:
        with self._lock:
            self._waiting.add(execution)
            heapq.heappush(self._again, (when, execution.run_id, execution))
            self._wake_now()
        if execution.cancelled:  # maybe by one who looked for it too early
            self.cancel_one(execution)

    def _take(self) -> Execution | None:
        """Return the next run that may start, its slot taken."""
        with self._lock:
            if not self._pending or self._over() is not None:
                return None
            if self._pending[0].skip is None and not self._slots.take(self):
                return None
            return self._pending.popleft()
