"""Rows of the live view, and how they are painted."""

from __future__ import annotations

import errno
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text

from agentscripts._cancel import CancelToken
from agentscripts._lifecycle import OwnThread
from agentscripts._live import LiveOutput, LiveView, Painter, is_wanted
from agentscripts._model import Run, RunState, RunStatus, Script, Stage
from agentscripts._reminder import waiting_text
from agentscripts._result import RunResult
from agentscripts._rows import Row, Urgency, frame, rows_of

NOW = datetime(2024, 1, 1, tzinfo=UTC)
SCRIPT = Script(script="true", name="a", timeout=60)


def run(state: RunState, ago: float | None = None, **fields: Any) -> Run:
    started = None if ago is None else NOW - timedelta(seconds=ago)
    fields = {"last_line": "", "pid": None} | fields
    script = fields.pop("script", SCRIPT)
    return Run("0" * 32, script, Stage.START, state, started_at=started, **fields)


def row(*runs: Run, result: RunResult | None = None) -> Row:
    results = {} if result is None else {SCRIPT.id: result}
    (found,) = rows_of([SCRIPT], {SCRIPT.id: "a"}, runs, results, NOW)
    return found


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([], Row("a", Urgency.WAITING, "waiting", "dim")),
        (
            [run(RunState.WAITING, waits_for=("b", "c"))],
            Row("a", Urgency.WAITING, "waiting", "dim", detail="for b, c"),
        ),
        (
            [run(RunState.WAITING, attempt=2)],
            Row("a", Urgency.WAITING, "waiting", "dim", detail="to try again (2)"),
        ),
        (
            [run(RunState.RUNNING, 5.5, last_line="x")],
            Row("a", Urgency.ACTIVE, "running", "cyan", 5.5, 54.5, "x"),
        ),
        (
            [run(RunState.RUNNING, 1, attempt=3, last_line="x")],
            Row("a", Urgency.ACTIVE, "running", "cyan", 1, 59, "(try 3) x"),
        ),
        # Clocks are set: what is told is never less than nothing.
        (
            [run(RunState.RUNNING, -5)],
            Row("a", Urgency.ACTIVE, "running", "cyan", 0, 60),
        ),
        ([run(RunState.STOPPING, 70)], Row("a", Urgency.ACTIVE, "stopping", "yellow", 70, None)),
        ([run(RunState.DELIVERING, 3)], Row("a", Urgency.ACTIVE, "finishing", "cyan", 3, None)),
    ],
)
def test_row_of_a_run(runs: list[Run], expected: Row) -> None:
    """What a row tells of a script that has not ended."""
    assert row(*runs) == expected


@pytest.mark.parametrize("status", RunStatus)
def test_row_of_a_result(status: RunStatus) -> None:
    """A script that has ended tells how, and why."""
    ended = RunResult(
        run_id="0" * 32,
        script=SCRIPT,
        stage=Stage.START,
        status=status,
        started_at=NOW,
        ended_at=NOW,
        duration=2.0,
        reason="why",
    )
    found = row(run(RunState.RUNNING, 1), result=ended)
    assert found.state == status.value.replace("_", " ")
    assert found.urgency is (Urgency.DONE if ended.ok else Urgency.FAILED)
    assert (found.elapsed is None, found.detail) == (status is RunStatus.SKIPPED, "why")


def shown(rows: list[Row], width: int, height: int = 24, encoding: str = "utf-8") -> list[str]:
    lines = frame(rows, width, height, encoding)
    assert len(lines) < height
    assert all(cell_len(line.plain) < width for line in lines)
    return [line.plain.rstrip() for line in lines]


def test_columns() -> None:
    """Rows have columns, and the last line gets what is left."""
    rows = [
        Row("build", Urgency.ACTIVE, "running", "", 65, 55, "y" * 100),
        Row("b", Urgency.WAITING, "waiting", detail="for build"),
    ]
    assert shown(rows, 80) == [
        "build  running        1m05s      55.0s left  " + "y" * 33 + "…",
        "b      waiting                               for build",
    ]
    assert shown(rows, 40) == [
        "build  running        1m05s  " + "y" * 9 + "…",
        "b      waiting               for build",
    ]


