"""Run other people's shell scripts: recorded, bounded, cleaned up after. See ``Runner``."""

from agentscripts._cancel import CancelToken
from agentscripts._command import Command, CommandFactory, ShellCommandFactory
from agentscripts._cron import CronSyntax, next_fires
from agentscripts._files import Filesystem, LogTarget, OSFilesystem
from agentscripts._logs import Log, LogBatch, LogLevel, ScriptLogger
from agentscripts._model import (
    Dependency,
    Overlap,
    Requires,
    Run,
    RunState,
    RunStatus,
    Script,
    Stage,
)
from agentscripts._options import Options
from agentscripts._result import RunResult
from agentscripts._runner import Runner
from agentscripts._version import __version__
from agentscripts.errors import (
    AgentScriptsError,
    AlreadyInitializedError,
    ExecuteError,
    InvalidDependencyError,
    InvalidScheduleError,
    InvalidScriptError,
    NotInitializedError,
    OutputPipesOpenError,
    RunnerClosedError,
    ScriptCancelledError,
    ScriptError,
    ScriptExitError,
    ScriptNotStartedError,
    ScriptTimeoutError,
)

__all__ = [
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
