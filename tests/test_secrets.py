"""X1: the agent's own log never holds a script's text or environment."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import pytest
from conftest import MakeRunner
from support import Background, Lines, eventually, processes_with

from agentscripts import (
    Command,
    CommandFactory,
    InvalidScriptError,
    LogBatch,
    RunStatus,
    Script,
    ShellCommandFactory,
    _calls,
)
from agentscripts._process import without_text

SECRET = "hunter2"
TEXT = f"PASSWORD={SECRET}; sleep 60"

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


class Bash:
    """A command factory that gives its shell options of its own."""

    def create_command(self, script: Script, env: Mapping[str, str]) -> Command:
        return Command(("bash", "-ce", script.script), env)


@pytest.mark.parametrize(
    ("factory", "command"),
    [(ShellCommandFactory("/bin/sh"), "/bin/sh -c …"), (Bash(), "bash …")],
)
def test_what_close_waits_for(
    make_runner: MakeRunner,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    factory: CommandFactory,
    command: str,
) -> None:
    """X1, S1: the command that close names is not the script's text."""
    monkeypatch.setattr(_calls, "_REMIND", 0.01)
    caplog.set_level(logging.DEBUG)
    script = Script(script=f"true {SECRET}; echo up; while :; do sleep 0.01; done", name="one")
    runner = make_runner(script, command_factory=factory)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    close = Background(runner.close)
    eventually(lambda: "close waits" in caplog.text, "close says so")
    runner.cancel(runner.runs()[0].run_id)
    close.result()
    call.result()
    assert f": {command} (pid" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["/bin/sh", "-c", TEXT], "/bin/sh -c …"),
        (["bash", "-ce", TEXT], "bash …"),
        (["bash", "-cx", TEXT], "bash …"),
        (["bash", "-ec", TEXT], "bash …"),
        (["bash", "-e", "-c", TEXT], "bash -e …"),
        (["bash", "-O", "extglob", "-c", TEXT], "bash -O …"),
        (["bash", "+ec", TEXT], "bash …"),
        (["bash", "--norc", "-c", TEXT], "bash --norc …"),
        (["perl", "-e", TEXT], "perl -e …"),
        (["perl", "-ne", TEXT], "perl …"),
        (["perl", f"-e{TEXT}"], "perl …"),
        (["mysql", "-pab"], "mysql …"),
        (["python3", f"-c{SECRET}"], "python3 …"),
        (["node", "-e", TEXT], "node -e …"),
        (["node", f"--eval={TEXT}"], "node --eval …"),
        (["ruby", "-e", TEXT], "ruby -e …"),
        (["php", "-r", TEXT], "php -r …"),
        (["fish", f"--command={SECRET}"], "fish --command …"),
        (["pwsh", "-Command", TEXT], "pwsh …"),
        (["env", f"PASSWORD={SECRET}", "bash", "script"], "env …"),
        (["awk", TEXT], "awk …"),
        (["deno", "eval", TEXT], "deno eval …"),
        (["timeout", "5", "sh", "-c", TEXT], "timeout 5 sh -c …"),
        (["sleep", "60"], "sleep 60"),
        (["python3.11", "/srv/a-b_c.py", "host:80"], "python3.11 /srv/a-b_c.py host:80"),
        (["nginx: master process nginx -g off"], "nginx: master process nginx -g off"),
    ],
)
def test_a_command(command: list[str], shown: str) -> None:
    """X1: of a command nothing is shown that may be a script's text."""
    assert " ".join(without_text(command)) == shown


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
