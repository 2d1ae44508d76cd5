"""S2: a Python process that ends without ``close``, and children made by ``os.fork``."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support import Host, is_alive, run_host

pytestmark = pytest.mark.slow

STUBBORN = 'trap "" HUP TERM INT; echo up $$; while :; do sleep 0.05; done'
PLAIN = "echo up $$; exec sleep 60"

WAYS = {
    "return": "pass",
    "SystemExit": "sys.exit(3)",
    "unhandled exception": "raise LookupError('on purpose')",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("script", [PLAIN, STUBBORN], ids=["plain", "stubborn"])
@pytest.mark.parametrize("daemon", [True, False], ids=["daemon", "not daemon"])
def test_an_end_without_close(tmp_path: Path, way: str, script: str, daemon: bool) -> None:
    """S2: it does not hang, leaves no script running, and its exit status is the host's own."""
    program = f"""
runner = make({script!r})
def work():
    with contextlib.suppress(BaseException):
        runner.execute()
threading.Thread(target=work, daemon={daemon}).start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
{WAYS[way]}
"""
    with Host(tmp_path, program) as host:
        pid = int(host.wait_for("line up"))
        host.finish()
    assert host.returncode == {"return": 0, "SystemExit": 3}.get(way, 1)
    assert ("on purpose" in host.complaints) == (way == "unhandled exception")
    assert not is_alive(pid)


def test_an_end_with_many_scripts(tmp_path: Path) -> None:
    """S2: those that run end, those that wait never start."""
    program = f"""
runner = make(*[{PLAIN!r}] * 20, max_parallel=10)
threading.Thread(target=lambda: runner.execute(check=False)).start()
while sum(run.last_line != "" for run in runner.runs()) < 10:
    time.sleep(0.01)
say("leaving", *[run.last_line.split()[-1] for run in runner.runs() if run.last_line])
"""
    with Host(tmp_path, program) as host:
        pids = [int(word) for word in host.wait_for("leaving").split()]
        lines = host.finish()
    assert len(pids) == 10
    assert not any(is_alive(pid) for pid in pids)
    # A line that the core has seen may reach the logger after the host has spoken.
    assert {int(line.split()[-1]) for line in lines if "line up" in line} <= set(pids)


def test_an_end_with_many_runners(tmp_path: Path) -> None:
    """S2: the scripts of all runners are asked to end before one of them is waited for."""
    program = """
agentscripts._shutdown._EXIT_GRACE = 5
asked = [BASE / f"asked{i}" for i in range(3)]
all_asked = " && ".join(f"[ -e {path} ]" for path in asked)
runners = [
    make(f"exec 2>/dev/null; trap ': >{path}' HUP; echo up;"
         f"until {all_asked}; do sleep 0.01; done; true",
         kill_delay=60, on_complete=lambda result: say("exit code", result.exit_code))
    for path in asked
]
for runner in runners:
    threading.Thread(target=runner.execute, kwargs={"check": False}, daemon=True).start()
    while not any(run.last_line for run in runner.runs()):
        time.sleep(0.01)
"""
    lines = run_host(tmp_path, program)
    assert [line for line in lines if line != "line up"] == ["exit code 0"] * 3


def test_an_end_while_a_runner_winds_down(tmp_path: Path) -> None:
    """S2: another runner's scripts end at once, not after the stop scripts of that one."""
    program = """
ended = BASE / "ended"
other = make(f"exec 2>/dev/null; trap ': >{ended}; exit' HUP; echo up;"
             "while :; do sleep 0.01; done", kill_delay=60)
threading.Thread(target=other.execute, kwargs={"check": False}, daemon=True).start()
while not any(run.last_line for run in other.runs()):
    time.sleep(0.01)
runner = make(Script(script=f"until [ -e {ended} ]; do sleep 0.01; done; echo stopped",
                     run_on_stop=True))
runner.close_on_signals()
signal.raise_signal(signal.SIGTERM)
"""
    with Host(tmp_path, program) as host:
        lines = host.finish()
    assert lines == ["line up", "line stopped"]
    assert host.returncode == -signal.SIGTERM


def test_an_end_with_a_thread_pool(tmp_path: Path) -> None:
    """S2: execute in a pool's thread, as asyncio.to_thread does it, does not hang the end.

    The pool's own exit hook joins its threads, and goes first when it was imported last.
    """
    program = f"""
runner = make({PLAIN!r})
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor().submit(runner.execute)
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
"""
    with Host(tmp_path, program) as host:
        pid = int(host.wait_for("line up"))
        host.finish()
    assert host.returncode == 0
    assert not is_alive(pid)


