"""The timeline: what it shows of results, and how its file is read and written."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support import umask

from agentscripts import Dependency, RunResult, RunStatus, Script, Stage
from agentscripts._report import Report, read_results, write_timeline
from agentscripts._timeline import (
    Record,
    critical_path,
    parse_record,
    render_timeline,
    seconds_text,
    ticks,
    waited_for,
)

START = datetime(2026, 1, 1, tzinfo=UTC)


def result(
    name: str,
    begin: float,
    end: float,
    *on: str,
    status: RunStatus = RunStatus.SUCCEEDED,
    **fields: object,
) -> RunResult:
    """A run that took place from one second to another."""
    ran = status not in (RunStatus.SKIPPED, RunStatus.NOT_STARTED)
    return RunResult(
        run_id="0" * 32,
        script=Script(script="secret", name=name, depends_on=tuple(map(Dependency, on))),
        stage=Stage.START,
        status=status,
        started_at=START + timedelta(seconds=begin),
        ended_at=START + timedelta(seconds=end),
        duration=end - begin,
        attempts=int(ran),
        **fields,  # type: ignore[arg-type]
    )


def records(*results: RunResult) -> list[Record]:
    return [parse_record(json.loads(json.dumps(one.as_dict()))) for one in results]


def test_critical_path() -> None:
    """Timeline: back from the last end, each time through the dependency that ended last."""
    found = records(
        result("a", 0, 1),
        result("b", 0, 3),
        result("c", 3, 4, "a", "b"),
        result("d", 4, 6, "c"),
        result("e", 0, 5),
        result("f", 6, 6, "d", status=RunStatus.SKIPPED),
    )
    waited = waited_for(found)
    assert waited == [[], [], [0, 1], [2], [], [3]]
    path = critical_path(found, waited)
    assert [found[number].script.name for number in path] == ["b", "c", "d"]


def test_a_later_run_is_waited_for_by_nobody_before() -> None:
    """Timeline: of several runs of a dependency the last one by then counts."""
    found = records(result("a", 0, 1), result("a", 2, 3), result("b", 3, 4, "a"), result("a", 5, 6))
    assert waited_for(found)[2] == [1]


def test_no_path() -> None:
    """Timeline: where nothing ran there is none."""
    assert critical_path([], []) == []
    skipped = records(result("a", 0, 0, status=RunStatus.NOT_STARTED))
    assert critical_path(skipped, waited_for(skipped)) == []


@pytest.mark.parametrize(
    ("span", "first", "count"),
    [(0.001, 0.0002, 6), (1, 0.2, 6), (5.9, 1, 6), (6.1, 2, 4), (100, 20, 6), (7200, 2000, 4)],
)
def test_ticks(span: float, first: float, count: int) -> None:
    """Timeline: an axis has few steps, of 1, 2 or 5 times a power of ten."""
    found = ticks(span)
    assert len(found) == count
    assert found[0] == 0
    assert found[1] == pytest.approx(first)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0012, "1.2 ms"),
        (0.25, "0.25 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3600, "1 h 0 min"),
    ],
)
def test_seconds_text(seconds: float, text: str) -> None:
    """Timeline: three digits, then minutes."""
    assert seconds_text(seconds) == text


def test_hostile_text_stays_text() -> None:
    """Timeline: names and output are never HTML, nor do they steer what is around them."""
    hostile = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\u202e\x1b[31m"
    one = result(hostile, 0, 1, tail=(hostile,), stderr=(hostile,), stderr_lines=1, reason=hostile)
    page = render_timeline(records(one), hostile)
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\u202e\\x1b[31m" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_the_page_needs_nothing_else() -> None:
    """Timeline: no address but those of its own parts, and a policy that forbids others."""
    page = render_timeline(records(result("a", 0, 1), result("b", 1, 2, "a")), "t")
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'" in page


def test_no_runs() -> None:
    """Timeline: a page without runs says so."""
    assert "No runs." in render_timeline([], "t")


def test_report(tmp_path: Path) -> None:
    """Report: each result is there at once, the page at the end; nothing secret in either."""
    directory = tmp_path / "new" / "report"
    report = Report(directory, "title", pytest.fail)
    one, two = result("a", 0, 1), result("b", 1, 2, "a", status=RunStatus.FAILED)
    report.add(one)
    lines = (directory / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [one.as_dict()]
    report.add(two)
    report.close()
    assert read_results(directory / "results.jsonl") == records(one, two)
    page = (directory / "timeline.html").read_text()
    assert "title" in page
    assert "secret" not in page + "".join(lines)
    assert sorted(path.name for path in directory.iterdir()) == ["results.jsonl", "timeline.html"]


def test_report_of_the_next_run(tmp_path: Path) -> None:
    """Report: it takes the place of the one before."""
    for one in result("a", 0, 1), result("b", 0, 1):
        report = Report(tmp_path, "t", pytest.fail)
        report.add(one)
        report.close()
        assert read_results(tmp_path / "results.jsonl") == records(one)


def test_report_that_cannot_be_written(tmp_path: Path) -> None:
    """Report: a full disk is told once, and harms no run."""
    errors: list[OSError] = []
    report = Report(tmp_path, "t", errors.append)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, report._file.fileno(), inheritable=False)
    os.close(full)
    report.add(result("a", 0, 1))
    report.add(result("b", 0, 1))
    report.close()
    assert [error.strerror for error in errors] == ["No space left on device"]
    assert report.error is errors[0]


def changed(**fields: object) -> str:
    return json.dumps({**result("a", 0, 1).as_dict(), **fields})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "is no JSON"),
        ("[]", "is no object, expected a result"),
        ('{"schema": 2}', "schema: Input should be 1"),
        ('{"schema": 1}', "run_id: Field required"),
        (changed(started_at="2026-01-01T00:00:00"), "started_at: Input should have timezone info"),
        (changed(duration=math.nan), "duration: Input should be a finite number"),
        ("[" * 100_000, "recursion"),
        (changed(duration=-5), "duration: Input should be greater than or equal to 0"),
    ],
)
def test_bad_results(tmp_path: Path, line: str, problem: str) -> None:
    """Report: the error names the file, the line, the field and what was expected."""
    path = tmp_path / "results.jsonl"
    path.write_text(f"{json.dumps(result('a', 0, 1).as_dict())}\n\n{line}\n")
    with pytest.raises(ValueError, match=r"results\.jsonl:3: ") as caught:
        read_results(path)
    assert problem in str(caught.value)


def test_a_page_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Report: where the page cannot be written, the one before stays, and nothing else is left."""
    (tmp_path / "page").write_text("before")

    def fail(*paths: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="broken"):
        write_timeline(tmp_path / "page", records(result("a", 0, 1)), "t")
    monkeypatch.undo()
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("page", "before")]


