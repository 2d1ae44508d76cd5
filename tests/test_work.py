"""How much work a run is: counted, not timed, so a busy machine makes no difference.

Each ceiling is some quarter above the figure that was counted when it was set, which stands beside
it.
"""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner
from support import run_host

from agentscripts import LogBatch, _native, _supervised

# A sanitizer's runtime makes system calls and allocates, too.
pytestmark = [pytest.mark.slow, pytest.mark.memory]

RUNS = 20


class Sink:
    """A logger that counts what it gets."""

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self.batches = self.lines = 0

    def send(self, batch: LogBatch) -> None:
        time.sleep(self._delay)
        self.batches += 1
        self.lines += len(batch)

    def flush(self) -> None:
        pass


# ---- system calls ----


def why_not_traced() -> str:
    """Return why strace cannot be used; ``""`` when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    command = ("strace", "-f", "-o", "/dev/null", "true")
    done = subprocess.run(command, capture_output=True, text=True)
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else ""


@pytest.fixture(scope="module")
def strace() -> tuple[str, ...]:
    """The command that traces; the test is skipped where that is impossible."""
    why_not = why_not_traced()
    if why_not:
        pytest.skip(why_not)
    return ("strace", "-f", "-qq", "-e", "signal=none", "-o")


class Trace:
    """The system calls that were made between a host's ``begin`` and its ``end``.

    host: its threads, the main one first.
    """

    def __init__(self, path: Path, host: list[int]) -> None:
        self.host = host
        text = path.read_text(errors="replace")
        between = text.partition('write(1, "begin')[2].partition('write(1, "end')[0]
        words = (line.split(maxsplit=1) for line in between.splitlines()[1:-1])
        # A call that another thread's interrupts has a second line.
        self._calls = [
            (int(task), call.partition("(")[0]) for task, call in words if "<... " not in call
        ]

    def of(self, tasks: list[int]) -> Counter[str]:
        """Return how often these threads made which call."""
        return Counter(call for task, call in self._calls if task in tasks)

    def before_exec(self) -> Counter[str]:
        """Return the calls that the host's children made up to their exec, that one included."""
        found: Counter[str] = Counter()
        others = set(self.host)
        for task, call in self._calls:
            if task not in others:
                found[call] += 1
                if call == "execve":
                    others.add(task)
        return found


def traced(base: Path, strace: tuple[str, ...], program: str) -> Trace:
    """Run a host under strace."""
    base.mkdir(exist_ok=True)
    lines = run_host(base, program, wrapper=(*strace, str(base / "trace")))
    (tasks,) = (line for line in lines if line.startswith("tasks "))
    return Trace(base / "trace", [int(task) for task in tasks.split()[1:]])


SAY_TASKS = """\
say("tasks", *sorted(os.listdir("/proc/self/task"), key=lambda task: int(task) != os.getpid()))
"""

LONE = f"""
with make("true") as runner:
    for _ in range(5):
        runner.execute()
    {SAY_TASKS}
    say("begin")
    for _ in range({RUNS}):
        runner.execute()
    say("end")
"""

WAIT = f"""\
{SAY_TASKS}    say("begin")
    time.sleep(1)
    say("end")
"""

HELD = f"""
with make(*["exec sleep infinity"] * 30) as runner:
    cancel = CancelToken()
    call = threading.Thread(target=lambda: runner.execute(cancel=cancel, check=False))
    call.start()
    while sum(run.pid is not None for run in runner.runs()) < 30:
        time.sleep(0.01)
    time.sleep(0.5)
    {WAIT}
    cancel.cancel()
    call.join()
"""

STOPPING = f"""
with make(*["trap '' HUP; echo ready; exec sleep infinity"] * 5, kill_delay=None) as runner:
    cancel = CancelToken()
    call = threading.Thread(target=lambda: runner.execute(cancel=cancel, check=False))
    call.start()
    while [run.last_line for run in runner.runs()] != ["ready"] * 5:
        time.sleep(0.01)
    cancel.cancel()
    time.sleep(1)
    {WAIT}
    for run in runner.runs():
        os.kill(run.pid, signal.SIGKILL)
    call.join()
"""

