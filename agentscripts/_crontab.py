"""From scripts to their schedules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo
from uuid import UUID

from agentscripts._cron import five_field_warning, names_zone, parse
from agentscripts._model import Script
from agentscripts._options import Options
from agentscripts._schedule import Schedule
from agentscripts._zones import local_zone
from agentscripts.errors import InvalidScheduleError

__all__ = ["parse_schedules", "schedule_warnings"]


def parse_schedules(scripts: Sequence[Script], options: Options) -> dict[UUID, Schedule]:
    """Return the schedules of the scripts that have one, by ``Script.id``.

    Raises ``InvalidScheduleError``, and ``ValueError`` when the machine's zone is no zone and a
    schedule needs it.
    """
    zone: tzinfo | None = options.timezone
    schedules = {}
    for script in scripts:
        if not script.cron:
            continue
        # Not before it is needed, for it may be none; and then it is no mistake of the script.
        if zone is None and not names_zone(script.cron):
            zone = local_zone()
        try:
            schedules[script.id] = parse(script.cron, syntax=options.cron_syntax, timezone=zone)
        except (TypeError, ValueError) as error:
            raise InvalidScheduleError(script.label, "cron", str(error)) from None
    return schedules


def schedule_warnings(scripts: Iterable[Script], options: Options) -> Iterator[tuple[Script, str]]:
    """Yield the scripts whose schedules are legal and may be a mistake, and what to tell."""
    for script in scripts:
        warning = five_field_warning(script.cron, options.cron_syntax)
        if warning is not None:
            yield script, warning
