"""X1: the agent's own log never holds a script's text or environment."""

from __future__ import annotations

import logging

import pytest
from conftest import MakeRunner
from support import Background, Lines, eventually, processes_with

from agentscripts import InvalidScriptError, LogBatch, RunStatus, Script, _calls

SECRET = "hunter2"

ENDS = {
    "well": f"echo {SECRET} >/dev/null",
    "badly": f"true {SECRET}; exit 3",
    "by a signal": f"true {SECRET}; kill -9 $$",
    "by its timeout": f"true {SECRET}; while :; do sleep 0.01; done",
    "with open pipes": f"(sleep 2; true {SECRET}) & true",
    "without an interpreter": f"#!/no/such\ntrue {SECRET}",
    "with bad quotes": f'#!/bin/sh "{SECRET}\ntrue',
    "with a command that is missing": f"no-such-command {SECRET}",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_a_run(make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, how: str) -> None:
    """X1: whichever way a run ends."""
    caplog.set_level(logging.DEBUG)

    def fail(batch: LogBatch) -> None:
        raise LookupError("a logger that fails")

    runner = make_runner(
        Script(script=ENDS[how], name="one", timeout=1, env={"TOKEN": SECRET}),
        env={"KEY": SECRET},
        wait_delay=0.05,
        kill_delay=0.1,
        get_script_logger=lambda _: Lines(fail),
    )
    (result,) = runner.execute(check=False)
    assert (how == "with open pipes") == (result.status is RunStatus.PIPES_OPEN)
    assert caplog.records
    assert SECRET not in caplog.text
    mark = f"CODER_SCRIPT_BIN_DIR={runner.script_bin_dir}"
    eventually(lambda: not processes_with(mark), "the background process has ended")


def test_what_close_waits_for(
    make_runner: MakeRunner,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """X1, S1: the command that close names is not the script's text."""
    monkeypatch.setattr(_calls, "_REMIND", 0.01)
    caplog.set_level(logging.DEBUG)
    script = Script(script=f"true {SECRET}; echo up; while :; do sleep 0.01; done", name="one")
    runner = make_runner(script)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    close = Background(runner.close)
    eventually(lambda: "close waits" in caplog.text, "close says so")
    runner.cancel(runner.runs()[0].run_id)
    close.result()
    call.result()
    assert "/bin/sh" in caplog.text
    assert SECRET not in caplog.text


def test_texts_of_values_and_errors(make_runner: MakeRunner) -> None:
    """X1: neither the errors' texts nor repr() hold text or environment."""
    script = Script(script=f"true {SECRET}; exit 3", name="one", env={"TOKEN": SECRET})
    runner = make_runner(script, env={"KEY": SECRET})
    (result,) = runner.execute(check=False)
    assert SECRET not in f"{script!r} {result!r} {result.error} {result.error!r} {runner!r}"


@pytest.mark.parametrize(
    "script",
    [
        Script(script=f"{SECRET}\0", name="bad"),
        Script(script="true", name="bad", env={"TOKEN": f"{SECRET}\0"}),
        Script(script=f"{SECRET}\ud800", name="bad"),
    ],
)
def test_a_refused_script(make_runner: MakeRunner, script: Script) -> None:
    """X1: an agent logs the error of init, so it quotes neither."""
    with pytest.raises(InvalidScriptError) as caught:
        make_runner().init([script])
    assert SECRET not in f"{caught.value} {caught.value!r}"
