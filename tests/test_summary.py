"""The summary at the end of a run."""

from __future__ import annotations

import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from agentscripts._model import RunStatus, Script, Stage
from agentscripts._result import RunResult
from agentscripts._summary import duration_text, size_text, summarize

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def result(name: str, status: RunStatus, duration: float, **fields: Any) -> RunResult:
    return RunResult(
        run_id="0" * 32,
        script=Script(script="true", name=name),
        stage=Stage.START,
        status=status,
        started_at=NOW,
        ended_at=NOW,
        duration=duration,
        **fields,
    )


def summary(*results: RunResult, **how: Any) -> list[str]:
    labels = {one.script.id: one.script.name for one in results}
    return [line.plain for line in summarize(results, labels, **how)]


def test_success() -> None:
    """Status, exit code and duration of each script, in columns."""
    assert summary(
        result("a", RunStatus.SUCCEEDED, 0.1, exit_code=0, tail=("unseen",)),
        result("longer", RunStatus.SUCCEEDED, 125, exit_code=0, cpu_seconds=61, max_rss=3 * 2**21),
    ) == [
        "",
        "script  status     exit  duration    cpu   memory",
        "a       succeeded     0     0.10s      -        -",
        "longer  succeeded     0     2m05s  1m01s  6.0 MiB",
        "",
        "2 scripts succeeded",
    ]


def test_failures_show_their_last_lines() -> None:
    """Each failure says why, where its log is, and its last lines, all of it harmless."""
    assert summary(
        result("ok", RunStatus.SUCCEEDED, 1, exit_code=0),
        result(
            "a\x1b",
            RunStatus.TIMED_OUT,
            2,
            exit_code=-1,
            reason="timed out\x1b",
            log_path=Path("/x/a.log"),
            tail=("one", "\x1b[2J"),
        ),
        result("b", RunStatus.NOT_STARTED, 0, reason="not started: no such file"),
    ) == [
        "",
        "script  status         exit  duration  cpu  memory",
        "ok      succeeded         0     1.00s    -       -",
        r"a\x1b   timed out    SIGHUP     2.00s    -       -",
        "b       not started       -     0.00s    -       -",
        "",
        r"a\x1b: timed out\x1b",
        "  its log file: /x/a.log",
        "  its last lines:",
        "    one",
        r"    \x1b[2J",
        "",
        "b: not started: no such file",
        "",
        "2 of 3 scripts did not succeed",
    ]


def test_cancelled_scripts_show_no_lines() -> None:
    """The user ended them, so their last lines explain nothing; they count as not succeeded."""
    code = -signal.SIGRTMIN - 1
    assert summary(
        result("a", RunStatus.CANCELLED, 0, exit_code=code, reason="cancelled", tail=("x",))
    )[2:] == [
        f"a       cancelled  signal {-code}     0.00s    -       -",
        "",
        "1 of 1 scripts did not succeed",
    ]


def test_first_and_last_words() -> None:
    """What went to standard error says more than the last lines do."""
    lines = summary(
        result("a", RunStatus.FAILED, 1, stderr=("one", "two\x1b"), stderr_lines=9, tail=("x",))
    )
    assert lines[4:-2] == [
        "a: ",
        "  its standard error:",
        "    one",
        "    … 7 lines …",
        r"    two\x1b",
    ]


@pytest.mark.parametrize(
    ("width", "last"), [(80, "memory"), (48, "cpu"), (39, "duration"), (30, "exit"), (10, "status")]
)
def test_narrow_terminal(width: int, last: str) -> None:
    """What a narrow terminal cannot show beside the rest is left out, but for name and status."""
    one = result("name", RunStatus.SUCCEEDED, 65, exit_code=0, cpu_seconds=61, max_rss=2**30)
    heading, row = summary(one, width=width)[1:3]
    assert heading.endswith(last)
    assert max(len(heading), len(row)) <= max(width, len("script  succeeded"))


@pytest.mark.parametrize("name", ["x" * 200, "日本語" * 30])
@pytest.mark.parametrize("width", [20, 40, 80, 160])
def test_long_name(name: str, width: int) -> None:
    """A name without end is cut on a terminal, and leaves room for the rest; columns line up."""
    lines = summary(
        result(name, RunStatus.SUCCEEDED, 1, exit_code=0),
        result("日", RunStatus.SUCCEEDED, 1, exit_code=0),
        width=width,
    )[1:4]
    assert all(cell_len(line) <= max(width, 19) for line in lines)
    assert "…" in lines[1]
    at = {cell_len(line.partition(what)[0]) for line, what in zip(lines, _STATUSES, strict=True)}
    assert len(at) == 1
    assert ("duration" in lines[0]) == (width >= 40)


_STATUSES = ("status", "succeeded", "succeeded")


def test_long_name_in_a_file() -> None:
    """Where there is no terminal, such a name is whole, and the others' lines stay short."""
    lines = summary(result("x" * 200, RunStatus.SUCCEEDED, 1), result("b", RunStatus.SUCCEEDED, 1))[
        2:4
    ]
    assert lines[0].startswith("x" * 200 + "  succeeded")
    assert lines[1].startswith("b" + " " * 41 + "succeeded")


def test_failures_only() -> None:
    """Quiet: nothing of success, all of failure."""
    good = result("a", RunStatus.SUCCEEDED, 1)
    bad = result("b", RunStatus.FAILED, 1, reason="exit status 1")
    assert summary(good, failures_only=True) == []
    assert summary(good, bad, failures_only=True) == [
        "",
        "b: exit status 1",
        "",
        "1 of 2 scripts did not succeed",
    ]


@pytest.mark.parametrize(
    ("count", "text"),
    [(4096, "4 KiB"), (2**20 * 3.25, "3.2 MiB"), (2**30 * 0.99, "1.0 GiB"), (2**43, "8192.0 GiB")],
)
def test_size_text(count: float, text: str) -> None:
    """Sizes are rounded, never to 1,000 of a unit."""
    assert size_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00s"),
        (9.99, "9.99s"),
        (9.996, "10.0s"),
        (59.94, "59.9s"),
        (59.96, "1m00s"),
        (3599.4, "59m59s"),
        (3599.6, "1h00m00s"),
        (90_061, "25h01m01s"),
    ],
)
def test_duration_text(seconds: float, text: str) -> None:
    """Durations are rounded, never to 60 of a unit."""
    assert duration_text(seconds) == text
