"""Fixtures of all tests: no test may leak, and how a runner is made."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings
from support import Lines, children, descriptors, processes_with, threads

from agentscripts import Options, Runner, RunResult, Script

# How long an example takes is the machine's business.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

_ENDING = 2.0  # seconds that a thread or a process may need to be gone for the system, too


class MakeRunner(Protocol):
    """Makes a runner that is closed after the test; ``init``-ed when there are scripts."""

    def __call__(
        self,
        *scripts: Script | str,
        on_complete: Callable[[RunResult], object] | None = None,
        **options: Any,
    ) -> Runner: ...


class RunScript(Protocol):
    """Runs one script in a runner of its own and returns its result."""

    def __call__(self, script: Script | str, **options: Any) -> RunResult: ...


def _holdings() -> set[tuple[str, int, str]]:
    return {
        *(("thread", key, name) for key, name in threads().items()),
        *(("descriptor", key, target) for key, target in descriptors().items()),
        *(("child process", pid, "") for pid in children()),
    }


def _leaks(before: set[tuple[str, int, str]]) -> list[str]:
    """Return what is there that was not there before, after a time to end."""
    give_up = time.monotonic() + _ENDING
    while new := _holdings() - before:
        if time.monotonic() > give_up:
            return [" ".join(map(str, holding)) for holding in sorted(new)]
        gc.collect()  # a cancel token holds its descriptor as long as it lives
        time.sleep(0.01)
    return []


@pytest.fixture(autouse=True, scope="session")
def _default_signals() -> None:
    """A suite that nohup or a shell's ``&`` started ignores signals, and so would its children."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_leaks() -> Iterator[None]:
    """S2: a test leaves no thread, descriptor or child process behind."""
    before = _holdings()
    yield
    leaks = _leaks(before)
    if leaks:
        pytest.fail(f"leaked: {'; '.join(leaks)}", pytrace=False)


@pytest.fixture
def lines() -> Lines:
    """The logger of the runners that ``make_runner`` makes."""
    return Lines()


@pytest.fixture
def make_runner(tmp_path: Path, lines: Lines) -> Iterator[MakeRunner]:
    """Makes runners under ``tmp_path`` with ``/bin/sh`` and the logger ``lines``.

    They are closed after the test, and their scripts must have left no process by then.
    """
    runners: list[Runner] = []

    def make(
        *scripts: Script | str,
        on_complete: Callable[[RunResult], object] | None = None,
        **options: Any,
    ) -> Runner:
        defaults = {
            "data_dir_base": tmp_path / "base",
            "log_dir": tmp_path / "logs",
            "get_script_logger": lambda _: lines,
            "shell": "/bin/sh",
            "kill_delay": 1.0,
        }
        runner = Runner(Options(**{**defaults, **options}))
        runners.append(runner)
        if scripts:
            runner.init(
                [Script(script=one) if isinstance(one, str) else one for one in scripts],
                on_complete=on_complete,
            )
        return runner

    yield make
    for runner in runners:
        runner.close(timeout=0)
    left = {pid for one in runners for pid in processes_with(_mark(one))}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    runners.clear()  # pytest keeps the fixture, and so all that its closure holds
    if left:
        pytest.fail(f"the scripts left processes: {sorted(left)}", pytrace=False)


def _mark(runner: Runner) -> str:
    """Return the variable that only scripts of this test have."""
    return f"CODER_SCRIPT_BIN_DIR={runner.script_bin_dir}"


@pytest.fixture
def run(make_runner: MakeRunner) -> RunScript:
    """Runs one script to its end."""

    def run_script(script: Script | str, **options: Any) -> RunResult:
        with make_runner(script, **options) as runner:
            (result,) = runner.execute(check=False)
        return result

    return run_script
