"""The examples, run as the README says."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # they are whole programs

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    """A copy of the examples, without what an earlier run left in them."""
    ignore = shutil.ignore_patterns(".workspace", "__pycache__")
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=ignore))


@pytest.fixture
def workspace(examples: Path) -> Iterator[Path]:
    """Where the workspace example puts things; its server is stopped at the end."""
    directory = examples / ".workspace"
    yield directory
    pid_file = directory / "server.pid"
    if pid_file.exists():
        with contextlib.suppress(ProcessLookupError):  # the test has stopped it
            pidfd = os.pidfd_open(int(pid_file.read_text()))
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            os.close(pidfd)


def run(*arguments: str | Path, state: Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_STATE_HOME": str(state)}
    argv = [sys.executable, *arguments]
    return subprocess.run(argv, env=env, cwd=state, capture_output=True, text=True)


def said(url: str) -> str:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as answer:
        return str(answer.read().decode())


def test_workspace(workspace: Path, tmp_path: Path) -> None:
    """K5, D1: the example succeeds twice, and its one server goes on running after each."""
    manifest = workspace.parent / "workspace.toml"
    command = ("-m", "agentscripts", "run", manifest)
    urls = []
    for _ in range(2):
        done = run(*command, state=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "test     | Ran 2 tests" in done.stdout
        assert done.stderr.endswith("6 scripts succeeded\n")
        url = (workspace / "server.url").read_text().strip()
        assert f"serve    | Serving at {url}\n" in done.stdout
        assert said(f"{url}you") == "Hello, you!\n"
        urls.append(url)
    assert urls[0] == urls[1]
    done = run("-m", "agentscripts", "run", "--stage", "stop", manifest, state=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Stopped" in done.stdout
    with pytest.raises(urllib.error.URLError):
        said(f"{urls[0]}you")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["examples"]


def test_agent(examples: Path, tmp_path: Path) -> None:
    """The agent runs its start scripts, goes on after a failure, and runs its stop script."""
    done = run(examples / "agent.py", state=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    work = lines.index("the agent's own work goes here")
    assert {" info | cloning", "error | no compiler"} <= set(lines[:work])
    assert lines[work + 1 :][0] == " info | saving"
    assert 'run agent script "check": exit status 3' in done.stderr
