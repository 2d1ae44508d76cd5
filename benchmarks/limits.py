"""What a shell may have passed on that would spoil the figures: limits and ignored signals."""

from __future__ import annotations

import resource
import signal

__all__ = ["default_signals", "descriptors", "raise_limits"]


def raise_limits() -> None:
    """Allow this process as many descriptors as it may have."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def default_signals() -> None:
    """Undo ``nohup`` and a shell's ``&``: where one is ignored, each script takes a second exec."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in signal.SIGHUP, signal.SIGQUIT:
        signal.signal(number, signal.SIG_DFL)


def descriptors() -> int:
    """Return how many descriptors this process may open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
