"""What it costs to hold scripts that say nothing."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from agentscripts import CancelToken
from benchmarks.golang import GO, run_go
from benchmarks.lab import SHELL, Lab
from benchmarks.limits import descriptors
from benchmarks.ours import Counters, runner
from benchmarks.peers import PEERS, Peer
from benchmarks.row import OURS, Better, Cannot, Measure, Row, Sample
from benchmarks.status import count_descriptors, memory, thread_count

__all__ = ["ORDER", "ROWS"]

ORDER = 40
COUNT: Final = 1000
SCRIPT: Final = "exec sleep infinity"
_PATIENCE: Final = 60.0


class _Gauge:
    """What this process holds beyond what it held at the beginning."""

    def __init__(self) -> None:
        gc.collect()
        self._memory, self._threads = memory(), thread_count()
        self._descriptors = count_descriptors()

    def per_script(self, count: int) -> dict[str, float]:
        """Return the growth for each of the scripts."""
        return {
            "memory": (memory() - self._memory) / count / 1024,
            "threads": (thread_count() - self._threads) / count,
            "descriptors": (count_descriptors() - self._descriptors) / count,
        }


def _wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError("the scripts did not start")
        time.sleep(0.02)
    time.sleep(0.2)  # what starts a script is over when its last thread waits


def hold_ours(count: int, base: str) -> dict[str, float]:
    """Hold so many scripts in this process; return what each takes."""
    with runner(Path(base), ["true", *[SCRIPT] * count], get_script_logger=Counters()) as made:
        first, *others = made.scripts
        made.execute(lambda script: script is first)
        cancel, gauge = CancelToken(), _Gauge()
        call = threading.Thread(
            target=lambda: made.execute(others.__contains__, cancel=cancel, check=False)
        )
        call.start()
        _wait_until(lambda: sum(run.pid is not None for run in made.runs()) == count)
        held = gauge.per_script(count)
        cancel.cancel()
        call.join()
    return held


def hold_peer(name: str, count: int, base: str) -> dict[str, float]:
    """Hold so many scripts by a peer, in threads of this process; return what each takes."""
    peer = next(peer for peer in PEERS if peer.name == name)
    logs = [Path(base, f"peer-{n}") for n in range(count)]
    peer.run("true", logs[0])
    gauge = _Gauge()
    call = _start_trio(logs) if peer.module == "trio" else _start_threads(peer, logs)
    _wait_until(lambda: len(_children()) >= count)
    held = gauge.per_script(count)
    for child in _children():
        child.kill()
    call()
    return held


def _start_threads(peer: Peer, logs: list[Path]) -> Callable[[], object]:
    threads = [threading.Thread(target=peer.run, args=(SCRIPT, log)) for log in logs]
    for thread in threads:
        thread.start()

    def join() -> None:
        for thread in threads:
            thread.join()

    return join


def _start_trio(logs: list[Path]) -> Callable[[], object]:
    from benchmarks.peers import run_at_once_in_trio

    call = threading.Thread(
        target=run_at_once_in_trio, args=([SCRIPT] * len(logs), logs, len(logs))
    )
    call.start()
    return call.join


def _children() -> list[Any]:
    import psutil

    return psutil.Process().children()


def _sample(held: dict[str, float]) -> Sample:
    return Sample(
        held["memory"],
        besides={"threads": held["threads"], "descriptors": held["descriptors"]},
    )


def _check_limits() -> None:
    needed = 8 * COUNT
    if descriptors() < needed:
        raise Cannot(f"needs {needed:,} descriptors, the limit is {descriptors():,}")


def _ours(lab: Lab) -> Sample:
    _check_limits()
    return _sample(lab.fresh(hold_ours, COUNT, str(lab.directory("held"))))


def _go(lab: Lab) -> Sample:
    _check_limits()
    times = run_go(lab, "hold", COUNT, lab.directory("held"), SHELL, SCRIPT)
    held = times.besides
    return _sample({**held, "memory": held["memory"] / 1024})


def _peer(peer: Peer) -> Measure | str:
    def measure(lab: Lab) -> Sample:
        _check_limits()
        base = str(lab.directory("held"))
        return _sample(lab.fresh(hold_peer, peer.name, COUNT, base))

    if peer.module not in ("subprocess", "trio"):
        return "takes a thread or more for each script, as those above; left out to save time"
    return peer.lack or measure


ROWS = (
    Row(
        name="held",
        what=f"{COUNT:,} silent scripts held, memory of each above idle",
        unit="KiB",
        better=Better.LOWER,
        contenders={OURS: _ours, GO: _go, **{peer.name: _peer(peer) for peer in PEERS}},
        base=OURS,
        bar="≤ 35 KiB",
        # Memory and counts hardly vary from round to round.
        rounds=1,
        warm_up=False,
    ),
)
