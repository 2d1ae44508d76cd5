"""Schedules of a runner, on the machine's own clock."""

from __future__ import annotations

import errno
import logging
import os
import threading
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry
from support import PATIENCE, Background, Lines, eventually

from agentscripts import (
    CronSyntax,
    InvalidScheduleError,
    InvalidScriptError,
    Overlap,
    RunnerClosedError,
    RunResult,
    RunStatus,
    Script,
    Stage,
)
from agentscripts._cronruns import CronRuns
from agentscripts._dispatch import Dispatch
from agentscripts._lifecycle import OwnThread
from agentscripts._scheduler import SystemClock

pytestmark = pytest.mark.slow  # a schedule's shortest step is a second

EVERY_SECOND = "* * * * * *"
AT = "echo at $AGENTSCRIPTS_SCHEDULED_AT"


def planned_times(lines: Lines) -> list[datetime]:
    return [datetime.fromisoformat(line.removeprefix("at ")) for line in lines.lines]


def test_it_fires_on_time(make_runner: MakeRunner, lines: Lines) -> None:
    """C1, R5, S2: each second once, never before its time, the script knows which, and what ran is
    let go."""
    done: list[RunResult] = []
    runner = make_runner(Script(script=AT, cron=EVERY_SECOND), on_complete=done.append)
    runner.start_cron()
    lines.wait_for("at", 3)
    runner.close()
    assert runner._cron is not None
    assert not runner._cron._dispatches
    times = planned_times(lines)
    assert all(time.utcoffset() == timedelta() and time.microsecond == 0 for time in times)
    assert times == sorted(set(times))
    assert {result.stage for result in done} == {Stage.CRON}
    assert all(result.started_at >= time for result, time in zip(done, times, strict=False))


def test_start_before_init_and_twice(make_runner: MakeRunner, lines: Lines) -> None:
    """R2: start_cron may come before init, and again: each time comes once."""
    runner = make_runner()
    runner.start_cron()
    runner.init([Script(script=AT, cron=EVERY_SECOND)])
    runner.start_cron()
    lines.wait_for("at", 2)
    runner.close()
    times = planned_times(lines)
    assert len(times) == len(set(times))


def test_close_right_after_start(make_runner: MakeRunner) -> None:
    """R2, S2: nothing is left; a later start is refused."""
    runner = make_runner(Script(script=AT, cron=EVERY_SECOND))
    runner.start_cron()
    runner.close()
    with pytest.raises(RunnerClosedError):
        runner.start_cron()


@pytest.mark.parametrize("attempt", range(20))
def test_start_and_close_race(make_runner: MakeRunner, attempt: int) -> None:
    """S1: in any order both return, and nothing is left."""
    runner = make_runner(Script(script=AT, cron=EVERY_SECOND))
    barrier = threading.Barrier(2)

    def start() -> None:
        barrier.wait()
        try:
            runner.start_cron()
        except RunnerClosedError:
            pass

    def close() -> None:
        barrier.wait()
        runner.close()

    starting, closing = Background(start), Background(close)
    starting.result()
    closing.result()


def test_close_cancels_scheduled_runs(make_runner: MakeRunner, lines: Lines) -> None:
    """S1: a scheduled run does not hold up close; runs() and cancel() reach it like any other."""
    done: list[RunResult] = []
    runner = make_runner(
        Script(script="echo up; exec sleep 60", cron=EVERY_SECOND, overlap=Overlap.ALLOW),
        on_complete=done.append,
    )
    runner.start_cron()
    lines.wait_for("up", 2)
    first = runner.runs()[0]
    assert first.stage is Stage.CRON
    assert runner.cancel(first.run_id)
    eventually(lambda: done)
    runner.close()
    assert len(done) >= 2
    assert {result.status for result in done} == {RunStatus.CANCELLED}


