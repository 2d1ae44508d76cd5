"""Fakes for the tests of programs that use this library."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from agentscripts._files import LogTarget
from agentscripts._logs import LogBatch

__all__ = ["MemoryFilesystem", "RecordingLogger"]


class RecordingLogger:
    """A ``ScriptLogger`` that keeps what it gets. Thread-safe, and one may serve many scripts.

    on_send: called with each batch before it is kept, outside of any lock; it may wait, to make
        a slow logger, or raise, to make one that fails. Default: nothing.
    """

    def __init__(self, on_send: Callable[[LogBatch], None] | None = None) -> None:
        self._on_send = on_send
        self._lock = threading.Lock()
        self._batches: list[LogBatch] = []
        self._flushes = 0

    def send(self, batch: LogBatch) -> None:
        """Keep a batch."""
        if self._on_send is not None:
            self._on_send(batch)
        with self._lock:
            self._batches.append(batch)

    def flush(self) -> None:
        """Count the call."""
        with self._lock:
            self._flushes += 1

    @property
    def batches(self) -> list[LogBatch]:
        """The batches so far, in order."""
        with self._lock:
            return list(self._batches)

    @property
    def lines(self) -> list[str]:
        """The lines so far, of both streams, in order."""
        return [line for batch in self.batches for line in batch.lines]

    @property
    def flushes(self) -> int:
        """How often ``flush`` was called."""
        with self._lock:
            return self._flushes


class MemoryFilesystem:
    """A ``Filesystem`` whose log files are in memory and whose directories are only noted.

    Thread-safe. ``close`` it, or use it as a context manager, when no script runs any more.
    Scripts do not find their data directories, since those are not made.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Path, int] = {}
        self._directories: dict[Path, int] = {}
        self._closed = False

    def make_dirs(self, path: Path, mode: int) -> None:
        """Note a directory and its mode."""
        with self._lock:
            self._directories.setdefault(path, mode)

    def open_log(self, path: Path) -> LogTarget:
        """Open the file of this path in memory; there is no rotation."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "MemoryFilesystem is closed", str(path))
            if path not in self._files:
                self._files[path] = os.memfd_create("agentscripts-log", os.MFD_CLOEXEC)
            fd = os.open(f"/proc/self/fd/{self._files[path]}", flags)
        return LogTarget(fd, None, path.name)

    @property
    def directories(self) -> dict[Path, int]:
        """The directories that were asked for, with their modes."""
        with self._lock:
            return dict(self._directories)

    def read(self, path: Path | str) -> bytes:
        """Return what a log file holds now; raises ``FileNotFoundError`` if it was never opened."""
        with self._lock:
            fd = self._files.get(Path(path))
            if fd is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
            return os.pread(fd, os.fstat(fd).st_size, 0)

    def close(self) -> None:
        """Free the memory; does nothing the second time."""
        with self._lock:
            self._closed = True
            while self._files:
                os.close(self._files.popitem()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
