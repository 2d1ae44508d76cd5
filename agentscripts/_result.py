"""How one run of a script ended."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from agentscripts._frozen import maker
from agentscripts._model import RunStatus, Script, Stage
from agentscripts._text import plain, signal_name
from agentscripts.errors import (
    OutputPipesOpenError,
    ScriptCancelledError,
    ScriptError,
    ScriptExitError,
    ScriptNotStartedError,
    ScriptTimeoutError,
)

__all__ = ["SCHEMA", "RunResult", "make_result"]

SCHEMA: Final = 1
"""The version of ``RunResult.as_dict``: another one when a value goes or changes its meaning."""

_ERRORS: Final[Mapping[RunStatus, type[ScriptError]]] = {
    RunStatus.FAILED: ScriptExitError,
    RunStatus.TIMED_OUT: ScriptTimeoutError,
    RunStatus.CANCELLED: ScriptCancelledError,
    RunStatus.PIPES_OPEN: OutputPipesOpenError,
    RunStatus.NOT_STARTED: ScriptNotStartedError,
    RunStatus.SKIPPED: ScriptNotStartedError,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
    """How one run ended, and what it used. Pickles.

    exit_code: ``-N`` for death by signal N; ``None`` when it never ran or the code is unknown.
    reason: why the run did not succeed, in words (``exit status 3``); ``""`` when it did.
    started_at, ended_at: in UTC; ``duration`` is in seconds of the monotonic clock.
    output_bytes, lines: what the script wrote to stdout and stderr together. Where a logger takes
        the lines, one longer than ``max_line`` counts once per piece.
    lines_dropped: those of the lines for which the logger was not called: it was too slow.
    log_path: the log file; ``None`` when there is none. It holds every byte of the output.
    log_error: the first failure to write it; ``None`` when the file is complete.
    survivors: pids of processes of the run that could not be killed.
    tail: the last lines of the output, 20 at most.
    stderr: the first 3 and the last 3 lines of stderr, 1 KiB of each at most.
    stderr_lines: how many there were; where that is more, those after the third are left out.
    cpu_seconds, max_rss: CPU time in seconds, and the largest resident set in bytes, of the
        script's process and the children that it waited for; ``None`` when unknown. The kernel
        counts memory from the agent's own on, so less than the agent's peak is unknown, too.
    attempts: how many times it was started, more than 1 after retries; 0 when it never was. All
        other values are those of the last attempt, but ``started_at`` and ``duration``, which
        count from the first one, ``output_bytes``, ``lines``, ``lines_dropped``, ``survivors`` and
        ``cpu_seconds``, which add up, ``max_rss``, the largest, and ``log_error``, the first one.
    cause: why the script was not started; ``None`` when it was.

    The two exceptions take no part in comparison.
    """

    run_id: str
    script: Script
    stage: Stage
    status: RunStatus
    started_at: datetime
    ended_at: datetime
    duration: float
    exit_code: int | None = None
    reason: str = ""
    output_bytes: int = 0
    lines: int = 0
    lines_dropped: int = 0
    log_path: Path | None = None
    log_error: OSError | None = dataclasses.field(default=None, compare=False)
    survivors: tuple[int, ...] = ()
    tail: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    stderr: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    stderr_lines: int = 0
    cpu_seconds: float | None = None
    max_rss: int | None = None
    attempts: int = 1
    cause: Exception | None = dataclasses.field(default=None, compare=False)

    @property
    def ok(self) -> bool:
        """Whether the run succeeded."""
        return self.status is RunStatus.SUCCEEDED

    @cached_property
    def error(self) -> ScriptError | None:
        """The run's failure as an exception, always the same one; ``None`` when it succeeded."""
        return None if self.ok else _ERRORS[self.status](self)

    def as_dict(self) -> dict[str, Any]:
        """Return what is known, ready for JSON: ``docs/result.schema.json`` describes it.

        Holds neither the script's text nor its environment. Text that is no Unicode, as in a path
        that is no UTF-8, has U+FFFD instead.
        """
        script, code = self.script, self.exit_code
        return {
            "schema": SCHEMA,
            "run_id": self.run_id,
            "script": {
                "name": plain(script.name),
                "label": plain(script.label),
                "id": str(script.id),
                "log_source_id": str(script.log_source_id),
                "timeout": script.timeout,
                "depends_on": [
                    {"on": plain(one.on), "requires": str(one.requires)}
                    for one in script.depends_on
                ],
            },
            "stage": str(self.stage),
            "status": str(self.status),
            "ok": self.ok,
            "reason": plain(self.reason),
            "exit_code": code,
            "signal": signal_name(-code) if code is not None and code < 0 else None,
            "started_at": self.started_at.isoformat(),
            "ended_at": self.ended_at.isoformat(),
            "duration": self.duration,
            "attempts": self.attempts,
            "output_bytes": self.output_bytes,
            "lines": self.lines,
            "lines_dropped": self.lines_dropped,
            "log_path": None if self.log_path is None else plain(str(self.log_path)),
            "log_error": None if self.log_error is None else plain(str(self.log_error)),
            "survivors": list(self.survivors),
            "tail": [plain(line) for line in self.tail],
            "stderr": [plain(line) for line in self.stderr],
            "stderr_lines": self.stderr_lines,
            "cpu_seconds": self.cpu_seconds,
            "max_rss": self.max_rss,
        }

    def __getstate__(self) -> dict[str, Any]:
        # The error holds this result; it is made again where it is asked for.
        return {name: value for name, value in self.__dict__.items() if name != "error"}


make_result: Final = maker(RunResult)
