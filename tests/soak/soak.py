"""One runner with much to do for long: does it stay as it is?

    python tests/soak/soak.py [--minutes N] [--seed N]

    --minutes: how long. Default: 10.
    --seed: of the order of calls. Default: 1.

Scripts that are quick, long, chatty, bad, that leave something behind, and that run on a schedule,
with loggers that are good, slow, broken, and blocked for a while, run through one runner in three
threads, are cancelled, and time out. Each 2 s it counts descriptors, threads, children, the
scripts' processes, and the resident memory.

The first fifth is warm-up. Of the rest, the median of the last third must not be above that of the
first: by 10 % or 3 (descriptors, threads, children, processes), by 4 MiB and 1 MiB for each hour
(memory: the allocator's caches are warm after a quarter of an hour). After the close all but the
memory must be as at the start. Prints a table. Exit status 0: all of that is so, and no call hung
or lost a result.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import logging
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prometheus_client import CollectorRegistry
from support import children, descriptors, is_alive, threads

from agentscripts import (
    CancelToken,
    LogBatch,
    Options,
    Overlap,
    Runner,
    RunResult,
    RunStatus,
    Script,
    ScriptLogger,
)

SAMPLE: Final = 2.0  # seconds
HANG: Final = 120.0  # seconds after which a call hangs: no script takes that long
MEBIBYTE: Final = 1 << 20

EXPECTED: Final = {
    "quick": {RunStatus.SUCCEEDED},
    "bad": {RunStatus.FAILED},
    "chatty": {RunStatus.SUCCEEDED},
    "loud": {RunStatus.FAILED},
    "long": {RunStatus.TIMED_OUT},
    "stubborn": {RunStatus.TIMED_OUT},
    "daemon": {RunStatus.PIPES_OPEN},
    "retried": {RunStatus.FAILED},
    "every second": {RunStatus.SUCCEEDED},
    "queued": {RunStatus.SUCCEEDED},
}
ANY_CALL: Final = {RunStatus.CANCELLED, RunStatus.TIMED_OUT}  # of a call that is ended
SCRIPTS: Final = (
    Script(script="echo quick", name="quick"),
    Script(script="echo bad >&2; exit 3", name="bad"),
    Script(script="seq 20000", name="chatty"),
    Script(script="seq 5000 >&2; head -c 200000 /dev/zero; exit 1", name="loud"),
    Script(script="echo long; exec sleep 60", name="long", timeout=0.5),
    Script(
        script="trap '' HUP; (setsid sleep 60 &) & setsid sleep 60 & sleep 60; :",
        name="stubborn",
        timeout=0.3,
    ),
    Script(script="sleep 10 & echo left", name="daemon"),
    Script(script="echo again; exit 1", name="retried", retries=2, retry_delay=0.1),
    Script(script="echo tick", name="every second", cron="* * * * * *"),
    Script(
        script="echo tock; sleep 1.5", name="queued", cron="*/2 * * * * *", overlap=Overlap.QUEUE
    ),
)


class Faulty:
    """A logger: good, slow, broken, or blocked for a while, as chance has it."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._kind = chance.choices(("good", "slow", "broken", "blocked"), (10, 2, 2, 1))[0]

    def send(self, batch: LogBatch) -> None:
        """Take lines, or not."""
        if self._kind == "slow":
            time.sleep(0.02)
        elif self._kind == "broken" and self._chance.random() < 0.5:
            raise OSError("no room for lines")
        elif self._kind == "blocked":
            self._kind = "good"
            time.sleep(1.5)  # longer than the runner waits for it

    def flush(self) -> None:
        """Flush, or not."""
        if self._kind == "broken":
            raise OSError("cannot flush")


