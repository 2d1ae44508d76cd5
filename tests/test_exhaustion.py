"""R3: what happens when descriptors or processes run out."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from conftest import MakeRunner
from support import (
    PATIENCE,
    Background,
    Lines,
    all_descriptors_taken,
    eventually,
    no_threads,
    run_host,
)

from agentscripts import CancelToken, OSFilesystem, RunStatus, Script
from agentscripts._context import Ended
from agentscripts._files import LogTarget


class Scarce(OSFilesystem):
    """A file system that has no descriptor for one log until it is told."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.enough = threading.Event()
        self.refused = threading.Event()
        self.before_refusal = threading.Event()
        self.before_refusal.set()

    def open_log(self, path: Path) -> LogTarget:
        if path.name == self._name and not self.enough.is_set():
            self.refused.set()
            assert self.before_refusal.wait(20)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))
        return super().open_log(path)


RICH = Script(script="echo up; exec sleep 60", name="rich")
POOR = Script(script="echo poor", name="poor", log_path="poor.log")


def test_another_look_at_what_runs() -> None:
    """R3: as long as another run goes on a start waits, however often it has looked in vain."""
    ended = Ended()
    rich, poor = ended.start(), ended.start()
    assert (rich, poor) == (0, 0)
    assert [ended.wait_for_one(poor, 0) for _ in range(3)] == [0] * 3
    ended.end()
    assert ended.wait_for_one(poor, 0) == 1
    assert ended.wait_for_one(1, 0) is None


def test_all_starts_that_wait_are_told() -> None:
    """R3: an end wakes all of them: what it gives back may be too little for the first."""
    ended = Ended()
    for _ in range(3):
        ended.start()
    starts = [Background(lambda: ended.wait_for_one(0, 10 * PATIENCE)) for _ in range(2)]
    eventually(lambda: ended._waiting == len(starts), "both wait")
    ended.end()
    assert [one.result() for one in starts] == [1, 1]


@pytest.mark.slow
def test_starts_wait_for_descriptors(tmp_path: Path) -> None:
    """R3: 60 scripts at once with 40 descriptors: all run, one after the other if need be."""
    program = """
import resource
runner = make(*[f"echo {index}" for index in range(60)])
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
results = runner.execute(check=False)
print(*sorted({(one.status.value, one.reason) for one in results}), flush=True)
runner.close()
"""
    lines = run_host(tmp_path, program)
    assert lines[-1] == "('succeeded', '')"
    assert sorted(lines[:-1]) == sorted(f"line {index}" for index in range(60))


def test_without_another_run_it_is_not_started(make_runner: MakeRunner) -> None:
    """R3: when nothing that runs could give a descriptor back, the run is NOT_STARTED."""
    runner = make_runner(POOR, filesystem=Scarce("poor.log"))
    (result,) = Background(lambda: runner.execute(check=False)).result()
    assert result.status is RunStatus.NOT_STARTED
    assert isinstance(result.cause, OSError)
    assert result.cause.errno == errno.EMFILE


@pytest.mark.parametrize("count", [1, 3])
def test_no_descriptor_at_all(make_runner: MakeRunner, count: int) -> None:
    """R3, R7: execute returns a result for each script, and works again afterwards."""
    runner = make_runner(*["echo hello"] * count)
    runner.execute()
    with all_descriptors_taken():
        results = runner.execute(check=False)
    assert [one.status for one in results] == [RunStatus.NOT_STARTED] * count
    assert all("Too many open files" in one.reason for one in results)
    assert all(one.ok for one in runner.execute())


@pytest.mark.slow
def test_any_number_of_descriptors(make_runner: MakeRunner) -> None:
    """R3, R7: wherever a start runs out of them, nothing leaks and the result says so."""
    runner = make_runner("echo hello")
    runner.execute()
    statuses = []
    for spare in range(20):
        with all_descriptors_taken(spare):
            statuses.append(Background(lambda: runner.execute(check=False)).result()[0].status)
    # Where the one ends and the other begins, a thread that gives a descriptor back may decide.
    assert set(statuses) == {RunStatus.NOT_STARTED, RunStatus.SUCCEEDED}
    assert statuses[0] is RunStatus.NOT_STARTED
    assert statuses[-1] is RunStatus.SUCCEEDED


