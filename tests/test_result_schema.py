"""``RunResult.as_dict`` and its schema."""

from __future__ import annotations

import json
import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jsonschema
from conftest import MakeRunner
from hypothesis import given
from hypothesis import strategies as st
from support import eventually, processes_with

from agentscripts import CancelToken, Dependency, RunResult, RunStatus, Script, Stage

SCHEMA = json.loads(
    (Path(__file__).resolve().parents[1] / "docs" / "result.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)


def through_json(result: RunResult) -> dict[str, Any]:
    """Return what arrives where the result is sent, once it has passed the schema."""
    sent = json.dumps(result.as_dict(), ensure_ascii=False, allow_nan=False).encode("utf-8")
    data: dict[str, Any] = json.loads(sent)
    VALIDATOR.validate(data)
    assert data == result.as_dict()
    return data


def test_the_schema_is_one() -> None:
    """Reports: the schema itself is right, and knows each value and no other."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])
    assert set(SCHEMA["properties"]["status"]["enum"]) == set(map(str, RunStatus))
    assert set(SCHEMA["properties"]["stage"]["enum"]) == set(map(str, Stage))


def test_every_status(make_runner: MakeRunner) -> None:
    """Reports: real results of each status fit the schema; script and environment stay out."""
    runner = make_runner(
        Script(script="echo hello", name="good", env={"A": "hidden"}),
        Script(script="echo oops >&2; kill -9 $$", name="failed", timeout=60),
        Script(script="sleep 60", name="slow", timeout=0.01),
        Script(script="sleep 60 & echo pipes", name="pipes"),
        Script(script="#!/no/such/interpreter", name="gone"),
        Script(script="true", name="skipped", depends_on=(Dependency("failed"),)),
        wait_delay=0.05,
    )
    results = {one.script.name: one for one in runner.execute(check=False)}
    token = CancelToken()
    token.cancel()
    (cancelled,) = runner.execute(lambda one: one.name == "good", cancel=token, check=False)
    found = {name: through_json(one) for name, one in results.items()}
    found["cancelled"] = through_json(cancelled)
    assert {one["status"] for one in found.values()} == set(map(str, RunStatus))
    assert (found["failed"]["exit_code"], found["failed"]["signal"]) == (-9, "SIGKILL")
    assert found["failed"]["stderr"] == ["oops"]
    assert found["skipped"]["script"]["depends_on"] == [{"on": "failed", "requires": "success"}]
    assert found["good"]["tail"] == ["hello"]
    assert "hidden" not in json.dumps(found)
    mark = f"AGENTSCRIPTS_RUN_ID={results['pipes'].run_id}"
    for pid in processes_with(mark):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not processes_with(mark))


@given(
    st.builds(
        RunResult,
        run_id=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
        script=st.builds(Script, script=st.just("x"), name=st.text(), timeout=st.none()),
        stage=st.sampled_from(Stage),
        status=st.sampled_from(RunStatus),
        started_at=st.datetimes(timezones=st.just(UTC)),
        ended_at=st.just(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=1)),
        duration=st.floats(0, 1e9),
        exit_code=st.none() | st.integers(-64, 255),
        reason=st.text(st.characters()),
        log_path=st.builds(Path, st.text(st.characters(exclude_characters="\0"))),
        log_error=st.none() | st.builds(OSError, st.integers(1, 100), st.text(st.characters())),
        tail=st.lists(st.text(st.characters()), max_size=20).map(tuple),
        stderr=st.lists(st.text(st.characters()), max_size=6).map(tuple),
        stderr_lines=st.integers(0, 10),
    )
)
def test_any_result(result: RunResult) -> None:
    """Reports: whatever bytes names and paths are made of, the result is JSON in UTF-8."""
    through_json(result)
