"""C1: which time zone a name stands for, and which one is the machine's."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agentscripts import _zones
from agentscripts._zones import find_zone, local_zone

TOKYO = zoneinfo.ZoneInfo("Asia/Tokyo")
TOKYO_FILE = next(
    (path for root in zoneinfo.TZPATH if (path := Path(root, "Asia/Tokyo")).is_file()), Path()
)
has_database = pytest.mark.skipif(
    not TOKYO_FILE.is_file(), reason="the system has no time zone database"
)


@pytest.mark.parametrize("setting", ["Asia/Tokyo", ":Asia/Tokyo"])
def test_by_name(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """C1: ``TZ`` names the machine's zone."""
    monkeypatch.setenv("TZ", setting)
    assert local_zone() is TOKYO
    assert find_zone("Asia/Tokyo") is TOKYO


@has_database
def test_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1: ``TZ`` may be a file, as it may for the C library."""
    monkeypatch.setenv("TZ", str(TOKYO_FILE))
    assert offset() == "+0900"


def offset() -> str:
    return f"{datetime(2026, 1, 1, tzinfo=local_zone()):%z}"


@pytest.mark.parametrize("setting", ["", ":"])
def test_empty(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """C1: an empty ``TZ`` is UTC, as it is for the C library."""
    monkeypatch.setenv("TZ", setting)
    assert local_zone() is UTC


@pytest.mark.parametrize("setting", ["Nowhere/City", "CET-1CEST,M3.5.0,M10.5.0/3", "/nowhere"])
def test_unusable(monkeypatch: pytest.MonkeyPatch, setting: str) -> None:
    """C1: a ``TZ`` that is no zone is named, and not taken for UTC."""
    monkeypatch.setenv("TZ", setting)
    with pytest.raises(ValueError, match="TZ") as caught:
        local_zone()
    expected = "expected the name of one of the IANA database, or a file of it"
    assert str(caught.value) == f"TZ is {setting!r}, {expected}"


@has_database
def test_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """C1: without ``TZ`` it is that of ``/etc/localtime``: a link, a copy, or nothing.
    What is no zone is named."""
    monkeypatch.delenv("TZ", raising=False)
    database = tmp_path / "zoneinfo"
    (database / "Asia").mkdir(parents=True)
    (database / "Asia/Tokyo").write_bytes(TOKYO_FILE.read_bytes())
    localtime = tmp_path / "localtime"
    monkeypatch.setattr(_zones, "_LOCALTIME", str(localtime))
    assert local_zone() is UTC
    localtime.symlink_to(database / "Asia/Tokyo")
    assert (str(local_zone()), offset()) == ("Asia/Tokyo", "+0900")
    localtime.unlink()
    localtime.write_bytes(TOKYO_FILE.read_bytes())
    assert (str(local_zone()), offset()) == (str(localtime), "+0900")
    localtime.write_bytes(b"")
    with pytest.raises(ValueError, match="localtime is no time zone, expected a file of the IANA"):
        local_zone()
