"""What a value must be to be usable. The checks raise ``TypeError`` or ``ValueError`` with a text
that goes after the field's name: ``is -1, expected ...``."""

from __future__ import annotations

import graphlib
import math
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from agentscripts._model import Dependency, Overlap, Requires, Script
from agentscripts._text import closest, number
from agentscripts.errors import InvalidDependencyError, InvalidScriptError

__all__ = [
    "JOB_CONTROL",
    "SCRIPT_CHECKS",
    "check_bool",
    "check_duration",
    "check_environment",
    "check_integer",
    "check_text",
    "script_problems",
    "validate_scripts",
]


JOB_CONTROL: Final = frozenset(
    {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT}
)
"""These signals stop a process or wake it, so they cannot ask it to end."""


def check_text(value: object, *, secret: bool = False) -> None:
    """Refuse what cannot be an argument, a path or a variable; a secret is not quoted."""
    if not isinstance(value, str):
        raise TypeError(f"is of type {type(value).__name__}, expected str")
    shown = "" if secret else f"is {value!r} and "
    if "\0" in value:
        raise ValueError(f"{shown}has a NUL at index {value.index(chr(0))}, expected none")
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{shown}has a lone surrogate at index {error.start}, expected Unicode text"
        ) from None


def check_duration(value: object) -> None:
    """Refuse all but ``None`` and a finite number of seconds that is not negative."""
    expected = "expected a finite number of seconds >= 0, or None"
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"is {value!r}, {expected}")
    try:
        usable = math.isfinite(value) and value >= 0
    except OverflowError:
        raise ValueError(f"is an integer beyond the range of float, {expected}") from None
    if not usable:
        raise ValueError(f"is {value!r}, {expected}")


def check_integer(value: object, low: int, high: int | None = None, *, none: bool = False) -> None:
    """Refuse all but an integer from ``low`` to ``high``, and ``None`` where that is allowed."""
    if value is None and none:
        return
    expected = f"an integer >= {low}" if high is None else f"an integer from {low} to {high}"
    text = f"is {number(value)}, expected {expected}{', or None' if none else ''}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(text)
    if value < low or (high is not None and value > high):
        raise ValueError(text)


def check_bool(value: object) -> None:
    """Refuse all but ``True`` and ``False``."""
    if not isinstance(value, bool):
        raise TypeError(f"is {value!r}, expected True or False")


def check_environment(value: object) -> None:
    """Refuse what cannot be an environment; the text names variables, never their values."""
    if not isinstance(value, Mapping):
        raise TypeError(f"is of type {type(value).__name__}, expected a mapping of str to str")
    for name, content in value.items():
        if not isinstance(name, str):
            raise TypeError(f"has the name {name!r}, expected str")
        if not name or "=" in name:
            raise ValueError(f"has the name {name!r}, expected one that is not empty, without '='")
        for text, what in (name, "name"), (content, "value"):
            try:
                check_text(text, secret=True)
            except (TypeError, ValueError) as error:
                raise type(error)(f"has the variable {name!r} whose {what} {error}") from None


def validate_scripts(scripts: Iterable[Script]) -> tuple[Script, ...]:
    """Return the scripts when all of them can be run together.

    Raises ``InvalidScriptError`` for the first field that is not usable, ``TypeError``.
    """
    if not isinstance(scripts, Iterable):
        raise TypeError(f"init: scripts is {scripts!r}, expected an iterable of Script")
    checked = tuple(scripts)
    for position, script in enumerate(checked):
        if not isinstance(script, Script):
            problem = f"is of type {type(script).__name__}, expected Script"
            raise InvalidScriptError(f"#{position}", "item", problem)
        _validate_fields(script)
    for _, error in script_problems(checked):
        raise error
    return checked


def script_problems(scripts: Sequence[Script]) -> Iterator[tuple[int, InvalidScriptError]]:
    """Yield all that is wrong between scripts whose fields are right, each with a position."""
    yield from _used_twice(scripts)
    names = dict.fromkeys(script.name for script in scripts if script.name)
    for position, script in enumerate(scripts):
        seen = set()
        for one in script.depends_on:
            if one.on not in names:
                problem = (
                    f"has {one.on!r}, expected the name of another script{_hint(one.on, names)}"
                )
                yield position, InvalidDependencyError(script.label, "depends_on", problem)
            elif one.on in seen:
                problem = f"has {one.on!r} twice, expected it once"
                yield position, InvalidDependencyError(script.label, "depends_on", problem)
            seen.add(one.on)
    yield from _circles(scripts)


