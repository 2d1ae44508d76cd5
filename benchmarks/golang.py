"""What Coder's agent, a program in Go, takes for the same work, where there is a Go compiler."""

from __future__ import annotations

from typing import Final

from benchmarks.lab import Lab, NoCompilerError, Times
from benchmarks.row import Cannot

__all__ = ["GO", "time_go"]

GO: Final = "Go"


def time_go(lab: Lab, lines: int, *arguments: object) -> Times:
    """Run the tool ``gopeer``; it must get so many lines.

    Raises ``Cannot`` without a compiler.
    """
    try:
        lab.tool("gopeer")
    except NoCompilerError as error:
        raise Cannot(str(error)) from None
    times = lab.time("gopeer", *arguments)
    if times.lines != lines:
        raise RuntimeError(f"{times.lines} lines came")
    return times
