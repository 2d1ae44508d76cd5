"""Trees of all kinds are ended at any moment; what is not theirs is left alone."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from conftest import RunScript
from support import Lines

from agentscripts import RunStatus, Script

RACES: Final = Path(__file__).parent / "races"
FEW: Final = 1500  # numbers for processes: those from 300 on are used again and again

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that makes a tree."""
    program = tmp_path_factory.mktemp("races") / "tree"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread"]
    subprocess.run(["gcc", *flags, "-o", program, RACES / "tree.c"], check=True)
    return program


def end_trees(*arguments: str) -> None:
    """Run a number of trees; fail with what was wrong."""
    done = subprocess.run(
        [sys.executable, RACES / "races.py", "--trees", "60", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    print(report)
    assert report.pop("problems") == []
    assert report.get("given up after a second", 0) <= 3
    assert report["bystanders"] > 100
    assert report["peaceful succeeded"] == 10
    assert report["tree timed_out"] > 10
    assert report["tree cancelled"] > 10


def test_no_process_survives_and_no_other_is_harmed() -> None:
    """K1, K2, K3: trees that time out or are cancelled while they grow."""
    end_trees()


def why_not_few_numbers() -> str:
    """Return why there can be no pid namespace with few numbers here, ``""`` if there can."""
    release = platform.release()
    if tuple(int(part) for part in release.split(".")[:2]) < (6, 14):
        return f"kernel.pid_max is the whole machine's on Linux {release}"
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    setting = f"echo {FEW} > /proc/sys/kernel/pid_max"
    command = ["unshare", *user, "--pid", "--fork", "--mount-proc", "/bin/sh", "-c", setting]
    done = subprocess.run(command, capture_output=True, text=True)
    return f"no pid namespace of its own: {done.stderr.strip()}" if done.returncode else ""


def test_numbers_that_are_used_again() -> None:
    """K2, K3: the number of a process that has ended soon names another one."""
    if reason := why_not_few_numbers():
        pytest.skip(reason)
    end_trees("--pid-max", str(FEW), "--seed", "100")


def threads_of(pid: str) -> set[str]:
    """Return the numbers of a process's threads."""
    try:
        return set(os.listdir(f"/proc/{pid}/task"))
    except (FileNotFoundError, ProcessLookupError):
        return set()


def test_a_process_whose_main_thread_has_ended(run: RunScript, lines: Lines, tree: Path) -> None:
    """K2: its environment reads empty, that of its other threads does not."""
    script = Script(script=f'exec {tree} /dev/null "(DsTio)i"', timeout=1.5)
    result = run(script, kill_delay=0.2)
    (pid,) = lines.lines
    assert result.status is RunStatus.TIMED_OUT
    assert threads_of(pid) <= {pid}  # its number may wait for its adopter
