"""Wall and CPU time of a piece of work."""

from __future__ import annotations

import resource
import time
from typing import Self

__all__ = ["Meter", "cpu_time"]


def cpu_time(who: int) -> float:
    """Return the seconds of CPU time, user and system, of this process or its children."""
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """Measures the body of a ``with`` statement, in seconds.

    cpu: of this process and of the children that were waited for meanwhile.
    own_cpu: of this process alone.
    """

    wall = cpu = own_cpu = 0.0

    def __enter__(self) -> Self:
        self._own = cpu_time(resource.RUSAGE_SELF)
        self._children = cpu_time(resource.RUSAGE_CHILDREN)
        self._began = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall = time.perf_counter() - self._began
        self.own_cpu = cpu_time(resource.RUSAGE_SELF) - self._own
        self.cpu = self.own_cpu + cpu_time(resource.RUSAGE_CHILDREN) - self._children
