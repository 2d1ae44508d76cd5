"""Log batches: cheap to make, and a sequence of values when asked."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from agentscripts import _logs
from agentscripts._logs import DISCARD, Log, LogBatch, LogLevel, ScriptLogger, discard_logs

SOURCE = UUID(int=7)
MOMENT = datetime(2024, 5, 1, 12, 30, 15, 250000, tzinfo=UTC)


def batch(lines: list[str]) -> LogBatch:
    return LogBatch(SOURCE, MOMENT.timestamp(), LogLevel.ERROR, lines)


def test_batch_gives_what_it_was_made_of() -> None:
    """L7: source, level and time belong to all lines; the list of lines is not copied."""
    lines = ["a", "b"]
    made = batch(lines)
    assert made.lines is lines
    assert (made.log_source_id, made.level, made.created_at) == (SOURCE, LogLevel.ERROR, MOMENT)
    assert made.created_at.utcoffset() == timedelta(0)


def test_batch_is_a_sequence_of_logs() -> None:
    """API: a batch can be indexed, sliced, searched, counted, iterated and reversed."""
    made = batch(["a", "b", "b"])
    logs = [Log(MOMENT, LogLevel.ERROR, line) for line in ("a", "b", "b")]
    assert isinstance(made, Sequence)
    assert len(made) == 3
    assert list(made) == logs
    assert list(reversed(made)) == logs[::-1]
    assert made[0] == logs[0]
    assert made[-1] == logs[-1]
    assert made[1:] == logs[1:]
    assert made[::-1] == logs[::-1]
    assert made.index(logs[1]) == 1
    assert made.count(logs[1]) == 2
    assert logs[0] in made
    with pytest.raises(IndexError):
        made[3]


def test_making_a_batch_computes_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """L7: a logger that only takes ``lines`` pays for nothing else."""
    monkeypatch.delattr(_logs, "datetime")
    made = batch(["a", "b"])
    assert (made.lines, len(made)) == (["a", "b"], 2)
    with pytest.raises(NameError):
        made.created_at  # noqa: B018


def test_batch_is_small_and_pickles() -> None:
    """L6: a batch has no dictionary of its own; a copy in another process has the same logs."""
    made = batch(["a"])
    assert not hasattr(made, "__dict__")
    assert list(pickle.loads(pickle.dumps(made))) == list(made)
    assert repr(made) == f"<LogBatch of 1 error lines from {SOURCE}>"


def test_default_logger_is_one_object() -> None:
    """API: the default logger drops everything, and is recognised by identity."""
    logger: ScriptLogger = discard_logs(SOURCE)
    assert logger is discard_logs(UUID(int=8)) is DISCARD
    logger.send(batch(["a"]))
    logger.flush()


def test_levels_are_text() -> None:
    """API: the values of the levels."""
    assert [level.value for level in LogLevel] == ["debug", "info", "warn", "error"]