HELD_BACK = f"""
ended = threading.Event()
class Stuck:
    def send(self, batch):
        ended.wait()
    def flush(self):
        pass
flood = "yes | head -c 540000"  # the queue takes less, and the pipe the rest
never = {{"stall_timeout": None, "flush_timeout": None}}
with make(flood, get_script_logger=lambda _: Stuck(), **never) as one:
    call = threading.Thread(target=one.execute)
    call.start()
    while [run.state for run in one.runs()] != [RunState.DELIVERING]:
        time.sleep(0.01)
    time.sleep(0.5)
    {WAIT}
    ended.set()
    call.join()
"""


def test_system_calls_of_a_lone_run(tmp_path: Path, strace: tuple[str, ...]) -> None:
    """A run of `true` makes few system calls; the shell's own, after its exec, do not count."""
    trace = traced(tmp_path, strace, LONE)
    host, child = trace.of(trace.host), trace.before_exec()
    assert child["execve"] == RUNS
    # 119, of which 64 in the child give each signal its default disposition.
    assert (host + child).total() / RUNS <= 145, f"{host}, {child}"


def test_system_calls_of_a_held_script(tmp_path: Path, strace: tuple[str, ...]) -> None:
    """A silent script costs no system call: nothing polls, nothing wakes up."""
    trace = traced(tmp_path, strace, HELD)
    main, *others = trace.host
    assert len(others) >= 30
    assert trace.of([main])["clock_nanosleep"] == 1
    assert trace.of(others) == {}


@pytest.mark.parametrize("program", [STOPPING, HELD_BACK], ids=["stopping", "held back"])
def test_system_calls_while_it_waits(tmp_path: Path, strace: tuple[str, ...], program: str) -> None:
    """K1, L6: nor does one that is yet to obey, or whose last lines the logger has no room for."""
    trace = traced(tmp_path, strace, program)
    others = trace.host[1:]
    assert others
    assert trace.of(others) == {}


# ---- returns from the core, each of which has to take the GIL ----


class CountingLib:
    """The core's functions; ``names`` has one entry for each call that has returned."""

    def __init__(self, lib: Any) -> None:
        self._lib = lib
        self.names: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._lib, name)
        if not callable(found):
            return found

        def call(*arguments: Any) -> Any:
            result = found(*arguments)
            self.names.append(name)
            return result

        return call


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> CountingLib:
    """Counts the calls into the core; it must come before the runner."""
    counting = CountingLib(_native.lib)
    monkeypatch.setattr(_native, "lib", counting)
    monkeypatch.setattr(_supervised, "lib", counting)
    return counting


def test_core_calls_of_a_lone_run(core: CountingLib, make_runner: MakeRunner) -> None:
    """A run of `true` takes the GIL back from the core a few times."""
    runner = make_runner("true")
    runner.execute()
    core.names.clear()
    for _ in range(RUNS):
        runner.execute()
    assert len(core.names) / RUNS <= 12, Counter(core.names)  # 9


def test_batches_of_much_output(core: CountingLib, make_runner: MakeRunner) -> None:
    """L6: a MiB comes in 16 batches of 64 KiB, and each takes the GIL once.

    The logger is slow enough to be behind: a quick one gets what there is, which may be less.
    """
    mebibytes, sink = 16, Sink(delay=0.002)
    lines = mebibytes * 1024 * 1024 // 80
    script = f"yes {'x' * 79} | head -n {lines}"
    runner = make_runner(script, get_script_logger=lambda _: sink)
    core.names.clear()
    runner.execute()
    assert sink.lines == lines
    # 18.5: the first batches are small, until it is known how quick the logger is.
    assert sink.batches / mebibytes <= 23
    assert len(core.names) - sink.batches <= 20, Counter(core.names)  # 14


# ---- memory of Python ----


@pytest.fixture
def _traced_memory() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def blocks() -> int:
    """Return how many blocks of memory Python holds, but for those of the counting."""
    gc.collect()
    own = tracemalloc.Filter(False, tracemalloc.__file__)
    return len(tracemalloc.take_snapshot().filter_traces([own]).traces)


