"""What a terminal or a pipe gets to see: text made harmless, written at once."""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Final, Self, TextIO

from agentscripts._cancel import CancelToken
from agentscripts._lifecycle import OwnThread
from agentscripts._logs import LogBatch
from agentscripts._text import escape

__all__ = [
    "FAILED",
    "SIGNALLED",
    "JoinedThread",
    "LineLogger",
    "Output",
    "OutputHandler",
    "complain",
]

FAILED: Final = 1
"""The exit status of a run that failed, and of an output that could not be written."""

SIGNALLED: Final = 128
"""A shell reports a command that a signal ended as this and the signal's number."""


class Output:
    """A standard stream of this process. Thread-safe.

    A write waits for as long as the reader takes, unless ``hurry`` is cancelled: then what the
    stream does not take at once is dropped. After the first failure, which ``error`` holds,
    everything is.

    hurry: ``None``: never.
    on_error: called once, after the first failure.
    may_be_closed: whether a stream that was closed when this process started drops all texts; else
        each is a failure.
    """

    def __init__(
        self,
        stream: TextIO | None,
        hurry: CancelToken | None = None,
        on_error: Callable[[], object] = lambda: None,
        *,
        may_be_closed: bool = False,
    ) -> None:
        # A stream that was closed when this process started is None.
        self._fd = -1 if stream is None else stream.fileno()
        self.encoding = "utf-8" if stream is None else stream.encoding
        self._hurry = hurry
        self._on_error = on_error
        self._drops = stream is None and may_be_closed
        self._lock = threading.Lock()
        self.error: OSError | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person may see it at once."""
        return self._fd >= 0 and os.isatty(self._fd)

    @property
    def was_left(self) -> bool:
        """Whether the reader has closed its end; who does so early wants no word on it."""
        return self.error is not None and self.error.errno == errno.EPIPE

    def exit_status(self, complain: Callable[[str], object]) -> int:
        """Return 0, or what this process is to end with after the first failure; but for a reader
        that has left it is told."""
        if self.error is None:
            return 0
        if self.was_left:
            return SIGNALLED + signal.SIGPIPE
        complain(f"agentscripts: cannot write the output: {self.error.strerror}\n")
        return FAILED

    def write(self, text: str) -> None:
        """Write a text whole before that of another thread."""
        self.write_bytes(text.encode(self.encoding, "backslashreplace"))

    def write_bytes(self, data: bytes) -> None:
        """Write bytes, likewise."""
        if self._drops:
            return
        left = memoryview(data)
        with self._lock:
            while left and self.error is None:
                if not self._wait():
                    return
                left = left[self._write_some(left) :]

    def write_now(self, text: str) -> None:
        """Write a text if the stream takes it at once; for signal handlers, as it takes no lock."""
        if self._fd < 0:
            return
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if poll.poll(0):
            self._write_some(memoryview(text.encode(self.encoding, "backslashreplace")))

    def rest(self, seconds: float) -> None:
        """Sleep, but no longer than there is a reader."""
        poll = select.poll()
        if self._fd >= 0:
            poll.register(self._fd, 0)  # POLLERR and POLLHUP come unasked
        if poll.poll(seconds * 1000):
            self.error = self.error or OSError(errno.EPIPE, os.strerror(errno.EPIPE))

    def _wait(self) -> bool:
        if self._fd < 0:  # the write will tell
            return True
        poll = select.poll()
        poll.register(self._fd, select.POLLOUT)
        if self._hurry is not None:
            poll.register(self._hurry, select.POLLIN)
        return any(fd == self._fd for fd, _ in poll.poll())

    def _write_some(self, data: memoryview) -> int:
        try:
            # A writable pipe takes that much without blocking, even if it is in blocking mode.
            return os.write(self._fd, data[: select.PIPE_BUF])
        except BlockingIOError:
            return 0
        except OSError as error:
            self.error = error
            self._on_error()
            return 0


class LineLogger:
    """A ``ScriptLogger`` that prints lines with a prefix."""

    def __init__(self, output: Output, prefix: str) -> None:
        self._output = output
        self._prefix = prefix

    def send(self, batch: LogBatch) -> None:
        """Print the lines, in one piece."""
        self._output.write("".join([f"{self._prefix}{escape(line)}\n" for line in batch.lines]))

    def flush(self) -> None:
        """Do nothing: lines are never held back."""


class OutputHandler(logging.Handler):
    """Prints what the library logs.

    labels: what to call a script instead, by what the library calls it.
    """

    def __init__(self, write: Callable[[str], object], labels: Mapping[str, str]) -> None:
        super().__init__()
        self._write = write
        self._labels = labels

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record in one line."""
        text = self.format(record)
        for name, label in self._labels.items():
            text = text.replace(f'"{name}"', f'"{label}"')
        self._write(f"agentscripts: {escape(text)}\n")


def complain(text: str) -> None:
    """Write a text to standard error, whole, where nothing else is written to it."""
    Output(sys.stderr).write(text)


class JoinedThread(OwnThread):
    """One that runs while it is entered, and whose end is waited for whatever comes.

    Its ``join`` raises a signal's ``KeyboardInterrupt`` only then.

    end: has the target return.
    """

    def __init__(self, target: Callable[[], object], name: str, end: Callable[[], object]) -> None:
        super().__init__(target, name)
        self._end = end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()
        self.join()

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, without a limit: the second signal ends what the thread waits for."""
        interrupt: KeyboardInterrupt | None = None
        while self.is_alive():
            try:
                super().join()
            except KeyboardInterrupt as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
