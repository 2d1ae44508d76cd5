"""Time zones: one by its name, and the machine's own."""

from __future__ import annotations

import os
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

__all__ = ["find_zone", "local_zone"]

_LOCALTIME: Final = "/etc/localtime"


def find_zone(name: str) -> ZoneInfo:
    """Return a zone of the IANA database; ``ValueError`` when it has none of that name."""
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    # A name that leads out of the database is a ValueError, a folder of it an OSError.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        expected = "expected one of the IANA database, such as 'Europe/Berlin'"
        raise ValueError(f"has the time zone {name!r}, {expected}") from None


def local_zone() -> tzinfo:
    """Return the machine's zone: that of ``TZ``, else of ``/etc/localtime``, else UTC.

    Raises ``ValueError`` when that is no zone; a rule as in ``CET-1CEST`` is no name of one.
    """
    setting = os.environ.get("TZ")
    if setting is not None:
        setting = setting.removeprefix(":")
        if not setting:
            return UTC
        try:
            return _zone_in(setting) if os.path.isabs(setting) else find_zone(setting)
        except (ValueError, OSError):
            expected = "expected the name of one of the IANA database, or a file of it"
            raise ValueError(f"TZ is {setting!r}, {expected}") from None
    try:
        return _zone_in(_LOCALTIME)
    except OSError:
        return UTC
    except ValueError:
        expected = "expected a file of the IANA database"
        raise ValueError(f"{_LOCALTIME} is no time zone, {expected}") from None


def _zone_in(path: str) -> ZoneInfo:
    """Read a file of the database; when it lies in one, the zone gets its name."""
    from zoneinfo import ZoneInfo

    _, is_there, name = os.path.realpath(path).rpartition("/zoneinfo/")
    with open(path, "rb") as file:
        return ZoneInfo.from_file(file, key=name if is_there else path)
