"""Which rows are measured (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from benchmarks.row import Row

__all__ = ["UnknownRowError", "choose"]


class UnknownRowError(ValueError):
    """No row has such a name; the text lists the names."""


def choose(rows: Sequence[Row], patterns: Sequence[str], *, quick: bool) -> list[Row]:
    """Return the rows, in their order, that a pattern stands for.

    patterns: names, beginnings of names, or shell patterns. Without any, all rows; with ``quick``
        then only those that are quick.

    Raises ``UnknownRowError`` for a pattern that stands for none.
    """
    if not patterns:
        return [row for row in rows if row.quick or not quick]
    names = [row.name for row in rows]
    chosen = {name for pattern in patterns for name in _matching(pattern, names)}
    return [row for row in rows if row.name in chosen]


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    if pattern in names:  # it may be the beginning of another one
        return [pattern]
    found = [name for name in names if name.startswith(pattern) or fnmatchcase(name, pattern)]
    if not found:
        raise UnknownRowError(f"no row is called {pattern!r}; there are {', '.join(names)}")
    return found