@pytest.mark.parametrize("width", range(1, 100, 7))
@pytest.mark.parametrize("label", ["a", "x" * 200, "日本語" * 20, "e\u0301\u200b\t\x1b\u202e"])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_no_row_is_wider_than_the_terminal(width: int, label: str, encoding: str) -> None:
    """A row never wraps: columns are counted as the terminal does, after it was made harmless."""
    rows = [Row(label, Urgency.ACTIVE, "not started", "", 1e9, 1e9, label * 50)] * 3
    lines = shown(rows, width, encoding=encoding)
    assert all("\x1b" not in line for line in lines)
    for line in lines:
        line.encode(encoding)


def test_wide_characters_are_cut_whole() -> None:
    """What is left of a wide character that is cut is empty, behind the sign that tells so."""
    rows = [Row("日本語日本語", Urgency.ACTIVE, "running"), Row("b", Urgency.ACTIVE, "running")]
    assert shown(rows, 27) == ["日本語…   running", "b         running"]
    assert shown(rows, 28) == ["日本語日…  running", "b          running"]


def test_what_is_urgent_stays() -> None:
    """Too many rows: those that run stay, then failures, then who waits; in their order."""
    rows = [
        Row("done", Urgency.DONE, "succeeded"),
        Row("w1", Urgency.WAITING, "waiting"),
        Row("run1", Urgency.ACTIVE, "running"),
        Row("bad", Urgency.FAILED, "failed"),
        Row("w2", Urgency.WAITING, "waiting"),
        Row("run2", Urgency.ACTIVE, "running"),
    ]
    counts = "2 of 6 ended, 1 failed, 2 running, 2 waiting"
    names = [line.split()[0] for line in shown(rows, 80, 7)]
    assert names == ["done", "w1", "run1", "bad", "w2", "run2"]
    for height, expected in (
        (6, ["w1", "run1", "bad", "run2"]),
        (4, ["run1", "run2"]),
        (2, []),
    ):
        *lines, last = shown(rows, 80, height)
        assert [line.split()[0] for line in lines] == expected
        assert last == counts


# ---- painting ----


def texts(*lines: str) -> list[Text]:
    return [Text(line) for line in lines]


def test_painting_over() -> None:
    """Each painting begins where the last one began; what is above stays."""
    painter = Painter()
    assert painter.paint("", texts("one", "two"), 80) == "\rone\x1b[K\ntwo\x1b[K\n\x1b[J"
    assert painter.paint("word\n", texts("1"), 80) == ("\r\x1b[2A\x1b[Kword\x1b[K\n1\x1b[K\n\x1b[J")
    assert painter.paint("", [], 80) == "\r\x1b[1A\x1b[J"
    assert painter.paint("", texts("x"), 80) == "\rx\x1b[K\n\x1b[J"
    painter.forget()
    assert painter.paint("", texts("x"), 80) == "\rx\x1b[K\n\x1b[J"


def test_painting_over_lines_that_were_wrapped() -> None:
    """A terminal that has shrunk shows a line of 50 columns on two rows of 30."""
    painter = Painter()
    painter.paint("", texts("x" * 50, "", "x" * 30), 80)
    assert painter.paint("", [], 30).startswith("\r\x1b[4A")


class Screen(LiveOutput):
    """A terminal of one size, where nothing is slow."""

    def __init__(self) -> None:
        super().__init__(None, CancelToken(), CancelToken())
        self.painted: list[str] = []
        self.arrived = threading.Condition()

    def paint(self, text: str) -> None:
        with self.arrived:
            self.painted.append(text)
            self.arrived.notify_all()

    def wait(self, count: int) -> None:
        with self.arrived:
            assert self.arrived.wait_for(lambda: len(self.painted) >= count, 30)

    def size(self) -> tuple[int, int]:
        return 80, 24

    def is_in_foreground(self) -> bool:
        return True


def test_refresh_rate() -> None:
    """Rows that change all the time are painted 10 times a second at most; then the thread ends."""
    screen = Screen()
    began = time.monotonic()
    with LiveView(screen, lambda *_: texts(str(time.monotonic_ns())), Painter()):
        screen.wait(5)
    elapsed = time.monotonic() - began
    assert len(screen.painted) - 2 <= elapsed * 10
    assert "agentscripts-live" not in {thread.name for thread in threading.enumerate()}


