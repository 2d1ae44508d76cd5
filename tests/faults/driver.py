"""A host whose system calls fail: ``python driver.py SCENARIO SCOPE CALL=ERROR,ERROR...``.

For each error the first call of that name fails, then the second, and so on, until a scenario makes
no further one. After each fault all promises are checked. Writes one line of JSON: how many faults
there were, what became of the runs, and what was wrong. Runs with shim.c preloaded.
"""

from __future__ import annotations

import ctypes
import errno
import faulthandler
import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

from support import Lines, children, descriptors, processes_with, threads

from agentscripts import Options, Runner, RunResult, RunStatus, Script, Stage, _core, _native

PATIENCE = 20.0  # seconds until a fault has led to a hang
SLOW = 8.0  # less than flush_timeout: a wait for lines that never come would take that long
EXHAUSTIVE = 12  # so many calls of one name fail one after the other; of the later ones, some

SHIM = ctypes.CDLL(None)
SHIM.fault_core.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
SHIM.fault_arm.argtypes = [ctypes.c_char_p, *[ctypes.c_int] * 4]
SHIM.fault_blocks.restype = ctypes.c_long

RUN = 'echo out; echo err >&2; : > "$MARKER"'
FILE = f"#!/bin/sh\n{RUN}"
STOP = "trap '' HUP; echo up; (setsid sleep 60; :) & sleep 60; :"
ROTATE = "for i in 1 2 3 4 5; do printf line-$i-xxxxxxxx; sleep 0.002; echo xxxxxxxxxxxxxxxx; done"
# By writes that are large, so that reads are, too.
LARGE = "dd bs=60000 iflag=fullblock status=none"
OUTPUT = f"echo first; head -c 300000 /dev/zero | tr '\\0' x | {LARGE}; echo; echo last >&2"
LINGER = "echo up; sleep 3 &"  # beyond all delays, also on a busy machine


class Faults:
    """Which call is to fail."""

    def __init__(self, name: str, error: int, core: bool, for_good: bool) -> None:
        self.name, self.error, self.core, self.for_good = name.encode(), error, core, for_good
        self.nth = 1

    def during(self, action: Callable[[], Any]) -> tuple[Any, bool]:
        """Return what an action returns or raises, and whether there was a fault meanwhile."""
        SHIM.fault_arm(self.name, self.error, self.nth, self.core, self.for_good)
        try:
            result = action()
        except Exception as error:
            result = error
        return result, SHIM.fault_disarm() > 0

    def numbers(self) -> Iterator[int]:
        """Choose the calls: each of the first, then further and further apart."""
        self.nth = 1
        while self.nth < 100_000:
            yield self.nth
            self.nth += 1 if self.nth < EXHAUSTIVE else self.nth


