"""Scripts that wait for each other, through the runner."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from pathlib import Path
from uuid import UUID

import pytest
from conftest import MakeRunner
from support import Background, Lines, eventually

import agentscripts._dispatch
import agentscripts._execution
from agentscripts import (
    CancelToken,
    Dependency,
    ExecuteError,
    LogBatch,
    LogLevel,
    Requires,
    Runner,
    RunResult,
    RunStatus,
    Script,
    ScriptLogger,
    ScriptNotStartedError,
    ShellCommandFactory,
    Stage,
)
from agentscripts._dispatch import Dispatch
from agentscripts._execution import Execution

OK, SKIPPED, CANCELLED = RunStatus.SUCCEEDED, RunStatus.SKIPPED, RunStatus.CANCELLED


def script(name: str, text: str, *on: str, **fields: object) -> Script:
    return Script(name=name, script=text, depends_on=tuple(map(Dependency, on)), **fields)  # type: ignore[arg-type]


def anyhow(name: str, text: str, on: str) -> Script:
    return Script(name=name, script=text, depends_on=(Dependency(on, Requires.COMPLETION),))


def named(*names: str):  # type: ignore[no-untyped-def]
    return lambda script: script.name in names


def statuses(results: list[RunResult]) -> dict[str, RunStatus]:
    return {one.script.name: one.status for one in results}


def test_one_after_the_other(make_runner: MakeRunner, tmp_path: Path) -> None:
    """D1: a script starts when its dependencies have ended; results are in script order."""
    out = tmp_path / "out"
    runner = make_runner(
        script("last", f"echo last >> {out}", "left", "right"),
        script("left", f"echo middle >> {out}", "first"),
        script("right", f"echo middle >> {out}", "first"),
        script("first", f"sleep 0.1; echo first >> {out}"),
    )
    results = runner.execute()
    assert list(statuses(results)) == ["last", "left", "right", "first"]
    assert out.read_text().split() == ["first", "middle", "middle", "last"]


def test_the_end_of_the_process_counts(make_runner: MakeRunner) -> None:
    """D1: a dependent does not wait until the lines of its dependency are delivered."""
    dependent = threading.Event()
    in_time: list[bool] = []

    def on_send(batch: LogBatch) -> None:
        if batch.lines == ["slow"]:
            in_time.append(dependent.wait(30))
        else:
            dependent.set()

    runner = make_runner(
        script("a", "echo slow"),
        script("b", "echo quick", "a"),
        get_script_logger=lambda _: Lines(on_send),
        stall_timeout=None,
        flush_timeout=None,
    )
    assert set(statuses(runner.execute()).values()) == {OK}
    assert in_time == [True]


def test_skipped(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D1: R7: a skip and its reason are in the result, both logs, and on_complete."""
    reports: list[RunResult] = []
    runner = make_runner(
        script("a", "exit 3"),
        script("b", f"touch {tmp_path}/b", "a"),
        script("c", f"touch {tmp_path}/c", "b"),
        anyhow("d", f"touch {tmp_path}/d", "b"),
        on_complete=reports.append,
    )
    results = runner.execute(check=False)
    assert statuses(results) == {"a": RunStatus.FAILED, "b": SKIPPED, "c": SKIPPED, "d": OK}
    assert sorted(one.name for one in tmp_path.iterdir() if len(one.name) == 1) == ["d"]
    b, c = results[1:3]
    assert (b.reason, c.reason) == ('dependency "a" failed', 'dependency "b" was skipped')
    assert (b.exit_code, b.attempts, b.duration, b.ok) == (None, 0, 0, False)
    assert b.started_at == b.ended_at
    assert isinstance(b.error, ScriptNotStartedError)
    assert str(b.error) == 'run agent script "b": dependency "a" failed'
    said = 'agentscripts: not started: dependency "a" failed'
    assert b.log_path == tmp_path / "logs" / f"coder-script-{b.script.log_source_id}.log"
    assert b.log_path.read_text() == f"{said}\n"
    (batch,) = [one for one in lines.batches if said in one.lines]
    assert batch.level is LogLevel.WARN
    assert batch.log_source_id == b.script.log_source_id
    assert {one.script.name for one in reports} == {"a", "b", "c", "d"}
    assert 'run agent script "b": dependency "a" failed (skipped after 0.000 s)' in caplog.text


