"""What is wrong with a manifest, in words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from agentscripts._places import Place
from agentscripts._tables import AgentScript, ManifestTable, OptionsTable
from agentscripts._text import closest, number

__all__ = ["hint", "place_text", "problem_text", "shown"]

_LONGEST_VALUE: Final = 60


def problem_text(error: ErrorDetails, data: Mapping[str, Any], script: type[BaseModel]) -> str:
    """Say in one line what pydantic found: table, field, value, and what was expected.

    script: the model of a script.
    """
    model, path = _field(error["loc"], script)
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    place = place_text(error["loc"], data)
    info = fields.get(str(path[0])) if path else None
    if error["type"] == "extra_forbidden":
        known = list(fields) if len(path) == 1 else ["on", "requires"]
        return f"{place}: is unknown, {hint(str(path[-1]), known)}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    title, expected = "table", "a table of fields"
    if info is not None:
        title, expected = str(info.title), str(info.description)
    match path:
        case ["depends_on", int()]:
            title, expected = "dependency", 'a name or a table such as {on = "build"}'
        case ["depends_on", int(), "requires"]:
            title, expected = "requirement", '"success" or "completion"'
        case [_, _, *_]:  # a variable of an environment, a name
            title, expected = "text", "a quoted text"
    if error["type"] == "missing":
        return f"{place}: is missing, expected {expected}"
    if not path and script is AgentScript:
        title, expected = "object", "an object of fields"
    value = shown(error["input"], secret=info is not None and not info.repr)
    return f"{place}: {value} is no {title}, expected {expected}"


def place_text(place: Place, data: Mapping[str, Any]) -> str:
    """Return what to call a place: ``script[2] "install" timeout``; numbers count from 1."""
    match place:
        case ("script", int(index), *path):
            table = data["script"][index]
            name = None
            if isinstance(table, dict):
                name = table.get("name", table.get("display_name"))
            label = f" {shown(name)}" if isinstance(name, str) and name else ""
            return f"script[{index + 1}]{label} {_joined(path)}".strip()
        case ("options", first, *path):
            return f"options {_joined([first, *path])}"
    return _joined(place)


def hint(name: str, known: Sequence[str]) -> str:
    """Return which known name may be meant, else all of them."""
    if similar := closest(name.lower(), known):
        return f'did you mean "{similar}"?'
    return f"expected one of {', '.join(known)}"


def _field(place: Place, script: type[BaseModel]) -> tuple[type[BaseModel], list[str | int]]:
    """Return the model of the table that a place is in, and the way inside it."""
    match place:
        case ("script", int(), *path):
            return script, path
        case ("options", first, *path):
            return OptionsTable, [first, *path]
    return ManifestTable, list(place)


def _joined(path: Sequence[str | int]) -> str:
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in path]
    return "".join(parts).removeprefix(".")


def shown(value: object, *, secret: bool = False) -> str:
    """Return a value as TOML writes it; of a secret, a container or a date only what it is."""
    match value:
        case bool() if not secret:
            return str(value).lower()
        case int() | float() if not secret:
            shown = number(value)
        case str() if not secret:
            shown = json.dumps(value, ensure_ascii=False)
        case _:
            return _kind(value)
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]}…"


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a text"}
    kinds |= {list: "an array", dict: "a table", type(None): "null"}
    return kinds.get(type(value), "a date or time")
