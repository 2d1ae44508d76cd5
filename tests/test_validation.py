"""R1: what ``Runner.init`` refuses, and what it says."""

from __future__ import annotations

import math
from typing import Any
from uuid import UUID

import pytest

from agentscripts._model import Dependency, Script
from agentscripts._validation import validate_scripts
from agentscripts.errors import InvalidDependencyError, InvalidScriptError

GIVEN = UUID("00000000-0000-4000-8000-000000000001")


def test_good_scripts_come_back() -> None:
    """R1: usable scripts pass, whatever iterable they come in."""
    scripts = (
        Script(script="true", name="é", timeout=0, log_path="~/x", env={"A": "", "b c": "="}),
        Script(script="\n#!/bin/sh\n", name="b", timeout=1.5, run_on_start=True),
        Script(script="caf\udce9"),
        Script(script="true", timeout=10**9),
    )
    assert validate_scripts(iter(scripts)) == scripts
    assert validate_scripts([]) == ()


def test_one_log_may_have_several_sources() -> None:
    """R1: scripts may share a ``log_source_id`` as long as their ids differ."""
    one = Script(script="true", log_source_id=GIVEN)
    two = Script(script="true", log_source_id=GIVEN, id=UUID(int=2))
    assert validate_scripts([one, two]) == (one, two)


EXPECTED_SECONDS = "expected a finite number of seconds >= 0, or None"


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"script": ""}, "script", "is empty or blank, expected a command"),
        ({"script": " \n\t"}, "script", "is empty or blank, expected a command"),
        ({"script": "a\0b"}, "script", "has a NUL at index 1, expected none"),
        ({"script": "\ud800"}, "script", "has a lone surrogate at index 0, expected Unicode text"),
        ({"script": b"true"}, "script", "is of type bytes, expected str"),
        ({"name": "x\0"}, "name", r"is 'x\x00' and has a NUL at index 1, expected none"),
        ({"name": 5}, "name", "is of type int, expected str"),
        (
            {"name": "\udce9"},
            "name",
            r"is '\udce9' and has a lone surrogate, expected Unicode text",
        ),
        ({"log_path": "\0"}, "log_path", r"is '\x00' and has a NUL at index 0, expected none"),
        ({"log_path": None}, "log_path", "is of type NoneType, expected str"),
        ({"log_source_id": "x"}, "log_source_id", "is 'x', expected a UUID"),
        ({"id": "x"}, "id", "is 'x', expected a UUID"),
        ({"retries": -1}, "retries", "is -1, expected an integer >= 0"),
        ({"retries": 1.0}, "retries", "is 1.0, expected an integer >= 0"),
        ({"retry_delay": None}, "retry_delay", "is None, expected a finite number of seconds >= 0"),
        ({"retry_delay": -1}, "retry_delay", f"is -1, {EXPECTED_SECONDS}"),
        ({"depends_on": []}, "depends_on", "is of type list, expected a tuple of Dependency"),
        ({"depends_on": ("a",)}, "depends_on", "has 'a', expected a Dependency"),
        (
            {"depends_on": (Dependency(1),)},  # type: ignore[arg-type]
            "depends_on",
            "has Dependency(on=1, requires=<Requires.SUCCESS: 'success'>), whose on is no str",
        ),
        (
            {"depends_on": (Dependency("a", "success"),)},  # type: ignore[arg-type]
            "depends_on",
            "has Dependency(on='a', requires='success'), whose requires is no member of Requires",
        ),
        ({"timeout": -1}, "timeout", f"is -1, {EXPECTED_SECONDS}"),
        ({"timeout": math.nan}, "timeout", f"is nan, {EXPECTED_SECONDS}"),
        ({"timeout": math.inf}, "timeout", f"is inf, {EXPECTED_SECONDS}"),
        (
            {"timeout": 10**400},
            "timeout",
            f"is an integer beyond the range of float, {EXPECTED_SECONDS}",
        ),
        ({"timeout": "1"}, "timeout", f"is '1', {EXPECTED_SECONDS}"),
        ({"timeout": True}, "timeout", f"is True, {EXPECTED_SECONDS}"),
        ({"run_on_start": 1}, "run_on_start", "is 1, expected True or False"),
        ({"run_on_stop": "no"}, "run_on_stop", "is 'no', expected True or False"),
        ({"env": None}, "env", "is of type NoneType, expected a mapping of str to str"),
        (
            {"env": {"": "x"}},
            "env",
            "has the name '', expected one that is not empty, without '='",
        ),
        (
            {"env": {"A=B": "x"}},
            "env",
            "has the name 'A=B', expected one that is not empty, without '='",
        ),
        ({"env": {1: "x"}}, "env", "has the name 1, expected str"),
        (
            {"env": {"A\0": "x"}},
            "env",
            r"has the variable 'A\x00' whose name has a NUL at index 1, expected none",
        ),
        (
            {"env": {"A": "x\0"}},
            "env",
            "has the variable 'A' whose value has a NUL at index 1, expected none",
        ),
        (
            {"env": {"A": 1}},
            "env",
            "has the variable 'A' whose value is of type int, expected str",
        ),
    ],
)
def test_unusable_field_is_named(fields: dict[str, Any], field: str, problem: str) -> None:
    """R1: the error names the script, the field, the value and what was expected."""
    good = Script(script="true", name="good")
    bad = Script(**{"script": "true", "name": "bad", **fields})
    with pytest.raises(InvalidScriptError) as caught:
        validate_scripts([good, bad])
    assert caught.value.field == field
    assert caught.value.script == fields.get("name", "bad")
    assert str(caught.value) == f"script {bad.label!r}: {field} {problem}"


