"""Which peers have a timeout that ends a process tree, and how they are told."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.peers import Readers, run_in_trio, start_by_hand

if TYPE_CHECKING:
    import trio

__all__ = ["TIMED", "Timed"]

Timed = Callable[[str, Path, float], float]
"""Runs a script with a log and a timeout in seconds; returns the wall clock at its start."""


def _run_by_hand(script: str, log: Path, timeout: float) -> float:
    began = time.time()
    with start_by_hand(script) as process:
        readers = Readers(process, log)
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGHUP)
        process.wait()
        readers.join()
    return began


def _run_trio(script: str, log: Path, timeout: float) -> float:
    import trio

    async def hang_up(process: trio.Process) -> None:
        os.killpg(process.pid, signal.SIGHUP)

    async def run() -> float:
        began = time.time()
        with trio.move_on_after(timeout):
            await run_in_trio(script, log, deliver_cancel=hang_up)
        return began

    return trio.run(run)


_SHELL_ALONE: Final = "its timeout ends the shell alone, not the process tree"

TIMED: Final[Mapping[str, Timed | str]] = {
    "subprocess.run": _SHELL_ALONE,
    "Popen and threads": _run_by_hand,
    "subprocess-tee": "has no timeout",
    "sh": _SHELL_ALONE,
    "plumbum": _SHELL_ALONE,
    "trio": _run_trio,
}
