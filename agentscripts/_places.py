"""On which line of a manifest a table or a field is. Pure.

Both functions take a text that has been parsed without a mistake, and return the lines, from 1, by
the way to a value: ``("script", 1, "timeout")`` is a field of the second script.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["Place", "json_lines", "line_of", "toml_lines"]

Place = tuple[str | int, ...]

# What a statement is made of, where brackets and line ends count only outside of texts.
_TOKEN: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}|' + r"'''.*?'{3,5}|"
    r'"(?:[^"\\]|\\.)*"|' + r"'[^']*'|"
    r"\#[^\n]*|[\[{]|[\]}]|\n|[^\"'\#\[\]{}\n]+",
    re.DOTALL,
)
_KEY: Final = re.compile(r"""\s*((?:"(?:[^"\\]|\\.)*"|'[^']*'|[^"'=])+)=""")
_SPACE: Final = re.compile(r"\s*")


def line_of(place: Place, lines: Mapping[Place, int]) -> int | None:
    """Return the line of a value, else that of the smallest thing around it that has one."""
    return next(
        (line for end in range(len(place), 0, -1) if (line := lines.get(place[:end]))), None
    )


def toml_lines(text: str) -> dict[Place, int]:
    """Return the lines of tables and fields. What is inside an array has that one's line."""
    lines: dict[Place, int] = {}
    counts: dict[Place, int] = {}
    table: Place = ()
    for number, statement in _statements(text):
        if statement.startswith("["):
            keys, is_array = _header(statement)
            table = (*_way(keys[:-1], counts), keys[-1])
            if is_array:
                counts[table] = counts.get(table, 0) + 1
            lines.setdefault(table, number)  # an array's is that of its first table
            table = _way(keys, counts)
            lines[table] = number
        elif match := _KEY.match(statement):
            keys = _keys(tomllib.loads(f"{match[1]}= 0"))
            for end in range(1, len(keys) + 1):
                lines.setdefault((*table, *keys[:end]), number)
    return lines


def _statements(text: str) -> list[tuple[int, str]]:
    """Return headers and fields, each with the number of the line that it begins on."""
    found = []
    number, began, depth, parts = 1, 1, 0, [""]
    for match in _TOKEN.finditer(f"{text}\n"):
        part = match[0]
        if part == "\n" and not depth:
            if statement := "".join(parts).strip():
                found.append((began, statement))
            parts, began = [""], number + 1
        elif not part.startswith("#"):
            depth += (part in "[{") - (part in "]}")
            parts.append(part)
        number += part.count("\n")
    return found


def _header(statement: str) -> tuple[list[str], bool]:
    data = tomllib.loads(statement)
    return _keys(data), statement.startswith("[[")


def _keys(data: Any) -> list[str]:
    """Return the one key in each of the tables inside each other."""
    keys = []
    while isinstance(data, dict | list) and data:
        if isinstance(data, list):
            data = data[0]
        else:
            ((key, data),) = data.items()
            keys.append(key)
    return keys


def _way(keys: list[str], counts: Mapping[Place, int]) -> Place:
    """Return the way to the table that a header means: in an array, the last one so far."""
    place: Place = ()
    for key in keys:
        place = (*place, key)
        if place in counts:
            place = (*place, counts[place] - 1)
    return place


def json_lines(text: str) -> dict[Place, int]:
    """Return the lines of an array's objects, as ``("script", index)``, and of their fields."""
    lines: dict[Place, int] = {}
    scan = _Scan(text)
    if scan.enter("["):
        index = 0
        while not scan.leave("]"):
            lines["script", index] = scan.line
            if scan.enter("{"):
                while not scan.leave("}"):
                    line = scan.line
                    lines["script", index, str(scan.value())] = line
                    scan.enter(":")
                    scan.value()
            else:
                scan.value()
            index += 1
    return lines


class _Scan:
    """Walks over a JSON text that is known to be right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode
        self._skip()

    @property
    def line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def enter(self, sign: str) -> bool:
        """Step over this sign if it is next."""
        found = self._text.startswith(sign, self._at)
        if found:
            self._at += 1
            self._skip()
        return found

    def leave(self, bracket: str) -> bool:
        """Step over the comma between two items; return whether there was the end instead."""
        self.enter(",")
        return self.enter(bracket)

    def value(self) -> object:
        """Step over a value and return it."""
        value, self._at = self._decode(self._text, self._at)
        self._skip()
        return value

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
