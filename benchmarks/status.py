"""Facts that the kernel has about a process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

__all__ = [
    "context_switches",
    "count_descriptors",
    "count_processes",
    "memory",
    "peak_memory",
    "reset_peak",
    "thread_count",
]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    """Return the bytes that this process has in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def peak_memory() -> int:
    """Return the most bytes that this process had in memory since ``reset_peak``."""
    return _field("VmHWM") * 1024


def reset_peak() -> None:
    """Let ``peak_memory`` begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def thread_count() -> int:
    """Return how many threads this process has, those of C included."""
    return _field("Threads")


def context_switches() -> int:
    """Return how often a thread of this process slept, or was made to wait."""
    total = 0
    for task in Path("/proc/self/task").iterdir():
        text = (task / "status").read_text()
        total += sum(map(int, re.findall(r"ctxt_switches:\s+(\d+)", text)))
    return total


def count_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd")) - 1  # but for the one that lists


def count_processes(program: Path) -> int:
    """Return how many processes run a program; zombies have none."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found += os.readlink(entry / "exe") == str(program)
            except OSError:
                pass
    return found


def _field(name: str) -> int:
    text = Path("/proc/self/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    assert match, f"/proc/self/status has no {name}"
    return int(match[1])
