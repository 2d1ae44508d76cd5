"""The signals that ask the command to end."""

from __future__ import annotations

import contextlib
import select
import signal
import time
from types import FrameType, TracebackType
from typing import Final, Self

from agentscripts._cancel import CancelToken
from agentscripts._console import Output
from agentscripts._escalation import Escalation, Request, Requested
from agentscripts._runner import Runner
from agentscripts._signals import DeferredSignals, WakeupPipe

__all__ = ["Interrupts", "ServingInterrupts"]

_ASKING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes over the signals that ask this process to end, but for those that it was told to
    ignore. The first request and the second each raise ``KeyboardInterrupt``: for ``execute`` the
    first one cancels, the second one kills.

    first: the number of the first one; 0 before.
    """

    _consequence = "cancelling the scripts"

    def __init__(self, stderr: Output, hurry: CancelToken) -> None:
        self.first = 0
        self._stderr = stderr
        self._hurry = hurry
        self._escalation = Escalation()
        self._replaced = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in _ASKING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._replace(number)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.first:  # it ends: no further signal may change its exit status
            for number in _ASKING:
                signal.signal(number, signal.SIG_IGN)
        else:
            self._replaced.close()

    def _replace(self, number: signal.Signals) -> None:
        self._replaced.callback(signal.signal, number, signal.getsignal(number))
        signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        request = self._escalation.note(time.monotonic())
        if request is not Request.NONE:
            self._tell(number, second=request is Request.SECOND)
            raise Requested(request)

    def _tell(self, number: int, *, second: bool) -> None:
        if second:
            self._hurry.cancel()
            self._stderr.write_now("agentscripts: killing the scripts\n")
        else:
            self.first = number
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            text = f"agentscripts: {name}: {self._consequence}; once more kills them at once\n"
            self._stderr.write_now(text)


class ServingInterrupts(Interrupts):
    """The same, but once a runner is attached it is closed by the signals; then one
    ``KeyboardInterrupt`` is raised.
    """

    _consequence = "cancelling the scripts, then running the stop scripts"

    def __init__(self, stderr: Output, hurry: CancelToken) -> None:
        super().__init__(stderr, hurry)
        self._closing = False  # it closes by a signal, and has not raised yet

    def __enter__(self) -> Self:
        super().__enter__()
        self._replace(signal.SIGALRM)  # by an alarm it closes without a signal from outside
        return self

    def attach(self, runner: Runner) -> None:
        """Have the signals close this runner."""
        runner.close_on_signals(*_ASKING, signal.SIGALRM, on_signal=self._on_signal)

    def wait(self, cancel: CancelToken) -> None:
        """Block until the runner is closed, which cancelling the token does, too; always raises
        ``KeyboardInterrupt``."""
        pipe = WakeupPipe()
        try:
            with DeferredSignals(pipe) as signals:
                poll = select.poll()
                poll.register(signals.fd, select.POLLIN)
                poll.register(cancel, select.POLLIN)
                while not signals.interrupts:
                    if any(fd == cancel.fileno() for fd, _ in poll.poll()):
                        poll.unregister(cancel)
                        if not self.first:  # else it would be the second one
                            signal.raise_signal(signal.SIGALRM)
                    signals.check()
        finally:
            pipe.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._closing:  # it has closed
            self._closing = False
            raise KeyboardInterrupt
        super()._handle(number, frame)

    def _on_signal(self, number: int, second: bool) -> None:
        self._closing = True
        self._escalation.note(time.monotonic())  # for a signal that comes when it has closed
        if second or number != signal.SIGALRM:
            self._tell(number, second=second)
