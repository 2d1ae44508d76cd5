"""Trees of processes that are ended by a timeout or a cancel, beside others that are left alone.

    python tests/races/races.py [--trees N] [--seed N] [--pid-max N] [--parallel N]

    --trees: how many. Default: 200.
    --seed: of the first round; each further one has the next. A failure prints its round's.
    --pid-max: in a pid namespace that has no more numbers, so that they are used again and again;
        1000 at least, else all of them are while /proc is read once. It is set there alone since
        Linux 6.14; before, this is refused.
    --parallel: how many scripts run at once. Default: 6.

Each round is one runner with three calls of ``execute`` at once: scripts that time out beside some
that are left alone, scripts that are cancelled one by one, and scripts whose call is cancelled.
tree.c says what the trees are made of. A tree may outlive its run where that has lasted until a
second after kill_delay, as on a machine that is too busy to catch a chain of forks: that is
counted. Writes one line of JSON: what was done, what was wrong. Exit status 0: nothing was.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from agentscripts import CancelToken, Options, Runner, RunResult, RunStatus, Script

HERE: Final = Path(__file__).resolve().parent
FLAGS: Final = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-pthread")
ROUND: Final = 30  # trees of one runner
PERIOD: Final = 1500  # microseconds from one bystander to the next
PEACEFUL: Final = ("(sm2)(gm1)m3", "(Tm2)(e(m1)m2)m2", "(p1(sm1)m2)m3", "m0", "(s(s(sm2)m2)m2)m2")


# ---- trees ----


def tree(chance: random.Random) -> str:
    """Return a description for tree.c. Its root stays until it is asked to end, or killed."""
    return _process(chance, 3, root=True)


def _process(chance: random.Random, depth: int, *, root: bool) -> str:
    def maybe(action: str, percent: int) -> str:
        return action if chance.randrange(100) < percent else ""

    before = maybe("s", 35) + maybe("g", 15) + maybe(f"p{chance.randrange(1, 5)}", 10)
    before += maybe("e", 20) + maybe("T", 8) + ("" if root else maybe("D", 25))
    asked = chance.choice(("i", "i", "h", ""))
    children = [
        f"({_process(chance, depth - 1, root=False)})"
        for _ in range(chance.choice((0, 1, 1, 2, 3)) if depth else 0)
    ]
    ends = ["", "", "", "", "z", f"b{chance.randrange(2, 9)}"]
    ends += [] if root else ["x", f"f{chance.randrange(2, 9)}"]
    return before + asked + "".join(children) + chance.choice(ends)


# ---- what there is ----


class Life:
    """Whether a process of one tree is alive: all of them hold the other end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def goes_on(self) -> bool:
        """Return whether there is one. None is missed, however short its life."""
        try:
            return os.read(self._fd, 1) != b""
        except BlockingIOError:
            return True

    def close(self) -> None:
        """Forget it."""
        os.close(self._fd)
        self.path.unlink()

    def processes(self) -> list[int]:
        """Return the pids of those that can be found; a chain of forks may not be."""
        found = []
        for entry in os.listdir("/proc"):
            with contextlib.suppress(OSError):
                if entry.isdecimal() and os.fsencode(self.path) in self._words(entry):
                    found.append(int(entry))
        return found

    def _words(self, pid: str) -> list[bytes]:
        for thread in os.listdir(f"/proc/{pid}/task"):  # the first one may have ended
            if words := Path(f"/proc/{pid}/task/{thread}/cmdline").read_bytes():
                return words.split(b"\0")[1:2]
        return []

    def end(self) -> list[str]:
        """End those that are left; return what /proc says of them.

        A chain of forks that is always elsewhere is left to its own end (LIFE of tree.c).
        """
        found = []
        give_up = time.monotonic() + 2
        while self.goes_on() and time.monotonic() < give_up:
            for pid in self.processes():
                with contextlib.suppress(OSError):
                    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    names = ("state", "parent", "group", "session")
                    words = map(" ".join, zip(names, stat, strict=False))
                    found.append(f"pid {pid}: {', '.join(words)}")
                    # A chain of forks may have gone on in another one by now.
                    os.killpg(int(stat[2]), signal.SIGKILL)
        return found


