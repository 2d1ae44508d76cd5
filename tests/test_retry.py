"""Retries: whether, when, and what the result then says."""

from __future__ import annotations

import dataclasses
import errno
import gc
import logging
import os
import threading
import time
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner
from support import Background, Lines, descriptors, eventually

from agentscripts import (
    CancelToken,
    Dependency,
    LogBatch,
    Run,
    RunResult,
    RunState,
    RunStatus,
    Script,
    Stage,
    _execution,
)
from agentscripts._retry import added_up, delay_before_next
from agentscripts._writers import WRITERS

RETRIED = Script(script="true", retries=100, retry_delay=0.5)

ATTEMPT = RunResult(
    run_id="",
    script=RETRIED,
    stage=Stage.MANUAL,
    status=RunStatus.TIMED_OUT,
    started_at=datetime.now(UTC),
    ended_at=datetime.now(UTC),
    duration=1.0,
)


def test_delays_double() -> None:
    """Retry: each delay is twice the one before, 60 s at most."""
    delays = [delay_before_next(RETRIED, n, RunStatus.FAILED, float) for n in range(1, 101)]
    assert delays[:8] == [0.5, 1, 2, 4, 8, 16, 32, 60]
    assert set(delays[8:]) == {60}


def test_delays_have_a_limit() -> None:
    """Retry: 60 s at most whatever the first delay is, and however many attempts there were."""
    for first in (1e308, 60.0, 1e-300):
        script = Script(script="true", retries=10**9, retry_delay=first)
        for attempt in (1, 2, 100, 10**9):
            delay = delay_before_next(script, attempt, RunStatus.FAILED, float)
            assert delay is not None
            assert delay <= 60


def test_delays_spread() -> None:
    """Retry: chance shortens a delay by a half at most."""
    delays = [
        delay_before_next(RETRIED, 1, RunStatus.FAILED, partial(float, chance))
        for chance in (0, 0.25, 0.5, 1)
    ]
    assert delays == [0.5, 0.4375, 0.375, 0.25]
    assert all(a and b and a > b for a, b in pairwise(delays))


@pytest.mark.parametrize("status", RunStatus)
def test_what_is_retried(status: RunStatus) -> None:
    """Retry: scripts that failed or timed out, no others."""
    again = delay_before_next(RETRIED, 1, status, float) is not None
    assert again == (status in (RunStatus.FAILED, RunStatus.TIMED_OUT))


def test_how_often() -> None:
    """Retry: as often as it says; not at all by default."""
    twice = Script(script="true", retries=2)
    delays = [delay_before_next(twice, n, RunStatus.FAILED, float) for n in (1, 2, 3)]
    assert delays == [1.0, 2.0, None]
    assert delay_before_next(Script(script="true"), 1, RunStatus.FAILED, float) is None


