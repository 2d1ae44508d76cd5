"""Every error that this library raises on purpose.

::

    AgentScriptsError(Exception)
    ├── AlreadyInitializedError
    ├── NotInitializedError
    ├── RunnerClosedError
    ├── InvalidScriptError(ValueError)        names the script and the field
    │   ├── InvalidScheduleError
    │   └── InvalidDependencyError            unknown, duplicate or circular
    ├── ExecuteError(ExceptionGroup)          .exceptions: ScriptErrors; .results: all results
    └── ScriptError                           .result; 'run agent script "<name or id>": <why>',
        │                                     then the first and the last lines of stderr
        ├── ScriptNotStartedError             .__cause__ is the OSError
        ├── ScriptExitError                   a non-zero exit code, or death by a signal
        ├── ScriptTimeoutError(TimeoutError)
        ├── ScriptCancelledError
        └── OutputPipesOpenError

All of them pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from agentscripts._text import escape, excerpt

if TYPE_CHECKING:
    from agentscripts._result import RunResult

__all__ = [
    "AgentScriptsError",
    "AlreadyInitializedError",
    "ExecuteError",
    "InvalidDependencyError",
    "InvalidScheduleError",
    "InvalidScriptError",
    "NotInitializedError",
    "OutputPipesOpenError",
    "RunnerClosedError",
    "ScriptCancelledError",
    "ScriptError",
    "ScriptExitError",
    "ScriptNotStartedError",
    "ScriptTimeoutError",
]


class AgentScriptsError(Exception):
    """The base of all errors of this library; never raised itself."""


class AlreadyInitializedError(AgentScriptsError):
    """The caller called ``Runner.init`` again after it had worked.

    Not raised after an ``init`` that failed: that one may be tried again.
    """


class NotInitializedError(AgentScriptsError):
    """The caller used the runner before ``Runner.init``."""


class RunnerClosedError(AgentScriptsError):
    """The caller used the runner after ``Runner.close``, or in a forked child.

    No process was started. Not raised by a further ``close``.
    """


class InvalidScriptError(AgentScriptsError, ValueError):
    """The author of a ``Script`` gave a field a value that cannot work.

    Raised by ``Runner.init`` before anything changed; never by ``Script(...)`` itself.
    ``script`` is the script's label (name, else id), ``field`` the name of its field.
    The text holds neither the script's text nor a value of its environment.
    """

    def __init__(self, script: str, field: str, problem: str) -> None:
        super().__init__(script, field, problem)
        self.script = script
        self.field = field

    def __str__(self) -> str:
        script, field, problem = self.args
        return f"script {script!r}: {field} {problem}"


class InvalidScheduleError(InvalidScriptError):
    """The author of a ``Script`` gave ``cron`` an expression that cannot be understood.

    Raised by ``Runner.init``. ``next_fires``, which has no script, raises ``ValueError``.
    """


class InvalidDependencyError(InvalidScriptError):
    """The author gave ``depends_on`` a name that is unknown, that is there twice, or
    that leads back to the script itself.

    Raised by ``Runner.init``; a circle is told whole: ``a → b → a``.
    """


class ScriptError(AgentScriptsError):
    """One run of a script did not succeed; ``result`` tells all that is known about it.

    Its text is a line with the reason, then the first 3 and the last 3 lines of stderr, indented,
    cut after 200 characters, with what would steer a terminal written as ``\\x1b``. So who logs it
    logs these lines; the library itself does not.

    Raised inside an ``ExecuteError`` only, and only with ``check=True``; else it is found as
    ``RunResult.error``.
    """

    result: RunResult

    def __init__(self, result: RunResult) -> None:
        super().__init__(result)
        self.result = result

    def __str__(self) -> str:
        result = self.result
        lines = [
            escape(f'run agent script "{result.script.label}": {result.reason}'),
            *excerpt(result.stderr, result.stderr_lines),
        ]
        return "\n    ".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.result,)


class ScriptNotStartedError(ScriptError):
    """The system, the script's settings or a dependency kept the script from starting.

    Its ``__cause__`` is the ``OSError``, none for a dependency. Not raised once the process exists.
    A script that was skipped because of another one of the same ``execute`` call has this error in
    its result, and it is not raised: the other one's is.
    """

    def __init__(self, result: RunResult) -> None:
        super().__init__(result)
        self.__cause__ = result.cause


class ScriptExitError(ScriptError):
    """The script ended by itself with a non-zero exit code, or by a signal.

    Not raised when the runner ended it: that is a timeout or a cancel, with any exit code.
    """


class ScriptTimeoutError(ScriptError, TimeoutError):
    """The script ran longer than its ``timeout``, or than that of the ``execute`` call, or waited
    so long for its turn or its next attempt.

    Not raised when it exits in time and only its background processes go on.
    """


class ScriptCancelledError(ScriptError):
    """The caller cancelled the run: by a token, ``Runner.cancel`` or ``Runner.close``; or its
    ``execute`` timed out while the script waited for another one."""


class OutputPipesOpenError(ScriptError):
    """The script exited, but left a process that holds its output pipes open.

    Raised for any exit code, ``wait_delay`` after the exit. Not raised for a background process
    that redirected its output.
    """


class ExecuteError(AgentScriptsError, ExceptionGroup[ScriptError]):
    """At least one script of an ``execute`` call with ``check=True`` failed.

    ``exceptions`` has one ``ScriptError`` per failure, in script order; ``results`` has the
    results of all scripts of the call, also of those that succeeded. Works with ``except*``.
    """

    results: tuple[RunResult, ...]

    def __new__(
        cls, exceptions: Sequence[ScriptError], results: Sequence[RunResult]
    ) -> ExecuteError:
        message = f"{len(exceptions)} of {len(results)} scripts failed"
        self = super().__new__(cls, message, exceptions)
        self.results = tuple(results)
        return self

    def __init__(self, exceptions: Sequence[ScriptError], results: Sequence[RunResult]) -> None:
        super().__init__(self.message, exceptions)

    def __str__(self) -> str:
        import textwrap

        failures = (textwrap.indent(str(failure), "  ") for failure in self.exceptions)
        return "\n".join([f"{self.message}:", *failures])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.exceptions, self.results), self.__dict__

    def derive(self, excs: Sequence[ScriptError], /) -> ExecuteError:  # type: ignore[override]
        """Make a group of some of the failures, with all results (``except*`` calls this)."""
        return ExecuteError(excs, self.results)
