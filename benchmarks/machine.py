"""Facts about the machine and the software that was measured."""

from __future__ import annotations

import os
import platform
import socket
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import agentscripts
from benchmarks.lab import SHELL, Lab

__all__ = ["facts", "warnings"]

_PEERS: Final = ("plumbum", "sh", "subprocess-tee", "trio")
# Of the many that pyperf knows.
_FROM_PYPERF: Final = ("cpu_model_name", "cpu_config", "cpu_freq", "load_avg_1min")


def facts(lab: Lab) -> dict[str, Any]:
    """Return what tells this machine's figures from another one's."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpu_count": os.cpu_count() or 1,
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "shell": str(Path(SHELL).resolve()),
        "disk": _file_system(lab.disk),
        "processes": sum(entry.isdecimal() for entry in os.listdir("/proc")),
        **_pyperf_facts(),
        "agentscripts": agentscripts.__version__,
        **{name: found for name in _PEERS if (found := _version(name))},
    }


def _pyperf_facts() -> dict[str, Any]:
    try:
        from pyperf import Run
    except ModuleNotFoundError:
        return {}
    metadata = Run([1.0], collect_metadata=True).get_metadata()
    return {name: metadata[name] for name in _FROM_PYPERF if name in metadata}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _file_system(path: Path) -> str:
    """Return the type of the file system that holds a path, as ``ext4``."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        point = before.split()[4]
        if path.is_relative_to(point) and len(point) >= len(best):
            best, kind = point, after.split()[0]
    return kind


def warnings(machine: dict[str, Any]) -> list[str]:
    """Return what makes the figures doubtful."""
    load, cores = machine.get("load_avg_1min", 0.0), machine["cpu_count"]
    found = []
    if load > cores / 4:
        found.append(f"the machine is busy: load {load:.2f} on {cores} cores before the start")
    if machine["disk"] in ("tmpfs", "overlay"):
        found.append(f"the rows named disk write to {machine['disk']}")
    return found
