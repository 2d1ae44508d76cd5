"""What Coder's agent, a program in Go, takes for the same work, where there is a Go compiler."""

from __future__ import annotations

from typing import Final

from benchmarks.lab import Lab, NoCompilerError, Times
from benchmarks.row import Cannot

__all__ = ["GO", "run_go", "time_go"]

GO: Final = "Go"


def run_go(lab: Lab, *arguments: object) -> Times:
    """Run the tool ``gopeer``. Raises ``Cannot`` without a compiler."""
    try:
        lab.tool("gopeer")
    except NoCompilerError as error:
        raise Cannot(str(error)) from None
    return lab.time("gopeer", *arguments)


def time_go(lab: Lab, lines: int, *arguments: object) -> Times:
    """Do so; it must get so many lines, and no script may fail. Raises ``Cannot``, too."""
    times = run_go(lab, *arguments)
    if times.lines != lines or times.besides["failed"]:
        raise RuntimeError(f"{times.lines} lines came, {times.besides['failed']} scripts failed")
    return times