class Host:
    """The runner and what uses it."""

    def __init__(self, base: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.mark = f"CODER_SCRIPT_BIN_DIR={base}/data/coder-script-data/bin"
        self.over = threading.Event()
        self.problems: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.reports = 0
        self.results = 0
        self.began: dict[str, float] = {}
        agent_log = logging.getLogger("agentscripts.soak")
        agent_log.disabled = True
        self.runner = Runner(
            Options(
                data_dir_base=base / "data",
                log_dir=base / "logs",
                shell="/bin/sh",
                get_script_logger=self.logger,
                logger=agent_log,
                kill_delay=0.2,
                wait_delay=0.3,
                stall_timeout=1.0,
                flush_timeout=1.0,
                max_parallel=6,
                max_log_bytes=MEBIBYTE,
            )
        )
        self.runner.register_metrics(CollectorRegistry())
        self.runner.init(SCRIPTS, on_complete=self.report)
        self.runner.start_cron()

    def logger(self, _: UUID) -> ScriptLogger:
        """Return the logger of a run."""
        return Faulty(random.Random(self.chance.random()))

    def report(self, result: RunResult) -> None:
        """Count a run, and say what must not be."""
        self.reports += 1
        self.outcomes[str(result.status)] += 1
        if result.survivors:  # a machine may be too busy to end them in a second; but they end
            self.outcomes["slow to die"] += 1
        if result.status not in EXPECTED[result.script.name] | ANY_CALL:
            self.problems.append(f"{result.script.name} {result.status}: {result.reason}")

    def call_again_and_again(self, name: str, seed: int) -> None:
        """Run some of the scripts, until it is over; some calls are cancelled or time out."""
        chance = random.Random(seed)
        while not self.over.is_set():
            wanted = set(chance.sample(sorted(EXPECTED), chance.randrange(1, 5)))
            token = CancelToken()
            timer = threading.Timer(chance.uniform(0.0, 1.0), token.cancel)
            if chance.random() < 0.2:
                timer.start()
            self.began[name] = time.monotonic()
            found = self.runner.execute(
                lambda script, wanted=wanted: script.name in wanted,
                cancel=token,
                timeout=chance.choice((None, None, None, 0.2, 2.0)),
                check=False,
            )
            timer.cancel()
            if len(found) != len(wanted):
                self.problems.append(f"{len(found)} results of {sorted(wanted)}")

    def cancel_some(self, seed: int) -> None:
        """Cancel a run now and then."""
        chance = random.Random(seed)
        while not self.over.wait(chance.uniform(0.05, 0.5)):
            if runs := self.runner.runs():
                self.runner.cancel(chance.choice(runs).run_id)

    def hung(self) -> list[str]:
        """Return the calls that have taken too long."""
        return [name for name, at in self.began.items() if time.monotonic() - at > HANG]


def processes_with(mark: str) -> int:
    """Return how many processes that are alive have a variable among their first."""
    count = 0
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:
                # Another one's may be of any size.
                count += os.fsencode(mark) in file.read(65536) and is_alive(int(entry))
    return count


@dataclasses.dataclass(frozen=True)
class Sample:
    """What there is at one moment."""

    descriptors: int
    threads: int
    children: int
    processes: int
    memory: float
    """MiB, resident."""

    @classmethod
    def take(cls, mark: str) -> Sample:
        """Count."""
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return cls(
            len(descriptors()),
            len(threads()),
            len(children()),
            processes_with(mark),
            pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE,
        )


FIELDS: Final = tuple(field.name for field in dataclasses.fields(Sample))


def median(samples: list[Sample]) -> Sample:
    """Return the median of each count."""
    return Sample(*(statistics.median(getattr(one, name) for one in samples) for name in FIELDS))


def growth(first: Sample, last: Sample, minutes: float) -> list[str]:
    """Return what has grown by more than it may."""
    found = []
    for name in FIELDS:
        before, after = getattr(first, name), getattr(last, name)
        allowed = 4 + minutes / 60 if name == "memory" else max(3, before / 10)
        if after - before > allowed:
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found


def row(title: str, runs: int | str, sample: Sample) -> str:
    """Return a line of the table."""
    counts = "".join(f"{getattr(sample, name):12.0f}" for name in FIELDS[:-1])
    return f"{title:>12}{runs:>10}{counts}{sample.memory:12.1f}"


def soak(host: Host, minutes: float, seed: int) -> list[Sample]:
    """Let it run; return the samples. Prints a row each twentieth of the time."""
    users = [
        threading.Thread(
            target=host.call_again_and_again,
            args=(f"call {index}", seed + index),
            daemon=True,  # a call that hangs must not keep this from saying so
        )
        for index in range(3)
    ]
    users.append(threading.Thread(target=host.cancel_some, args=(seed,), daemon=True))
    for user in users:
        user.start()
    began = time.monotonic()
    samples: list[Sample] = []
    printed = 0
    while (passed := time.monotonic() - began) < minutes * 60 and not host.hung():
        time.sleep(SAMPLE)
        samples.append(Sample.take(host.mark))
        if passed * 20 >= printed * minutes * 60:
            print(row(f"{passed / 60:.1f} min", host.reports, samples[-1]), flush=True)
            printed += 1
    host.over.set()
    for user in users:
        user.join(HANG)
    host.problems += [f"{name} hangs" for name in host.hung() if any(u.is_alive() for u in users)]
    return samples


def settled(start: Sample, mark: str) -> Sample:
    """Return what is left after the close, once threads and processes have had time to end."""
    give_up = time.monotonic() + 10
    while True:
        gc.collect()
        now = Sample.take(mark)
        same = dataclasses.replace(now, memory=start.memory) == start
        if same or time.monotonic() > give_up:
            return now
        time.sleep(0.1)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="Run one runner for long.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
        CancelToken()
        start = Sample.take("NONE=")
        print(f"{'':>12}{'runs':>10}" + "".join(f"{name:>12}" for name in FIELDS))
        print(row("start", 0, start), flush=True)
        host = Host(Path(temporary), options.seed)
        samples = soak(host, options.minutes, options.seed)
        host.runner.close()
        end = settled(start, host.mark)
        print(row("closed", host.reports, end))
        steady = samples[len(samples) // 5 :]
        third = max(1, len(steady) // 3)
        first, last = median(steady[:third]), median(steady[-third:])
        print(row("first third", "", first))
        print(row("last third", "", last))
        print(", ".join(f"{count} {status}" for status, count in sorted(host.outcomes.items())))
        problems = host.problems[:20] + growth(first, last, options.minutes)
        problems += [
            f"{name} at the end: {getattr(end, name)}, at the start: {getattr(start, name)}"
            for name in FIELDS[:-1]
            if getattr(end, name) > getattr(start, name)
        ]
        for problem in problems:
            print("WRONG:", problem)
        print("not steady" if problems else "steady")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
