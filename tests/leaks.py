"""Each function of the core, as the package calls it, again and again under psleak.

    GLIBC_TUNABLES=glibc.malloc.tcache_count=0 MALLOC_ARENA_MAX=1 PYTHONMALLOC=malloc \
        PYTHONUNBUFFERED=1 python tests/leaks.py

A thread's cache of freed blocks counts as memory in use, and fills up slowly: hence without one.
Writes one line of JSON: what each case came to (``""``: nothing leaked), which of the core's
functions none of them called, and what a leak that is there on purpose came to.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psleak

from agentscripts import _native, _supervised

TRUE: Final = b"/bin/true"
SHELL: Final = b"/bin/sh"
TALK: Final = b"echo out; echo err >&2; printf end"
STUBBORN: Final = b"trap '' HUP; (setsid sleep 60 & setsid sleep 60; :) & echo up; sleep 60; :"
RUN_ID: Final = "0123456789abcdef" * 2
# Whole pages come and go with threads and the allocator's caches; its own count is exact.
TOLERANCE: Final = {"uss": 131072, "rss": 131072, "vms": 2**27}
BASE: Final = Path(tempfile.mkdtemp())


class Recorder:
    """The core, and which of its functions were asked for."""

    def __init__(self, lib: Any) -> None:
        self.lib = lib
        self.reached: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.reached.add(name)
        return getattr(self.lib, name)

    def unreached(self) -> list[str]:
        return sorted({name for name in dir(self.lib) if name.startswith("as_")} - self.reached)


def open_log(max_bytes: int | None = None) -> _native.LogFile:
    fd = os.open(BASE / "log", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    dir_fd = None if max_bytes is None else os.open(BASE, os.O_RDONLY | os.O_DIRECTORY)
    return _native.LogFile(fd, dir_fd, "log", max_bytes, 2, 4096)


def start(starts: _native.Starts, program: bytes, *words: bytes, cwd: bytes = b"/") -> Any:
    env = {"PATH": "/usr/bin:/bin", "AGENTSCRIPTS_RUN_ID": RUN_ID}
    with open(os.devnull, "rb") as null:
        argv = [program, *words]
        coded = _native.code_environment(env)
        return starts.spawn([program], [cwd], argv, coded, len(env), None, null.fileno(), False)


def deliver(pool: _native.Pool) -> None:
    batch = _native.Batch()
    while pool.next(batch):
        batch.lines()


def rules(pool: _native.Pool, census: _native.Census, starts: _native.Starts) -> _supervised.Rules:
    return _supervised.Rules(
        pool,
        census,
        starts,
        max_line=65536,
        stall_timeout=5.0,
        wait_delay=5.0,
        kill_delay=0.002,
        stop_signal=signal.SIGHUP,
    )


def run(
    *words: bytes,
    deadline: int = -1,
    cancel: bool = False,
    logger: bool = True,
    max_bytes: int | None = None,
) -> None:
    """A script's whole life."""
    log, census, starts = open_log(max_bytes), _native.Census(), _native.Starts()
    gate, pool = _native.Gate(1), _native.Pool()
    thread = threading.Thread(target=deliver, args=(pool,), daemon=True)
    thread.start()
    gate.acquire(1.0)
    one = _supervised.Supervised(rules(pool, census, starts), int(logger), 5.0)
    child = start(starts, SHELL, b"-c", *words)
    one.prepare(
        child, log, gate, RUN_ID, cgroup_fd=-1, cancel_fd=-1, signal_fd=-1, deadline=deadline
    )
    if cancel:
        one.cancel(kill=True)
    one.supervise(lambda: None)
    one.note(log, "a note")
    one.finish(lambda: None)
    one.snapshot()
    one.tail()
    one.stderr()
    one.close()
    pool.close()
    thread.join()
    # Python's join() comes back before the system's thread has ended.
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):
        time.sleep(0.0005)
    log.close()
    census.close()