def test_it_starts_when_another_run_has_ended(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: the start waits while another run of this runner goes on."""
    scarce = Scarce("poor.log")
    runner = make_runner(RICH, POOR, filesystem=scarce)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    assert scarce.refused.wait(20)
    scarce.enough.set()
    (rich,) = [one for one in runner.runs() if one.script == RICH]
    runner.cancel(rich.run_id)
    assert [one.status for one in call.result()] == [RunStatus.CANCELLED, RunStatus.SUCCEEDED]


def test_another_run_that_ends_just_now(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: an end between the failed start and the wait counts: the start is tried again."""
    scarce = Scarce("poor.log")
    scarce.before_refusal.clear()
    runner = make_runner(RICH, POOR, filesystem=scarce)
    rich = Background(lambda: runner.execute(lambda one: one is RICH, check=False))
    lines.wait_for("up")
    poor = Background(lambda: runner.execute(lambda one: one is POOR, check=False))
    assert scarce.refused.wait(20)
    (running,) = [one for one in runner.runs() if one.script == RICH]
    runner.cancel(running.run_id)
    rich.result()
    scarce.enough.set()
    scarce.before_refusal.set()
    assert [one.status for one in poor.result()] == [RunStatus.SUCCEEDED]


def test_no_thread_for_the_runs(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: the caller's thread performs all of them then, one after the other."""
    runner = make_runner(*["true"] * 3)
    no_threads(monkeypatch, "agentscripts-run")
    assert all(one.ok for one in Background(runner.execute).result())


@pytest.mark.parametrize("how", ["timeout", "token", "cancel", "close"])
def test_a_start_that_waits_can_be_ended(make_runner: MakeRunner, lines: Lines, how: str) -> None:
    """K1: deadline, token, cancel and close hold for a run that waits for a descriptor, too."""
    scarce = Scarce("poor.log")
    runner = make_runner(RICH, POOR, filesystem=scarce)
    rich = Background(lambda: runner.execute(lambda one: one is RICH, check=False))
    lines.wait_for("up")
    token = CancelToken()
    poor = Background(
        lambda: runner.execute(
            lambda one: one is POOR,
            check=False,
            cancel=token,
            timeout=0.1 if how == "timeout" else None,
        )
    )
    assert scarce.refused.wait(20)
    try:
        if how == "token":
            token.cancel()
        elif how == "cancel":
            runner.cancel(next(one.run_id for one in runner.runs() if one.script == POOR))
        elif how == "close":
            runner.close(timeout=0)
        (result,) = poor.result(timeout=5)
        assert result.status is (RunStatus.TIMED_OUT if how == "timeout" else RunStatus.CANCELLED)
        assert result.exit_code is None
    finally:
        scarce.enough.set()
        for one in runner.runs():
            runner.cancel(one.run_id)
        rich.result()
        poor.join()


@pytest.mark.parametrize("limit", [1, 6])
def test_a_limit_that_falls_during_a_run(tmp_path: Path, limit: int) -> None:
    """K1, S1: poll takes no more descriptors than RLIMIT_NOFILE, and a run ends all the same."""
    program = f"""
import resource
os.mkfifo(BASE / "go")
go = os.open(BASE / "go", os.O_RDWR)
runner = make("echo up; read line <go; echo $line", "echo up; exec sleep 60", working_dir=BASE)
running = threading.Thread(
    target=lambda: say(*(result.status for result in runner.execute(check=False)))
)
running.start()
while [run.last_line for run in runner.runs()] != ["up"] * 2:
    time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, 100))
os.write(go, b"there\\n")
while len(runner.runs()) > 1:
    time.sleep(0.01)
runner.cancel(runner.runs()[0].run_id)
running.join()
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
runner.close()
"""
    assert sorted(run_host(tmp_path, program)) == [
        "line there",
        "line up",
        "line up",
        "succeeded cancelled",
    ]
