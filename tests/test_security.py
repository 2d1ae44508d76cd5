"""What scripts, other users and the authors of manifests try; ``docs/security.md`` lists it."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import stat
import subprocess
import sys
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry, generate_latest
from support import (
    Background,
    Lines,
    descriptors,
    eventually,
    is_alive,
    processes_with,
    run_host,
    umask,
)

from agentscripts import LogBatch, RunStatus, Script
from agentscripts._process import command_line

AGENT, FORGER = 61236, 61237  # no process of the machine has these

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def can_mount() -> bool:
    command = ["unshare", "--mount", "sh", "-c", "mount -t proc -o hidepid=2 proc /proc"]
    return subprocess.run(command, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory whose parents any user may enter, and that the agent of the tests may write."""
    with tempfile.TemporaryDirectory(prefix="agentscripts-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        base = path / "base"
        base.mkdir()
        base.chmod(0o777)
        if os.geteuid() == 0:
            os.chown(base, AGENT, AGENT)
        yield base


# ---- descriptors


@pytest.mark.slow
@pytest.mark.parametrize("max_parallel", [None, 3])
def test_scripts_get_three_descriptors(
    make_runner: MakeRunner, lines: Lines, max_parallel: int | None
) -> None:
    """R6: also of a host that has some without close-on-exec, while others start and log."""
    inherited = [os.dup(1) for _ in range(20)]
    for fd in inherited:
        os.set_inheritable(fd, True)
    try:
        scripts = [Script(script="ls -l /proc/$$/fd; yes | head -c 9999 >&2") for _ in range(60)]
        runner = make_runner(*scripts, max_parallel=max_parallel, max_log_bytes=4096)
        runner.execute()
    finally:
        for fd in inherited:
            os.close(fd)
    links = [line.split(" -> ") for line in lines.lines if " -> " in line]
    assert len(links) == 3 * len(scripts)
    assert {before.split()[-1] for before, _ in links} == {"0", "1", "2"}
    # Nor are they those of another script.
    assert len({target for _, target in links if "pipe:" in target}) == 2 * len(scripts)


# ---- the agent's log

HOSTILE = "one\nERROR root: all is lost\x1b[2J\u202e"


def test_a_record_is_one_line(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """X2: no name, no reason and no path begins a line of its own in the agent's log."""
    caplog.set_level(logging.DEBUG)

    def fail(batch: LogBatch) -> None:
        raise LookupError

    runner = make_runner(
        Script(script="echo up; exit 3", name=HOSTILE),
        Script(script="true", name=f"two{HOSTILE}", log_path=f"a{HOSTILE}/\x1b"),
        Script(script="sleep 0.5 & true", name=f"three{HOSTILE}"),
        working_dir=tmp_path / HOSTILE,
        get_script_logger=lambda _: Lines(fail),
        wait_delay=0.1,
    )
    statuses = {result.status for result in runner.execute(check=False)}
    assert statuses == {RunStatus.FAILED, RunStatus.SUCCEEDED, RunStatus.PIPES_OPEN}
    texts = [record.getMessage() for record in caplog.records]
    assert sum("all is lost" in text for text in texts) >= 4
    mark = f"CODER_SCRIPT_BIN_DIR={runner.script_bin_dir}"
    eventually(lambda: not processes_with(mark), "the background process has ended")
    for text in texts:
        assert not set(text) & set("\n\x1b\u202e"), text


def test_metrics_know_no_script(make_runner: MakeRunner) -> None:
    """X1, M1: what a script is called, says and holds is in no name, label or value."""
    registry = CollectorRegistry()
    runner = make_runner(Script(script="echo hunter2", name='hunter2"}\n', env={"A": "hunter2"}))
    runner.register_metrics(registry)
    runner.execute()
    page = generate_latest(registry).decode()
    assert 'agent_scripts_executed_total{success="true"} 1.0' in page
    assert "hunter2" not in page


# ---- processes that lie about themselves

# PR_SET_MM_MAP: so many bytes of untouched memory are its command line and its environment. It ends
# with its stdin: nobody finds it by these.
BOAST = """
import ctypes, mmap, os, sys
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
at = lambda number: int(fields[number - 3])
SIZE = 64 << 20
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
area = libc.mmap(None, ctypes.c_size_t(SIZE), 1, 0x4022, -1, ctypes.c_long(0))
libc.sbrk.restype = ctypes.c_void_p
values = [at(26), at(27), at(45), at(46), at(47), libc.sbrk(0), at(28),
          area, area + SIZE, area, area + SIZE, 0]
words = (ctypes.c_uint64 * 13)(*values, 0xFFFFFFFF << 32)
print(libc.prctl(35, 14, ctypes.byref(words), ctypes.sizeof(words), 0), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def boaster() -> Iterator[int]:
    """A process whose command line and environment are 64 MiB long."""
    with subprocess.Popen(
        [sys.executable, "-I", "-c", BOAST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        answer = process.stdout.readline()
        if answer == "0\n":
            yield process.pid
        process.kill()
    if answer != "0\n":
        pytest.skip(f"this kernel lets no process say so: {os.strerror(ctypes.get_errno())}")


@pytest.mark.memory
def test_an_endless_command_line(boaster: int) -> None:
    """K5: who names a process needs no memory for what that says of itself."""
    command_line(boaster)  # imports what it needs
    tracemalloc.start()
    try:
        text = command_line(boaster)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(text) <= 80
    assert peak < 1 << 20


@pytest.mark.slow
@pytest.mark.memory
@pytest.mark.usefixtures("boaster")
def test_an_endless_environment(tmp_path: Path) -> None:
    """K2: nor does who looks for a run's processes, one of which says so."""
    tmp_path.joinpath("boast.py").write_text(BOAST)
    program = """
import resource
def largest():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB
with make("true") as first:
    first.execute()
os.mkfifo(BASE / "life")
life = os.open(BASE / "life", os.O_RDWR)  # till the host's end
script = f"setsid {sys.executable} {BASE}/boast.py <{BASE}/life & setsid sleep 600 & wait"
with make(script, stop_signal=signal.SIGTERM) as runner:
    results = []
    call = threading.Thread(target=lambda: results.extend(runner.execute(check=False)))
    call.start()
    while not any(run.last_line for run in runner.runs()):
        time.sleep(0.01)
    before = largest()
    runner.cancel(runner.runs()[0].run_id)
    call.join()
say(results[0].status, len(results[0].survivors), largest() - before < 32768)
"""
    assert run_host(tmp_path, program)[-1] == "cancelled 0 True"


# ---- forged run ids


def test_a_script_that_bears_the_id_of_another_run(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path
) -> None:
    """K2: what a script gives another run's id ends with that run; it goes on itself."""
    runner = make_runner(
        Script(script="echo id $AGENTSCRIPTS_RUN_ID; sleep 600", name="victim"),
        Script(
            script="until [ -s $BASE/id ]; do sleep 0.01; done;"
            "AGENTSCRIPTS_RUN_ID=$(cat $BASE/id) setsid sleep 600 >/dev/null 2>&1 & echo pid $!;"
            "wait; echo end",
            name="forger",
        ),
        env={"BASE": str(tmp_path)},
    )
    call = Background(lambda: runner.execute(check=False))
    run_id = lines.wait_for("id ").split()[1]
    (tmp_path / "id").write_text(run_id)
    pid = int(lines.wait_for("pid ").split()[1])
    eventually(lambda: Path(f"/proc/{pid}/cmdline").read_bytes()[:6] == b"sleep\0", "it sleeps")
    runner.cancel(run_id)
    victim, forger = call.result()
    assert (victim.status, forger.status) == (RunStatus.CANCELLED, RunStatus.SUCCEEDED)
    assert victim.survivors == forger.survivors == ()
    assert forger.tail[-1] == "end"
    assert not is_alive(pid)


BECOME_AGENT = f"""
make("true").execute()  # so that all modules are there, whoever may read them
for path in BASE.rglob("*"):
    os.chown(path, {AGENT}, {AGENT})
os.setgroups([])
os.setresgid({AGENT}, {AGENT}, {AGENT})
os.setresuid({AGENT}, {AGENT}, {AGENT})
"""

FORGE = f"""
import os, subprocess, sys, time
path = sys.argv[1] + "/id"
while not os.path.exists(path) or not open(path).read().endswith("\\n"):
    time.sleep(0.01)
os.environ["AGENTSCRIPTS_RUN_ID"] = open(path).read().strip()
os.setgroups([])
os.setresgid({FORGER}, {FORGER}, {FORGER})
os.setresuid({FORGER}, {FORGER}, {FORGER})
# A process that is older than the script is none of its own, whatever it bears.
with subprocess.Popen(["sleep", "599"]) as process:
    print("forged", flush=True)
    open(sys.argv[1] + "/forged", "w").close()
print(process.returncode)
"""


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize("agent", ["user", "root"])
def test_another_users_process_that_bears_the_id(open_path: Path, agent: str) -> None:
    """K2, K4: an agent that may not read another's environment, as root in a container may not
    either, neither hangs for it nor tells of it; one that may ends it, which is all that the forger
    gains."""
    program = f"""
{BECOME_AGENT if agent == "user" else ""}
script = "echo $AGENTSCRIPTS_RUN_ID >id; setsid sleep 600 & sleep 600"
runner = make(script, working_dir=BASE, stop_signal=signal.SIGTERM, kill_delay=10)
token, results = CancelToken(), []
call = threading.Thread(target=lambda: results.extend(runner.execute(cancel=token, check=False)))
call.start()
while not (BASE / "forged").exists():
    time.sleep(0.01)
begin = time.monotonic()
token.cancel()
call.join()
say(results[0].status, len(results[0].survivors), time.monotonic() - begin < 8)
runner.close()
"""
    command = [sys.executable, "-I", "-c", FORGE, str(open_path)]
    # A session of its own: getsid says 0 of one whose leader is outside this pid namespace, as that
    # of the tests may be, and the census passes over such processes.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as forger:
        try:
            assert _run_there(open_path, program) == ["cancelled 0 True"]
            assert forger.stdout is not None
            assert forger.stdout.readline() == "forged\n"
            left = children_of(forger.pid)
            ends = agent == "root" and reads_environment_of(FORGER)
            assert bool(left) == (not ends)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            ended = signal.SIGKILL if left else signal.SIGTERM
            assert forger.stdout.read() == f"{-ended}\n"
        finally:
            for pid in children_of(forger.pid):
                os.kill(pid, signal.SIGKILL)
            forger.kill()


def reads_environment_of(user: int) -> bool:
    """Which capability it takes depends on the kernel: CAP_SYS_PTRACE, or CAP_PERFMON as well."""
    with subprocess.Popen(["sleep", "60"], user=user, group=user, extra_groups=[]) as process:
        try:
            return bool(Path(f"/proc/{process.pid}/environ").read_bytes())
        except PermissionError:
            return False
        finally:
            process.kill()


def children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [child for child in map(int, listed.read_text().split()) if is_alive(child)]
    except (OSError, ValueError):
        return []


def _run_there(base: Path, program: str) -> list[str]:
    return [line for line in run_host(base, program) if not line.startswith("line")]


@needs_root
@pytest.mark.slow
def test_a_process_that_may_not_be_signalled(open_path: Path) -> None:
    """K1, K4: the run ends on time all the same, and names it."""
    program = f"""
runner = make("sleep 600 & echo $$ $!; wait", working_dir=BASE, kill_delay=0.2)
token, results = CancelToken(), []
call = threading.Thread(target=lambda: results.extend(runner.execute(cancel=token, check=False)))
call.start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
os.setresuid({AGENT}, {AGENT}, {AGENT})  # all threads
begin = time.monotonic()
token.cancel()
call.join()
took = time.monotonic() - begin
(result,) = results
say(result.status, result.exit_code, 1.2 <= took < 15, *result.survivors)
say(*runner.runs(), *result.tail)
runner.close()
"""
    (said, pids) = _run_there(open_path, program)
    assert said == f"cancelled None True {pids}"


@needs_root
@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="/proc cannot be mounted with hidepid here")
def test_a_proc_that_hides_other_users(open_path: Path) -> None:
    """K2: with ``hidepid=2`` an agent without root finds what its scripts have started."""
    program = f"""
{BECOME_AGENT}
say("hidden", not os.path.exists("/proc/1"))
script = "(setsid sh -c 'echo $$ >pid; exec sleep 600' &); until [ -s pid ]; do :; done; sleep 600"
with make(Script(script=script, timeout=2), working_dir=BASE) as runner:
    (result,) = runner.execute(check=False)
pid = (BASE / "pid").read_text().strip()
stat = Path("/proc", pid, "stat")  # nobody may have waited for it yet
state = stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else "gone"
say(result.status, len(result.survivors), state in ("Z", "X", "gone"))
"""
    mount = 'mount -t proc -o hidepid=2 proc /proc && exec "$@"'
    lines = run_host(open_path, program, wrapper=("unshare", "--mount", "sh", "-c", mount, "sh"))
    assert lines == ["hidden True", "timed_out 0 True"]


# ---- the private file of a script


@pytest.mark.parametrize("mask", [0o022, 0o777], ids=oct)
def test_the_private_file(make_runner: MakeRunner, lines: Lines, mask: int) -> None:
    """R4: only this user can read it, nobody else can move it, and it goes with the run."""
    script = '#!/bin/sh\necho file "$0"; ls -ld "$0"; while :; do sleep 0.01; done'
    before = descriptors()
    runner = make_runner(Script(script=script), stop_signal=signal.SIGTERM)
    with umask(mask):
        call = Background(lambda: runner.execute(check=False))
        path = Path(lines.wait_for("file ").removeprefix("file "))
    status, directory = path.stat(), path.parent.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_nlink) == (0o600, 1)
    assert status.st_uid == os.geteuid()
    assert path.read_text() == script
    assert directory.st_mode & stat.S_ISVTX or not directory.st_mode & stat.S_IWOTH
    (run,) = runner.runs()
    runner.cancel(run.run_id)
    call.result()
    assert not path.exists()
    runner.close()
    assert descriptors() == before


def test_the_private_file_follows_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_runner: MakeRunner
) -> None:
    """R4: a name that somebody has guessed is passed over, what it leads to stays as it was."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = iter(["guessed", "other"])
    monkeypatch.setattr(tempfile, "_get_candidate_names", lambda: names)
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "agentscripts-guessed").symlink_to("victim")
    (result,) = make_runner("#!/bin/sh\nexit 0").execute()
    assert result.ok
    assert next(names, None) is None
    assert (tmp_path / "victim").read_text() == "precious"
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "agentscripts-guessed",
        "victim",
    ]


# ---- results


def test_a_result_holds_no_text_and_no_environment(make_runner: MakeRunner) -> None:
    """X1: neither does its JSON, which goes into reports."""
    script = Script(script="true hunter2; exit 3", name="one", env={"TOKEN": "hunter2"})
    (result,) = make_runner(script, env={"KEY": "hunter2"}).execute(check=False)
    assert "hunter2" not in json.dumps(result.as_dict())
