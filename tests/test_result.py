"""Run results: their error and their pickles."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest
from conftest import RunScript

from agentscripts import errors
from agentscripts._model import RunStatus, Script, Stage
from agentscripts._result import RunResult, make_result

NOW = datetime(2024, 5, 1, tzinfo=UTC)


def result(status: RunStatus, **fields: Any) -> RunResult:
    return RunResult(
        run_id="0" * 32,
        script=Script(script="echo sesame", name="build"),
        stage=Stage.MANUAL,
        status=status,
        started_at=NOW,
        ended_at=NOW,
        duration=0.5,
        **fields,
    )


@pytest.mark.parametrize(
    ("status", "cls"),
    [
        (RunStatus.FAILED, errors.ScriptExitError),
        (RunStatus.TIMED_OUT, errors.ScriptTimeoutError),
        (RunStatus.CANCELLED, errors.ScriptCancelledError),
        (RunStatus.PIPES_OPEN, errors.OutputPipesOpenError),
        (RunStatus.NOT_STARTED, errors.ScriptNotStartedError),
    ],
)
def test_failure_has_its_error(status: RunStatus, cls: type[errors.ScriptError]) -> None:
    """R7: the class of the error is that of the status, and it is made once."""
    failed = result(status, reason="exit status 3")
    assert not failed.ok
    assert type(failed.error) is cls
    assert failed.error is failed.error
    assert failed.error.result is failed


def test_a_result_made_at_once(run: RunScript) -> None:
    """R7: that of a run has all fields, and no others, as if it were made by its class."""
    names = {one.name for one in dataclasses.fields(RunResult)}
    made = run("true")
    assert vars(made).keys() - {"error"} == names
    fields = {name: getattr(made, name) for name in names}
    assert made == RunResult(**fields) == make_result(**fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.reason = "another"  # type: ignore[misc]


def test_success_has_no_error() -> None:
    """R7: a run that succeeded is ok."""
    succeeded = result(RunStatus.SUCCEEDED)
    assert succeeded.ok
    assert succeeded.error is None


def test_every_status_has_an_error_but_one() -> None:
    """R7: no status is forgotten."""
    without = [status for status in RunStatus if result(status).error is None]
    assert without == [RunStatus.SUCCEEDED]


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_leave_the_error_out(duplicate: Any) -> None:
    """Errors: a copy equals its original, and its error is about the copy."""
    failed = result(
        RunStatus.NOT_STARTED,
        cause=FileNotFoundError(2, "no such shell"),
        log_error=OSError(28, "full"),
        survivors=(7,),
    )
    assert failed.error is not None
    other = duplicate(failed)
    assert other == failed
    assert str(other.cause) == str(failed.cause)
    assert str(other.log_error) == str(failed.log_error)
    assert "error" not in vars(other)
    assert other.error.result is other
    assert other.error.__cause__ is other.cause


def test_result_is_frozen_and_hides_text() -> None:
    """X1: a result cannot be changed, and its ``repr`` has neither the script nor its output."""
    succeeded = result(RunStatus.SUCCEEDED, tail=("sesame",))
    assert "sesame" not in repr(succeeded)
    with pytest.raises(dataclasses.FrozenInstanceError):
        succeeded.lines = 2  # type: ignore[misc]