def test_an_idle_runner(tmp_path: Path) -> None:
    """S2: a runner that was never closed, after its scripts have ended, holds nothing up."""
    program = """
runner = make("echo hello", on_complete=lambda result: say(result.status))
runner.execute()
"""
    assert run_host(tmp_path, program) == ["line hello", "succeeded"]


def test_an_end_while_a_logger_is_stuck(tmp_path: Path) -> None:
    """S2: user code that never returns does not keep the process from ending."""
    program = """
class Stuck(Say):
    def send(self, batch):
        say("stuck")
        threading.Event().wait()
runner = make("echo hello; exec sleep 60", get_script_logger=lambda _: Stuck(),
              on_complete=lambda result: threading.Event().wait())
threading.Thread(target=lambda: runner.execute(check=False), daemon=True).start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
say("pid", runner.runs()[0].pid)
"""
    with Host(tmp_path, program) as host:
        pid = int(host.wait_for("pid"))
        host.finish()
    assert not is_alive(pid)


@pytest.mark.forks
def test_a_forked_child(tmp_path: Path) -> None:
    """S2: in it the runner refuses, its end touches nothing, and the parent's script goes on."""
    program = """
done = BASE / "done"
os.mkfifo(BASE / "fifo")
runner = make(f"echo up $$; read x < {BASE}/fifo; echo $x", on_complete=lambda result: None)
call = threading.Thread(target=runner.execute)
call.start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    for method in (runner.execute, runner.runs, lambda: runner.cancel("0" * 32),
                   lambda: runner.init([]), lambda: runner.register_metrics(None)):
        try:
            method()
        except RunnerClosedError:
            say("refused")
    runner.close(timeout=0)
    sys.exit(7)
say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
(BASE / "fifo").write_text("still here\\n")
call.join()
runner.close()
"""
    lines = run_host(tmp_path, program)
    assert lines.count("refused") == 5
    assert [line for line in lines if "up" not in line and line != "refused"] == [
        "child 7",
        "line still here",
    ]


@pytest.mark.parametrize(
    "call",
    [
        "runner.execute()",
        "runner.init([])",
        "runner.register_metrics(None)",
        "runner.runs()",
        "runner.close()",
    ],
)
@pytest.mark.forks
def test_a_fork_while_the_runner_is_busy(tmp_path: Path, call: str) -> None:
    """S2: a child that was forked while another thread was inside the runner never deadlocks."""
    program = f"""
inside, leave = threading.Event(), threading.Event()
class Slow(OSFilesystem):
    def make_dirs(self, path, mode):
        inside.set()
        leave.wait()
        super().make_dirs(path, mode)
runner = Runner(Options(data_dir_base=BASE / "data", log_dir=BASE, filesystem=Slow()))
thread = threading.Thread(target=runner.init, args=([],))
thread.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(5)
    with contextlib.suppress(RunnerClosedError):
        {call}
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
leave.set()
thread.join()
runner.close()
say("child", status)
"""
    assert run_host(tmp_path, program) == ["child 0"]


@pytest.mark.forks
def test_a_new_runner_in_a_forked_child(tmp_path: Path) -> None:
    """S2: a child may make a runner of its own, also one that writes the parent's log file."""
    program = """
script = Script(script="echo up; exec sleep 60", name="parent", log_path="shared.log")
runner = make(script, on_complete=lambda result: None)
call = threading.Thread(target=lambda: runner.execute(check=False))
call.start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    signal.alarm(10)
    with make(Script(script="echo child", name="child", log_path="shared.log")) as own:
        own.execute()
    sys.exit(5)
say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
say("running", len(runner.runs()))
runner.close(timeout=0)
call.join()
"""
    assert sorted(run_host(tmp_path, program)) == [
        "child 5",
        "line child",
        "line up",
        "running 1",
    ]


@pytest.mark.forks
def test_a_cancel_token_in_a_forked_child(tmp_path: Path) -> None:
    """S2: a token that the child cancels does not end the parent's scripts."""
    program = """
token = CancelToken()
os.mkfifo(BASE / "fifo")
runner = make(f"echo up; read x < {BASE}/fifo; echo $x")
call = threading.Thread(target=lambda: runner.execute(cancel=token))
call.start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
child = os.fork()
if child == 0:
    token.cancel()
    os._exit(0 if token.cancelled else 1)
say("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), token.cancelled)
(BASE / "fifo").write_text("still here\\n")
call.join()
runner.close()
"""
    lines = run_host(tmp_path, program)
    # A line that the core has seen may reach the logger after the host has spoken.
    assert sorted(lines[:2]) == ["child 0 False", "line up"]
    assert lines[2:] == ["line still here"]
