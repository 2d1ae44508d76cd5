"""Scripts: their ids, copies, pickles and hashes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from typing import Any
from uuid import UUID

import pytest

from agentscripts._model import Run, RunState, Script, Stage

GIVEN = UUID("00000000-0000-4000-8000-000000000001")
OTHER = UUID("00000000-0000-4000-8000-000000000002")


def test_named_script_has_a_lasting_id() -> None:
    """R5: the id of a named script is the same in every process and version."""
    script = Script(script="true", name="build")
    assert script.log_source_id == UUID("158224f9-47c1-514b-8775-082e2ef4e3ed")
    assert script.id == script.log_source_id
    assert script != Script(script="true", name="other")
    assert script == Script(script="true", name="build")


def test_nameless_scripts_differ() -> None:
    """R5: a nameless script has a fresh id."""
    one, two = Script(script="true"), Script(script="true")
    assert one.log_source_id != two.log_source_id
    assert one.id == one.log_source_id
    assert one.label == str(one.id)
    assert Script(script="true", name="build").label == "build"


def test_given_ids_are_kept() -> None:
    """Script: ids that were given are taken, and ``id`` follows ``log_source_id`` by default."""
    script = Script(script="true", name="build", log_source_id=GIVEN)
    assert (script.log_source_id, script.id) == (GIVEN, GIVEN)
    script = Script(script="true", name="build", log_source_id=GIVEN, id=OTHER)
    assert (script.log_source_id, script.id) == (GIVEN, OTHER)


def test_replace_derives_only_what_was_not_given() -> None:
    """Script: a replaced name gives new derived ids, and leaves given ones alone."""
    derived = Script(script="true", name="a")
    assert dataclasses.replace(derived, name="b") == Script(script="true", name="b")
    assert dataclasses.replace(derived, timeout=1).id == derived.id
    assert dataclasses.replace(derived, log_source_id=GIVEN).id == GIVEN
    assert dataclasses.replace(derived, name="").id not in (derived.id, UUID(int=0))

    given = Script(script="true", name="a", log_source_id=GIVEN, id=OTHER)
    renamed = dataclasses.replace(given, name="b")
    assert (renamed.log_source_id, renamed.id) == (GIVEN, OTHER)

    same = Script(script="true", log_source_id=GIVEN, id=GIVEN)
    assert dataclasses.replace(same, log_source_id=OTHER).id == GIVEN

    sharing = Script(script="true", name="c", log_source_id=derived.log_source_id)
    assert sharing.log_source_id == derived.log_source_id
    assert dataclasses.replace(sharing, name="d").log_source_id == derived.log_source_id

    nameless = Script(script="true")
    assert dataclasses.replace(nameless, timeout=1).id == nameless.id
    assert dataclasses.replace(nameless, name="a") == derived


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_equal_and_read_only(duplicate: Any) -> None:
    """Script: copies and pickles are equal, keep a read-only environment and derived ids."""
    script = Script(script="true", name="a", env={"A": "1"})
    other = duplicate(script)
    assert other == script
    assert hash(other) == hash(script)
    assert dataclasses.replace(other, name="b").id == Script(script="x", name="b").id
    with pytest.raises(TypeError):
        other.env["A"] = "2"


def test_script_survives_a_manifest() -> None:
    """Script: its fields as a dictionary are what it can be made of again."""
    script = Script(script="true", name="a", timeout=2, env={"A": "1"})
    fields = dataclasses.asdict(script)
    assert fields["env"] == {"A": "1"}
    assert Script(**fields) == script


@pytest.mark.parametrize(
    "change",
    [
        lambda env: env.update(A="2"),
        lambda env: env.setdefault("B", "2"),
        lambda env: env.pop("A"),
        lambda env: env.popitem(),
        lambda env: env.clear(),
        lambda env: env.__ior__({"A": "2"}),
        lambda env: env.__delitem__("A"),
        lambda env: env.__setitem__("A", "2"),
    ],
)
def test_environment_refuses_changes(change: Any) -> None:
    """Script: no method of the environment changes it."""
    script = Script(script="true", env={"A": "1"})
    with pytest.raises(TypeError, match="read-only"):
        change(script.env)
    assert script.env == {"A": "1"}


def test_environment_is_a_read_only_copy() -> None:
    """Script: a later change of the caller's mapping changes nothing; nor can the field be."""
    env = {"A": "1"}
    script = Script(script="true", env=env)
    env["A"] = "2"
    assert script.env == {"A": "1"}
    with pytest.raises(TypeError):
        script.env["A"] = "3"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        script.env = {}  # type: ignore[misc]


def test_environment_is_not_hashed() -> None:
    """Script: scripts hash, although a mapping does not, and differ by their environment."""
    one = Script(script="true", name="a", env={"A": "1"})
    two = dataclasses.replace(one, env={"A": "2"})
    assert hash(one) == hash(two)
    assert len({one, two}) == 2


def test_repr_holds_no_secret() -> None:
    """X1: neither the text nor the environment is in ``repr``."""
    script = Script(script="curl -H sesame", name="a", env={"TOKEN": "sesame"})
    assert "sesame" not in repr(script)


@pytest.mark.parametrize(
    "fields", [{"name": 5}, {"env": None}, {"log_source_id": "x"}, {"id": 5}, {"timeout": "1"}]
)
def test_construction_checks_nothing(fields: dict[str, Any]) -> None:
    """R1: a wrong value waits for ``init``, which names it."""
    script = Script(script="true", **fields)
    [(name, value)] = fields.items()
    assert getattr(script, name) == value


def test_run_is_a_snapshot() -> None:
    """API: a ``Run`` cannot be changed, and its enums read as text."""
    run = Run("0" * 32, Script(script="true"), Stage.MANUAL, RunState.WAITING, None, None, "")
    assert f"{run.stage} {run.state}" == "manual waiting"
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.pid = 1  # type: ignore[misc]