def _hint(name: str, names: Iterable[str]) -> str:
    similar = closest(name, names)
    return f" (did you mean {similar!r}?)" if similar else ""


def _used_twice(scripts: Sequence[Script]) -> Iterator[tuple[int, InvalidScriptError]]:
    names: set[str] = set()
    ids: dict[UUID, str] = {}
    for position, script in enumerate(scripts):
        if script.name in names:
            problem = f"is {script.name!r} and used by another script, expected a unique one"
            yield position, InvalidScriptError(script.label, "name", problem)
        elif script.id in ids:  # which a name that is used twice is the reason for
            problem = f"is {script.id} and used by script {ids[script.id]!r}, expected a unique one"
            yield position, InvalidScriptError(script.label, "id", problem)
        if script.name:
            names.add(script.name)
        ids[script.id] = script.label


def _circles(scripts: Sequence[Script]) -> Iterator[tuple[int, InvalidDependencyError]]:
    """Yield them one by one: each is opened before the next one is looked for."""
    # Nothing depends on a nameless script.
    named = [(position, script) for position, script in enumerate(scripts) if script.name]
    positions = {script.name: position for position, script in named}
    graph = {script.name: {one.on for one in script.depends_on} for _, script in named}
    while True:
        try:
            return graphlib.TopologicalSorter(graph).prepare()
        except graphlib.CycleError as error:
            circle = error.args[1][::-1]  # it tells what comes before what
            graph[circle[0]].discard(circle[1])
            problem = f"is a circle, expected none: {' → '.join(circle)}"
            position = positions[circle[0]]
            yield position, InvalidDependencyError(circle[0], "depends_on", problem)


def _validate_fields(script: Script) -> None:
    for field, check in SCRIPT_CHECKS.items():
        try:
            check(getattr(script, field))
        except (TypeError, ValueError) as error:
            raise InvalidScriptError(script.label, field, str(error)) from None


def _check_script(value: object) -> None:
    check_text(value, secret=True)
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty or blank, expected a command")


def _check_name(value: object) -> None:
    check_text(value)
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"is {value!r} and has a lone surrogate, expected Unicode text")


def _check_log_path(value: object) -> None:
    check_text(value)
    if isinstance(value, str) and value.endswith("/"):
        raise ValueError(f"is {value!r}, expected the path of a file, or ''")


def _check_uuid(value: object) -> None:
    if not isinstance(value, UUID):
        raise TypeError(f"is {value!r}, expected a UUID")


def _check_overlap(value: object) -> None:
    if not isinstance(value, Overlap):
        raise TypeError(f"is {value!r}, expected a member of Overlap")


def _check_dependencies(value: object) -> None:
    if not isinstance(value, tuple):
        raise TypeError(f"is of type {type(value).__name__}, expected a tuple of Dependency")
    for one in value:
        if not isinstance(one, Dependency):
            raise TypeError(f"has {one!r}, expected a Dependency")
        if not isinstance(one.on, str):
            raise TypeError(f"has {one!r}, whose on is no str")
        if not isinstance(one.requires, Requires):
            raise TypeError(f"has {one!r}, whose requires is no member of Requires")


def _check_retries(value: object) -> None:
    check_integer(value, 0)


def _check_seconds(value: object) -> None:
    if value is None:
        raise TypeError("is None, expected a finite number of seconds >= 0")
    check_duration(value)


SCRIPT_CHECKS: Final[Mapping[str, Callable[[object], None]]] = {
    "name": _check_name,
    "script": _check_script,
    "log_source_id": _check_uuid,
    "id": _check_uuid,
    "timeout": check_duration,
    "log_path": _check_log_path,
    "run_on_start": check_bool,
    "run_on_stop": check_bool,
    "cron": check_text,
    "overlap": _check_overlap,
    "jitter": _check_seconds,
    "depends_on": _check_dependencies,
    "retries": _check_retries,
    "retry_delay": _check_seconds,
    "env": check_environment,
}
