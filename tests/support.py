"""What several tests need: handshakes with scripts, and programs that host a runner."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

import pytest

from agentscripts import LogBatch
from agentscripts.testing import RecordingLogger

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds after which a handshake has failed: long enough for a machine that is busy."""


class Lines(RecordingLogger):
    """A logger whose lines can be waited for: a script says ``echo ready``, the test waits."""

    def __init__(self, on_send: Callable[[LogBatch], None] | None = None) -> None:
        super().__init__(on_send)
        self._arrived = threading.Condition()

    def send(self, batch: LogBatch) -> None:
        super().send(batch)
        with self._arrived:
            self._arrived.notify_all()

    def wait_for(self, text: str, count: int = 1) -> str:
        """Wait until ``count`` lines begin with a text; return the last of them."""

        def found() -> list[str]:
            return [line for line in self.lines if line.startswith(text)]

        with self._arrived:
            arrived = self._arrived.wait_for(lambda: len(found()) >= count, PATIENCE)
        assert arrived, f"expected {count} x {text!r}, got {self.lines[-20:]!r}"
        return found()[count - 1]


class Background(threading.Thread, Generic[T]):
    """A call in a thread of its own; ``result`` joins it and returns or raises what it did."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._call = call
        self._outcome: tuple[T | None, BaseException | None] = (None, None)
        self.start()

    def run(self) -> None:
        try:
            self._outcome = (self._call(), None)
        except BaseException as error:
            self._outcome = (None, error)

    def result(self, timeout: float = PATIENCE) -> T:
        """Return what the call returned; fails when it has not ended in time."""
        self.join(timeout)
        assert not self.is_alive(), f"still running after {timeout} s: {self._call}"
        value, error = self._outcome
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


def eventually(condition: Callable[[], T], what: str = "") -> T:
    """Wait until a condition is truthy and return it. For states that nothing announces."""
    give_up = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < give_up, f"never came true: {what or condition}"
        time.sleep(0.002)
    return value


# ---- signals ----


def main_frame() -> FrameType:
    """Return what the main thread does.

    Without garbage collection: Python holds a lock meanwhile that the end of a ``threading.local``
    takes, too, so that this thread would wait for itself, with the GIL.
    """
    gc.disable()
    try:
        return sys._current_frames()[threading.main_thread().ident or 0]
    finally:
        gc.enable()


def end_by(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal until a process has ended: one right after the first counts as the same."""
    ended = False
    while not ended:
        process.send_signal(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            ended = True


# ---- processes ----


def state_of(pid: int) -> str:
    """Return the state letter of a process, ``""`` when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return stat.rpartition(")")[2].split()[0]


def is_alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    return state_of(pid) not in ("", "Z", "X")


def processes_with(variable: str) -> list[int]:
    """Return the pids of processes whose environment holds ``NAME=value``."""
    wanted = os.fsencode(variable)
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError):
                environment = Path("/proc", entry, "environ").read_bytes()
                if wanted in environment.split(b"\0") and is_alive(int(entry)):
                    found.append(int(entry))
    return found


def children(pid: int | None = None) -> set[int]:
    """Return the pids of a process's children, zombies included; by default of this process's."""
    tasks = Path("/proc", str(pid or "self"), "task")
    found: set[int] = set()
    for task in os.listdir(tasks):
        with contextlib.suppress(OSError):
            found.update(map(int, (tasks / task / "children").read_text().split()))
    return found


def threads() -> dict[int, str]:
    """Return the native ids and names of this process's threads, those of C included."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    return {task: names.get(task, "not Python's") for task in tasks}


def descriptors() -> dict[int, str]:
    """Return this process's open descriptors and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one that lists
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def no_threads(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have no thread of that name start, as when none is left in the system."""
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == name:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Have the process take these bits from what it makes."""
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


@contextlib.contextmanager
def all_descriptors_taken(spare: int = 0) -> Iterator[None]:
    """Take every descriptor that this process may still open, but for some."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(descriptors()) + 20, limits[1]))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for _ in range(spare):
            os.close(taken.pop())
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# ---- programs that host a runner ----

_PRELUDE = """\
import contextlib, json, logging, os, signal, subprocess, sys, threading, time
from pathlib import Path
import agentscripts
from agentscripts import *

BASE = Path(sys.argv[1])

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

class Say:
    def send(self, batch):
        for line in batch.lines:
            say("line", line)
    def flush(self): pass

def make(*scripts, on_complete=None, **options):
    options = {"shell": "/bin/sh", "kill_delay": 0.2, "get_script_logger": lambda _: Say(),
               "data_dir_base": BASE / "data", "log_dir": BASE / "logs", **options}
    runner = Runner(Options(**options))
    runner.init([s if isinstance(s, Script) else Script(script=s) for s in scripts],
                on_complete=on_complete)
    return runner

"""


class Host(subprocess.Popen[str]):
    """A Python program of its own that hosts a runner; ``say(...)`` in it writes a line.

    wrapper: a command that starts Python, such as ``("nohup",)``.
    """

    def __init__(
        self, base: Path, program: str, *, wrapper: tuple[str, ...] = (), **options: Any
    ) -> None:
        base.mkdir(parents=True, exist_ok=True)
        path = base / "host.py"
        path.write_text(_PRELUDE + program)
        self._errors = base / "host.stderr"
        with self._errors.open("wb") as errors:
            super().__init__(
                [*wrapper, sys.executable, str(path), str(base)],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                **{"stdin": subprocess.DEVNULL, **options},
            )
        # It ends all waits: what is read then is the end of the file.
        self._watchdog = threading.Timer(PATIENCE, self.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    @property
    def complaints(self) -> str:
        """What it has written to stderr so far."""
        return self._errors.read_text(errors="replace")

    def wait_for(self, text: str) -> str:
        """Read lines until one begins with a text; return the rest of it."""
        assert self.stdout is not None
        for line in self.stdout:
            if line.startswith(text):
                return line[len(text) :].strip()
        raise AssertionError(f"the host never said {text!r}:\n{self.complaints}")

    def wait_until_blocked(self) -> None:
        """Wait for the line "ready", and until the main thread blocks: Python runs no handler for a
        signal that comes right before."""
        self.wait_for("ready")
        status = Path(f"/proc/{self.pid}/status")  # the main thread's
        looks = [""] * 3
        # A thread that goes on sleeping is not one between two naps.
        while "\nState:\tS" not in looks[0] or len(set(looks)) > 1:
            time.sleep(0.01)
            looks = [*looks[1:], status.read_text()]

    def finish(self) -> list[str]:
        """Wait for the end, which must come by itself; return the remaining lines."""
        assert self.stdout is not None
        lines = self.stdout.read().splitlines()
        status = self.wait()
        assert self._watchdog.is_alive() or status != -9, f"it hangs: {lines!r}, {self.complaints}"
        return lines

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._watchdog.cancel()
        self._watchdog.join()
        super().__exit__(*exc)  # type: ignore[arg-type]
        mark = f"CODER_SCRIPT_BIN_DIR={self._errors.parent}/data/coder-script-data/bin"
        for pid in processes_with(mark):  # a host that hung was killed, its scripts were not
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run_host(base: Path, program: str, **options: Any) -> list[str]:
    """Run a host to its end, which must be a good one; return the lines that it said."""
    with Host(base, program, **options) as host:
        lines = host.finish()
    assert host.returncode == 0, f"exit status {host.returncode}: {host.complaints}"
    return lines
