"""Which log files are being written: one writer per file, shared by the runs that write it (L2)."""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from agentscripts._directories import close_quietly
from agentscripts._files import Filesystem, LogTarget, OSFilesystem
from agentscripts._native import LogFile

__all__ = ["WRITERS", "Writers"]

_TRIES: Final = 100
_USUAL: Final = LogTarget(-1, None, "")


class Writers:
    """The open log files of this process. Thread-safe."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: a forked child has none of its parent's writers, and no lock of theirs."""
        self._lock = threading.Lock()  # guards all below; a rotation does not take it
        self._users: dict[LogFile, int] = {}
        # By what they were opened as: a rotation changes it.
        self._by_identity: dict[tuple[int, int], LogFile] = {}
        self._rotating: set[LogFile] = set()
        # Files that nobody is to empty, though none of their users has them open now.
        self._kept: Counter[tuple[int, int]] = Counter()

    def open(
        self,
        filesystem: Filesystem,
        path: Path,
        *,
        append: bool,
        max_bytes: int | None,
        backups: int,
        max_line: int,
    ) -> LogFile:
        """Return the writer of a log file, emptied unless it is in use; pair with ``close``.

        Raises ``OSError``.
        """
        for _ in range(_TRIES):
            mine, target = _open(filesystem, path, max_bytes, backups, max_line)
            rotates = max_bytes is not None and target.dir_fd is not None
            log: LogFile | None = None
            try:
                with self._lock:
                    log = self._find(mine.opened_as)
                    if log is not None:
                        self._users[log] += 1
                    elif not rotates or _has_name(target, mine.opened_as):
                        empty = target.truncate and not append and not self._kept[mine.opened_as]
                        mine.begin(empty=empty)
                        self._add(mine, rotates=rotates)
                        log = mine
            finally:
                if log is not mine:
                    mine.close()
            if log is not None:
                return log
            # Rotated since it was opened: the name belongs to another file now.
        problem = f"names another file than was opened, {_TRIES} times in turn"
        raise OSError(errno.ESTALE, problem, str(path))

    def close(self, log: LogFile) -> None:
        """Close the file when its last user is gone."""
        with self._lock:
            self._users[log] -= 1
            if self._users[log]:
                return
            del self._users[log]
            self._rotating.discard(log)
            if self._by_identity.get(log.opened_as) is log:  # else a rotation has made it free
                del self._by_identity[log.opened_as]
        log.close()

    def keep(self, log: LogFile) -> tuple[int, int]:
        """Have nobody empty the file of a writer until ``let_go`` of what this returns."""
        identity = log.identity()
        with self._lock:
            self._kept[identity] += 1
        return identity

    def let_go(self, identity: tuple[int, int]) -> None:
        """Let the next run of the file empty it again."""
        with self._lock:
            self._kept[identity] -= 1
            if not self._kept[identity]:
                del self._kept[identity]

    def _add(self, log: LogFile, *, rotates: bool) -> None:
        self._users[log] = 1
        self._by_identity[log.opened_as] = log
        if rotates:
            self._rotating.add(log)

    def _find(self, identity: tuple[int, int]) -> LogFile | None:
        log = self._by_identity.get(identity)
        if log is not None and (log not in self._rotating or log.writes(identity)):
            return log
        return next((one for one in self._rotating if one.writes(identity)), None)


def _open(
    filesystem: Filesystem, path: Path, max_bytes: int | None, backups: int, max_line: int
) -> tuple[LogFile, LogTarget]:
    # What most runs have; its directory is opened only for a rotation.
    if max_bytes is None and type(filesystem) is OSFilesystem:
        usual = filesystem.open_usual(path, max_line)
        if usual is not None:
            return usual, _USUAL
    target = _open_target(filesystem, path)
    dir_fd = target.dir_fd
    if max_bytes is None and dir_fd is not None:
        close_quietly(dir_fd)
        dir_fd = None
    return LogFile(target.fd, dir_fd, target.name, max_bytes, backups, max_line), target


def _open_target(filesystem: Filesystem, path: Path) -> LogTarget:
    try:
        return filesystem.open_log(path)
    except FileNotFoundError:
        filesystem.make_dirs(path.parent, 0o700)
        return filesystem.open_log(path)


def _has_name(target: LogTarget, identity: tuple[int, int]) -> bool:
    try:
        status = os.stat(target.name, dir_fd=target.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == identity


WRITERS: Final = Writers()
"""One for all runners of the process, since they may write the same file."""
