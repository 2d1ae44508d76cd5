"""A TOML manifest becomes scripts and options, or a list of all its mistakes."""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from agentscripts._crontab import parse_schedules
from agentscripts._files import check_rotation
from agentscripts._model import Script
from agentscripts._options import Options
from agentscripts._tables import ManifestTable, OptionsTable, ScriptTable
from agentscripts._validation import validate_scripts
from agentscripts.errors import InvalidScheduleError, InvalidScriptError

__all__ = ["Manifest", "ManifestError", "load_manifest", "parse_manifest"]

_LONGEST_VALUE: Final = 60


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest says: its scripts in order, and arguments for ``Options``."""

    scripts: tuple[Script, ...]
    options: Mapping[str, Any]

    @property
    def labels(self) -> dict[UUID, str]:
        """What to call each script, by its id: its name, else ``script[2]``, counted from 1."""
        numbered = enumerate(self.scripts, 1)
        return {script.id: script.name or f"script[{number}]" for number, script in numbered}


class ManifestError(ValueError):
    """The author of a manifest made mistakes; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest.

    Raises ``ManifestError``, also for a file that cannot be read.
    """
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise ManifestError([f"{path}: {error.strerror}, expected a TOML file"]) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        byte = error.object[error.start]
        problem = f"{path}:{line}:{column}: byte 0x{byte:02x} is no UTF-8, expected a TOML file"
        raise ManifestError([problem]) from None
    return parse_manifest(text, path)


def parse_manifest(text: str, path: Path) -> Manifest:
    """Check the text of a manifest; relative paths in it count from the directory of ``path``.

    Raises ``ManifestError`` with all mistakes at once; after one in the syntax nothing else can
    be checked.
    """
    data = _parse_toml(text, path)
    problems = list(_duplicate_names(data))
    try:
        tables = ManifestTable.model_validate(data, context=path.parent.absolute())
    except ValidationError as error:
        problems += [_problem(details, data) for details in error.errors(include_url=False)]
    if problems:
        raise ManifestError([f"{path}: {problem}" for problem in problems])
    scripts = [Script(**_set_fields(table)) for table in tables.script]
    problems = list(_dependency_problems(scripts, data))
    if problems:
        raise ManifestError([f"{path}: {problem}" for problem in problems])
    options = tables.options.model_dump(exclude_unset=True)
    try:
        checked = validate_scripts(scripts)
        made = Options(**options)
        if made.max_log_bytes is not None:
            check_rotation(checked, made.log_dir, made.log_backups)
    except InvalidScriptError as error:
        raise ManifestError([f"{path}: {error}"]) from None
    problems = list(_schedule_problems(checked, made, data))
    if problems:
        raise ManifestError([f"{path}: {problem}" for problem in problems])
    return Manifest(checked, options)


def _set_fields(table: ScriptTable) -> dict[str, Any]:
    # Not model_dump, which makes tables of what the library made values of.
    return {name: getattr(table, name) for name in table.model_fields_set}


def _dependency_problems(scripts: Sequence[Script], data: Mapping[str, Any]) -> Iterator[str]:
    """Yield the unknown names; circles are for the library to find."""
    names = [script.name for script in scripts if script.name]
    for index, script in enumerate(scripts):
        for one in script.depends_on:
            if one.on not in names:
                hint = _hint(one.on, names) if names else "no script has a name"
                place = f"{_script_place(data, index)} depends_on"
                yield f"{place}: {_shown(one.on)} is no script, {hint}"


def _schedule_problems(
    scripts: Sequence[Script], options: Options, data: Mapping[str, Any]
) -> Iterator[str]:
    """Yield them only when all else is right: how they are read is an option."""
    for index, script in enumerate(scripts):
        try:
            parse_schedules([script], options)
        except InvalidScheduleError as error:
            yield f"{_script_place(data, index)} cron: {error.args[2]}"


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 tells the place in the message only.
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        if match := re.fullmatch(r"line (\d+), column (\d+)", where):
            line, column = map(int, match.groups())
        else:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        raise ManifestError([f"{path}:{line}:{column}: {what}"]) from None
    except (ValueError, RecursionError) as error:  # an integer or a nesting beyond Python's limits
        raise ManifestError([f"{path}: {error}"]) from None


def _duplicate_names(data: Mapping[str, Any]) -> Iterator[str]:
    """Find them in the raw data, so that they are told together with the other mistakes."""
    first: dict[str, int] = {}
    tables = data.get("script")
    for index, table in enumerate(tables if isinstance(tables, list) else []):
        name = table.get("name") if isinstance(table, dict) else None
        if isinstance(name, str) and name and first.setdefault(name, index) != index:
            used = f"{_shown(name)} is the name of script[{first[name] + 1}] too"
            yield f"{_script_place(data, index)} name: {used}, expected a unique one"


def _problem(error: ErrorDetails, data: Mapping[str, Any]) -> str:
    """Say in one line what pydantic found: table, field, value, and what was expected."""
    where, model, path = _locate(error["loc"], data)
    fields = {info.alias or name: info for name, info in model.model_fields.items()}
    place = f"{where} {'.'.join(path)}".strip()
    info = fields.get(path[0]) if path else None
    if error["type"] == "extra_forbidden":
        return f"{place}: is unknown, {_hint(path[-1], list(fields))}"
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}"
    title, expected = "table", "a table of fields"
    if info is not None:
        title, expected = str(info.title), str(info.description)
    if len(path) > 1:  # a variable of an environment
        title, expected = "text", "a quoted text"
    if error["type"] == "missing":
        return f"{place}: is missing, expected {expected}"
    value = _shown(error["input"], secret=info is not None and not info.repr)
    return f"{place}: {value} is no {title}, expected {expected}"


def _locate(
    location: tuple[int | str, ...], data: Mapping[str, Any]
) -> tuple[str, type[BaseModel], list[str]]:
    """Return what to call the table, its model, and the way to the value inside it."""
    match location:
        case ("script", int(index), *path):
            return _script_place(data, index), ScriptTable, list(map(str, path))
        case ("options", first, *path):
            return "options", OptionsTable, list(map(str, [first, *path]))
    return "", ManifestTable, list(map(str, location))


def _script_place(data: Mapping[str, Any], index: int) -> str:
    table = data["script"][index]
    name = table.get("name") if isinstance(table, dict) else None
    label = f" {_shown(name)}" if isinstance(name, str) and name else ""
    return f"script[{index + 1}]{label}"


def _hint(name: str, known: Sequence[str]) -> str:
    similar = difflib.get_close_matches(name.lower(), known, n=1)
    if similar:
        return f'did you mean "{similar[0]}"?'
    return f"expected one of {', '.join(known)}"


def _shown(value: object, *, secret: bool = False) -> str:
    """Return a value as TOML writes it; of a secret, a container or a date only what it is."""
    match value:
        case bool() if not secret:
            return str(value).lower()
        case int() | float() if not secret:
            shown = repr(value)
        case str() if not secret:
            shown = json.dumps(value, ensure_ascii=False)
        case _:
            return _kind(value)
    return shown if len(shown) <= _LONGEST_VALUE else f"{shown[:_LONGEST_VALUE]}…"


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "an integer", float: "a number", str: "a text"}
    kinds |= {list: "an array", dict: "a table"}
    return kinds.get(type(value), "a date or time")
