"""A log file shown, and followed over its rotations."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from agentscripts._cancel import CancelToken
from agentscripts._console import Output
from agentscripts._text import escape

__all__ = ["Rotated", "print_log"]

_LOOK: Final = 0.2  # seconds between two looks at a file at whose end one is
_CHUNK: Final = 65536
_FAILED: Final = 1
_SIGNALLED: Final = 128


class Rotated:
    """The bytes of a log file, in the order written. Where it rotates, what was at the name is
    read to its end first, then those that came after, then what is at the name now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def close(self) -> None:
        """Close the file that is open."""
        if self._file is not None:
            self._file.close()

    def read(self) -> bytes:
        """Return what is next, ``b""`` when there is nothing more so far.

        Raises ``FileNotFoundError`` while there is no file yet, and other ``OSError``s.
        """
        if self._file is None:
            self._file = _open(self._path)
        while not (data := self._read_some()):
            # What was written before the rotation was so before its name changed: so look first,
            # then read again.
            successor = self._successor()
            if successor is None or (data := self._read_some()):
                if successor is not None:
                    successor.close()
                return data
            self._file.close()
            self._file = successor
        return data

    def _read_some(self) -> bytes:
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)  # a new run has emptied it
        return self._file.read(_CHUNK)

    def _successor(self) -> BinaryIO | None:
        """Open the file that was begun when this one was full; ``None``: this one is in use."""
        assert self._file is not None
        mine = _identity(os.fstat(self._file.fileno()))
        while True:
            names = self._names()
            found = {_identity(status): place for place, status in _look(names)}
            place = found.get(mine)
            if place == 0:
                return None
            # Where it was removed, all that are left are newer.
            following = max(found.values(), default=None) if place is None else place - 1
            if following is None:
                return None  # somebody moves them just now
            with contextlib.suppress(FileNotFoundError):
                file = _open(names[following])
                # A rotation between the look and the opening gives the name to another file.
                if found.get(_identity(os.fstat(file.fileno()))) == following:
                    return file
                file.close()

    def _names(self) -> list[Path]:
        """Return the name in use, then the rotated ones, the newest first."""
        pattern = re.compile(re.escape(self._path.name) + r"\.([1-9]\d*)")
        with contextlib.suppress(FileNotFoundError):
            matches = map(pattern.fullmatch, os.listdir(self._path.parent))
            numbers = sorted(int(match[1]) for match in matches if match)
            ours = [number for place, number in enumerate(numbers, 1) if place == number]
            return [self._path, *(Path(f"{self._path}.{number}") for number in ours)]
        return [self._path]


def print_log(path: Path, *, follow: bool = False) -> int:
    """Write a log file to standard output; return the exit status.

    follow: whether to go on until Ctrl-C.
    """
    output = Output(sys.stdout, CancelToken())
    try:
        for data in _text_or_bytes(path, output.is_terminal, follow=follow):
            output.write_bytes(data)
            if output.error is not None:
                if output.error.errno == errno.EPIPE:
                    return _SIGNALLED + signal.SIGPIPE
                _complain(f"cannot write the output: {output.error.strerror}")
                return _FAILED
    except OSError as error:
        hint = "; the script has not run" if isinstance(error, FileNotFoundError) else ""
        _complain(f"{path}: {error.strerror}{hint}")
        return _FAILED
    except KeyboardInterrupt:
        return _SIGNALLED + signal.SIGINT
    return 0


def _text_or_bytes(path: Path, is_terminal: bool, *, follow: bool) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for data in _pieces(path, follow=follow):
        if is_terminal:
            lines = decoder.decode(data).split("\n")
            yield "\n".join(escape(line.removesuffix("\r")) for line in lines).encode()
        else:
            yield data


def _pieces(path: Path, *, follow: bool) -> Iterator[bytes]:
    with contextlib.closing(Rotated(path)) as file:
        while True:
            data = b""
            try:
                data = file.read()
            except FileNotFoundError:
                if not follow:
                    raise
            if data:
                yield data
            elif follow:
                time.sleep(_LOOK)
            else:
                return


def _open(path: Path) -> BinaryIO:
    # Not blocked by a FIFO that somebody put there.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return open(fd, "rb", buffering=0)


def _look(names: list[Path]) -> Iterator[tuple[int, os.stat_result]]:
    for place, name in enumerate(names):
        with contextlib.suppress(FileNotFoundError):
            yield place, os.stat(name)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _complain(text: str) -> None:
    Output(sys.stderr, CancelToken()).write(f"agentscripts: {escape(text)}\n")