class Scenario:
    """A runner in a directory of its own, and what must be true of each of its runs."""

    statuses: ClassVar = {RunStatus.SUCCEEDED}
    exit_codes: ClassVar[set[int | None]] = {0}
    after_fault: ClassVar[set[int | None]] = {None}

    def __init__(self, base: Path, script: str, **options: Any) -> None:
        self.base = base
        self.timeout = options.pop("timeout", None)
        self.count = options.pop("count", 1)
        self.script = script
        self.options = options
        self.lines = Lines()
        self.reports: list[RunResult] = []
        self.runner = self.make()
        self.init(self.runner)

    def make(self) -> Runner:
        defaults = {
            "data_dir_base": self.base / "data",
            "log_dir": self.base / "logs",
            "working_dir": self.base,
            "env": {"MARKER": str(self.base / "marker")},
            "shell": "/bin/sh",
            "kill_delay": 0.01,
            "get_script_logger": lambda _: self.lines,
        }
        return Runner(Options(**{**defaults, **self.options}))

    def init(self, runner: Runner) -> None:
        scripts = [
            Script(
                script=self.script,
                name=f"s{index}",
                log_path=f"s{index}.log",
                timeout=self.timeout,
                cron="0 0 0 1 1",
            )
            for index in range(self.count)
        ]
        runner.init(scripts, on_complete=self.reports.append)

    def execute(self) -> list[RunResult]:
        return self.runner.execute(check=False)

    def before(self) -> None:
        (self.base / "marker").unlink(missing_ok=True)
        for log in (self.base / "logs").glob("s*"):
            log.unlink()
        self.lines = Lines()
        self.reports.clear()

    def check(self, results: Any, error: int | None) -> Iterator[str]:
        """Say what is wrong with the results of an ``execute``."""
        if isinstance(results, Exception):
            yield f"execute raised {results!r}"
            return
        if len(results) != self.count or len(self.reports) != self.count:
            yield f"{len(results)} results, {len(self.reports)} reports"
        for result in results:
            yield from self.check_one(result, error)

    def check_one(self, result: RunResult, error: int | None) -> Iterator[str]:
        if result.status is RunStatus.NOT_STARTED and error is not None:
            if os.strerror(error) not in result.reason:
                yield f"the reason is {result.reason!r}"
            if (
                self.count == 1 and (self.base / "marker").exists()
            ) or result.exit_code is not None:
                yield "it was started all the same"
            return
        expected = self.exit_codes | (self.after_fault if error is not None else set())
        if result.status not in self.statuses or result.exit_code not in expected:
            yield f"{result.status} {result.exit_code} {result.reason!r}"
        if error is None and (result.log_error or result.lines_dropped):
            yield f"a loss without a fault: {result.log_error} {result.lines_dropped}"
        if result.log_error and error is not None and result.log_error.errno != error:
            yield f"the log's error is {result.log_error!r}"
        written = self.written(result)
        if not result.log_error and len(written) < result.output_bytes:
            yield f"{len(written)} of {result.output_bytes} bytes are in the log"
        if result.log_error is None and len(written) > result.output_bytes + 1000:
            yield f"the log has {len(written)} bytes, the output {result.output_bytes}"
        yield from self.check_output(result, written)

    def written(self, result: RunResult) -> bytes:
        assert result.log_path is not None
        number = len(list(result.log_path.parent.glob(f"{result.log_path.name}.*")))
        names = [f"{result.log_path}.{n}" for n in range(number, 0, -1)]
        files = [Path(name) for name in [*names, str(result.log_path)]]
        return b"".join(file.read_bytes() for file in files if file.exists())

    def check_output(self, result: RunResult, written: bytes) -> Iterator[str]:
        if self.script in (RUN, FILE) and self.count == 1:
            if not (self.base / "marker").exists():
                yield "it did not run to its end"
            if not result.log_error and not {b"out", b"err"} <= set(written.split(b"\n")):
                yield f"the log is {written!r}"
            if not result.lines_dropped and sorted(self.lines.lines) != ["err", "out"]:
                yield f"the logger got {self.lines.lines!r}"

    def close(self) -> None:
        self.runner.close()


class Stopped(Scenario):
    """The script is timed out, and ignores the stop signal."""

    statuses: ClassVar = {RunStatus.TIMED_OUT}
    # SIGHUP: it has had no time to ignore it.
    exit_codes: ClassVar = {-signal.SIGKILL, -signal.SIGHUP}
    after_fault: ClassVar = {0, None}  # its last command was killed, and then it ended by itself

    def check_one(self, result: RunResult, error: int | None) -> Iterator[str]:
        yield from super().check_one(result, error)
        if result.status is not RunStatus.NOT_STARTED:
            left = processes_with(f"AGENTSCRIPTS_RUN_ID={result.run_id}")
            if set(left) - set(result.survivors):
                yield f"alive and not named: {left}, survivors {result.survivors}"
            for pid in left:
                os.kill(pid, signal.SIGKILL)


class Output(Scenario):
    """The script prints a long line."""

    def check_output(self, result: RunResult, written: bytes) -> Iterator[str]:
        if not result.log_error and len(written) != result.output_bytes:
            yield f"the log has {len(written)} bytes"
        if not result.lines_dropped and "last" not in self.lines.lines:
            yield f"the logger lacks the last line of {len(self.lines.lines)}"
        if result.output_bytes != 300_012:
            yield f"{result.output_bytes} bytes were read"


class Rotated(Scenario):
    """The log rotates."""

    def check_output(self, result: RunResult, written: bytes) -> Iterator[str]:
        lines = written.decode().split("\n")
        for index in range(1, 6):
            name = f"line-{index}-xxxxxxxxxxxxxxxxxxxxxxxx"
            if name not in lines and not result.log_error:
                yield f"{name} is not in {lines}"
        hidden = [one.name for one in (self.base / "logs").glob(".*")]
        if hidden:
            yield f"left behind: {hidden}"


class Lingering(Scenario):
    """A background process holds the pipes."""

    statuses: ClassVar = {RunStatus.PIPES_OPEN}


class Whole(Scenario):
    """A runner's whole life, with schedules."""

    def before(self) -> None:
        super().before()
        shutil.rmtree(self.base / "data")

    def execute(self) -> Any:
        runner = self.make()
        try:
            try:
                self.init(runner)
            except OSError:
                self.init(runner)  # after an error it may be tried again
            try:
                runner.start_cron()
            except OSError:
                runner.start_cron()
            return runner.execute(Stage.CRON, check=False)
        finally:
            runner.close()


