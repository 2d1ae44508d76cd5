"""The command as process 1, in a pid namespace of its own."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
from pathlib import Path

import pytest
from commandline import Running, wait_for
from support import children, eventually, state_of

pytestmark = pytest.mark.slow  # each starts a Python

_UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
_RUNNING = "agentscripts: running "
_STOP = """
[[script]]
name = "stop"
run_on_stop = true
script = "echo stopping; exit 3"
"""


@functools.cache
def _before() -> tuple[str, ...] | str:
    """Return what makes a namespace, or why nothing does."""
    why = ""
    for wrapper in (_UNSHARE, (*_UNSHARE, "--user", "--map-root-user")):
        try:
            done = subprocess.run([*wrapper, "true"], capture_output=True, text=True)
        except FileNotFoundError:
            return "there is no unshare(1)"
        if done.returncode == 0:
            return wrapper
        why = done.stderr.strip()
    return f"no pid namespace: {why}"


@pytest.fixture
def before() -> tuple[str, ...]:
    """What makes a process 1 of the command."""
    found = _before()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def _process_1(process: Running) -> int:
    (pid,) = eventually(lambda: children(process.pid), "unshare has forked")
    return pid


def _script(script: str, *more: str) -> str:
    fields = "\n".join(more or ("run_on_start = true",))
    return f"[[script]]\nname = 'a'\n{fields}\nscript = '''{script}'''\n"


def test_orphans_are_reaped(tmp_path: Path, before: tuple[str, ...]) -> None:
    """Process 1: what a script leaves is adopted, and no zombie stays when it ends."""
    os.mkfifo(tmp_path / "go")
    # A writer that stays: no orphan waits in vain, however late it comes.
    go = os.open(tmp_path / "go", os.O_RDWR | os.O_CLOEXEC)
    orphan = "for i in 1 2 3; do (setsid sh -c 'read -r x <go' >log 2>&1 &); done; echo left"
    with Running(tmp_path, _script(orphan), "--cron", before=before) as process:
        wait_for(process.stdout, "a | left")
        wait_for(process.stderr, _RUNNING)
        reaper = _process_1(process)
        assert len(eventually(lambda: len(children(reaper)) >= 4 and children(reaper))) == 4
        os.write(go, b"\n\n\n")
        (agent,) = eventually(lambda: len(children(reaper)) == 1 and children(reaper), "reaped")
        assert state_of(agent) not in ("", "Z")
        os.kill(reaper, signal.SIGTERM)
        assert process.finish()[0] == 143
    os.close(go)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)]
)
def test_signals_reach_the_agent(
    tmp_path: Path, before: tuple[str, ...], number: signal.Signals, status: int
) -> None:
    """Process 1: a signal runs the stop scripts, and the agent's exit status is passed on."""
    with Running(tmp_path, _STOP, "--cron", before=before) as process:
        wait_for(process.stderr, _RUNNING)
        os.kill(_process_1(process), number)
        found, stdout, _ = process.finish()
    assert (found, stdout) == (status, "stop | stopping\n")


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 1)])
def test_exit_status(tmp_path: Path, before: tuple[str, ...], script: str, status: int) -> None:
    """Process 1: without --cron it ends with its start scripts, and with their status."""
    with Running(tmp_path, _script(script), before=before) as process:
        assert process.finish()[0] == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
def test_death_by_signal(tmp_path: Path, before: tuple[str, ...], number: signal.Signals) -> None:
    """Process 1: an agent that dies by a signal is 128 and its number; SIGUSR1 is forwarded."""
    with Running(tmp_path, _STOP, "--cron", before=before) as process:
        wait_for(process.stderr, _RUNNING)
        reaper = _process_1(process)
        (agent,) = children(reaper)
        os.kill(agent if number == signal.SIGKILL else reaper, number)
        assert process.finish()[0] == 128 + number


def test_agent_is_no_process_1(tmp_path: Path, before: tuple[str, ...]) -> None:
    """Process 1: scripts run below an agent that has a group of its own and default signals."""
    # A thread that starts a script blocks all signals until it sees that the exec is over.
    script = (
        "echo $PPID;"
        "until grep -q 'SigBlk:[[:space:]]*0*$' /proc/$PPID/status; do sleep 0.01; done;"
        "set -- $(cat /proc/$PPID/stat); echo $5"
    )
    with Running(tmp_path, _script(script), before=before) as process:
        agent = int(wait_for(process.stdout, "a | "))
        assert agent != 1
        assert int(wait_for(process.stdout, "a | ")) == agent
        assert process.finish()[0] == 0


def test_fork_comes_first(tmp_path: Path, before: tuple[str, ...]) -> None:
    """Process 1: it waits for signals before the command is imported; until then they are lost."""
    with Running(tmp_path, _STOP, "--cron", before=before) as process:
        wait_for(process.stderr, _RUNNING)
        reaper = _process_1(process)
        (agent,) = children(reaper)
        assert "pydantic_core" in Path(f"/proc/{agent}/maps").read_text()
        assert "pydantic_core" not in Path(f"/proc/{reaper}/maps").read_text()
        os.kill(reaper, signal.SIGTERM)
        assert process.finish()[0] == 143


def test_mistake(tmp_path: Path, before: tuple[str, ...]) -> None:
    """Process 1: a mistake in the manifest is told once, with status 2."""
    with Running(tmp_path, "[[script]]\n", "--cron", before=before) as process:
        status, stdout, stderr = process.finish()
    assert (status, stdout, stderr.count("\n")) == (2, "", 1)
