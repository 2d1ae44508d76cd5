"""Hosts and machines that run out of things, take them away, or end without a word."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRunner
from support import Background, Host, Lines, eventually, is_alive, run_host

from agentscripts import RunStatus, Script

pytestmark = pytest.mark.slow

UID = 61234
"""A user that no process of the machine has, so that a limit on processes counts these alone."""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory whose parents any user may enter."""
    with tempfile.TemporaryDirectory(prefix="hostile-", dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o711)
        yield path


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def can_mount() -> bool:
    return os.system("unshare --mount true 2>/dev/null") == 0


needs_mount = pytest.mark.skipif(not can_mount(), reason="no mount namespace may be made here")


# ---- interpreters ----


def test_a_subinterpreter(tmp_path: Path) -> None:
    """R8: its main thread may not handle signals, as Python says by a ValueError."""
    program = """
try:
    import _interpreters as interpreters
    interpreter = interpreters.create("legacy")
except ImportError:
    import _xxsubinterpreters as interpreters
    interpreter = interpreters.create(isolated=False)
program = '''
from agentscripts import Options, Runner, Script
with Runner(Options(log_dir=BASE, data_dir_base=BASE)) as runner:
    runner.init([Script(script="echo up")])
    print(*runner.execute()[0].tail, flush=True)
'''
interpreters.run_string(interpreter, f"BASE = {str(BASE)!r}" + program)
"""
    assert run_host(tmp_path, program) == ["up"]


# ---- limits ----


def test_descriptors_run_out_in_mid_burst(tmp_path: Path) -> None:
    """R3: the limit falls while scripts start: those that run end, the others wait and run."""
    program = """
import resource
scripts = ["echo up; exec sleep 0.1"] * 40
runner = make(*scripts)
before = resource.getrlimit(resource.RLIMIT_NOFILE)
def squeeze():
    while not any(run.last_line for run in runner.runs()):
        time.sleep(0.001)
    used = max(map(int, os.listdir("/proc/self/fd")))
    # A start alone needs more for a moment than a run that goes on.
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, before[1]))
thread = threading.Thread(target=squeeze)
thread.start()
results = runner.execute(check=False)
thread.join()
resource.setrlimit(resource.RLIMIT_NOFILE, before)
say("first", *sorted({one.status.value for one in results}))
say("second", *sorted({one.status.value for one in runner.execute(check=False)}))
runner.close()
"""
    lines = run_host(tmp_path, program)
    assert [line for line in lines if not line.startswith("line")] == [
        "first succeeded",
        "second succeeded",
    ]


@needs_root
def test_processes_run_out(open_path: Path) -> None:
    """R3: a user who may have no more processes: starts wait for runs that end."""
    program = f"""
import resource
make("true").execute()  # so that all modules are there, whoever may read them
for path in BASE.rglob("*"):
    os.chown(path, {UID}, {UID})
runner = make(*["echo up; exec sleep 0.05"] * 12, working_dir=BASE)
os.setgroups([])
os.setresgid({UID}, {UID}, {UID})
os.setresuid({UID}, {UID}, {UID})
before = len(os.listdir("/proc/self/task"))
limit = before + 10  # threads count, too
resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(20)]
begun = []
try:
    for thread in threads:
        thread.start()
        begun.append(thread)
    say("the limit does not hold")
except RuntimeError:
    pass
for thread in begun:
    thread.join()
while len(os.listdir("/proc/self/task")) > before:  # joined is not gone
    time.sleep(0.001)
results = runner.execute(check=False)
say("statuses", *sorted({{one.status.value for one in results}}))
runner.close()
"""
    lines = run_host(open_path, program)
    assert [line for line in lines if not line.startswith("line")] == ["statuses succeeded"]