def test_a_skip_is_told_and_counted(
    make_runner: MakeRunner, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    """C4, M1: a time that passes without a run is a record and a count."""
    registry = CollectorRegistry()
    runner = make_runner(
        Script(name="long", script="echo up; exec sleep 60", cron=EVERY_SECOND),
        Script(name="tick", script="echo tick", cron=EVERY_SECOND),
    )
    runner.register_metrics(registry)
    runner.start_cron()
    lines.wait_for("up")
    lines.wait_for("tick", 3)
    runner.close()
    skipped = registry.get_sample_value("agent_scripts_cron_skipped_total", {"reason": "overlap"})
    told = [record for record in caplog.records if "its last run still runs" in record.message]
    assert skipped == len(told) > 0
    assert told[0].levelno == logging.WARNING
    assert 'schedule of script "long": 1 time skipped' in told[0].message


def test_a_run_that_waited_knows_its_time(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """C4, R5: a queued run is told when it was planned, not when it begins."""
    os.mkfifo(tmp_path / "go")
    hold = f"[ -e {tmp_path}/held ] || {{ touch {tmp_path}/held; read x <{tmp_path}/go; }}"
    script = Script(script=f"{AT}; {hold}", cron=EVERY_SECOND, overlap=Overlap.QUEUE)
    runner = make_runner(script)
    runner.start_cron()
    lines.wait_for("at")
    eventually(lambda: any("skipped" in record.getMessage() for record in caplog.records))
    (tmp_path / "go").write_text("\n")
    lines.wait_for("at", 2)
    runner.close()
    first, second, *_ = planned_times(lines)
    assert second - first == timedelta(seconds=1)


def test_what_fires_after_the_cancel_is_skipped(make_runner: MakeRunner) -> None:
    """C4: a time that comes when scheduled runs are cancelled, but the schedules have not stopped
    yet, is skipped as any of a runner that closes."""
    registry = CollectorRegistry()
    done: list[RunResult] = []
    runner = make_runner(Script(script="true", cron=EVERY_SECOND), on_complete=done.append)
    runner.register_metrics(registry)
    runner._calls.cancel_all([Stage.CRON])
    assert runner._context
    cron = CronRuns(runner._context, runner._calls, runner._slots, runner._schedules)
    cron.start()
    labels = {"reason": "closed"}
    eventually(lambda: registry.get_sample_value("agent_scripts_cron_skipped_total", labels))
    cron.close()
    assert done == []


def test_many_at_once(make_runner: MakeRunner, lines: Lines) -> None:
    """C3: what is due in the same second starts in one go."""
    scripts = [Script(name=f"s{n}", script=AT, cron=EVERY_SECOND) for n in range(100)]
    runner = make_runner(*scripts)
    runner.start_cron()
    lines.wait_for("at")
    first = planned_times(lines)[0]
    eventually(lambda: planned_times(lines).count(first) == 100)
    runner.close(timeout=0)


def test_execute_selects_scheduled_scripts(make_runner: MakeRunner, lines: Lines) -> None:
    """R3: Stage.CRON selects the scripts that have a schedule; no time was planned for them."""
    runner = make_runner(
        Script(script="echo cron $AGENTSCRIPTS_SCHEDULED_AT.", cron="0 0 0 1 1 *"), "echo other"
    )
    (result,) = runner.execute(Stage.CRON)
    assert result.stage is Stage.CRON
    assert lines.lines == ["cron ."]


def test_an_outer_plan_is_not_inherited(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: a runner inside a scheduled script does not pass that script's plan on."""
    monkeypatch.setenv("AGENTSCRIPTS_SCHEDULED_AT", "2026-01-01T00:00:00+00:00")
    make_runner("echo ${AGENTSCRIPTS_SCHEDULED_AT-none}").execute()
    assert lines.lines == ["none"]


@pytest.mark.parametrize(
    ("script", "options", "problem"),
    [
        (Script(script="true", name="a", cron="x"), {}, "cron is 'x' and has 1 field"),
        (Script(script="true", name="a", cron="0 0 * * *"), {"cron_syntax": CronSyntax.UNIX}, ""),
        (
            Script(script="true", name="a", cron="* 0 0 * * *"),
            {"cron_syntax": CronSyntax.UNIX},
            "cron is '* 0 0 * * *' and has 6 fields",
        ),
    ],
)
def test_validation(
    make_runner: MakeRunner, script: Script, options: dict[str, object], problem: str
) -> None:
    """R1, C1: a schedule that cannot be read is refused, with its field; init works then."""
    runner = make_runner(**options)
    if problem:
        with pytest.raises(InvalidScheduleError) as caught:
            runner.init([script])
        assert problem in str(caught.value)
        assert (caught.value.script, caught.value.field) == ("a", "cron")
        runner.init([Script(script="true")])
    else:
        runner.init([script])


def test_unknown_zone_of_the_machine(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1, C1: the machine's zone is read for a schedule that needs it, and then no script is
    blamed; init works then."""
    monkeypatch.setenv("TZ", "UTC0")
    named = Script(script="true", name="a", cron="TZ=UTC 0 0 3 * * *")
    runner = make_runner()
    with pytest.raises(ValueError, match=r"^TZ is 'UTC0', expected the name") as caught:
        runner.init([named, Script(script="true", name="b", cron="0 0 3 * * *")])
    assert not isinstance(caught.value, InvalidScriptError)
    assert not runner.data_dir.exists()
    runner.init([named])


def test_five_fields_are_warned_of(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """C1: five fields read with the second first are legal, and told with both readings."""
    make_runner(Script(script="true", name="night", cron="0 5 * * *"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert 'schedule of script "night"' in record.message
    assert "'0 5 * * * *'" in record.message
    assert "'0 0 5 * * *'" in record.message


def test_timezone(make_runner: MakeRunner, lines: Lines) -> None:
    """C1: hours count in Options.timezone."""
    zone = ZoneInfo("Asia/Kolkata")  # far from the machine's, and half an hour off
    now = datetime.now(zone)
    hours = f"{now.hour},{(now + timedelta(hours=1)).hour}"
    runner = make_runner(Script(script=AT, cron=f"* * {hours} * * *"), timezone=zone)
    runner.start_cron()
    lines.wait_for("at")
    runner.close()


def test_a_run_that_begins_while_the_runner_closes(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S1: close cancels a scheduled run also before its thread has come to it."""
    perform, close = CronRuns._perform, CronRuns.close
    begun, closed = threading.Event(), threading.Event()
    results: list[RunResult] = []

    def perform_late(self: CronRuns, dispatch: Dispatch) -> None:
        begun.set()
        assert closed.wait(PATIENCE)
        perform(self, dispatch)

    def close_first(self: CronRuns) -> None:
        close(self)
        closed.set()

    monkeypatch.setattr(CronRuns, "_perform", perform_late)
    monkeypatch.setattr(CronRuns, "close", close_first)
    script = Script(script="exec sleep 600", cron=EVERY_SECOND)
    runner = make_runner(script, on_complete=results.append)
    runner.start_cron()
    assert begun.wait(PATIENCE)
    Background(runner.close).result()
    assert {one.status for one in results} == {RunStatus.CANCELLED}


def test_no_thread_for_a_run(make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """R3: S1: a scheduled run that gets no thread is not started; close does not wait for it."""
    start = OwnThread.start
    results: list[RunResult] = []

    def start_others(self: OwnThread) -> None:
        if self.name == "agentscripts-cron-runs":
            raise OSError(errno.EAGAIN, "no thread can be started")
        start(self)

    monkeypatch.setattr(OwnThread, "start", start_others)
    runner = make_runner(Script(script="true", cron=EVERY_SECOND), on_complete=results.append)
    runner.start_cron()
    eventually(lambda: results)
    Background(runner.close).result()
    assert {one.status for one in results} == {RunStatus.NOT_STARTED}
    assert "no thread can be started" in results[0].reason


def test_each_missed_time_counts(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C4: the metric grows by as many as the log record tells."""
    now, jump = SystemClock.now, timedelta()
    monkeypatch.setattr(SystemClock, "now", lambda clock: now(clock) + jump)
    results: list[RunResult] = []
    registry = CollectorRegistry()
    runner = make_runner(Script(script="true", cron=EVERY_SECOND), on_complete=results.append)
    runner.register_metrics(registry)
    runner.start_cron()
    jump = timedelta(hours=1)
    eventually(lambda: "(missed)" in caplog.text and results)
    runner.close()
    (record,) = (one.message for one in caplog.records if "(missed)" in one.message)
    count = registry.get_sample_value("agent_scripts_cron_skipped_total", {"reason": "missed"})
    assert count is not None
    assert count > 3000
    assert f": {count:.0f} times skipped" in record


def test_jitter(make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: a script starts up to its jitter late, and knows when it was planned."""
    monkeypatch.setattr("agentscripts._cronruns.random.random", lambda: 0.999)
    results: list[RunResult] = []
    script = Script(script=AT, cron=EVERY_SECOND, jitter=0.4)
    runner = make_runner(script, on_complete=results.append)
    runner.start_cron()
    eventually(lambda: results)
    runner.close()
    late = results[0].started_at - planned_times(lines)[0]
    assert late >= timedelta(seconds=0.39)
