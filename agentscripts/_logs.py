"""Lines of output on their way to the user's logger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, overload
from uuid import UUID

__all__ = [
    "DISCARD",
    "DiscardLogger",
    "Log",
    "LogBatch",
    "LogLevel",
    "ScriptLogger",
    "discard_logs",
]


class LogLevel(StrEnum):
    """The level of a line: stdout's are ``INFO``, stderr's ``ERROR``, the runner's own ``WARN``."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Log(NamedTuple):
    """One line of output, without its line end, and when it was read (UTC)."""

    created_at: datetime
    level: LogLevel
    output: str


class LogBatch(Sequence[Log]):
    """Lines that one stream of one run wrote and that were read at one moment.

    ``lines`` and ``len()`` cost nothing. Indexing and iterating make ``Log`` values, which is
    some ten times slower than to walk ``lines``. A logger may keep a batch.
    """

    # There may be 50 million lines a second, so a batch computes nothing before it is asked.
    __slots__ = ("_timestamp", "level", "lines", "log_source_id")

    def __init__(
        self, log_source_id: UUID, created_at_timestamp: float, level: LogLevel, lines: list[str]
    ) -> None:
        self.log_source_id = log_source_id
        self._timestamp = created_at_timestamp
        self.level = level
        self.lines = lines

    @property
    def created_at(self) -> datetime:
        """When the lines were read, in UTC."""
        return datetime.fromtimestamp(self._timestamp, UTC)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[Log]:
        created_at, level = self.created_at, self.level
        return (Log(created_at, level, line) for line in self.lines)

    @overload
    def __getitem__(self, index: int) -> Log: ...
    @overload
    def __getitem__(self, index: slice) -> list[Log]: ...
    def __getitem__(self, index: int | slice) -> Log | list[Log]:
        created_at, level = self.created_at, self.level
        if isinstance(index, slice):
            return [Log(created_at, level, line) for line in self.lines[index]]
        return Log(created_at, level, self.lines[index])

    def __repr__(self) -> str:
        return f"<LogBatch of {len(self.lines)} {self.level} lines from {self.log_source_id}>"


class ScriptLogger(Protocol):
    """Where the lines of a script go; the user writes it.

    The methods are called from one thread at a time per run, not always the same one. A logger
    that serves several runs at once is called from several threads. What it raises is logged
    and harms no script.
    """

    def send(self, batch: LogBatch) -> None:
        """Take the next lines, in order. While it is slow the script is held back, for
        ``Options.stall_timeout`` at most."""

    def flush(self) -> None:
        """Pass on what is held back; called once, after a run's last line, if it had any."""


class DiscardLogger:
    """A logger that drops everything."""

    __slots__ = ()

    def send(self, batch: LogBatch) -> None:
        """Drop the lines."""

    def flush(self) -> None:
        """Do nothing."""


DISCARD: Final = DiscardLogger()
"""Recognised by identity: for this one no line is ever cut, queued or delivered."""


def discard_logs(log_source_id: UUID) -> ScriptLogger:
    """Return the logger that drops everything: the default of ``Options.get_script_logger``."""
    return DISCARD
