"""S2, R3: many runs, in a row and at once, leave everything as it was."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from conftest import MakeRunner
from support import PATIENCE, Background, Lines, children, descriptors, eventually, threads

from agentscripts import RunStatus

pytestmark = pytest.mark.slow


def resident() -> int:
    """Bytes of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def holdings() -> tuple[int, int]:
    return len(descriptors()), len(children())


def test_500_runs_in_a_row(make_runner: MakeRunner) -> None:
    """S2: descriptors and children are as after the first run, and threads after the last."""
    earlier = threads().keys()
    runner = make_runner("echo hello; echo oh >&2", on_complete=lambda result: None)
    runner.execute()
    before = holdings()
    for _ in range(500):
        runner.execute()
    assert holdings() == before
    assert len(threads().keys() - earlier) <= 10, "the pool keeps some threads, however many runs"
    runner.close()
    # One that was joined may have its last instructions before it; so may another test's.
    eventually(lambda: threads().keys() <= earlier, "the threads are gone")


def test_200_at_once(make_runner: MakeRunner) -> None:
    """S2: the same for many at once, some of which fail or are ended."""
    runner = make_runner(*["echo hello", "exit 3", "sleep 60"] * 66, "true", "true")
    runner.execute(timeout=1, check=False)
    before = holdings()
    results = runner.execute(timeout=1, check=False)
    assert len(results) == 200
    assert {one.status for one in results[2:198:3]} == {RunStatus.TIMED_OUT}
    assert holdings() == before


@pytest.mark.memory
def test_memory(make_runner: MakeRunner) -> None:
    """S2: memory is as it was after 500 runs in a row and 200 at once."""
    single = make_runner("echo hello", get_script_logger=lambda _: _Drop())
    many = make_runner(*["echo hello"] * 200, get_script_logger=lambda _: _Drop())

    def work() -> None:
        for _ in range(500):
            single.execute()
        many.execute()

    work()  # caches, arenas and thread stacks are there afterwards
    gc.collect()
    before = resident()
    work()
    gc.collect()
    assert resident() - before < 2 * 1024 * 1024


class _Drop:
    def send(self, batch: object) -> None:
        pass

    def flush(self) -> None:
        pass


def test_300_at_once(make_runner: MakeRunner, lines: Lines, tmp_path: Path) -> None:
    """R3: all of 300 scripts run at the same time, when nothing limits them."""
    release = tmp_path / "release"
    os.mkfifo(release)
    script = f"echo up; read line <{release}; echo down"
    runner = make_runner(*[script] * 300, flush_timeout=PATIENCE)
    call = Background(runner.execute)
    lines.wait_for("up", 300)
    assert len(runner.runs()) == 300
    # To read as well: a script that opens it later than the others must find a writer, too.
    with release.open("r+b", buffering=0) as writer:
        writer.write(b"\n" * 300)
        assert all(one.ok for one in call.result(60))
    assert lines.lines.count("down") == 300
