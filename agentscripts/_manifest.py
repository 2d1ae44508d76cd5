"""A manifest, TOML or JSON, becomes scripts and options, or a list of all its mistakes."""

from __future__ import annotations

import collections
import dataclasses
import errno
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic import BaseModel, ValidationError

from agentscripts._crontab import parse_schedules
from agentscripts._files import rotation_problems
from agentscripts._mistakes import hint, place_text, problem_text, shown
from agentscripts._model import Script
from agentscripts._options import Options, from_current_directory
from agentscripts._places import Place, json_lines, line_of, toml_lines
from agentscripts._tables import AgentScript, AgentScripts, ManifestTable, ScriptTable
from agentscripts._validation import script_problems
from agentscripts.errors import InvalidScheduleError

__all__ = ["Manifest", "ManifestError", "load_manifest", "parse_manifest"]


_LARGEST: Final = 16 << 20  # bytes


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a manifest says: its scripts in order, and arguments for ``Options``.

    labels: what to call each script of the file, by its id: its name, else ``script[2]``, counted
        from 1. A selection keeps them.
    warnings: what is legal and may be a mistake, a line each.
    """

    scripts: tuple[Script, ...]
    labels: Mapping[UUID, str]
    options: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    def preview(self) -> Options:
        """Return the options for those who run nothing, whatever the default data directory is."""
        return _preview(self.options)

    def find(self, name: str) -> Script:
        """Return the script of this label. Raises ``ValueError``."""
        for script in self.scripts:
            if self.labels[script.id] == name:
                return script
        known = hint(name, list(self.labels.values())) if self.labels else "there is none"
        raise ValueError(f'"{name}" is no script, {known}')

    def only(self, names: Iterable[str]) -> Manifest:
        """Return the manifest with these scripts, and those that they depend on, alone.

        Raises ``ValueError`` for a name that is not there.
        """
        wanted, found = [self.find(name) for name in names], set()
        while wanted:
            script = wanted.pop()
            if script.id not in found:
                found.add(script.id)
                wanted += [self.find(one.on) for one in script.depends_on]
        scripts = tuple(script for script in self.scripts if script.id in found)
        return dataclasses.replace(self, scripts=scripts)


class ManifestError(ValueError):
    """The author of a manifest made mistakes; ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class _Format(NamedTuple):
    """name: of the format. table, script: the models of the whole and of a script."""

    name: str
    parse: Callable[[str], Any]
    lines: Callable[[str], Mapping[Place, int]]
    table: type[ManifestTable | AgentScripts]
    script: type[BaseModel]


_TOML: Final = _Format("TOML", tomllib.loads, toml_lines, ManifestTable, ScriptTable)


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        ((key, _),) = collections.Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"an object has the key {key!r} twice, expected it once")
    return table


def _parse_agent_scripts(text: str) -> dict[str, Any]:
    scripts = json.loads(text, object_pairs_hook=_without_twins)
    if not isinstance(scripts, list):
        raise ValueError(f"{shown(scripts)} is no array, expected an array of objects")
    return {"script": scripts}


_JSON: Final = _Format("JSON", _parse_agent_scripts, json_lines, AgentScripts, AgentScript)


def _format_of(path: Path) -> _Format:
    return _JSON if path.suffix == ".json" else _TOML