@pytest.mark.usefixtures("_traced_memory")
def test_python_memory_does_not_grow(make_runner: MakeRunner) -> None:
    """S2: 200 runs leave no block behind."""
    runner = make_runner("true")
    for _ in range(100):
        runner.execute()
    blocks()  # the first count leaves something
    before = blocks()
    for _ in range(200):
        runner.execute()
    # 1: now and then an object takes a block that was another one's.
    assert blocks() - before <= 10


@pytest.mark.usefixtures("_traced_memory")
def test_python_memory_of_a_run(make_runner: MakeRunner) -> None:
    """A run that delivers a line holds few blocks of memory, and a result that is kept fewer."""

    class Probe(Sink):
        def send(self, batch: LogBatch) -> None:
            held.append(blocks())

    held: list[int] = []
    runner = make_runner("echo line", get_script_logger=lambda _: Probe())
    for _ in range(10):
        runner.execute()
    blocks()
    before = blocks()
    held.clear()
    kept = runner.execute()
    assert held[0] - before <= 110  # 93
    for _ in range(RUNS - 1):
        kept += runner.execute()
    assert (blocks() - before) / len(kept) <= 14  # 11


@pytest.mark.usefixtures("_traced_memory")
def test_python_memory_for_a_moment(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run leaves little to the garbage collector, which a host may have turned off."""
    for name in {*os.environ} - {"PATH"}:  # a run copies all of it
        monkeypatch.delenv(name)
    runner = make_runner("true")
    for _ in range(50):
        runner.execute()
    gc.collect()
    gc.disable()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        runner.execute()
        peak = tracemalloc.get_traced_memory()[1] - before
        garbage = gc.collect()
    finally:
        gc.enable()
    assert peak <= 19_000  # bytes; 14,900
    assert garbage <= 4  # objects; 0


def memory_of_a_run(base: Path, count: int, options: str, ready: str, prelude: str = "") -> float:
    """Return how many KiB so many scripts, all but the first, cost a host each while they run.

    options: the arguments of ``make``. ready: true once all are there. prelude: what comes first;
    an event ``ended`` is set when the host is to end.
    """
    program = f"""
import gc
ended = threading.Event()
{prelude}
def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
runner = make({options})
first = runner.scripts[0]
runner.execute(lambda script: script is first)
token, before = CancelToken(), resident()
call = threading.Thread(
    target=lambda: runner.execute(lambda script: script is not first, cancel=token, check=False)
)
call.start()
while not ({ready}):
    time.sleep(0.05)
say((resident() - before) / {count} / 1024)
token.cancel()
ended.set()
call.join()
runner.close()
"""
    return float(run_host(base, program)[-1])


@pytest.mark.parametrize(("logger", "most"), [("DISCARD", 700), ("Stuck()", 900)])  # 500, 710
def test_memory_of_a_script_that_floods(tmp_path: Path, logger: str, most: float) -> None:
    """L6: a run takes 1 MiB at most, also where neither its logger nor its log takes anything."""
    prelude = """
from agentscripts._files import LogTarget, OSFilesystem
from agentscripts._logs import DISCARD
ends = []
class Stuck:
    def send(self, batch):
        ended.wait()
    def flush(self):
        pass
class Pipes(OSFilesystem):
    def open_log(self, path):
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        ends.append(read)
        return LogTarget(write, None, "pipe", truncate=False)
flood = "yes | head -c 8000000; echo; echo end; exec sleep 600"
"""
    options = f"""
    "true", *[flood] * 10, filesystem=Pipes(), stall_timeout=0.1,
    get_script_logger=lambda _: {logger},
"""
    ready = '[run.last_line for run in runner.runs()] == ["end"] * 10'
    assert memory_of_a_run(tmp_path, 10, options, ready, prelude) <= most


def test_memory_of_a_script_that_is_held(tmp_path: Path) -> None:
    """A silent script costs the host 30.5 KiB: the pages of a thread's stack, and some objects."""
    options = '"true", *["exec sleep 600"] * 150, kill_delay=10'
    ready = "sum(run.pid is not None for run in runner.runs()) == 150"
    assert memory_of_a_run(tmp_path, 150, options, ready) <= 35
