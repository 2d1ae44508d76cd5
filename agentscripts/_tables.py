"""The tables of a manifest, as pydantic models: which fields there are and what they may hold."""

from __future__ import annotations

import math
import os
import re
import signal
from collections.abc import Callable
from typing import Annotated, Any, Final, LiteralString
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
    model_validator,
)
from pydantic_core import PydanticCustomError

from agentscripts._cron import CronSyntax
from agentscripts._model import Dependency, Overlap, Requires
from agentscripts._options import Options
from agentscripts._validation import SCRIPT_CHECKS
from agentscripts._zones import find_zone

__all__ = [
    "AgentScript",
    "AgentScripts",
    "ManifestTable",
    "OptionsTable",
    "ScriptTable",
    "parse_duration",
    "parse_nanoseconds",
]

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


def parse_delay(value: object) -> float:
    """Return the seconds of what ``parse_duration`` takes, but for no limit.

    Raises ``ValueError`` for all else.
    """
    seconds = parse_duration(value)
    if seconds is None:
        raise ValueError(f"{value!r} has no end")
    return seconds


def parse_nanoseconds(value: object) -> float | None:
    """Return the seconds of a whole number of nanoseconds; 0 is no limit, ``None``.

    Raises ``ValueError`` for all else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no number of nanoseconds")
    return value / 1e9 if value else None


def _converted(convert: Callable[[Any], object], what: LiteralString) -> BeforeValidator:
    """Return what makes values with ``convert``; what that raises becomes ``no <what>``."""

    def validate(value: object) -> object:
        try:
            return convert(value)
        except (KeyError, TypeError, ValueError):
            raise PydanticCustomError("unusable", f"no {what}") from None

    return BeforeValidator(validate)


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
    _converted(parse_duration, "duration"),
    Field(title="duration", description='seconds or a text such as "1m30s"'),
]
_Delay = Annotated[
    float,
    _converted(parse_delay, "finite duration"),
    Field(title="finite duration", description='seconds or a text such as "1m30s"'),
]
_Signal = Annotated[
    signal.Signals,
    _converted(signal.Signals.__members__.__getitem__, "signal"),
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
    _converted(lambda name: find_zone(str(name)), "time zone"),
    Field(title="time zone", description='a name such as "Europe/Berlin"'),
]
_Nanoseconds = Annotated[
    float | None,
    _converted(parse_nanoseconds, "duration"),
    Field(title="duration", description="a whole number of nanoseconds, 0 for no limit"),
]
_Environment = Annotated[
    dict[str, str],
    Field(title="table of texts", description='NAME = "value" pairs', repr=False),
]


class _Table(BaseModel):
    """A table; the defaults of its fields are never used, since only what is set is handed on."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)

    def given(self) -> dict[str, Any]:
        """Return the fields that were set, as arguments for what the table stands for."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class DependencyTable(_Table):
    """One of ``depends_on``: a name, or a table."""

    on: _Text
    requires: Annotated[
        Requires, Field(title="requirement", description='"success" or "completion"', strict=False)
    ] = Requires.SUCCESS

    @model_validator(mode="before")
    @classmethod
    def _accept_name(cls, value: object) -> object:
        return {"on": value} if isinstance(value, str) else value


def _as_dependencies(tables: list[DependencyTable]) -> tuple[Dependency, ...]:
    return tuple(Dependency(table.on, table.requires) for table in tables)


class _ScriptTable(_Table):
    """The fields that a script has in either form."""

    script: _Command
    name: _Text = ""
    log_source_id: _Id = UUID(int=0)
    id: _Id = UUID(int=0)
    timeout: _Duration = None
    log_path: _Text = ""
    run_on_start: _Flag = False
    run_on_stop: _Flag = False
    cron: _Text = ""

    @field_validator("*")
    @classmethod
    def _ask_library(cls, value: object, info: ValidationInfo) -> object:
        try:
            SCRIPT_CHECKS[str(info.field_name)](value)
        except (TypeError, ValueError) as error:
            raise ValueError(str(error)) from None
        return value


class ScriptTable(_ScriptTable):
    """A ``[[script]]`` table: the fields of ``Script``."""

    overlap: _Overlap = Overlap.SKIP
    jitter: _Delay = 0
    depends_on: Annotated[
        list[DependencyTable],
        AfterValidator(_as_dependencies),
        Field(
            title="array",
            description='names of scripts, or tables such as {on = "a", requires = "completion"}',
        ),
    ] = []
    retries: _Count = 0
    retry_delay: _Delay = 0
    env: _Environment = {}


class AgentScript(_ScriptTable):
    """A ``WorkspaceAgentScript`` of coder, as its JSON has it; unknown fields are passed over."""

    model_config = ConfigDict(extra="ignore")

    name: _Text = Field(default="", alias="display_name")
    timeout: _Nanoseconds = None


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
        # The default of this field may be unusable, which is no mistake in another one.
        fields: dict[str, Any] = {"data_dir_base": "/", str(info.field_name): value}
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


class AgentScripts(_Table):
    """A JSON file, its array as the value of ``script``."""

    script: list[AgentScript]
    options: OptionsTable = OptionsTable()