def test_what_is_raised(make_runner: MakeRunner) -> None:
    """D1: a skip whose cause is in the same call is no failure of its own."""
    runner = make_runner(script("a", "exit 3"), script("b", "true", "a"), script("c", "true", "b"))
    with pytest.raises(ExecuteError) as caught:
        runner.execute()
    assert [one.result.script.name for one in caught.value.exceptions] == ["a"]
    assert [one.script.name for one in caught.value.results] == ["a", "b", "c"]
    with pytest.raises(ExecuteError) as caught:
        runner.execute(named("b", "c"))
    assert [one.result.script.name for one in caught.value.exceptions] == ["b"]


def test_skips_need_no_slot(make_runner: MakeRunner, lines: Lines) -> None:
    """D1: R3: a skip is reported although max_parallel lets nothing start."""
    reported = threading.Event()

    def on_complete(result: RunResult) -> None:
        if result.status is SKIPPED:
            reported.set()

    runner = make_runner(
        script("bad", "exit 1"),
        script("long", "echo up; exec sleep 60"),
        script("next", "true"),
        script("after", "true", "bad"),
        max_parallel=1,
        on_complete=on_complete,
    )
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    assert reported.wait(30)
    runner.close(timeout=0)
    assert statuses(call.result())["after"] is SKIPPED