class Nursery(subprocess.Popen[str]):
    """Processes of the same program that come and go, and must not get a signal."""

    def __init__(self, program: Path) -> None:
        super().__init__(
            [program, "nursery", str(PERIOD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> tuple[int, str]:
        """Return how many there were, and what happened to them."""
        born, complaints = self.communicate()
        if self.returncode and not complaints:
            complaints = f"the nursery ended with {self.returncode}"
        return int(born or 0), complaints


# ---- a round ----


class Round:
    """One runner's scripts, from a seed."""

    def __init__(self, seed: int, program: Path, parallel: int, count: int) -> None:
        self.chance = random.Random(seed)
        self.seed = seed
        self.lives: dict[str, Life] = {}
        self.base = program.parent
        self.problems: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.programs: dict[str, str] = {}
        self.cancelled: dict[str, datetime] = {}
        self.over = threading.Event()
        self.checked = 0
        chance = self.chance
        kind = {index: chance.choice(("timeout", "cancel", "call")) for index in range(count)}
        scripts = [
            self.script(f"tree-{kind[index]}-{seed}-{index}", tree(chance)) for index in kind
        ]
        scripts += [
            self.script(f"peaceful-timeout-{seed}-{index}", chance.choice(PEACEFUL))
            for index in range(count // 6)
        ]
        chance.shuffle(scripts)
        self.kill_delay = chance.choice((0.0, 0.1, 0.2))
        self.runner = Runner(
            Options(
                data_dir_base=program.parent,
                log_dir=program.parent,
                shell="/bin/sh",
                env={"TREE": str(program)},
                max_parallel=parallel,
                kill_delay=self.kill_delay,
                stop_signal=chance.choice((1, 15, 10)),
            )
        )
        self.runner.init(scripts, on_complete=self.check)

    def script(self, name: str, program: str) -> Script:
        """Return a script that becomes a tree."""
        self.programs[name] = program
        self.lives[name] = Life(self.base / name)
        ends = name.startswith("tree-timeout")
        return Script(
            name=name,
            script=f'exec "$TREE" {self.base / name} "{program}"',
            timeout=self.chance.choice((0.0, 0.01, 0.05, 0.1, 0.2, 0.3)) if ends else None,
        )

    def check(self, result: RunResult) -> None:
        """What must be true as soon as a run has its result."""
        self.checked += 1
        name = result.script.name
        self.outcomes[f"{name.partition('-')[0]} {result.status}"] += result.attempts > 0
        if name.startswith("peaceful"):
            if not result.ok:
                self.wrong(f"{name} {result.status}: {result.reason}, {result.stderr}")
            return
        if result.status not in (RunStatus.TIMED_OUT, RunStatus.CANCELLED):
            self.wrong(f"{name} {result.status}: {result.reason}, {result.stderr}")
        life = self.lives[name]
        if not life.goes_on():
            return
        left = life.end()
        if self.took_its_time(result):
            self.outcomes["given up after a second"] += 1
        else:
            self.wrong(f"{name} {self.programs[name]} goes on", *left[:20])

    def took_its_time(self, result: RunResult) -> bool:
        """Return whether a run lasted for as long as it may: until a second after kill_delay."""
        name, timeout = result.script.name, result.script.timeout
        stopped = self.cancelled.get(name) or self.cancelled["call"]
        if timeout is not None:
            stopped = result.started_at + timedelta(seconds=timeout)
        lasted = (result.ended_at - stopped).total_seconds()
        return lasted >= self.kill_delay + 0.99

    def wrong(self, *words: str) -> None:
        """Note what was wrong."""
        self.problems.append(f"seed {self.seed}: " + "\n  ".join(words))

    def cancel_some(self) -> None:
        """Cancel one run after the other, each a while after its start."""
        until: dict[str, float] = {}
        chance = random.Random(self.seed)
        while not self.over.wait(0.005):
            for run in self.runner.runs():
                if run.script.name.startswith("tree-cancel") and run.pid:
                    wait = chance.choice((0.0, 0.02, 0.1, 0.3))
                    if time.monotonic() > until.setdefault(run.run_id, time.monotonic() + wait):
                        self.cancelled.setdefault(run.script.name, datetime.now(UTC))
                        self.runner.cancel(run.run_id)

    def execute(self, kind: str, token: CancelToken | None = None) -> None:
        """Run the scripts of one kind."""
        self.runner.execute(
            lambda script: script.name.split("-")[1] == kind, cancel=token, check=False
        )

    def run(self) -> None:
        """Do all of it; return when all has ended."""
        token = CancelToken()
        canceller = threading.Thread(target=self.cancel_some)
        calls = [
            threading.Thread(target=self.execute, args=arguments)
            for arguments in (("timeout",), ("cancel",), ("call", token))
        ]
        canceller.start()
        for call in calls:
            call.start()
        calls[2].join(self.chance.uniform(0.2, 1.5))
        self.cancelled["call"] = datetime.now(UTC)
        token.cancel()
        for call in calls:
            call.join()
        self.over.set()
        canceller.join()
        self.runner.close()
        if self.checked < len(self.programs):
            self.wrong(f"only {self.checked} of {len(self.programs)} results came to be checked")
        for life in self.lives.values():
            life.close()


# ---- the program ----


def with_few_numbers(pid_max: int) -> list[str]:
    """Return what a command begins with that is to have few numbers for processes."""
    release = tuple(int(part) for part in platform.release().split(".")[:2])
    if release < (6, 14):
        raise SystemExit(f"kernel.pid_max is the whole machine's on Linux {platform.release()}")
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    setting = f'echo {pid_max} > /proc/sys/kernel/pid_max && exec "$@"'
    namespace = ("unshare", *user, "--pid", "--fork", "--kill-child", "--mount-proc")
    return [*namespace, "/bin/sh", "-c", setting, "sh"]


def perform(options: argparse.Namespace, program: Path) -> dict[str, object]:
    """Do one round after the other, up to one in which something is wrong; return figures."""
    began = time.monotonic()
    outcomes: Counter[str] = Counter()
    problems: list[str] = []
    with Nursery(program) as nursery:
        for index in range(0, options.trees, ROUND):
            count = min(ROUND, options.trees - index)
            one = Round(options.seed + index // ROUND, program, options.parallel, count)
            one.run()
            outcomes += one.outcomes
            problems += one.problems
            if problems:
                break
        born, complaints = nursery.end()
    problems += [complaints] if complaints else []
    took = {"bystanders": born, "seconds": round(time.monotonic() - began)}
    return {**dict(sorted(outcomes.items())), **took, "problems": problems}


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description="End trees of processes.")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pid-max", type=int)
    parser.add_argument("--parallel", type=int, default=6)
    parser.add_argument("--program", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.program:
        logging.disable()  # each of these runs is a failure that it would tell of
        done = perform(options, options.program)
        print(json.dumps(done))
        return 1 if done["problems"] else 0
    with tempfile.TemporaryDirectory() as temporary:
        program = Path(temporary).resolve() / "tree"
        subprocess.run(["gcc", *FLAGS, "-o", program, HERE / "tree.c"], check=True)
        begin = with_few_numbers(options.pid_max) if options.pid_max else []
        # Orphans are reaped at once: not every machine's first process is quick enough.
        return subprocess.run(
            [
                *(*begin, program, "init", sys.executable, __file__, "--program", program),
                *("--trees", str(options.trees), "--seed", str(options.seed)),
                *("--parallel", str(options.parallel)),
            ]
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