@pytest.mark.memory
def test_memory_runs_out(tmp_path: Path) -> None:
    """R7: wherever the address space ends, a run has a true result, and the next call works."""
    # One script: a thread of Python that lacks memory at its start has Thread.start wait for ever.
    program = """
import resource
from agentscripts.testing import RecordingLogger
runner = make("head -c 3000000 /dev/zero | tr '\\\\0' 'x' | fold -w 100",
              get_script_logger=lambda _: RecordingLogger())
runner.execute(check=False)
before = resource.getrlimit(resource.RLIMIT_AS)
statuses = set()
for more in range(0, 2_000_000, 50_000):
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + more, before[1]))
    try:
        results = runner.execute(check=False)
    except MemoryError:  # Python's own
        results = []
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    for one in results:
        statuses.add(one.status.value)
        if one.ok and one.output_bytes != 3_029_999:
            say("bad", one)
if not statuses <= {"succeeded", "not_started", "failed"}:
    say("bad", statuses)
say("then", *{one.status.value for one in runner.execute(check=False)})
runner.close()
"""
    assert run_host(tmp_path, program) == ["then succeeded"]


# ---- what is taken away ----


@pytest.mark.parametrize("max_bytes", [None, 1000])
def test_log_directory_is_removed(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, max_bytes: int | None
) -> None:
    """L3: the script goes on, its lines come, and the next run makes the directory again."""
    go = tmp_path / "go"
    script = f"echo up; while [ ! -e {go} ]; do sleep 0.01; done; seq 1000"
    runner = make_runner(Script(script=script, log_path="deep/one.log"), max_log_bytes=max_bytes)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up")
    shutil.rmtree(tmp_path / "logs")
    go.touch()
    (result,) = call.result()
    assert result.ok
    assert lines.lines == ["up", *map(str, range(1, 1001))]
    # Only a rotation needs the directory.
    assert (result.log_error is None) == (max_bytes is None)
    (again,) = runner.execute()
    assert again.log_error is None
    assert again.log_path is not None
    assert again.log_path.read_bytes().endswith(b"\n1000\n")


@needs_mount
def test_proc_is_empty(tmp_path: Path) -> None:
    """K1: without /proc what is in the script's process group ends, though nothing is listed."""
    program = """
subprocess.run(["mount", "-t", "tmpfs", "none", "/proc"], check=True)
script = "(trap '' HUP; exec sleep 60) & echo up $$ $!; wait"
runner = make(Script(script=script, timeout=1.5), "echo fine")
results = runner.execute(check=False)
say("results", *[one.status.value for one in results])
runner.close()
"""
    with Host(tmp_path, program, wrapper=("unshare", "--mount")) as host:
        pids = [int(word) for word in host.wait_for("line up").split()]
        lines = host.finish()
        assert "results timed_out succeeded" in lines, host.complaints
        assert not any(is_alive(pid) for pid in pids)


# ---- an end without a word ----

ENDS = {"SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)", "_exit": "os._exit(0)"}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("dies", [False, True])
def test_host_ends_without_a_word(tmp_path: Path, end: str, dies: bool) -> None:
    """S2: scripts go on, as nobody is there to end them; with die_with_parent their own processes
    are killed, and what these have started goes on."""
    program = f"""
runner = make("trap '' HUP TERM; sleep 60 & echo up $$ $!; wait", die_with_parent={dies})
threading.Thread(target=runner.execute, daemon=True).start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
sys.stdin.read()
{ENDS[end]}
"""
    with Host(tmp_path, program, stdin=subprocess.PIPE) as host:
        shell, started = map(int, host.wait_for("line up").split())
        assert host.stdin is not None
        host.stdin.close()
        host.wait()
        try:
            if dies:
                eventually(lambda: not is_alive(shell), "the script is killed")
            assert is_alive(shell) != dies
            assert is_alive(started)
        finally:
            for pid in (shell, started):  # the other way round, the shell might end between
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)


def test_die_with_parent_means_the_process(make_runner: MakeRunner) -> None:
    """S2: no thread of the library ends before the script that it started."""
    scripts = ["sleep 0.2; echo done", *["true"] * 20, "sleep 0.3; echo done"]
    runner = make_runner(*scripts, die_with_parent=True)
    assert {one.status for one in runner.execute(check=False)} == {RunStatus.SUCCEEDED}
    caller = Background(lambda: runner.execute(check=False))
    assert all(one.ok for one in caller.result())
