"""The error tree: what is caught by what, what is said, and that all of it pickles."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from agentscripts import errors
from agentscripts._model import RunStatus, Script, Stage
from agentscripts._result import RunResult

NOW = datetime(2024, 5, 1, tzinfo=UTC)


def result(status: RunStatus = RunStatus.FAILED, name: str = "build", **fields: Any) -> RunResult:
    fields = {"reason": "exit status 3", "exit_code": 3, **fields}
    return RunResult(
        run_id="0" * 32,
        script=Script(script="exit 3", name=name),
        stage=Stage.START,
        status=status,
        started_at=NOW,
        ended_at=NOW,
        duration=0.5,
        **fields,
    )


def execute_error() -> errors.ExecuteError:
    results = [
        result(name="a"),
        result(RunStatus.SUCCEEDED, name="b", reason=""),
        result(RunStatus.TIMED_OUT, name="c", reason="timed out after 2 s"),
    ]
    failures = [item.error for item in results if item.error is not None]
    return errors.ExecuteError(failures, results)


def failures_of(error: errors.ExecuteError) -> list[RunResult]:
    return [each.result for each in error.exceptions if isinstance(each, errors.ScriptError)]


def test_every_error_is_one_of_the_library() -> None:
    """Errors: ``except AgentScriptsError`` catches all of them, and ``__all__`` names them."""
    for name in errors.__all__:
        assert issubclass(getattr(errors, name), errors.AgentScriptsError)
    assert issubclass(errors.InvalidScriptError, ValueError)
    assert issubclass(errors.ScriptTimeoutError, TimeoutError)
    defined = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {name for name in defined if name.endswith("Error")} == set(errors.__all__)


@pytest.mark.parametrize(
    "cls",
    [
        errors.ScriptError,
        errors.ScriptNotStartedError,
        errors.ScriptExitError,
        errors.ScriptTimeoutError,
        errors.ScriptCancelledError,
        errors.OutputPipesOpenError,
    ],
)
def test_script_error_names_the_script_and_pickles(cls: type[errors.ScriptError]) -> None:
    """Errors: the text is ``run agent script "<name or id>": <why>``, also after a pickle."""
    error = cls(result())
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(error) == str(copy) == 'run agent script "build": exit status 3'
    assert copy.result == error.result
    nameless = result(name="")
    assert str(cls(nameless)) == f'run agent script "{nameless.script.id}": exit status 3'


NOISY = {
    "stderr": ("one", "\x1b[2Jtwo", "x" * 201, "", "tab\there", "last \u202e\udcff"),
    "stderr_lines": 126,
}


def test_script_error_shows_the_ends_of_stderr() -> None:
    """R7: why it failed, in one look: indented, cut, nothing that steers a terminal."""
    assert str(errors.ScriptExitError(result(**NOISY))).split("\n") == [
        'run agent script "build": exit status 3',
        "    one",
        r"    \x1b[2Jtwo",
        f"    {'x' * 200}…",
        "    … 120 lines …",
        "    ",
        "    tab\there",
        r"    last \u202e\udcff",
    ]
    assert "…" not in str(errors.ScriptExitError(result(stderr=("a", "b"), stderr_lines=2)))


def test_script_error_escapes_names_and_reasons() -> None:
    """R7: neither a name nor a process that holds a pipe steers a terminal."""
    error = errors.OutputPipesOpenError(result(name="a\x1b[0m", reason="held by 7 (\n\x07)"))
    assert str(error) == r'run agent script "a\x1b[0m": held by 7 (\x0a\x07)'


def test_execute_error_indents_the_lines_of_each_failure() -> None:
    """R3: each failure's lines stand below it."""
    first = errors.ScriptExitError(result(name="a", stderr=("no\x85such",), stderr_lines=1))
    second = errors.ScriptExitError(result(name="b"))
    results = [first.result, second.result]
    assert str(errors.ExecuteError([first, second], results)).split("\n") == [
        "2 of 2 scripts failed:",
        '  run agent script "a": exit status 3',
        r"      no\x85such",
        '  run agent script "b": exit status 3',
    ]


def test_not_started_error_has_the_cause() -> None:
    """Errors: ``ScriptNotStartedError.__cause__`` is the ``OSError``, also after a pickle."""
    cause = FileNotFoundError(2, "no such shell", "/bin/none")
    error = errors.ScriptNotStartedError(result(RunStatus.NOT_STARTED, cause=cause))
    assert error.__cause__ is cause
    copied = pickle.loads(pickle.dumps(error)).__cause__
    assert isinstance(copied, FileNotFoundError)
    assert copied.filename == "/bin/none"


def test_invalid_script_error_names_script_and_field() -> None:
    """R1: one error names script and field, also after a pickle."""
    error = errors.InvalidScriptError("build", "timeout", "is -1, expected more")
    for each in (error, pickle.loads(pickle.dumps(error))):
        assert (each.script, each.field) == ("build", "timeout")
        assert str(each) == "script 'build': timeout is -1, expected more"


def test_execute_error_lists_each_failure() -> None:
    """R3: all failures come as one error that lists each of them on its own line."""
    error = execute_error()
    assert str(error).splitlines() == [
        "2 of 3 scripts failed:",
        '  run agent script "a": exit status 3',
        '  run agent script "c": timed out after 2 s',
    ]
    assert [each.script.name for each in error.results] == ["a", "b", "c"]


def test_execute_error_splits_by_except_star() -> None:
    """R3: ``except*`` takes some of the failures, and each part keeps all results."""
    part: object = None
    rest: object = None
    try:
        try:
            raise execute_error()
        except* errors.ScriptTimeoutError as group:
            part = group
    except errors.ExecuteError as error:
        rest = error
    for each, name in ((part, "c"), (rest, "a")):
        assert isinstance(each, errors.ExecuteError)
        assert [failure.script.name for failure in failures_of(each)] == [name]
        assert len(each.results) == 3
        assert str(each).splitlines()[0] == "1 of 3 scripts failed:"


def test_execute_error_pickles() -> None:
    """Errors: a pickled ``ExecuteError`` keeps failures, results and notes."""
    error = execute_error()
    error.add_note("while starting")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error)
    assert copy.results == error.results
    assert [type(each) for each in copy.exceptions] == [type(each) for each in error.exceptions]
    assert copy.__notes__ == ["while starting"]