def test_a_page_replaces_no_directory(tmp_path: Path) -> None:
    """Report: one that is there stays, and nothing else is left."""
    (tmp_path / "page").mkdir()
    with pytest.raises(IsADirectoryError):
        write_timeline(tmp_path / "page", records(result("a", 0, 1)), "t")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


@pytest.mark.parametrize(
    ("path", "why"), [("none/page", "No such file"), ("m/page", "Not a directory")]
)
def test_a_page_that_cannot_be_written(tmp_path: Path, path: str, why: str) -> None:
    """Report: the error names the page, and no file that only this process knows of."""
    (tmp_path / "m").touch()
    with pytest.raises(OSError, match=why) as caught:
        write_timeline(tmp_path / path, [], "t")
    assert caught.value.filename == str(tmp_path / path)


def test_a_page_replaces_no_device_and_no_link(tmp_path: Path) -> None:
    """Report: only a file is replaced; a pipe is written to, and a link goes on to its file."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_timeline(tmp_path / "pipe", [], "t")
        assert os.read(reader, 15) == b"<!doctype html>"
        assert (tmp_path / "pipe").is_fifo()
    finally:
        os.close(reader)
    (tmp_path / "link").symlink_to("page")
    write_timeline(tmp_path / "link", [], "t")
    assert (tmp_path / "link").is_symlink()
    assert "No runs." in (tmp_path / "page").read_text()


@pytest.mark.parametrize("mask", [0o000, 0o777], ids=oct)
@pytest.mark.parametrize("name", ["results.jsonl", "timeline.html"])
def test_report_is_private(tmp_path: Path, name: str, mask: int) -> None:
    """X1: it holds the last lines of each run, so it is as private as a log, and as careful."""
    with umask(mask):
        report = Report(tmp_path / "new/report", "t", pytest.fail)
        report.add(result("a", 0, 1))
        report.close()
    assert stat.S_IMODE((tmp_path / "new/report" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "new/report").stat().st_mode) == 0o700


def test_report_follows_no_link(tmp_path: Path) -> None:
    """L2: what a link in the place of the results leads to stays as it was."""
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "results.jsonl").symlink_to("victim")
    with pytest.raises(OSError, match="is a symbolic link"):
        Report(tmp_path, "t", pytest.fail)
    assert (tmp_path / "victim").read_text() == "precious"
