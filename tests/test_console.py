"""What a terminal or a pipe gets: harmless text, at once, and no wait that cannot be ended."""

from __future__ import annotations

import io
import logging
import os
import select
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from types import FrameType
from uuid import UUID

import pytest
from support import eventually, main_frame

from agentscripts._cancel import CancelToken
from agentscripts._console import JoinedThread, LineLogger, Output, OutputHandler
from agentscripts._logs import LogBatch, LogLevel
from agentscripts._text import escape


@pytest.fixture
def pipe() -> Iterator[tuple[int, io.TextIOWrapper]]:
    """A descriptor to read from, and a stream that writes to it."""
    reader, writer = os.pipe()
    with open(reader, "rb"), open(writer, "w", encoding="latin-1") as stream:
        yield reader, stream


def fill(stream: io.TextIOWrapper) -> int:
    """Write until the pipe takes no more; return how much that was."""
    os.set_blocking(stream.fileno(), False)
    count = 0
    try:
        while True:
            count += os.write(stream.fileno(), bytes(4096))
    except BlockingIOError:
        os.set_blocking(stream.fileno(), True)
        return count


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ✓ text", "plain é ✓ text"),
        ("a\tb", "a\tb"),
        ("\x1b[2J\x1b]0;title\x07", r"\x1b[2J\x1b]0;title\x07"),
        ("a\rb\nc\0\x7f", r"a\x0db\x0ac\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("no\xa0break", "no\xa0break"),
    ],
)
def test_control_characters_are_shown(text: str, shown: str) -> None:
    """No text can steer the terminal: C0 and C1 are spelled out, all but the tab."""
    assert escape(text) == shown


def test_lines_have_a_prefix(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A batch arrives whole, each line with its prefix; the encoding is the stream's."""
    reader, stream = pipe
    batch = LogBatch(UUID(int=1), 0.0, LogLevel.INFO, ["é", "", "\x1b", "✓"])
    logger = LineLogger(Output(stream, CancelToken()), "a | ")
    logger.send(batch)
    logger.flush()
    assert os.read(reader, 100) == b"a | \xe9\na | \na | \\x1b\na | \\u2713\n"


def test_handler_writes_a_line(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A log record is one harmless line."""
    reader, stream = pipe
    record = logging.makeLogRecord({"msg": "a %s", "args": ("\n\x1b",)})
    OutputHandler(Output(stream).write, {}).emit(record)
    assert os.read(reader, 100) == b"agentscripts: a \\x0a\\x1b\n"


def test_slow_reader_gets_everything(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A write that is larger than the pipe waits for the reader, and nothing is lost."""
    reader, stream = pipe
    text = "x" * 300_000
    writer = threading.Thread(target=Output(stream, CancelToken()).write, args=(text,))
    writer.start()
    received = b""
    while len(received) < len(text):
        received += os.read(reader, 65536)
    writer.join()
    assert received == text.encode()


def test_non_blocking_stream(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A stream that someone else made non-blocking loses nothing either."""
    _, stream = pipe
    os.set_blocking(stream.fileno(), False)
    test_slow_reader_gets_everything(pipe)


def test_hurry_ends_a_wait(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """When told to hurry, a write that waits for its reader drops the rest and returns."""
    reader, stream = pipe
    size, hurry = fill(stream), CancelToken()
    output = Output(stream, hurry)
    writer = threading.Thread(target=output.write, args=("x" * 100_000,))
    writer.start()
    hurry.cancel()
    writer.join()
    assert len(os.read(reader, 2 * size)) == size
    output.write("what fits at once is still written")
    assert os.read(reader, 100) == b"what fits at once is still written"
    assert output.error is None


def test_hurry_ends_a_write_that_fills_the_pipe(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """No system call waits for the reader: a pipe takes part of a text, and the rest is dropped."""
    reader, stream = pipe
    hurry = CancelToken()
    writer = threading.Thread(target=Output(stream, hurry).write, args=("x" * 1_000_000,))
    writer.start()
    os.read(reader, 1)
    hurry.cancel()
    writer.join()


def test_write_now_never_waits(pipe: tuple[int, io.TextIOWrapper]) -> None:
    """A signal handler's text is written, or dropped when the reader is slow."""
    reader, stream = pipe
    output = Output(stream, CancelToken())
    output.write_now("now")
    assert os.read(reader, 100) == b"now"
    size = fill(stream)
    output.write_now("not now")
    assert len(os.read(reader, 2 * size)) == size
    assert not select.select([reader], [], [], 0)[0]


def test_first_failure_is_told_once() -> None:
    """After the reader has gone everything is dropped, and the owner is told one time."""
    reader, writer = os.pipe()
    os.close(reader)
    told: list[str] = []
    with open(writer, "w", encoding="utf-8") as stream:
        output = Output(stream, CancelToken(), lambda: told.append("gone"))
        output.write("a")
        output.write("b")
    assert told == ["gone"]
    assert isinstance(output.error, BrokenPipeError)


def test_closed_stream_takes_nothing() -> None:
    """A process that was started without a stream that it can do without prints nothing there."""
    output = Output(None, CancelToken(), may_be_closed=True)
    output.write("a")
    output.write_now("b")
    assert output.error is None


def test_closed_stream_is_a_failure() -> None:
    """A text that has to be on a stream is not taken for written where there is none."""
    told: list[str] = []
    output = Output(None, CancelToken(), lambda: told.append("closed"))
    output.write_now("a")
    assert output.exit_status(told.append) == 0
    output.write("b")
    output.write("c")
    assert output.exit_status(told.append) == 1
    assert told == ["closed", "agentscripts: cannot write the output: Bad file descriptor\n"]


def test_join_ends_before_a_signal_is_raised() -> None:
    """R8: a signal ends no wait for a thread half-way; it is raised when the thread has ended."""
    handled: list[int] = []
    may_end = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        handled.append(number)
        raise KeyboardInterrupt

    def main_joins() -> bool:
        frame = main_frame()
        return "join" in [one.name for one in traceback.extract_stack(frame)]

    def interrupt() -> None:
        eventually(main_joins)
        os.kill(os.getpid(), signal.SIGUSR1)
        eventually(lambda: handled)
        time.sleep(0.2)  # for a join that the signal ends to be seen
        may_end.set()

    old = signal.signal(signal.SIGUSR1, handle)
    waiting = JoinedThread(may_end.wait, "waiting", may_end.set)
    interrupting = threading.Thread(target=interrupt)
    try:
        waiting.start()
        interrupting.start()
        with pytest.raises(KeyboardInterrupt):
            waiting.join()
        assert may_end.is_set()
        assert not waiting.is_alive()
    finally:
        interrupting.join()
        signal.signal(signal.SIGUSR1, old)
