"""What is said of the runs at the end. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from uuid import UUID

from agentscripts._model import RunStatus
from agentscripts._result import RunResult
from agentscripts._text import escape, signal_name

__all__ = ["duration_text", "summarize"]


def summarize(results: Sequence[RunResult], labels: Mapping[UUID, str]) -> str:
    """Return the text: a table, the last lines of each failure, and the count.

    labels: what to call the scripts, by their ids.
    """
    return "".join(f"{line}\n" for line in _lines(results, labels))


def duration_text(seconds: float) -> str:
    """Return ``0.12s``, ``12.3s``, ``2m05s`` or ``1h00m05s``."""
    if seconds < 9.995:
        return f"{seconds:.2f}s"
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m{rest:02}s" if hours else f"{minutes}m{rest:02}s"


def _lines(results: Sequence[RunResult], labels: Mapping[UUID, str]) -> Iterator[str]:
    yield ""
    yield from _table(results, labels)
    failures = [result for result in results if not result.ok]
    for result in failures:
        # It was asked to end, so its last lines explain nothing.
        if result.status is not RunStatus.CANCELLED:
            yield ""
            yield from _failure(result, labels[result.script.id])
    yield ""
    if failures:
        yield f"{len(failures)} of {len(results)} scripts did not succeed"
    else:
        yield "1 script succeeded" if len(results) == 1 else f"{len(results)} scripts succeeded"


def _table(results: Sequence[RunResult], labels: Mapping[UUID, str]) -> Iterator[str]:
    rows = [("script", "status", "exit", "duration")]
    for result in results:
        status = result.status.value.replace("_", " ")
        label = escape(labels[result.script.id])
        rows.append((label, status, _exit(result.exit_code), duration_text(result.duration)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for label, status, code, duration in rows:
        yield (
            f"{label:<{widths[0]}}  {status:<{widths[1]}}  "
            f"{code:>{widths[2]}}  {duration:>{widths[3]}}"
        )


def _exit(code: int | None) -> str:
    if code is None:
        return "-"
    return signal_name(-code) if code < 0 else str(code)


def _failure(result: RunResult, label: str) -> Iterator[str]:
    yield f"{escape(label)}: {escape(result.reason)}"
    if result.log_path is not None:
        yield f"  its log file: {escape(str(result.log_path))}"
    if result.tail:
        yield "  its last lines:"
        yield from (f"    {escape(line)}" for line in result.tail)
