"""A log file shown, and followed over its rotations."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from agentscripts._console import FAILED, SIGNALLED, Output, complain
from agentscripts._text import escape

__all__ = ["Rotated", "print_log"]

_LOOK: Final = 0.2  # seconds between two looks at a file at whose end one is
_MOMENT: Final = 0.001  # seconds between two looks during a rotation
_LOST: Final = 1.0  # seconds
_LONGEST_LINE: Final = 65536  # a longer one is cut where the file rotates
_CHUNK: Final = 2 * _LONGEST_LINE
_REMEMBERED: Final = 1024  # bytes


class Rotated:
    """The bytes of a log file, in the order written. Where it rotates, what was at the name is
    read to its end first, then those that came after, then what is at the name now.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._before = b""  # what is in the file before the place that was read to
        self._written_at: list[int] = []  # the times of the last write, since nothing was added
        self._line = b""  # what was returned of a line that has not ended
        self._may_repeat = False  # whether the file may begin with that
        self._lost_since: float | None = None

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
            # It may have got its last bytes between the read and the rotation: so look, then read.
            successor = self._successor()
            if successor is None or (data := self._read_some()):
                if successor is not None:
                    successor.close()
                break
            self._file.close()
            self._file, self._may_repeat = successor, bool(self._line)
            self._forget()
        self._line = (self._line + data).rpartition(b"\n")[2][-_LONGEST_LINE - 1 :]
        return data

    def _read_some(self) -> bytes:
        assert self._file is not None
        if self._is_rewritten() and self._is_in_use():
            self._file.seek(0)
            self._forget()
            self._line, self._may_repeat = b"", False
        if self._may_repeat:
            return self._read_begin()
        return self._read_on()

    def _read_on(self) -> bytes:
        assert self._file is not None
        data = self._file.read(_CHUNK)
        if data:
            self._before = (self._before + data)[-_REMEMBERED:]
            self._written_at = []
        return data

    def _forget(self) -> None:
        self._before, self._written_at = b"", []

    def _is_rewritten(self) -> bool:
        """Whether a new run has emptied the file, even if it has written as much since."""
        assert self._file is not None
        fd, place = self._file.fileno(), self._file.tell()
        status = os.fstat(fd)
        if status.st_size != place:
            before = os.pread(fd, len(self._before), place - len(self._before))
            return before != self._before
        # As long as before, and maybe the same: then a write alone tells of it. One that adds
        # sets the time before the size, so the time counts at the second look.
        self._written_at = [*self._written_at[-2:], status.st_mtime_ns]
        match self._written_at:
            case [first, second, third]:
                return first != second == third
        return False

    def _read_begin(self) -> bytes:
        """Return the first bytes of a file, but for a line that the rotation moved to it."""
        assert self._file is not None
        begin = self._read_on()
        if len(begin) < len(self._line) and self._line.startswith(begin):
            self._file.seek(0)
            self._forget()
            return b""
        self._may_repeat = False
        if len(self._line) <= _LONGEST_LINE and begin.startswith(self._line):
            return begin[len(self._line) :]
        return begin

    def _is_in_use(self) -> bool:
        assert self._file is not None
        try:
            return _same(os.stat(self._path), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False

    def _successor(self) -> BinaryIO | None:
        """Open the file that was begun when this one was full; ``None``: there is none so far."""
        assert self._file is not None
        mine = os.fstat(self._file.fileno())
        while True:
            files = _look(self._path)
            place = next((at for at, (_, one) in enumerate(files) if _same(one, mine)), None)
            if place is None:
                if mine.st_nlink and not self._is_lost():
                    return None
                # It was removed, so all that was written later is newer.
                files = [one for one in files if one[1].st_mtime_ns >= mine.st_mtime_ns]
                place = len(files)
            elif place and files[place][0] > files[place - 1][0] + 1 and not self._is_lost():
                time.sleep(_MOMENT)  # a rotation under way: the file between them has no number yet
                continue
            self._lost_since = None
            if place == 0:
                return None
            number, status = files[place - 1]
            try:
                file = _open(_numbered(self._path, number))
            except FileNotFoundError:
                return None
            # A rotation between the look and the opening gives the name to another file.
            if _same(os.fstat(file.fileno()), status):
                return file
            file.close()

    def _is_lost(self) -> bool:
        """Whether a file has had no name for long: in a rotation that is so for a moment."""
        now = time.monotonic()
        self._lost_since = self._lost_since or now
        return now - self._lost_since > _LOST


def print_log(path: Path, *, follow: bool = False) -> int:
    """Write a log file to standard output; return the exit status.

    follow: whether to go on until Ctrl-C.
    """
    output = Output(sys.stdout)
    try:
        for data in _text_or_bytes(path, output.is_terminal, follow=follow):
            if data:
                output.write_bytes(data)
            else:
                output.rest(_LOOK)
            if status := output.exit_status(complain):
                return status
    except OSError as error:
        hint = "; the script has not run" if isinstance(error, FileNotFoundError) else ""
        complain(f"agentscripts: {escape(str(path))}: {error.strerror}{hint}\n")
        return FAILED
    except KeyboardInterrupt:
        return SIGNALLED + signal.SIGINT
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
            if not (data or follow):
                return
            yield data


def _open(path: Path) -> BinaryIO:
    # Not blocked by a FIFO that somebody put there.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    return open(fd, "rb", buffering=0)


_File = tuple[int, os.stat_result]  # its number, 0 for the log file itself


def _look(path: Path) -> list[_File]:
    """Return the log file and its rotated ones, the newest first, as they are at one moment."""
    before: list[_File] = []
    while True:  # a rotation meanwhile, which renames one after the other, would mix up two states
        now = list(_look_once(path))
        if [number for number, _ in now] == [number for number, _ in before] and all(
            _same(one, other) for (_, one), (_, other) in zip(now, before, strict=True)
        ):
            return now
        before = now


def _look_once(path: Path) -> Iterator[_File]:
    pattern = re.compile(re.escape(path.name) + r"\.([1-9]\d*)")
    matches = map(pattern.fullmatch, os.listdir(path.parent))
    for number in 0, *sorted(int(match[1]) for match in matches if match):
        with contextlib.suppress(FileNotFoundError):
            yield number, os.stat(_numbered(path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}") if number else path


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
