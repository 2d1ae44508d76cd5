"""Manifests in the JSON of coder's agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agentscripts._manifest import Manifest, ManifestError, load_manifest, parse_manifest
from agentscripts._model import Script
from agentscripts._tables import parse_nanoseconds

PATH = Path("/work/agent.json")
ONE = "00000000-0000-4000-8000-000000000001"
TWO = "00000000-0000-4000-8000-000000000002"


def parse(*scripts: Any) -> Manifest:
    return parse_manifest(json.dumps(scripts, indent=1), PATH)


def problems(*scripts: Any) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        parse(*scripts)
    return [line.removeprefix(str(PATH)) for line in caught.value.problems]


def test_all_fields() -> None:
    """A ``WorkspaceAgentScript`` becomes the ``Script`` that coder's agent would run."""
    manifest = parse(
        {
            "id": ONE,
            "log_source_id": TWO,
            "log_path": "~/x.log",
            "script": "true",
            "cron": "0 0 3 * * *",
            "run_on_start": True,
            "run_on_stop": True,
            "timeout": 1_500_000_000,
            "display_name": "Install",
        },
        {"id": TWO, "script": "false", "timeout": 0, "log_path": "", "cron": ""},
    )
    assert manifest.scripts[0] == Script(
        id=UUID(ONE),
        log_source_id=UUID(TWO),
        log_path="~/x.log",
        script="true",
        cron="0 0 3 * * *",
        run_on_start=True,
        run_on_stop=True,
        timeout=1.5,
        name="Install",
    )
    assert manifest.scripts[1].timeout is None
    assert manifest.options == {}
    assert manifest.warnings == ()


def test_unknown_fields_and_taken_names_are_warnings() -> None:
    """What coder's agent would not mind is told, and no reason to run nothing."""
    manifest = parse(
        {"id": ONE, "script": "true", "display_name": "a", "start_blocks_login": True},
        {"id": TWO, "script": "true", "display_name": "a", "time_out": 5},
    )
    assert list(manifest.labels.values()) == ["a", "script[2]"]
    assert [line.removeprefix(str(PATH)) for line in manifest.warnings] == [
        ':6: script[1] "a" start_blocks_login: is unknown, expected one of cron, display_name, id, '
        "log_path, log_source_id, run_on_start, run_on_stop, script, timeout",
        ':11: script[2] "a" display_name: is that of another script; this one goes by script[2]',
        ':12: script[2] "a" time_out: is unknown, did you mean "timeout"?',
    ]


def test_mistakes() -> None:
    """All mistakes come at once, each with its line, in the words of JSON."""
    script = {"script": "true", "display_name": "a", "timeout": "5m", "cron": "x", "id": 7}
    assert problems({"display_name": None}, script, 5) == [
        ":2: script[1] script: is missing, expected a quoted text",
        ":3: script[1] display_name: null is no text, expected a quoted text",
        ':8: script[2] "a" timeout: "5m" is no duration, expected a whole number of nanoseconds, '
        "0 for no limit",
        ":9: script[2] \"a\" cron: is 'x' and has 1 field, expected 5 or 6: second minute "
        "hour day-of-month month [day-of-week]",
        ':10: script[2] "a" id: 7 is no UUID, expected a quoted text of 32 hexadecimal digits',
        ":12: script[3]: 5 is no object, expected an object of fields",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{}", ": a table is no array, expected an array of objects"),
        ("5", ": 5 is no array, expected an array of objects"),
        ("", ":1:1: Expecting value"),
        ('[{"a": 1,}]', ":1:9: Illegal trailing comma before end of object"),
        ("[\n{]", ":2:2: Expecting property name enclosed in double quotes"),
        ('[{"a": 1, "a": 1}]', ": an object has the key 'a' twice, expected it once"),
        ("[" * 100_000, ": maximum recursion depth exceeded"),
    ],
)
def test_what_is_no_array(text: str, problem: str) -> None:
    """A mistake in the syntax has line and column."""
    with pytest.raises(ManifestError) as caught:
        parse_manifest(text, PATH)
    (line,) = caught.value.problems
    words = line.removeprefix(str(PATH))
    if "trailing" in problem:  # the words of Python 3.13
        assert words in (problem, ":1:10: Expecting property name enclosed in double quotes")
    else:
        assert words.startswith(problem)


def test_file(tmp_path: Path) -> None:
    """The suffix chooses the format."""
    path = tmp_path / "m.json"
    path.write_text('[{"script": "true"}]')
    assert len(load_manifest(path).scripts) == 1
    with pytest.raises(ManifestError, match="No such file or directory, expected a JSON file"):
        load_manifest(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("value", "seconds"), [(0, None), (1, 1e-9), (10**9, 1.0), (2**63 - 1, (2**63 - 1) / 1e9)]
)
def test_nanoseconds(value: int, seconds: float | None) -> None:
    """Go's durations: nanoseconds, 0 for no limit."""
    assert parse_nanoseconds(value) == seconds


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, 2**63])
def test_no_nanoseconds(value: object) -> None:
    """All else is refused."""
    with pytest.raises(ValueError, match="is no number of nanoseconds"):
        parse_nanoseconds(value)
