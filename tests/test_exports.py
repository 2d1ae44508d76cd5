"""The public names: a change of them is a change of the API."""

from __future__ import annotations

import subprocess
import sys

import agentscripts
from agentscripts import errors, testing

PUBLIC = [
    "AgentScriptsError",
    "AlreadyInitializedError",
    "CancelToken",
    "Command",
    "CommandFactory",
    "CronSyntax",
    "Dependency",
    "ExecuteError",
    "Filesystem",
    "InvalidDependencyError",
    "InvalidScheduleError",
    "InvalidScriptError",
    "Log",
    "LogBatch",
    "LogLevel",
    "LogTarget",
    "NotInitializedError",
    "OSFilesystem",
    "Options",
    "OutputPipesOpenError",
    "Overlap",
    "Requires",
    "Run",
    "RunResult",
    "RunState",
    "RunStatus",
    "Runner",
    "RunnerClosedError",
    "Script",
    "ScriptCancelledError",
    "ScriptError",
    "ScriptExitError",
    "ScriptLogger",
    "ScriptNotStartedError",
    "ScriptTimeoutError",
    "ShellCommandFactory",
    "Stage",
    "__version__",
    "next_fires",
]


def test_all() -> None:
    """API: __all__ is this list, sorted, and each name is there."""
    assert agentscripts.__all__ == PUBLIC
    assert all(hasattr(agentscripts, name) for name in PUBLIC)
    assert testing.__all__ == ["MemoryFilesystem", "RecordingLogger"]


def test_nothing_else_is_public() -> None:
    """API: what has no underscore and is no module is listed."""
    found = {
        name
        for name, value in vars(agentscripts).items()
        if not name.startswith("_") and not isinstance(value, type(sys))
    }
    assert found == set(PUBLIC) - {"__version__"}


def test_all_errors_are_exported() -> None:
    """API: every error of the tree can be imported from the package."""
    assert set(errors.__all__) <= set(PUBLIC)


def test_what_an_import_loads() -> None:
    """API: modules that take long to import are loaded when a call needs them."""
    program = "import sys, agentscripts; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = set(done.stdout.decode().split())
    assert "agentscripts" in loaded
    slow = {"prometheus_client", "croniter", "platformdirs", "click", "rich", "pydantic"}
    assert loaded & slow == set()