def test_nothing_new_is_not_painted() -> None:
    """Rows that stay the same cost no output; words above them come with the next look."""
    screen, looks = Screen(), threading.Semaphore(0)

    def lines(width: int, height: int) -> list[Text]:
        looks.release()
        return texts("same")

    with LiveView(screen, lines, Painter()):
        for _ in range(3):
            assert looks.acquire(timeout=30)
        assert len(screen.painted) == 1
        screen.write_now("from a handler\n")
        screen.write("from a thread\n")
        screen.wait(2)
    assert "from a handler\x1b[K\n\x1b[Kfrom a thread" in screen.painted[1]


def test_no_thread_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What says so is not kept for a view that never comes."""

    def fail(_: OwnThread) -> None:
        raise OSError(errno.EAGAIN, "no thread can be started")

    monkeypatch.setattr(OwnThread, "start", fail)
    terminal = tmp_path / "terminal"
    with terminal.open("w") as stream:
        output = LiveOutput(stream, CancelToken(), CancelToken())
        with pytest.raises(OSError, match="no thread"), LiveView(output, lambda *_: [], Painter()):
            pass
        output.write("no thread")
    assert terminal.read_text() == "no thread"


def test_what_was_kept_is_written_at_the_end(tmp_path: Path) -> None:
    """What comes after the last rows were painted is not lost, and comes before what follows."""
    terminal = tmp_path / "terminal"
    with terminal.open("w") as stream:
        output = LiveOutput(stream, CancelToken(), CancelToken())
        output.hold()
        output.write("one\n")
        output.write_now("two\n")
        assert terminal.read_text() == ""
        output.release()
        output.write("three\n")
    assert terminal.read_text() == "one\ntwo\nthree\n"


def test_a_terminal_that_tells_nothing(tmp_path: Path) -> None:
    """One without a size, and what is none, have 80 columns and 24 rows, and are nobody else's."""
    terminal, process = os.openpty()
    with (
        open(terminal, "wb"),
        open(process, "w") as empty,
        (tmp_path / "file").open("w") as file,
    ):
        for stream in empty, file:
            output = LiveOutput(stream, CancelToken(), CancelToken())
            assert (output.size(), output.is_in_foreground()) == ((80, 24), True)


def test_job_in_the_background_paints_nothing() -> None:
    """What belongs to another job is not painted on."""
    screen, looks = Screen(), threading.Semaphore(0)

    def asks() -> bool:
        looks.release()
        return False

    screen.is_in_foreground = asks  # type: ignore[method-assign]
    with LiveView(screen, lambda *_: texts("row"), Painter()):
        for _ in range(4):
            assert looks.acquire(timeout=30)
        assert screen.painted == []
    assert not any("row" in text for text in screen.painted)


class Stream:
    def __init__(self, *, isatty: bool) -> None:
        self.isatty = lambda: isatty


TERMINAL, PIPE = Stream(isatty=True), Stream(isatty=False)


@pytest.mark.parametrize(
    ("streams", "env", "expected"),
    [
        ([TERMINAL], {"TERM": "xterm"}, True),
        ([TERMINAL, TERMINAL], {"TERM": "xterm", "CI": ""}, True),
        ([TERMINAL], {"TERM": "xterm", "CI": "false"}, True),
        ([TERMINAL], {"TERM": "xterm", "CI": "1"}, False),
        ([TERMINAL], {"TERM": "dumb"}, False),
        ([TERMINAL], {}, False),
        ([PIPE], {"TERM": "xterm"}, False),
        ([TERMINAL, PIPE], {"TERM": "xterm"}, False),
        ([TERMINAL, None], {"TERM": "xterm"}, False),
        ([None], {"TERM": "xterm"}, False),
    ],
)
def test_when_a_view_is_wanted(streams: list[Any], env: dict[str, str], expected: bool) -> None:
    """Only where all streams are a terminal that can be painted on, and that is nobody's log."""
    assert is_wanted(streams[0], env, *streams[1:]) is expected


def test_words_of_waiting() -> None:
    """After a signal: which scripts it waits for, the first five by name."""
    one = run(RunState.STOPPING, 1, pid=7, script=Script(script="true", name="a\x1b"))
    assert waiting_text([one]) == 'agentscripts: waiting for "a\\x1b" (pid 7)\n'
    many = [run(RunState.WAITING, script=Script(script="true", name=str(n))) for n in range(7)]
    assert waiting_text(many) == 'agentscripts: waiting for "0", "1", "2", "3", "4", 2 more\n'
