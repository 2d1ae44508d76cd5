"""Which log files are being written: one writer per file, shared by the runs that write it (L2)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from agentscripts._directories import close_quietly
from agentscripts._files import Filesystem, LogTarget
from agentscripts._native import LogFile

__all__ = ["WRITERS", "Writers"]


class Writers:
    """The open log files of this process. Thread-safe."""

    def __init__(self) -> None:
        self.forget()
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew: a forked child has none of its parent's writers, and no lock of theirs."""
        self._lock = threading.Lock()  # guards all below; a rotation does not take it
        self._users: dict[LogFile, int] = {}
        # As it was when the file was opened: a rotation changes it.
        self._identities: dict[LogFile, tuple[int, int]] = {}
        self._by_identity: dict[tuple[int, int], LogFile] = {}
        self._rotating: set[LogFile] = set()

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
        while True:
            target: LogTarget | None = _open_target(filesystem, path)
            assert target is not None
            if max_bytes is None and target.dir_fd is not None:
                close_quietly(target.dir_fd)  # only a rotation needs it: one less per run
                target = LogTarget(target.fd, None, target.name, target.truncate)
            try:
                status = os.fstat(target.fd)
                with self._lock:
                    shared = self._find((status.st_dev, status.st_ino))
                    if shared is not None:
                        self._users[shared] += 1
                    elif _is_current(target, status):
                        mine, target = target, None
                        return self._add(mine, status, append, max_bytes, backups, max_line)
            finally:
                if target is not None:
                    _close_target(target)
            if shared is not None:
                return shared
            # Rotated since it was opened: the name belongs to another file now.

    def close(self, log: LogFile) -> None:
        """Close the file when its last user is gone."""
        with self._lock:
            self._users[log] -= 1
            if self._users[log]:
                return
            del self._users[log]
            self._rotating.discard(log)
            identity = self._identities.pop(log)
            if self._by_identity.get(identity) is log:  # else a rotation has made the number free
                del self._by_identity[identity]
        log.close()

    def _add(
        self,
        target: LogTarget,
        status: os.stat_result,
        append: bool,
        max_bytes: int | None,
        backups: int,
        max_line: int,
    ) -> LogFile:
        log = LogFile(target.fd, target.dir_fd, target.name, max_bytes, backups, max_line)
        try:
            if target.truncate and not append:
                log.truncate()
        except BaseException:
            log.close()
            raise
        self._users[log] = 1
        self._identities[log] = identity = (status.st_dev, status.st_ino)
        self._by_identity[identity] = log
        if target.dir_fd is not None:
            self._rotating.add(log)
        return log

    def _find(self, identity: tuple[int, int]) -> LogFile | None:
        log = self._by_identity.get(identity)
        if log is not None and (log not in self._rotating or log.identity() == identity):
            return log
        for one in self._rotating:
            if one.identity() == identity:
                return one
        return None


def _open_target(filesystem: Filesystem, path: Path) -> LogTarget:
    try:
        return filesystem.open_log(path)
    except FileNotFoundError:
        filesystem.make_dirs(path.parent, 0o700)
        return filesystem.open_log(path)


def _is_current(target: LogTarget, status: os.stat_result) -> bool:
    if target.dir_fd is None:
        return True
    try:
        named = os.stat(target.name, dir_fd=target.dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino)


def _close_target(target: LogTarget) -> None:
    close_quietly(target.fd)
    if target.dir_fd is not None:
        close_quietly(target.dir_fd)


WRITERS: Final = Writers()
"""One for all runners of the process, since they may write the same file."""