class Timed(Scenario):
    """The scheduler's clock."""

    def execute(self) -> Any:
        timer = _native.Timer()
        try:
            timer.wait(datetime.now(UTC) + timedelta(milliseconds=2))
            timer.wake()
            timer.wait(None)
        finally:
            timer.close()

    def check(self, results: Any, error: int | None) -> Iterator[str]:
        if results is not None and getattr(results, "errno", None) != error:
            yield f"{results!r}"


SCENARIOS: dict[str, Callable[[Path], Scenario]] = {
    "run": lambda base: Scenario(base, RUN),
    "file": lambda base: Scenario(base, FILE),
    "many": lambda base: Scenario(base, RUN, count=4),
    "output": lambda base: Output(base, OUTPUT),
    "stop": lambda base: Stopped(base, STOP, timeout=0.02),
    "rotate": lambda base: Rotated(base, ROTATE, max_log_bytes=80, log_backups=20),
    "linger": lambda base: Lingering(base, LINGER, wait_delay=0.02),
    "whole": lambda base: Whole(base, RUN),
    "timer": lambda base: Timed(base, RUN),
}


def holdings() -> Counter[str]:
    """Count what must not grow."""
    found = Counter(f"thread {name}" for name in threads().values())
    found += Counter(f"descriptor of {target.split('[')[0]}" for target in descriptors().values())
    found += Counter("child" for _ in children())
    # The core's memory: what it keeps for the next sweep was made by the first one.
    return found


def leaks(before: Counter[str]) -> str:
    """Say what is there that was not, after a time to end."""
    give_up = time.monotonic() + 0.5
    while more := holdings() - before:
        more = Counter({k: v for k, v in more.items() if k != "thread agentscripts-delivery"})
        if not more:
            break
        if time.monotonic() > give_up:
            return f"leaked: {dict(more)}"
        gc.collect()
        time.sleep(0.002)
    return ""


def find_core() -> None:
    """Tell the shim where the core's text is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(_core.__file__)) and "r-xp" in line:
            begin, end = (int(number, 16) for number in line.split()[0].split("-"))
            SHIM.fault_core(begin, end)
            return
    raise RuntimeError("the core is not in /proc/self/maps")


def try_one(scenario: Scenario, faults: Faults | None) -> tuple[Any, bool, list[str]]:
    """Run a scenario once; return its results, whether there was a fault, what was wrong."""
    scenario.before()
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    began = time.monotonic()
    if faults is None:
        try:
            results, hit = scenario.execute(), False
        except Exception as error:
            results, hit = error, False
    else:
        results, hit = faults.during(scenario.execute)
    faulthandler.cancel_dump_traceback_later()
    took = time.monotonic() - began
    problems = list(scenario.check(results, faults.error if faults and hit else None))
    if took > SLOW:
        problems.append(f"it took {took:.1f} s")
    return results, hit, problems


def faults_of(scope: str, calls: Sequence[str]) -> Iterator[tuple[str, Faults]]:
    """Yield the faults of the table's rows and their names; ``!``: for good from then on."""
    for row in calls:
        call, _, errors = row.partition("=")
        for word in errors.split(","):
            number = getattr(errno, word.rstrip("!"))
            yield f"{call} {word}", Faults(call, number, scope == "core", word.endswith("!"))


def main(name: str, scope: str, *calls: str) -> dict[str, object]:
    """Return what is written."""
    logging.disable()
    find_core()
    problems: list[str] = []
    outcomes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="faults-") as directory:
        scenario = SCENARIOS[name](Path(directory))
        for _ in range(3):
            problems += [f"without a fault: {one}" for one in try_one(scenario, None)[2]]
        before, blocks = holdings(), SHIM.fault_blocks()
        for what, faults in faults_of(scope, calls):
            for number in faults.numbers():
                where = f"{what} number {number}"
                results, hit, wrong = try_one(scenario, faults)
                kinds = [one.status.value for one in results] if isinstance(results, list) else []
                outcomes.update(kinds if hit else [])
                counts[what.split()[0]] += hit
                wrong += [one] if (one := leaks(before)) else []
                wrong += [f"then {one}" for one in try_one(scenario, None)[2]]
                problems += [f"{where}: {one}" for one in wrong]
                if not hit or len(problems) > 20:
                    break
        # A scan may have met more processes than ever before; all else is as it was.
        gc.collect()
        if SHIM.fault_blocks() > blocks + 1:
            problems.append(f"{SHIM.fault_blocks() - blocks} blocks of the core's memory leaked")
        scenario.close()
        del scenario
    alive = [one for one in threading.enumerate() if one.name.startswith("agentscripts")]
    if alive:
        problems.append(f"threads after close: {alive}")
    return {"faults": counts, "outcomes": outcomes, "problems": problems}


if __name__ == "__main__":
    faulthandler.enable()
    print(json.dumps(main(*sys.argv[1:])))
