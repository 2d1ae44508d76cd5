"""From what happened to a child to what the user is told. Pure."""

from __future__ import annotations

from agentscripts import _supervised
from agentscripts._model import RunStatus
from agentscripts._supervised import Outcome
from agentscripts._text import signal_name

__all__ = ["exit_text", "status_and_reason"]


def exit_text(code: int | None) -> str:
    """Return ``exit status 3`` or ``killed by signal 9 (SIGKILL)``."""
    if code is None:
        return "exit status unknown (another part of the program took it)"
    if code >= 0:
        return f"exit status {code}"
    name = signal_name(-code)
    return (
        f"killed by {name}" if name.startswith("signal") else f"killed by signal {-code} ({name})"
    )


def status_and_reason(outcome: Outcome, *, limit: str, processes: str) -> tuple[RunStatus, str]:
    """Return how the run ended, and why it did not succeed (``""`` if it did).

    limit: which limit a timeout reached, in words.
    processes: who survived, or else holds the pipes, in words.
    """
    if outcome.status == _supervised.EXITED and outcome.exit_code == 0:
        return RunStatus.SUCCEEDED, ""
    how = exit_text(outcome.exit_code)
    left = f"; could not be killed: {processes}" if outcome.survivors else ""
    if outcome.status == _supervised.TIMED_OUT:
        return RunStatus.TIMED_OUT, f"timed out: {limit} ({how}){left}"
    if outcome.status == _supervised.CANCELLED:
        return RunStatus.CANCELLED, f"cancelled ({how}){left}"
    if outcome.status == _supervised.PIPES_OPEN:
        return RunStatus.PIPES_OPEN, f"{how}, but {_open_pipes(outcome, processes)}"
    return RunStatus.FAILED, how


def _open_pipes(outcome: Outcome, holders: str) -> str:
    waited = (outcome.ended - outcome.exited) / 1e9
    by = holders or "a process that cannot be seen from here"
    return (
        f"its output pipes are still held open {waited:.3g} s after its exit, by {by}; they are "
        "closed now, and the next write to them gets SIGPIPE. To leave a process running, redirect "
        "its output: command >/dev/null 2>&1 &"
    )
