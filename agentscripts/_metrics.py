"""The Prometheus metrics (M1)."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING, Final

from agentscripts._model import Stage
from agentscripts._result import RunResult

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["Metrics", "metrics_of"]


class Metrics:
    """The metrics of one registry; all runners on it add up. Thread-safe."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._executed = Counter(
            "agent_scripts_executed", "Scripts that ended.", ["success"], registry=None
        )
        self._duration = Histogram(
            "agent_scripts_duration_seconds",
            "How long scripts took.",
            ["stage"],
            registry=None,
            buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600),
        )
        self._running = Gauge(
            "agent_scripts_running", "Scripts that run.", ["stage"], registry=None
        )
        self._output = Counter(
            "agent_scripts_output_bytes", "Bytes that scripts printed.", registry=None
        )
        self._dropped = Counter(
            "agent_scripts_log_lines_dropped",
            "Lines that a logger was too slow to take.",
            registry=None,
        )
        self._skipped = Counter(
            "agent_scripts_cron_skipped",
            "Times of schedules that passed without a run.",
            ["reason"],
            registry=None,
        )

        self._all: Final = (
            self._executed,
            self._duration,
            self._running,
            self._output,
            self._dropped,
            self._skipped,
        )

    def register(self, registry: CollectorRegistry) -> None:
        """Register all that it has not, or none. Raises ``ValueError`` when a name is taken."""
        # It tells of that in no other way: an attempt raises the same where the name is another's.
        missing = [one for one in self._all if one not in registry._collector_to_names]
        registered = []
        try:
            for one in missing:
                registry.register(one)
                registered.append(one)
        except BaseException:
            for one in registered:
                registry.unregister(one)
            raise

    def started(self, stage: Stage) -> None:
        self._running.labels(stage.value).inc()

    def stopped(self, stage: Stage) -> None:
        self._running.labels(stage.value).dec()

    def completed(self, result: RunResult) -> None:
        self._executed.labels("true" if result.ok else "false").inc()
        self._output.inc(result.output_bytes)
        self._dropped.inc(result.lines_dropped)
        if result.duration:  # else it never ran
            self._duration.labels(result.stage.value).observe(result.duration)

    def skipped(self, reason: str, count: int) -> None:
        self._skipped.labels(reason).inc(count)


_lock = threading.Lock()  # guards _known
_known: Final[weakref.WeakKeyDictionary[CollectorRegistry, Metrics]] = weakref.WeakKeyDictionary()


def metrics_of(registry: CollectorRegistry) -> Metrics:
    """Return the metrics of a registry, the same ones for each runner."""
    if not callable(getattr(registry, "register", None)):
        raise TypeError(f"register_metrics: registry is {registry!r}, expected a CollectorRegistry")
    with _lock:
        metrics = _known.get(registry) or Metrics()
        metrics.register(registry)
        _known[registry] = metrics
        return metrics


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # another thread may have held it


os.register_at_fork(after_in_child=_after_fork)
