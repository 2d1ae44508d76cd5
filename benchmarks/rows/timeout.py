"""How late a timeout is."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from agentscripts import RunStatus, Script
from benchmarks.deadlines import TIMED, Timed
from benchmarks.golang import GO, time_go
from benchmarks.lab import SHELL, Lab
from benchmarks.ours import Counters, runner
from benchmarks.peers import PEERS, Peer
from benchmarks.row import OURS, Better, Measure, Row, Sample

__all__ = ["ORDER", "ROWS"]

ORDER = 70
TIMEOUT: Final = 0.1


class _Late(NamedTuple):
    """How many ms after the timeout something came."""

    back: float  # the call's return
    signal: float | None  # the stop signal, in the script


class _Hog(threading.Thread):
    """A thread that keeps the interpreter for itself."""

    busy = True

    def run(self) -> None:
        while self.busy:
            pass


@contextlib.contextmanager
def _hog(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    thread = _Hog()
    thread.start()
    try:
        yield
    finally:
        thread.busy = False
        thread.join()


def _time(call: Callable[[], float], stamp: Path | None) -> _Late:
    """Call what returns when its script started; the script leaves a stamp when the signal came."""
    began = time.monotonic()
    started = call()
    back = time.monotonic() - began - TIMEOUT
    if stamp is None:
        return _Late(back * 1e3, None)
    came = int(stamp.read_text()) / 1e9
    stamp.unlink()
    return _Late(back * 1e3, (came - started - TIMEOUT) * 1e3)


class _Case(NamedTuple):
    stamped: bool
    hog: bool

    def prepare(self, lab: Lab) -> tuple[str, Path | None]:
        """Return the script and its stamp."""
        if not self.stamped:
            return "sleep infinity", None
        stamp = lab.directory("timeout") / "stamp"
        return f"exec {lab.tool('victim')} stamp {stamp}", stamp

    def repeat(self, lab: Lab, call: Callable[[], float], stamp: Path | None) -> Sample:
        """Return the medians of some calls."""
        with _hog(self.hog):
            times = [_time(call, stamp) for _ in range(lab.pick(3, 2))]
        back = statistics.median(one.back for one in times)
        signals = [one.signal for one in times if one.signal is not None]
        if not signals:
            return Sample(back)
        return Sample(statistics.median(signals), besides={"return + ms": back})


def _ours(case: _Case) -> Measure:
    def measure(lab: Lab) -> Sample:
        text, stamp = case.prepare(lab)
        script = Script(name="late", script=text, timeout=TIMEOUT)
        with runner(lab.directory("timeout"), [script], get_script_logger=Counters()) as made:

            def call() -> float:
                (result,) = made.execute(check=False)
                if result.status is not RunStatus.TIMED_OUT:
                    raise RuntimeError(f"it did not time out: {result}")
                return result.started_at.timestamp()

            return case.repeat(lab, call, stamp)

    return measure


def _go(lab: Lab) -> Sample:
    log, count = lab.directory("timeout") / "go", lab.pick(3, 2)
    words = ("each", "-timeout", f"{TIMEOUT}s", count, log, SHELL, "sleep infinity")
    return Sample(statistics.median(time_go(lab, 0, *words).each) * 1e3)


def _peer(case: _Case, peer: Peer) -> Measure | str:
    timed = TIMED[peer.name]
    return timed if isinstance(timed, str) else peer.lack or _timed_peer(case, timed)


def _timed_peer(case: _Case, timed: Timed) -> Measure:
    def measure(lab: Lab) -> Sample:
        text, stamp = case.prepare(lab)
        log = lab.directory("timeout") / "peer"
        return case.repeat(lab, lambda: timed(text, log, TIMEOUT), stamp)

    return measure


def _contenders(case: _Case) -> Iterator[tuple[str, Measure | str]]:
    yield OURS, _ours(case)
    if case == _ALONE:
        yield GO, _go
    for peer in PEERS:
        yield peer.name, _peer(case, peer)


def _row(name: str, what: str, case: _Case, bar: str, *, quick: bool = False) -> Row:
    return Row(
        name=name,
        what=what,
        unit="ms",
        better=Better.LOWER,
        contenders=dict(_contenders(case)),
        base=OURS,
        bar=bar,
        quick=quick,
    )


_ALONE: Final = _Case(stamped=False, hog=False)

ROWS = (
    _row(
        "timeout",
        "return after 100 ms timeout of `sleep infinity`, lateness",
        _ALONE,
        "≤ + 1.5 ms on a machine with 100 processes",
        quick=True,
    ),
    _row(
        "timeout-signal",
        "stop signal's arrival after 100 ms timeout, lateness",
        _Case(stamped=True, hog=False),
        "",
    ),
    _row(
        "timeout-hog",
        "the same signal while a thread spins in Python",
        _Case(stamped=True, hog=True),
        "as without that thread; only the return needs the GIL",
        quick=True,
    ),
)