def load_manifest(path: Path) -> Manifest:
    """Read and check a manifest: the JSON of coder's agent when its name ends so, else TOML.

    Raises ``ManifestError``, also for a file that cannot be read.
    """
    expected = f"expected a {_format_of(path).name} file"
    try:
        text = _read(path).decode("utf-8-sig")
    except OSError as error:
        raise ManifestError([f"{path}: {error.strerror}, {expected}"]) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before) - before.rfind(b"\n")
        byte = error.object[error.start]
        problem = f"{path}:{line}:{column}: byte 0x{byte:02x} is no UTF-8, {expected}"
        raise ManifestError([problem]) from None
    return parse_manifest(text, path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise OSError(errno.EFBIG, f"has more than {_LARGEST >> 20} MiB")
    return data


def parse_manifest(text: str, path: Path) -> Manifest:
    """Check the text of a manifest; relative paths in it count from the directory of ``path``.

    Raises ``ManifestError`` with all mistakes at once, in the order of their lines; after one in
    the syntax nothing else can be checked.
    """
    how = _format_of(path)
    data = _parse(text, path, how)
    told: list[tuple[Place, str]] = []
    wrong: set[Place] = set()
    tables = _validate(data, path, how, told, wrong)
    if tables is None:
        raise ManifestError(_in_order(told, how.lines(text), path))
    fields = [table.given() for table in tables.script]
    warnings: list[tuple[Place, str]] = []
    if how is _JSON:
        nameless = _taken_names(fields)
        warnings += _oddities(data, nameless)
        for index in nameless:
            del fields[index]["name"]
    scripts = [Script(**given) for given in fields]
    options = tables.options.given()
    made = _preview(options)
    found = [*script_problems(scripts)]
    if made.max_log_bytes is not None:
        found += rotation_problems(scripts, made.log_dir, made.log_backups)
    for index, error in found:
        told.append(_told(("script", index, error.field), error.args[2], data))
    if ("options", "cron_syntax") not in wrong:
        told += _schedule_problems(scripts, made, data)
    if told:
        raise ManifestError(_in_order(told, how.lines(text), path))
    labels = {one.id: one.name or f"script[{number}]" for number, one in enumerate(scripts, 1)}
    lines = how.lines(text) if warnings else {}
    return Manifest(tuple(scripts), labels, options, tuple(_in_order(warnings, lines, path)))


def _preview(options: Mapping[str, Any]) -> Options:
    # The user's environment may have made this default unusable, and a run may be given another.
    return Options(**{"data_dir_base": "/", **options})


def _in_order(
    problems: Iterable[tuple[Place, str]], lines: Mapping[Place, int], path: Path
) -> list[str]:
    """Return problems with their file and line, as compilers tell them."""
    placed = [(line_of(place, lines) or 0, text) for place, text in problems]
    placed.sort(key=lambda one: one[0])
    return [f"{path}:{line}: {text}" if line else f"{path}: {text}" for line, text in placed]


def _told(place: Place, problem: str, data: Mapping[str, Any]) -> tuple[Place, str]:
    return place, f"{place_text(place, data)}: {problem}"


def _parse(text: str, path: Path, how: _Format) -> Any:
    try:
        return how.parse(text)
    except json.JSONDecodeError as error:
        raise ManifestError([f"{path}:{error.lineno}:{error.colno}: {error.msg}"]) from None
    except tomllib.TOMLDecodeError as error:
        # Python 3.11 tells the place in the message only.
        what, _, where = str(error).removesuffix(")").rpartition(" (at ")
        if match := re.fullmatch(r"line (\d+), column (\d+)", where):
            line, column = map(int, match.groups())
        else:
            line, column = text.count("\n") + 1, len(text) - text.rfind("\n")
        raise ManifestError([f"{path}:{line}:{column}: {what}"]) from None
    except (ValueError, RecursionError) as error:  # or what is beyond Python's limits
        raise ManifestError([f"{path}: {error}"]) from None


def _validate(
    data: Any, path: Path, how: _Format, told: list[tuple[Place, str]], wrong: set[Place]
) -> ManifestTable | AgentScripts | None:
    """Return the tables without the fields that are wrong, and tell those: so what is right can be
    checked further. ``None``: there is nothing left."""
    try:
        context = from_current_directory(path.parent)
    except ValueError as error:
        raise ManifestError([f"{path}: {error}"]) from None
    try:
        return how.table.model_validate(data, context=context)
    except ValidationError as error:
        errors = error.errors(include_url=False)
    for details in errors:
        told.append((details["loc"], problem_text(details, data, how.script)))
        wrong.add(details["loc"][: 3 if details["loc"][0] == "script" else 2])
    try:
        return how.table.model_validate(_without(data, wrong), context=context)
    except ValidationError:  # no scripts, or what is no table
        return None


def _without(data: Mapping[str, Any], wrong: Iterable[Place]) -> dict[str, Any]:
    """Return a manifest without some fields, but with a command where there has to be one."""
    left = {key: value for key, value in data.items() if key in ManifestTable.model_fields}
    if isinstance(left.get("script"), list):
        left["script"] = [dict(one) if isinstance(one, dict) else {} for one in left["script"]]
    if isinstance(left.get("options"), dict):
        left["options"] = dict(left["options"])
    for place in wrong:
        match place:
            case ("script", int(index), field):
                left["script"][index].pop(field, None)
            case ("options", field):
                left["options"].pop(field, None)
            case ("options",):
                del left["options"]
    for table in left["script"] if isinstance(left.get("script"), list) else ():
        table.setdefault("script", "true")
    return left


def _schedule_problems(
    scripts: Sequence[Script], options: Options, data: Mapping[str, Any]
) -> Iterator[tuple[Place, str]]:
    unknown_zone = ""
    for index, script in enumerate(scripts):
        try:
            parse_schedules([script], options)
        except InvalidScheduleError as error:
            yield _told(("script", index, "cron"), error.args[2], data)
        except ValueError as error:  # the same for all, and at no place in the manifest
            unknown_zone = str(error)
    if unknown_zone:
        yield (), unknown_zone


def _taken_names(tables: Sequence[Mapping[str, Any]]) -> set[int]:
    """Return which scripts have the name of one before them."""
    first: dict[str, int] = {}
    named = [(index, table["name"]) for index, table in enumerate(tables) if table.get("name")]
    return {index for index, name in named if first.setdefault(name, index) != index}


def _oddities(data: Mapping[str, Any], nameless: Iterable[int]) -> Iterator[tuple[Place, str]]:
    """Yield what coder would not mind."""
    known = sorted(info.alias or name for name, info in AgentScript.model_fields.items())
    for index, table in enumerate(data["script"]):
        for field in table if isinstance(table, dict) else ():
            if field not in known:
                yield _told(("script", index, field), f"is unknown, {hint(field, known)}", data)
    for index in nameless:
        problem = f"is that of another script; this one goes by script[{index + 1}]"
        yield _told(("script", index, "display_name"), problem, data)