def usual_log_file() -> None:
    (BASE / "usual").touch()
    log = _native.LogFile.open_usual(str(BASE / "usual"), 1000)
    assert log is not None
    log.begin(empty=True)
    log.close()
    assert _native.LogFile.open_usual(str(BASE), 1000) is None


def log_file() -> None:
    log = open_log(1000)
    assert log.writes(log.identity())
    log.begin(empty=True)
    log.close()


def directory() -> None:
    os.close(_native.open_plain_directory(str(BASE)))
    assert _native.is_plain_own_directory(str(BASE))
    assert not _native.is_plain_own_directory(str(BASE / "none"))
    directories = _native.Directories(BASE, BASE)
    assert directories.are_there(directories.identity())


def environment() -> None:
    _native.code_environment({"A": "1", "É": "ü", "LONG": "x" * 5000, "ODD": "\udcff"})
    for wrong in ({"A=": "b"}, {"A": "b\0"}, {"A": "\ud800"}):
        with contextlib.suppress(ValueError):
            _native.code_environment({"A0": "1", **wrong})
            raise AssertionError("it was coded")


def gate() -> None:
    gate = _native.Gate(1)
    gate.acquire(1.0)
    gate.acquire(0.0)
    gate.release()


def timer() -> None:
    timer = _native.Timer()
    timer.wake()
    timer.wait(None)
    timer.close()


def starts() -> None:
    starts = _native.Starts()
    starts.hold()
    starts.resume_in_parent()
    starts.hold()
    starts.resume_in_child()


def no_such(program: bytes, cwd: bytes) -> None:
    with contextlib.suppress(OSError):
        start(_native.Starts(), program, cwd=cwd)
        raise AssertionError("it was started")


def census() -> None:
    _native.Census().close()


def pool() -> None:
    pool = _native.Pool()
    pool.close()
    deliver(pool)


def not_run() -> None:
    census = _native.Census()
    shared = rules(_native.Pool(), census, _native.Starts())
    _supervised.Supervised(shared, 0, 5.0).cancel(kill=False)
    census.close()


CASES: Final[dict[str, tuple[Callable[[], object], int]]] = {
    "log file": (log_file, 100),
    "usual log file": (usual_log_file, 100),
    "directory": (directory, 200),
    "environment": (environment, 200),
    "gate": (gate, 200),
    "timer": (timer, 100),
    "starts": (starts, 200),
    "no such program": (lambda: no_such(b"/no/such", b"/"), 30),
    "no such directory": (lambda: no_such(TRUE, b"/no/such"), 30),
    "census": (census, 200),
    "pool": (pool, 200),
    "not run": (not_run, 200),
    "run": (lambda: run(TALK), 15),
    "run without a logger": (lambda: run(TALK, logger=False), 15),
    "run that rotates its log": (lambda: run(TALK, max_bytes=4), 15),
    "run that times out": (lambda: run(STUBBORN, deadline=0), 15),
    "run that is killed": (lambda: run(STUBBORN, cancel=True, logger=False), 15),
}


def result_of(case: Callable[[], object], times: int, retries: int = 10) -> str:
    """Return what psleak has to say."""
    try:
        psleak.MemoryLeakTestCase().execute(case, times=times, retries=retries, tolerance=TOLERANCE)
    except psleak.Error as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main() -> None:
    core = _native.lib
    recorder = _native.lib = _supervised.lib = Recorder(core)
    try:
        results = {name: result_of(case, times) for name, (case, times) in CASES.items()}
        leaks = {
            "memory": result_of(lambda: core.as_gate_new(1), 50, retries=4),
            "descriptors": result_of(lambda: core.as_census_new(), 50),
        }
    finally:
        for path in BASE.iterdir():
            path.unlink()
        BASE.rmdir()
    json.dump({"results": results, "unreached": recorder.unreached(), "leaks": leaks}, sys.stdout)


if __name__ == "__main__":
    main()