def flaky(path: Path, succeeds_at: int, **fields: object) -> Script:
    """A script that counts its attempts in a file, and fails until a certain one."""
    text = f"echo x >> {path}; n=$(wc -l < {path}); echo attempt $n; [ $n -ge {succeeds_at} ]"
    return Script(script=text, name="flaky", retry_delay=0.01, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("beside", [(), ("true",)], ids=["alone", "beside another"])
def test_succeeds_at_last(
    make_runner: MakeRunner,
    lines: Lines,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    beside: tuple[str, ...],
) -> None:
    """Retry: R7: one result for all attempts; the log file and the logger have every line."""
    reports: list[RunResult] = []
    runner = make_runner(
        flaky(tmp_path / "n", 3, retries=5),
        *(Script(script=one) for one in beside),
        on_complete=reports.append,
    )
    with caplog.at_level(logging.INFO):
        result = runner.execute()[0]
    assert (result.status, result.attempts, result.exit_code) == (RunStatus.SUCCEEDED, 3, 0)
    assert [one for one in reports if one.script.name] == [result]
    wrote = [line for line in lines.lines if not line.startswith("agentscripts: ")]
    assert wrote == ["attempt 1", "attempt 2", "attempt 3"]
    assert result.log_path is not None
    log = result.log_path.read_text().splitlines()
    assert [line for line in log if not line.startswith("agentscripts: ")] == wrote
    first, second = (line for line in log if line.startswith("agentscripts: "))
    assert first.startswith("agentscripts: attempt 1 of 6: exit status 1; the next one follows in ")
    assert second.startswith("agentscripts: attempt 2 of 6: exit status 1; the next one ")
    assert result.output_bytes == sum(len(line) + 1 for line in wrote)
    assert result.tail == ("attempt 3",)
    assert result.duration >= 0.01 / 2
    texts = [record.getMessage() for record in caplog.records]
    assert sum("attempt 1 of 6: exit status 1" in text for text in texts) == 1
    assert sum("attempt 2 of 6: exit status 1" in text for text in texts) == 1


@pytest.mark.parametrize("waiting", [1, 2])
def test_nobody_empties_the_log_between_attempts(make_runner: MakeRunner, waiting: int) -> None:
    """Retry: L2: a run that waits for its next attempt is one that is writing, until it ends."""
    flaky = [
        Script(script="echo attempt; exit 1", retries=1, retry_delay=60, log_path="shared")
        for _ in range(waiting)
    ]
    runner = make_runner(*flaky, Script(script="echo other", name="other", log_path="shared"))
    call = Background(lambda: runner.execute(lambda one: one in flaky, check=False))

    def all_wait() -> list[Run]:
        runs = [one for one in runner.runs() if one.attempt == 2]
        return runs if len(runs) == waiting else []

    *others, last = eventually(all_wait)
    for one in others:
        runner.cancel(one.run_id)
    eventually(lambda: len(runner.runs()) == 1)
    (other,) = runner.execute(lambda one: one.name == "other")
    runner.cancel(last.run_id)
    results = call.result()
    assert other.log_path is not None
    written = other.log_path.read_text().splitlines()
    notes = [line for line in written if line.startswith("agentscripts: attempt 1 of 2")]
    assert len(notes) == waiting
    assert [line for line in written if line not in notes] == ["attempt"] * waiting + ["other"]
    assert [one.output_bytes for one in [*results, other]] == [8] * waiting + [6]


def test_a_log_kept_for_an_attempt_that_never_comes(make_runner: MakeRunner) -> None:
    """Retry: R3, L2: it takes no descriptor, and the next run empties it again."""
    script = Script(script="echo x; exit 1", retries=1, retry_delay=60, name="flaky")
    runner = make_runner(script)
    runner.execute(timeout=0, check=False)  # what a runner opens once is open
    before = descriptors().values()
    for _ in range(2):
        call = Background(lambda: runner.execute(check=False))
        (run,) = eventually(lambda: [one for one in runner.runs() if one.attempt == 2])
        # It counts as the next attempt a moment before the last one has given all back.
        eventually(
            lambda: (
                not [
                    name for name in descriptors().values() if name not in before and "log" in name
                ]
            )
        )
        runner.cancel(run.run_id)
        (result,) = call.result()
        assert result.status is RunStatus.CANCELLED
    assert result.log_path is not None
    assert len(result.log_path.read_text().splitlines()) == 2
    assert not WRITERS._kept


def test_fails_at_last(make_runner: MakeRunner, tmp_path: Path) -> None:
    """Retry: when none succeeds the last one's failure is the run's."""
    (result,) = make_runner(flaky(tmp_path / "n", 9, retries=2)).execute(check=False)
    assert (result.status, result.attempts, result.exit_code) == (RunStatus.FAILED, 3, 1)
    assert (tmp_path / "n").read_text() == "x\n" * 3


@pytest.mark.slow
def test_timeouts_are_retried(make_runner: MakeRunner, tmp_path: Path) -> None:
    """Retry: each attempt has the script's timeout for itself."""
    text = f"echo x >> {tmp_path}/n; [ $(wc -l < {tmp_path}/n) -ge 2 ] || exec sleep 60"
    script = Script(script=text, timeout=1.5, retries=2, retry_delay=0)
    (result,) = make_runner(script).execute()
    assert (result.status, result.attempts) == (RunStatus.SUCCEEDED, 2)


def test_dependents_wait_for_the_last_attempt(make_runner: MakeRunner, tmp_path: Path) -> None:
    """Retry: D1: a dependent starts after the attempt that succeeded."""
    after = Script(
        script=f"[ $(wc -l < {tmp_path}/n) = 3 ]", depends_on=(Dependency("flaky"),), name="after"
    )
    results = make_runner(after, flaky(tmp_path / "n", 3, retries=2)).execute()
    assert [one.status for one in results] == [RunStatus.SUCCEEDED] * 2


@pytest.mark.parametrize("how", ["token", "run", "timeout", "close"])
def test_ended_between_attempts(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, how: str
) -> None:
    """Retry: K1: a run that waits for its next attempt ends at once, and is not started again."""
    script = Script(script=f"echo x >> {tmp_path}/n; exit 3", retries=5, retry_delay=100)
    runner = make_runner(script)
    token = CancelToken()
    timeout = 1.5 if how == "timeout" else None
    call = Background(lambda: runner.execute(cancel=token, timeout=timeout, check=False))
    if how != "timeout":
        lines.wait_for("agentscripts: attempt 1 of 6: exit status 3")
        run = eventually(
            lambda: next((one for one in runner.runs() if one.state is RunState.WAITING), None)
        )
        assert run is not None
        assert (run.pid, run.attempt, run.waits_for) == (None, 2, ())
        if how == "token":
            token.cancel()
        elif how == "run":
            assert runner.cancel(run.run_id)
        else:
            runner.close(timeout=0)
    (result,) = call.result()
    expected = RunStatus.TIMED_OUT if how == "timeout" else RunStatus.CANCELLED
    assert (result.status, result.attempts, result.exit_code) == (expected, 1, 3)
    assert "attempt 2 of 6; the one before: exit status 3" in result.reason
    assert (tmp_path / "n").read_text() == "x\n"


def test_what_is_cancelled_between_attempts_comes_no_more(make_runner: MakeRunner) -> None:
    """Retry: R7, K1: not when its time has come either, and it is reported once."""
    reports: list[RunResult] = []
    failing, other = (
        Script(script="exit 1", name=name, retries=1, retry_delay=60)
        for name in ("failing", "other")
    )
    runner = make_runner(failing, other, on_complete=reports.append)
    call = Background(lambda: runner.execute(check=False))
    eventually(lambda: [one.attempt for one in runner.runs()] == [2, 2])
    runner.cancel(runner.runs()[0].run_id)
    eventually(lambda: len(runner.runs()) == 1)
    (dispatch,) = runner._calls._under_way()
    with dispatch._lock:
        dispatch._again = [(0.0, run_id, run) for _, run_id, run in dispatch._again]
    dispatch.wake()
    assert [one.attempts for one in call.result()] == [1, 2]
    assert sorted(one.script.name for one in reports) == ["failing", "other"]


def test_a_cancelled_attempt_is_the_last(make_runner: MakeRunner, lines: Lines) -> None:
    """Retry: not for cancelled runs."""
    runner = make_runner(Script(script="echo up; exec sleep 60", retries=5, retry_delay=0))
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    assert runner.cancel(runner.runs()[0].run_id)
    (result,) = call.result()
    assert (result.status, result.attempts) == (RunStatus.CANCELLED, 1)


def test_the_delay_holds_no_slot(make_runner: MakeRunner, lines: Lines) -> None:
    """Retry: R3: while a script waits for its next attempt another one may run."""
    failing = Script(script="exit 1", name="failing", retries=1, retry_delay=100)
    runner = make_runner(failing, Script(script="echo other", name="other"), max_parallel=1)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("other")
    eventually(lambda: "other" not in {one.script.name for one in runner.runs()})
    runner.close(timeout=0)
    assert [one.status for one in call.result()] == [RunStatus.CANCELLED, RunStatus.SUCCEEDED]


@pytest.mark.parametrize("alone", [True, False])
def test_cancelled_while_lines_are_delivered(make_runner: MakeRunner, alone: bool) -> None:
    """Retry: K1: a cancel that comes between an attempt's end and the wait for the next one ends
    the run, also where another run has the only slot by then, and the call's thread has looked for
    it in vain."""
    entered, go, other = threading.Event(), threading.Event(), threading.Event()

    def on_send(batch: LogBatch) -> None:
        if batch.lines == ["failing"]:
            entered.set()
            assert go.wait(30)
        elif batch.lines == ["other"]:
            other.set()

    failing = Script(script="echo failing; exit 1", name="failing", retries=9, retry_delay=0)
    runner = make_runner(
        Script(script="true", name="first"),
        failing,
        Script(script="echo other; exec sleep 60", name="other"),
        max_parallel=1,
        get_script_logger=lambda _: Lines(on_send),
    )
    chosen = ["failing"] if alone else ["first", "failing"]
    first = Background(lambda: runner.execute(lambda one: one.name in chosen, check=False))
    assert entered.wait(30)
    second = Background(lambda: runner.execute(lambda one: one.name == "other", check=False))
    assert other.wait(30)
    assert runner.cancel(next(one.run_id for one in runner.runs() if one.script == failing))
    if not alone:
        calls = runner._calls._under_way()
        eventually(lambda: not any(call._cancelled for call in calls))
    go.set()
    *_, result = first.result()
    assert (result.status, result.attempts) == (RunStatus.CANCELLED, 1)
    runner.close(timeout=0)
    second.result()


def test_one_send_at_a_time(make_runner: MakeRunner, tmp_path: Path) -> None:
    """Retry: L7: also where the logger is still busy with an attempt that was given up."""
    lock, go, overlaps = threading.Lock(), threading.Event(), []
    called = tmp_path / "called"

    def on_send(batch: LogBatch) -> None:
        called.touch()
        overlaps.append(not lock.acquire(blocking=False))
        go.wait(30)
        if not overlaps[-1]:
            lock.release()

    runner = make_runner(
        Script(
            script=f"echo x; until [ -e {called} ]; do sleep 0.01; done; exit 1",
            retries=3,
            retry_delay=0,
        ),
        get_script_logger=lambda _: Lines(on_send),
        flush_timeout=0.05,
    )
    (result,) = runner.execute(check=False)
    go.set()
    runner.close()
    assert result.attempts == 4
    assert overlaps == [False]


def test_a_stuck_logger_costs_no_thread_per_attempt(make_runner: MakeRunner) -> None:
    """Retry: S2: threads that wait for a logger which is still busy with an attempt that was given
    up do not pile up."""
    go = threading.Event()

    def on_send(batch: LogBatch) -> None:
        go.wait(30)

    runner = make_runner(
        Script(script="echo x; exit 1", retries=15, retry_delay=0),
        get_script_logger=lambda _: Lines(on_send),
        flush_timeout=0.01,
    )
    (result,) = runner.execute(check=False)
    delivering = [one for one in threading.enumerate() if one.name == "agentscripts-delivery"]
    go.set()
    assert result.attempts == 16
    assert len(delivering) < 10, "one is stuck, and some may wait in the pool"


def test_ended_threads_are_not_kept(make_runner: MakeRunner, lines: Lines, tmp_path: Path) -> None:
    """Retry: S2: an attempt's thread does not stay until the end of the call."""
    flag = tmp_path / "go on"
    runner = make_runner(
        Script(script="exit 1", retries=30, retry_delay=0),
        Script(script=f"while ! test -e '{flag}'; do sleep 0.01; done", name="long"),
    )
    call = Background(lambda: runner.execute(check=False))
    eventually(lambda: [one.script.name for one in runner.runs()] == ["long"])
    kept = [
        one
        for one in gc.get_objects()
        if isinstance(one, threading.Thread)
        and one.name == "agentscripts-run"
        and not one.is_alive()
    ]
    flag.touch()
    assert call.result()[0].attempts == 31
    assert len(kept) < 5, "the last ones are, until the caller's thread looks again"


@pytest.mark.parametrize("others", [0, 1])
def test_without_an_eventfd(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Retry: R3: a call that has no descriptor for its wake-ups looks again now and then."""

    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "eventfd", refuse)
    scripts = [Script(script="exit 1", retries=2, retry_delay=0.01), *["exec sleep 0.1"] * others]
    results = Background(lambda: make_runner(*scripts).execute(check=False)).result()
    assert [one.attempts for one in results] == [3, *[1] * others]
    assert [one.reason for one in results] == ["exit status 1", *[""] * others]


def test_usage_of_all_attempts() -> None:
    """Retry: the CPU time of all attempts adds up, their peak memory is the largest; what is
    unknown of one is unknown of all."""
    one = dataclasses.replace(ATTEMPT, cpu_seconds=1.0, max_rss=5)
    other = dataclasses.replace(ATTEMPT, cpu_seconds=2.5, max_rss=3)
    both = added_up(one, other)
    assert (both.cpu_seconds, both.max_rss) == (3.5, 5)
    unknown = added_up(one, ATTEMPT)
    assert (unknown.cpu_seconds, unknown.max_rss) == (None, None)


def test_survivors_of_all_attempts() -> None:
    """Retry: K4: what survived an earlier attempt is named in the run's result, too."""
    one = dataclasses.replace(ATTEMPT, survivors=(7,))
    both = added_up(one, dataclasses.replace(one, survivors=(8,)))
    assert (both.survivors, both.attempts) == ((7, 8), 2)


@pytest.mark.slow
def test_no_attempt_is_promised_that_cannot_come(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """Retry: K5: not when the call's time passes while a background process keeps the output open:
    the run failed before, so it is not TIMED_OUT."""
    text = f"(until [ -e {tmp_path}/go ]; do sleep 0.01; done) & echo up; exit 3"
    runner = make_runner(Script(script=text, retries=1), wait_delay=60)
    began = time.monotonic()
    call = Background(lambda: runner.execute(timeout=3, check=False))
    lines.wait_for("up")
    while time.monotonic() < began + 3.1:
        time.sleep(0.1)
    (tmp_path / "go").touch()
    (result,) = call.result()
    assert (result.status, result.exit_code, result.attempts) == (RunStatus.FAILED, 3, 1)
    assert lines.lines == ["up"]


def test_no_attempt_is_promised_to_what_is_cancelled(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retry: K1: a cancel that comes right after the process's end has nothing left to end."""

    def cancel_first(*arguments: Any) -> float | None:
        assert runner.cancel(runner.runs()[0].run_id)
        return delay_before_next(*arguments)

    monkeypatch.setattr(_execution, "delay_before_next", cancel_first)
    runner = make_runner(Script(script="exit 3", retries=1, retry_delay=60))
    (result,) = runner.execute(check=False)
    assert (result.status, result.attempts) == (RunStatus.FAILED, 1)
    assert lines.lines == []


def test_losses_of_all_attempts() -> None:
    """Retry: L3, L6: what an earlier attempt lost of its log or its lines is told, too."""
    first, later = OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken")
    one = dataclasses.replace(ATTEMPT, lines=5, lines_dropped=2, log_error=first)
    other = dataclasses.replace(ATTEMPT, lines=4, lines_dropped=1, log_error=later)
    both = added_up(one, other)
    assert (both.lines, both.lines_dropped, both.log_error) == (9, 3, first)
    assert added_up(ATTEMPT, one).log_error is first