def test_a_skip_in_another_call_needs_no_slot(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """D2: R3: also where a run of another call was waited for, and no worker is there."""
    go = tmp_path / "go"
    os.mkfifo(go)
    runner = make_runner(
        script("long", "echo up; exec sleep 60"),
        script("bad", f"echo up; read go <{go}; exit 1", run_on_stop=True),
        script("after", "true", "bad"),
        max_parallel=1,
    )
    long = Background(lambda: runner.execute(named("long"), check=False))
    lines.wait_for("up")
    bad = Background(lambda: runner.execute(Stage.STOP, check=False))
    lines.wait_for("up", 2)
    after = Background(lambda: runner.execute(named("after"), check=False))
    eventually(lambda: any(run.waits_for == ("bad",) for run in runner.runs()))
    go.write_text("\n")
    assert statuses(after.result()) == {"after": SKIPPED}
    assert statuses(bad.result()) == {"bad": RunStatus.FAILED}
    runner.close(timeout=0)
    assert statuses(long.result()) == {"long": CANCELLED}


def test_a_skip_gives_no_slot(make_runner: MakeRunner, tmp_path: Path) -> None:
    """D1: R3: it had none, so max_parallel still holds afterwards."""
    trace = tmp_path / "trace"
    text = f"echo + >>{trace}; sleep 0.02; echo - >>{trace}"
    others = [script(f"other {number}", text) for number in range(6)]
    runner = make_runner(
        script("bad", "exit 1"), script("after", "true", "bad"), *others, max_parallel=1
    )
    assert statuses(runner.execute(named("bad", "after"), check=False))["after"] is SKIPPED
    runner.execute(lambda one: one in others)
    assert trace.read_text().split() == ["+", "-"] * 6


def test_a_skip_whose_logger_is_stuck(make_runner: MakeRunner) -> None:
    """D1: L6: its line has flush_timeout to be taken."""
    over = threading.Event()
    runner = make_runner(
        script("a", "exit 1"),
        script("b", "true", "a"),
        get_script_logger=lambda _: Lines(lambda batch: over.wait(60)),
        flush_timeout=0.1,
    )
    call = Background(lambda: runner.execute(check=False))
    assert statuses(call.result())["b"] is SKIPPED
    over.set()


def test_a_skip_whose_log_cannot_be_written(make_runner: MakeRunner, tmp_path: Path) -> None:
    """D1: L2: its result has the error."""
    runner = make_runner(
        script("a", "exit 1"), script("b", "touch touched", "a", log_path=str(tmp_path))
    )
    _, skipped = runner.execute(check=False)
    assert skipped.status is SKIPPED
    assert skipped.log_error is not None
    assert skipped.log_error.errno == errno.EISDIR


def test_outside(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """D2: a dependency in another call is waited for; later its last result counts."""
    runner = make_runner(
        script("a", f"echo up; until [ -e {tmp_path}/go ]; do sleep 0.01; done; exit 4"),
        script("b", "true", "a"),
        anyhow("c", "true", "a"),
    )
    runner.execute(named("c"))
    assert 'script "c" depends on "a", which has not run' in caplog.text
    first = Background(lambda: runner.execute(named("a"), check=False))
    lines.wait_for("up")
    second = Background(lambda: runner.execute(named("b", "c"), check=False))
    waiting = eventually(lambda: {run.script.name: run.waits_for for run in runner.runs()})
    eventually(lambda: len(runner.runs()) == 3)
    waiting = {run.script.name: run.waits_for for run in runner.runs()}
    assert waiting == {"a": (), "b": ("a",), "c": ("a",)}
    (tmp_path / "go").touch()
    assert statuses(second.result()) == {"b": SKIPPED, "c": OK}
    assert statuses(first.result()) == {"a": RunStatus.FAILED}
    assert statuses(runner.execute(named("b"), check=False)) == {"b": SKIPPED}


def test_a_lone_script_waits(make_runner: MakeRunner, lines: Lines, tmp_path: Path) -> None:
    """D2: also where the whole call is one script."""
    wait = f"echo up; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    runner = make_runner(script("a", wait), script("b", f"[ -e {tmp_path}/go ]", "a"))
    first = Background(lambda: runner.execute(named("a")))
    lines.wait_for("up")
    second = Background(lambda: runner.execute(named("b")))
    eventually(lambda: len(runner.runs()) == 2)
    (tmp_path / "go").touch()
    assert statuses(second.result()) == {"b": OK}
    first.result()


def test_stop_looks_inside_only(make_runner: MakeRunner, lines: Lines) -> None:
    """D3: stop scripts run whatever became of the start scripts, in their own order."""
    runner = make_runner(
        script("start", "exit 1", run_on_start=True),
        script("long", "echo up; exec sleep 60"),
        script("save", "echo save", "start", "long", run_on_stop=True),
        script("bye", "echo bye", "save", run_on_stop=True),
    )
    runner.execute(Stage.START, check=False)
    call = Background(lambda: runner.execute(named("long"), check=False))
    lines.wait_for("up")
    assert statuses(runner.execute(Stage.STOP)) == {"save": OK, "bye": OK}
    assert [line for line in lines.lines if line in ("save", "bye")] == ["save", "bye"]
    runner.close(timeout=0)
    call.result()


def test_each_stop_script_has_its_result(make_runner: MakeRunner) -> None:
    """D3: also one that never ran."""
    runner = make_runner(
        script("gone", "#!/no/such/interpreter\n", run_on_stop=True),
        script("after", "true", "gone", run_on_stop=True),
        script("other", "true", run_on_stop=True),
    )
    results = runner.execute(Stage.STOP, check=False)
    assert statuses(results) == {"gone": RunStatus.NOT_STARTED, "after": SKIPPED, "other": OK}
    token = CancelToken()
    token.cancel()
    results = runner.execute(Stage.STOP, check=False, cancel=token)
    assert set(statuses(results).values()) == {CANCELLED}


@pytest.mark.parametrize("how", ["token", "run", "timeout", "close", "before"])
def test_ended_while_it_waits(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, how: str
) -> None:
    """K1: what waits for a dependency is cancelled at once and never started."""
    runner = make_runner(
        script("a", "echo up; exec sleep 60"),
        script("b", f"touch {tmp_path}/b", "a"),
        script("c", f"touch {tmp_path}/c", "b"),
    )
    token = CancelToken()
    if how == "before":
        token.cancel()
    timeout = 1.0 if how == "timeout" else None
    call = Background(lambda: runner.execute(cancel=token, timeout=timeout, check=False))
    if how not in ("timeout", "before"):
        lines.wait_for("up")
    runs = {one.script.name: one.run_id for one in runner.runs()}
    if how == "token":
        token.cancel()
    elif how == "run":
        assert runner.cancel(runs["b"])
        eventually(lambda: "c" not in {one.script.name for one in runner.runs()})
        assert runner.cancel(runs["a"])
    elif how == "close":
        runner.close(timeout=0)
    found = statuses(call.result())
    assert found.pop("a") is (RunStatus.TIMED_OUT if how == "timeout" else CANCELLED)
    assert found == {"b": CANCELLED, "c": SKIPPED if how == "run" else CANCELLED}
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "c").exists()


@pytest.fixture
def a_ends_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel of several runs goes on from the script ``a`` when that one has ended."""
    usual = Execution.cancel

    def cancel(self: Execution, *, kill: bool = False) -> None:
        usual(self, kill=kill)
        if self.script.name == "a":
            eventually(lambda: self.result is not None)

    monkeypatch.setattr(Execution, "cancel", cancel)


@pytest.mark.usefixtures("a_ends_first")
def test_a_cancel_skips_nothing(make_runner: MakeRunner, lines: Lines) -> None:
    """K1: also where a dependency's process is gone before the cancel has reached its dependent."""
    runner = make_runner(script("a", "echo up; exec sleep 60"), script("b", "true", "a"))
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    runner.close(timeout=0)
    assert statuses(call.result()) == {"a": CANCELLED, "b": CANCELLED}


@pytest.mark.usefixtures("a_ends_first")
def test_an_interrupt_while_scripts_wait(make_runner: MakeRunner, lines: Lines) -> None:
    """R8: KeyboardInterrupt cancels those that wait, too."""
    runner = make_runner(script("a", "echo up; exec sleep 60"), script("b", "true", "a"))
    reports: list[RunResult] = []
    runner2: Runner = make_runner()
    runner2.init(runner.scripts, on_complete=reports.append)

    def interrupt() -> None:
        lines.wait_for("up")
        os.kill(os.getpid(), signal.SIGINT)

    other = Background(interrupt)
    with pytest.raises(KeyboardInterrupt):
        runner2.execute()
    other.result()
    assert statuses(reports) == {"a": CANCELLED, "b": CANCELLED}


def test_reminders(make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """D4: a script that waits says for what, in its log, and the run's lines follow there."""
    monkeypatch.setattr(agentscripts._dispatch, "_REMIND", 0.05)
    go = threading.Event()
    runner = make_runner(
        script("a", "true"),
        script("b", "echo b", "a"),
        command_factory=_Blocking(go),
    )
    began = time.monotonic()
    call = Background(lambda: runner.execute())
    lines.wait_for('agentscripts: waits for "a"', 2)
    go.set()
    _, b = call.result()
    assert b.log_path is not None
    *reminders, last = b.log_path.read_text().splitlines()
    assert 2 <= len(reminders) <= (time.monotonic() - began) / 0.05
    assert set(reminders) == {'agentscripts: waits for "a"'}
    assert last == "b"


def test_a_reminder_of_many(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: ten are named, and how many more there are."""
    monkeypatch.setattr(agentscripts._dispatch, "_REMIND", 0.05)
    names = [f"a{number}" for number in range(12)]
    runner = make_runner(
        *[script(name, "exec sleep 60") for name in names], script("b", "true", *names)
    )
    call = Background(lambda: runner.execute(check=False))
    said = lines.wait_for("agentscripts: waits for")
    runner.close(timeout=0)
    call.result()
    named = ", ".join(f'"{name}"' for name in names[:10])
    assert said == f"agentscripts: waits for {named} and 2 more"


class _Blocking:
    """Makes commands as usual, the one for ``a`` when it may."""

    def __init__(self, go: threading.Event) -> None:
        self._go = go
        self._usual = ShellCommandFactory("/bin/sh")

    def create_command(self, script: Script, env):  # type: ignore[no-untyped-def]
        if script.name == "a":
            assert self._go.wait(30)
        return self._usual.create_command(script, env)


def test_long_chain(make_runner: MakeRunner) -> None:
    """D1: 300 in one chain, without a thread for each."""
    names = [str(number) for number in range(300)]
    chain = [script(name, "true", *names[int(name) - 1 : int(name)]) for name in names]
    most = 0
    runner = make_runner(*chain)
    call = Background(lambda: runner.execute())
    while call.is_alive():
        most = max(most, sum(one.name == "agentscripts-run" for one in threading.enumerate()))
        call.join(0.01)
    assert set(statuses(call.result()).values()) == {OK}
    assert most <= 10


@pytest.mark.slow
@pytest.mark.parametrize("wide", [False, True], ids=["chain", "star"])
def test_two_thousand(make_runner: MakeRunner, wide: bool) -> None:
    """D1: 2,000 in one chain, and 2,000 that depend on one."""
    names = [str(number) for number in range(2000)]
    scripts = [
        script(name, "true", *([] if name == "0" else ["0" if wide else str(int(name) - 1)]))
        for name in names
    ]
    results = make_runner(*scripts).execute()
    assert set(statuses(results).values()) == {OK}


def test_two_thousand_skips(make_runner: MakeRunner) -> None:
    """D1: a failure at the head of a chain of 2,000 ends the call; nothing else is started."""
    names = [str(number) for number in range(2000)]
    chain = [script(name, "exit 1", *names[int(name) - 1 : int(name)]) for name in names]
    results = make_runner(*chain).execute(check=False)
    assert [one.status for one in results] == [RunStatus.FAILED] + [SKIPPED] * 1999


def test_schedules_wait_too(make_runner: MakeRunner) -> None:
    """D2: a scheduled script is skipped while the last result of its dependency is a failure."""
    done: list[RunResult] = []
    reported = threading.Event()

    def on_complete(result: RunResult) -> None:
        done.append(result)
        if result.stage is Stage.CRON:
            reported.set()

    runner = make_runner(
        script("a", "exit 1", run_on_start=True),
        script("b", "true", "a", cron="* * * * * *"),
        on_complete=on_complete,
    )
    runner.execute(Stage.START, check=False)
    runner.start_cron()
    assert reported.wait(30)
    (first,) = [one for one in done if one.stage is Stage.CRON][:1]
    assert (first.status, first.reason) == (SKIPPED, 'dependency "a" failed')


def test_a_reminder_holds_up_nothing(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """D4: D1: a script starts while its logger is still busy with a reminder."""
    monkeypatch.setattr(agentscripts._dispatch, "_REMIND", 0.05)
    monkeypatch.setattr(agentscripts._execution, "_REMINDER", 60.0)
    go = threading.Event()
    started: list[bool] = []

    def on_send(batch: LogBatch) -> None:
        if "waits for" in batch.lines[0]:
            go.set()
            started.append(bool(eventually((tmp_path / "b").exists)))

    runner = make_runner(
        script("a", "true"),
        script("b", f"touch {tmp_path}/b", "a"),
        command_factory=_Blocking(go),
        get_script_logger=lambda _: Lines(on_send),
    )
    assert set(statuses(Background(runner.execute).result(60)).values()) == {OK}
    assert started == [True]


def test_skips_hold_up_nothing(make_runner: MakeRunner, tmp_path: Path) -> None:
    """D1: however many skips the logger is busy with, the others start."""
    go = threading.Event()
    most = 4 * (os.cpu_count() or 1)

    def on_send(batch: LogBatch) -> None:
        if "not started" in batch.lines[0]:
            go.wait()

    runner = make_runner(
        script("a", "exit 1"),
        *(script(f"s{number}", "true", "a") for number in range(most)),
        anyhow("z", f"touch {tmp_path}/z", "a"),
        get_script_logger=lambda _: Lines(on_send),
        flush_timeout=None,
    )
    gate, permits = runner._context.gate, os.cpu_count() or 1  # type: ignore[union-attr]

    def all_free() -> bool:
        taken = [gate.acquire(0) for _ in range(permits)]
        for _ in filter(None, taken):
            gate.release()
        return all(taken)

    call = Background(lambda: runner.execute(check=False))
    try:
        eventually((tmp_path / "z").exists)
        eventually(all_free)
    finally:
        go.set()
    call.result()


@pytest.mark.usefixtures("a_ends_first")
def test_close_starts_nothing_in_other_calls(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """K1: also where a dependency is gone before the cancel has reached the calls that wait."""
    runner = make_runner(
        script("a", "echo up; exec sleep 60"),
        script("b", "true", "a"),
        anyhow("c", f"touch {tmp_path}/c", "a"),
    )
    first = Background(lambda: runner.execute(named("a"), check=False))
    lines.wait_for("up")
    others = [Background(lambda: runner.execute(named("b", "c"), check=False)) for _ in range(6)]
    eventually(lambda: len(runner.runs()) == 13)
    runner.close(timeout=0)
    assert statuses(first.result()) == {"a": CANCELLED}
    for call in others:
        assert statuses(call.result()) == {"b": CANCELLED, "c": CANCELLED}
    assert not (tmp_path / "c").exists()


def test_a_dependency_ends_after_the_deadline(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """K1: those that waited at the call's deadline are cancelled, also where the script that they
    waited for is gone before the call's thread has looked."""
    usual = Dispatch._wait

    def wait(self: Dispatch) -> None:
        usual(self)
        eventually(lambda: any(one.result for one in self.executions))

    monkeypatch.setattr(Dispatch, "_wait", wait)
    runner = make_runner(
        script("a", "exec sleep 60"), script("b", "true", "a"), anyhow("c", "true", "a")
    )
    results = runner.execute(timeout=0.5, check=False)
    assert statuses(results) == {"a": RunStatus.TIMED_OUT, "b": CANCELLED, "c": CANCELLED}


@pytest.mark.slow
def test_a_stuck_logger_costs_no_thread_per_reminder(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """D4: S2: threads that wait for a logger which is stuck with a reminder do not pile up."""
    monkeypatch.setattr(agentscripts._dispatch, "_REMIND", 0.01)
    monkeypatch.setattr(agentscripts._execution, "_REMINDER", 0.02)
    go, stuck = threading.Event(), threading.Event()
    runner = make_runner(
        script("a", "true"),
        script("b", "true", "a", log_path=str(tmp_path / "b.log")),
        command_factory=_Blocking(go),
        get_script_logger=lambda _: Lines(lambda batch: stuck.wait(30)),
        flush_timeout=0.01,
    )
    call = Background(lambda: runner.execute(check=False))
    log = tmp_path / "b.log"
    eventually(lambda: log.exists() and log.read_text().count("waits for") >= 20)
    delivering = [one for one in threading.enumerate() if one.name == "agentscripts-delivery"]
    go.set()
    call.result()
    stuck.set()
    assert len(delivering) < 10, "one is stuck, and some may wait in the pool"


def test_a_reminder_that_comes_too_late(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """D4: a run that waits no longer when its reminder has its log says nothing."""
    monkeypatch.setattr(agentscripts._dispatch, "_REMIND", 0.05)
    go = threading.Event()

    def no_longer(self: Dispatch, execution: Execution) -> str:
        go.set()
        return ""

    monkeypatch.setattr(Dispatch, "_reminder_of", no_longer)
    runner = make_runner(
        script("a", "true"), script("b", "echo b", "a"), command_factory=_Blocking(go)
    )
    runner.execute()
    assert lines.lines == ["b"]


def test_a_skip_whose_logger_cannot_be_had(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """D1: the log file says why all the same, and the agent's log what is wrong."""

    def refuse(log_source_id: UUID) -> ScriptLogger:
        raise ValueError("no logger")

    runner = make_runner(
        Script(script="true", name="a"),
        Script(script="true", name="b", depends_on=(Dependency("a"),)),
        get_script_logger=refuse,
    )
    skipped = runner.execute(check=False)[1]
    assert skipped.log_path is not None
    assert skipped.log_path.read_text() == (
        'agentscripts: not started: dependency "a" was not started\n'
    )
    assert 'logger of script "b" cannot be had: no logger' in caplog.text
    assert "cannot be written" not in caplog.text
