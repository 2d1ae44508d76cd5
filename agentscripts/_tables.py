"""The tables of a manifest, as pydantic models: which fields there are and what they may hold."""

from __future__ import annotations

import math
import os
import re
import signal
from typing import Annotated, Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from agentscripts._cron import CronSyntax
from agentscripts._model import Dependency, Overlap, Requires, Script
from agentscripts._options import Options
from agentscripts._validation import validate_scripts
from agentscripts._zones import find_zone
from agentscripts.errors import InvalidScriptError

__all__ = ["ManifestTable", "OptionsTable", "ScriptTable", "parse_duration"]

_DURATION: Final = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m(?!s))?"
    r"(?:(?P<s>\d+(?:\.\d+)?)s)?(?:(?P<ms>\d+(?:\.\d+)?)ms)?",
    re.ASCII,
)
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def parse_duration(value: object) -> float | None:
    """Return the seconds of a number or of a text such as ``"1m30s"``; ``inf`` is ``None``.

    The units are h, m, s and ms, largest first. Raises ``ValueError`` for all else.
    """
    seconds = math.nan
    if isinstance(value, str):
        match = _DURATION.fullmatch(value) if value else None
        given = match.groupdict() if match else {"s": "nan"}
        seconds = math.fsum(float(count) * _SECONDS[unit] for unit, count in given.items() if count)
        seconds = math.nan if math.isinf(seconds) else seconds
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            seconds = float(value)
        except OverflowError:
            seconds = math.nan
    if not seconds >= 0:
        raise ValueError(f"{value!r} is no duration")
    return None if math.isinf(seconds) else seconds


def _convert_duration(value: object) -> float | None:
    try:
        return parse_duration(value)
    except ValueError:
        raise PydanticCustomError("unusable", "no duration") from None


def _convert_signal(value: object) -> signal.Signals:
    if isinstance(value, str) and value in signal.Signals.__members__:
        return signal.Signals[value]
    raise PydanticCustomError("unusable", "no signal")


def _convert_dependencies(value: object) -> tuple[Dependency, ...]:
    if not isinstance(value, list):
        raise PydanticCustomError("unusable", "no array")
    return tuple(map(_convert_dependency, value))


def _convert_dependency(value: object) -> Dependency:
    table = {"on": value} if isinstance(value, str) else value
    if (
        isinstance(table, dict)
        and {"on"} <= table.keys() <= {"on", "requires"}
        and isinstance(table["on"], str)
        and table.get("requires", Requires.SUCCESS) in tuple(Requires)
    ):
        return Dependency(table["on"], Requires(table.get("requires", Requires.SUCCESS)))
    raise PydanticCustomError("unusable", "no dependency")


def _convert_timezone(value: object) -> ZoneInfo:
    try:
        return find_zone(str(value))
    except ValueError:
        raise PydanticCustomError("unusable", "no time zone") from None


def _absolute(value: str, info: ValidationInfo) -> str:
    # The library expands a leading ~, and has its own words for an empty path.
    if not value or value.startswith("~"):
        return value
    return os.path.join(str(info.context), value)


def _absolute_program(value: str, info: ValidationInfo) -> str:
    return _absolute(value, info) if "/" in value else value


# A title says what a wrong value is not, a description what is expected instead; with
# ``repr=False`` messages do not quote the value, which may be a secret.
_Text = Annotated[str, Field(title="text", description="a quoted text")]
_Command = Annotated[str, Field(title="text", description="a quoted text", repr=False)]
_Flag = Annotated[bool, Field(title="boolean", description="true or false")]
_Count = Annotated[int, Field(title="integer", description="a whole number")]
_Path = Annotated[str, AfterValidator(_absolute), Field(title="path", description="a quoted text")]
_Program = Annotated[
    str, AfterValidator(_absolute_program), Field(title="path", description="a quoted text")
]
_Id = Annotated[
    UUID, Field(title="UUID", description="a quoted text of 32 hexadecimal digits", strict=False)
]
_Duration = Annotated[
    float | None,
    BeforeValidator(_convert_duration),
    Field(title="duration", description='seconds or a text such as "1m30s"'),
]
_Signal = Annotated[
    signal.Signals,
    BeforeValidator(_convert_signal),
    Field(title="signal", description='a name such as "SIGHUP"'),
]
_Overlap = Annotated[
    Overlap, Field(title="overlap", description='"skip", "allow" or "queue"', strict=False)
]
_Syntax = Annotated[
    CronSyntax, Field(title="syntax", description='"coder" or "unix"', strict=False)
]
_Timezone = Annotated[
    ZoneInfo | None,
    BeforeValidator(_convert_timezone),
    Field(title="time zone", description='a name such as "Europe/Berlin"'),
]
_Dependencies = Annotated[
    tuple[Dependency, ...],
    BeforeValidator(_convert_dependencies),
    Field(
        title="array of dependencies",
        description='names of scripts, or tables such as {on = "build", requires = "completion"}',
    ),
]
_Environment = Annotated[
    dict[str, str],
    Field(title="table of texts", description='NAME = "value" pairs', repr=False),
]


class _Table(BaseModel):
    """A table; the defaults of its fields are never used, since only what is set is handed on."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class ScriptTable(_Table):
    """A ``[[script]]`` table: the fields of ``Script``."""

    script: _Command
    name: _Text = ""
    log_source_id: _Id = UUID(int=0)
    id: _Id = UUID(int=0)
    timeout: _Duration = None
    log_path: _Text = ""
    run_on_start: _Flag = False
    run_on_stop: _Flag = False
    cron: _Text = ""
    overlap: _Overlap = Overlap.SKIP
    jitter: _Duration = None
    depends_on: _Dependencies = ()
    retries: _Count = 0
    retry_delay: _Duration = None
    env: _Environment = {}

    @field_validator("*")
    @classmethod
    def _ask_library(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name == "depends_on":
            return value  # only all scripts together tell whether it is right
        fields: dict[str, Any] = {"script": "true", str(info.field_name): value}
        try:
            validate_scripts([Script(**fields)])
        except InvalidScriptError as error:
            raise ValueError(error.args[2]) from None
        return value


class OptionsTable(_Table):
    """The ``[options]`` table: those fields of ``Options`` that make sense in a file."""

    data_dir_base: _Path = Field(default="", alias="data_dir")
    log_dir: _Path = ""
    working_dir: _Path = ""
    cgroup: _Path = ""
    die_with_parent: _Flag = False
    shell: _Program = ""
    env: _Environment = {}
    wait_delay: _Duration = None
    kill_delay: _Duration = None
    stop_signal: _Signal = signal.SIGHUP
    max_parallel: _Count = 1
    max_log_bytes: _Count = 1
    log_backups: _Count = 1
    append_logs: _Flag = False
    timezone: _Timezone = None
    cron_syntax: _Syntax = CronSyntax.CODER

    @field_validator("*")
    @classmethod
    def _ask_library(cls, value: object, info: ValidationInfo) -> object:
        fields: dict[str, Any] = {str(info.field_name): value}
        try:
            Options(**fields)
        except (TypeError, ValueError) as error:
            # TOML has no None.
            problem = str(error).removesuffix(", or None")
            raise ValueError(problem.removeprefix(f"Options.{info.field_name} ")) from None
        return value


class ManifestTable(_Table):
    """The whole file."""

    script: Annotated[
        list[ScriptTable], Field(title="array of tables", description="[[script]] tables")
    ]
    options: Annotated[OptionsTable, Field(title="table", description="an [options] table")] = (
        OptionsTable()
    )
