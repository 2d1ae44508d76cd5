"""The signals that ask the command to end."""

from __future__ import annotations

import contextlib
import select
import signal
from types import FrameType, TracebackType
from typing import Final, Self

from agentscripts._cancel import CancelToken
from agentscripts._console import Output
from agentscripts._runner import Runner
from agentscripts._signals import DeferredSignals, WakeupPipe

__all__ = ["Interrupts", "ServingInterrupts"]

_ASKING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Takes over the signals that ask this process to end, but for those that it was told to
    ignore. Each raises ``KeyboardInterrupt``: for ``execute`` the first one cancels, the second
    one kills.

    first: the number of the first one; 0 before.
    """

    _consequence = "cancelling the scripts"

    def __init__(self, stderr: Output, hurry: CancelToken) -> None:
        self.first = 0
        self._stderr = stderr
        self._hurry = hurry
        self._busy = False
        self._replaced = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in *_ASKING, signal.SIGALRM:
            old = signal.getsignal(number)
            if old is not signal.SIG_IGN or number == signal.SIGALRM:
                self._replaced.callback(signal.signal, number, old)
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._replaced.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            # This call interrupts another one, which is about to raise. What both raise would be
            # one exception, so this one comes again as an alarm, when the other one has raised.
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        self._busy = True
        self._tell(number)
        self._busy = False
        raise KeyboardInterrupt

    def _tell(self, number: int) -> None:
        if self.first:
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
        self._attached = False

    def attach(self, runner: Runner) -> None:
        """Have the signals close this runner."""
        self._attached = True
        # An alarm closes it without a signal from outside.
        runner.close_on_signals(*_ASKING, signal.SIGALRM)
        runner._signals.on_signal = self._tell

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
        if self._attached:
            raise KeyboardInterrupt
        super()._handle(number, frame)

    def _tell(self, number: int) -> None:
        if number != signal.SIGALRM or not self._attached:
            super()._tell(number)
