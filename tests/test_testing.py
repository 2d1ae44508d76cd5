"""The fakes that users get."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from uuid import UUID

import pytest

from agentscripts._files import Filesystem
from agentscripts._logs import LogBatch, LogLevel, ScriptLogger
from agentscripts.testing import MemoryFilesystem, RecordingLogger

LOG = Path("/logs/a.log")


def batch(*lines: str) -> LogBatch:
    return LogBatch(UUID(int=1), 0.0, LogLevel.INFO, list(lines))


def test_recording_logger_records() -> None:
    """Fakes: lines, batches and flushes are kept in order, and what is returned is a copy."""
    logger = RecordingLogger()
    as_protocol: ScriptLogger = logger
    one, two = batch("a", "b"), batch("c")
    for each in (one, two):
        as_protocol.send(each)
    as_protocol.flush()
    logger.batches.clear()
    assert logger.batches == [one, two]
    assert logger.lines == ["a", "b", "c"]
    assert logger.flushes == 1


def test_recording_logger_can_fail() -> None:
    """Fakes: what the hook raises leaves ``send``, and the batch is not kept."""

    def fail(batch: LogBatch) -> None:
        raise RuntimeError(batch.lines[0])

    logger = RecordingLogger(fail)
    with pytest.raises(RuntimeError, match="boom"):
        logger.send(batch("boom"))
    assert logger.lines == []


def test_recording_logger_can_be_slow() -> None:
    """Fakes: while one thread waits in the hook, others read and flush."""
    entered, release = threading.Event(), threading.Event()

    def wait(batch: LogBatch) -> None:
        entered.set()
        assert release.wait(10)

    logger = RecordingLogger(wait)
    thread = threading.Thread(target=logger.send, args=(batch("late"),))
    thread.start()
    try:
        assert entered.wait(10)
        logger.flush()
        assert (logger.lines, logger.flushes) == ([], 1)
    finally:
        release.set()
        thread.join()
    assert logger.lines == ["late"]


def test_memory_filesystem_keeps_what_is_written() -> None:
    """Fakes: descriptors of one path share a file, append, and outlive each other."""
    with MemoryFilesystem() as memory:
        as_protocol: Filesystem = memory
        one, two = as_protocol.open_log(LOG), as_protocol.open_log(LOG)
        other = memory.open_log(LOG.with_name("b.log"))
        try:
            assert (one.dir_fd, one.name, one.truncate) == (None, "a.log", True)
            assert os.fstat(one.fd).st_ino == os.fstat(two.fd).st_ino
            assert os.fstat(one.fd).st_ino != os.fstat(other.fd).st_ino
            os.write(one.fd, b"one ")
            os.write(two.fd, b"two ")
        finally:
            for target in (one, two, other):
                assert not os.get_inheritable(target.fd)
                os.close(target.fd)
        assert memory.read(str(LOG)) == b"one two "
        again = memory.open_log(LOG)
        os.ftruncate(again.fd, 0)
        os.write(again.fd, b"new")
        os.close(again.fd)
        assert memory.read(LOG) == b"new"


def test_memory_filesystem_notes_directories(tmp_path: Path) -> None:
    """Fakes: no directory is made; the first mode counts."""
    with MemoryFilesystem() as memory:
        memory.make_dirs(tmp_path / "new", 0o700)
        memory.make_dirs(tmp_path / "new", 0o755)
        assert memory.directories == {tmp_path / "new": 0o700}
        assert not (tmp_path / "new").exists()


def test_memory_filesystem_closes() -> None:
    """S2: ``close`` leaves no descriptor, may be called again, and ends the use."""
    before = len(os.listdir("/proc/self/fd"))
    memory = MemoryFilesystem()
    os.close(memory.open_log(LOG).fd)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    memory.close()
    memory.close()
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(OSError, match="MemoryFilesystem is closed"):
        memory.open_log(LOG)
    with pytest.raises(FileNotFoundError, match=r"/logs/a\.log"):
        memory.read(LOG)