def test_duplicates_are_named() -> None:
    """R1: names and ids are unique; namelessness is no name."""
    one = Script(script="true", name="a")
    with pytest.raises(InvalidScriptError, match="'a': name is 'a' and used by another script"):
        validate_scripts([one, Script(script="false", name="a", log_source_id=GIVEN)])
    with pytest.raises(InvalidScriptError, match=f"'b': id is {one.id} and used by script 'a'"):
        validate_scripts([one, Script(script="false", name="b", id=one.id)])
    nameless = [Script(script="true"), Script(script="true")]
    assert validate_scripts(nameless) == tuple(nameless)


def test_item_that_is_no_script() -> None:
    """R1: an item of another type is named by its position."""
    with pytest.raises(InvalidScriptError, match=r"'#1': item is of type str, expected Script"):
        validate_scripts([Script(script="true"), "true"])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "fields", [{"script": "sesame\0"}, {"script": "true", "env": {"A": "sesame\0"}}]
)
def test_error_holds_no_secret(fields: dict[str, Any]) -> None:
    """X1: the error quotes neither a script's text nor a value of its environment."""
    with pytest.raises(InvalidScriptError) as caught:
        validate_scripts([Script(**fields)])
    assert "sesame" not in str(caught.value)


def depending(name: str, *on: str) -> Script:
    return Script(script="true", name=name, depends_on=tuple(map(Dependency, on)))


@pytest.mark.parametrize(
    ("scripts", "label", "problem"),
    [
        ([depending("a", "b")], "a", "has 'b', expected the name of another script"),
        ([depending("a", "")], "a", "has '', expected the name of another script"),
        (
            [depending("a"), depending("b", "a", "a")],
            "b",
            "has 'a' twice, expected it once",
        ),
        ([depending("a", "a")], "a", "is a circle, expected none: a → a"),
        (
            [depending("x", "a"), depending("a", "b"), depending("b", "c"), depending("c", "a")],
            None,
            "is a circle, expected none: ",
        ),
    ],
)
def test_bad_dependencies(scripts: list[Script], label: str | None, problem: str) -> None:
    """R1: D1: an unknown, double, own or circular dependency is refused, a circle told whole."""
    with pytest.raises(InvalidDependencyError) as caught:
        validate_scripts(scripts)
    assert caught.value.field == "depends_on"
    assert caught.value.args[2].startswith(problem)
    if label is None:
        circle = caught.value.args[2].removeprefix(problem)
        assert circle in ("a → b → c → a", "b → c → a → b", "c → a → b → c")
    else:
        assert caught.value.script == label


def test_a_long_chain_is_fine() -> None:
    """D1: the check for circles needs no recursion."""
    chain = [depending("0"), *(depending(str(n), str(n - 1)) for n in range(1, 5000))]
    assert validate_scripts(chain) == tuple(chain)


def test_a_name_that_looks_like_an_id() -> None:
    """D1: a circle is found also where a nameless script's id is a name in it."""
    nameless = Script(script="true")
    name = str(nameless.id)
    with pytest.raises(InvalidDependencyError):
        validate_scripts([depending(name, name), nameless])
