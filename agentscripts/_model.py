"""What a script is, and what is known of its runs: frozen values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any, Final, NoReturn
from uuid import UUID, uuid4, uuid5

__all__ = [
    "Dependency",
    "Overlap",
    "ReadOnlyDict",
    "Requires",
    "Run",
    "RunState",
    "RunStatus",
    "Script",
    "Stage",
    "has_fresh_source",
]

# Log files and data directories are found by ids derived from it, so it never changes.
_NAMESPACE: Final = UUID("5c0f4c8e-3d0b-4a3b-9d6e-6f2f0a9b1c77")


class Stage(StrEnum):
    """When a script runs; ``MANUAL`` marks runs that no stage selected."""

    START = "start"
    STOP = "stop"
    CRON = "cron"
    MANUAL = "manual"


class Overlap(StrEnum):
    """What becomes of a schedule that fires while its last run still runs.

    ``SKIP``: it is passed over. ``ALLOW``: both run. ``QUEUE``: it starts when that run has ended;
    at most one waits, further ones are passed over.
    """

    SKIP = "skip"
    ALLOW = "allow"
    QUEUE = "queue"


class Requires(StrEnum):
    """What a script needs of another one before it starts.

    ``SUCCESS``: that one's status is ``SUCCEEDED``. ``COMPLETION``: it has ended, in any way.
    """

    SUCCESS = "success"
    COMPLETION = "completion"


@dataclasses.dataclass(frozen=True)
class Dependency:
    """A script that another one waits for.

    on: the ``name`` of that script.
    """

    on: str
    requires: Requires = Requires.SUCCESS


class RunStatus(StrEnum):
    """How a run ended; ``SKIPPED``: a dependency kept it from starting."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    PIPES_OPEN = "pipes_open"
    NOT_STARTED = "not_started"
    SKIPPED = "skipped"


class RunState(StrEnum):
    """Where a run that has not ended is: it waits for its dependencies or its turn, runs, is being
    ended after a timeout or a cancel, or has ended and its last lines go to the logger."""

    WAITING = "waiting"
    RUNNING = "running"
    STOPPING = "stopping"
    DELIVERING = "delivering"


class ReadOnlyDict(dict[str, str]):
    """An environment inside a frozen value.

    A ``MappingProxyType`` would do, if it could be pickled and ``dataclasses.asdict`` took it.
    """

    __slots__ = ()

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("the environment is read-only; use dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


_NOT_GIVEN: Final = UUID(int=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Script:
    """A shell script and how it is run.

    Construction checks nothing; ``Runner.init`` does. Scripts pickle and hash, and
    ``dataclasses.replace`` derives those ids anew that were not given.

    script: the text; one that begins with ``#!`` runs in that interpreter, else in the shell.
    name: unique among the scripts of a runner when given.
    log_source_id: names the log and the data directory; several scripts may share one.
        Default: derived from the name, so that it survives a restart; fresh without a name.
    id: unique among the scripts of a runner. Default: ``log_source_id``.
    timeout: seconds from the start of the process; ``None`` is no limit, ``0`` is now.
    log_path: ``~`` and ``$VAR`` expand; a relative path lies under ``Options.log_dir``.
        Default: ``coder-script-<log_source_id>.log``.
    run_on_start, run_on_stop: whether ``Stage.START`` and ``Stage.STOP`` select it.
    cron: when ``Runner.start_cron`` runs it, as ``Options.cron_syntax`` reads it; ``""``: never.
    overlap: what becomes of a time that comes while its last scheduled run still runs.
    jitter: each scheduled run starts up to so many seconds late, by chance, so that many machines
        do not start at once; never in the last second before the next time, or the last half of
        less than two.
    depends_on: scripts that must have ended, or succeeded, before this one starts.
    retries: how often a script that failed or timed out is run again.
    retry_delay: seconds before the first of these; each further delay is twice as long, 60 s at
        most, and all are shortened by up to a half, by chance, so that many machines spread out.
    env: variables taken literally; stored as a read-only copy, and not hashed.

    The text and the environment stay out of ``repr()``, for they may hold secrets.
    """

    script: str = dataclasses.field(repr=False)
    name: str = ""
    log_source_id: UUID = _NOT_GIVEN
    id: UUID = _NOT_GIVEN
    timeout: float | None = None
    log_path: str = ""
    run_on_start: bool = False
    run_on_stop: bool = False
    cron: str = ""
    overlap: Overlap = Overlap.SKIP
    jitter: float = 0.0
    depends_on: tuple[Dependency, ...] = ()
    retries: int = 0
    retry_delay: float = 1.0
    env: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False, repr=False)
    # The source and the id that were not given: an id that is the very same object may be made
    # anew. It is a field because ``replace`` hands on nothing else.
    _derived: tuple[UUID | None, UUID | None] = dataclasses.field(
        default=(_NOT_GIVEN, _NOT_GIVEN), repr=False, compare=False
    )

    def __post_init__(self) -> None:
        old_source, old_id = self._derived
        source_is_derived, id_is_derived = self.log_source_id is old_source, self.id is old_id
        source = self.log_source_id
        if source_is_derived:
            source = _derive_source(source, self.name)
            object.__setattr__(self, "log_source_id", source)
        if id_is_derived:
            object.__setattr__(self, "id", source)
        derived = (source if source_is_derived else None, source if id_is_derived else None)
        object.__setattr__(self, "_derived", derived)
        # A wrong type is kept as it is, for the validation to name it.
        if isinstance(self.env, Mapping):
            object.__setattr__(self, "env", ReadOnlyDict(self.env))

    @cached_property
    def label(self) -> str:
        """What messages call the script: its name, else its id."""
        return self.name or str(self.id)


def has_fresh_source(script: Script) -> bool:
    """Whether the log source of a script is another one each time the script is made."""
    return not script.name and script.log_source_id is script._derived[0]


def _derive_source(current: UUID, name: str) -> UUID:
    """Return the id for a name; a nameless script keeps the fresh one that it has."""
    if name:
        try:
            return uuid5(_NAMESPACE, name)
        except (TypeError, UnicodeEncodeError):  # for the validation to name
            return current
    return current if current.version == 4 else uuid4()


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """A run that waits or runs, as it was when ``Runner.runs`` was called.

    run_id: 32 hexadecimal digits, also in the script's ``AGENTSCRIPTS_RUN_ID``.
    pid, started_at: of the script's process; ``None`` while it waits.
    last_line: the last line of output so far, ``""`` before the first.
    waits_for: labels of the scripts that it depends on and that have not ended; ``()`` once it has
        none to wait for.
    attempt: 1 for the first, more when it was run again after a failure.
    """

    run_id: str
    script: Script
    stage: Stage
    state: RunState
    pid: int | None
    started_at: datetime | None
    last_line: str
    waits_for: tuple[str, ...] = ()
    attempt: int = 1
