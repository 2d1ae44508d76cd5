"""Whatever a script starts ends with it, and nothing else does."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import Background, Lines, children, eventually, is_alive, run_host

from agentscripts import CancelToken, RunStatus, Script

TRAP = "trap '' HUP TERM; "
SLEEP = "sh -c \"trap '' HUP TERM; echo \\$\\$; sleep 300 & wait; sleep 300\""

CHAIN = r"""
$SIG{HUP} = $SIG{TERM} = "IGNORE";
use POSIX;
exit if fork;
POSIX::setsid();
my $end = time + 20;
while (time < $end) {
    exit if fork;
    open my $beat, ">", $ARGV[1];
    close $beat;
    select undef, undef, undef, $ARGV[0];
}
"""
"""It ends and goes on in its child every ARGV[0] seconds, and makes the file ARGV[1] each time."""


def beats(path: Path) -> bool:
    """Whether a chain is alive: whether it makes its file again."""
    path.unlink(missing_ok=True)
    time.sleep(0.3)  # nothing announces that something does not happen
    return path.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [
        f"{TRAP}({TRAP}echo $$; sleep 300) & sleep 300",
        f"{TRAP}setsid {SLEEP} & sleep 300",
        f"{TRAP}nohup {SLEEP} & sleep 300",
        f"{TRAP}(setsid {SLEEP} &) & sleep 300",
        f"setsid {SLEEP} & sleep 300",
        f"{TRAP}setsid {SLEEP} & kill -STOP $$",
        f"{TRAP}setsid env -u CODER_SCRIPT_DATA_DIR {SLEEP} & sleep 300",
    ],
    ids=["group", "setsid", "nohup", "double fork", "leader obeys", "stopped", "partial env"],
)
def test_stubborn_trees(run: RunScript, lines: Lines, start: str) -> None:
    """K1, K2: what ignores the stop signal is killed after kill_delay, wherever it hides."""
    result = run(Script(script=start, timeout=0.5), kill_delay=0.5)
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()
    assert 1.0 <= result.duration < 2.5
    assert not any(is_alive(int(line)) for line in lines.lines if line.isdecimal())
    # the fixture looks for all others by their environment


@pytest.mark.slow
def test_fork_loop(run: RunScript) -> None:
    """K1, K2: a loop that starts stubborn sleepers all the time."""
    script = f"{TRAP}while :; do setsid sh -c \"trap '' HUP; exec sleep 300\" & sleep 0.01; done"
    result = run(Script(script=script, timeout=0.2), kill_delay=0.2)
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()


@pytest.mark.slow
@pytest.mark.parametrize("period", [0.02, 0.01, 0.005])
def test_a_chain_of_forks(run: RunScript, tmp_path: Path, period: float) -> None:
    """K2: a process that goes on in a new child ever again is not thought to be gone."""
    (tmp_path / "chain.pl").write_text(CHAIN)
    beat = tmp_path / "beat"
    script = f"perl {tmp_path}/chain.pl {period} {beat} >/dev/null 2>&1 & sleep 30"
    result = run(Script(script=script, timeout=0.8), kill_delay=1.5)
    assert not beats(beat)
    assert result.status is RunStatus.TIMED_OUT
    assert result.duration >= 2.3  # it ignores the stop signal


@pytest.mark.slow
def test_many_stubborn_processes(run: RunScript) -> None:
    """K1: more processes than can be watched one by one."""
    script = f"{TRAP}for i in $(seq 150); do setsid sleep 300 & done; wait"
    result = run(Script(script=script, timeout=1.5), kill_delay=0.2)
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()


def _seize(pid: int) -> None:
    """Trace a process: as a zombie it is ours until we wait for it."""
    libc, request = ctypes.CDLL(None, use_errno=True), 0x4206
    if libc.ptrace(ctypes.c_long(request), pid, None, None) != 0:
        pytest.skip(f"no process may be traced: {os.strerror(ctypes.get_errno())}")


@pytest.mark.slow
@pytest.mark.parametrize("session", ["", "setsid"])
def test_an_exiting_process_is_not_gone(run: RunScript, lines: Lines, session: str) -> None:
    """K1: one that has lost its environment on its way to its end is waited for all the same.

    A namespace's first process ends once the others are gone, for which a tracer takes its time.
    """
    unshare = "unshare --pid --fork"
    if subprocess.run([*unshare.split(), "true"], capture_output=True).returncode != 0:
        pytest.skip("no pid namespace can be made")
    inside = f"{session} {unshare} sh -c 'sleep 300 & echo up; wait'"
    script = Script(script=f"{TRAP}{inside} & echo $!; wait", timeout=1.0)
    call = Background(lambda: run(script, kill_delay=0.1))
    lines.wait_for("up")
    lines.wait_for("", 2)
    outer = int(next(line for line in lines.lines if line != "up"))
    (first,) = eventually(lambda: children(outer), "unshare has forked")
    (sleep,) = eventually(lambda: children(first), "sh has forked")
    _seize(sleep)
    try:
        result = call.result()
        assert is_alive(first)
        assert result.status is RunStatus.TIMED_OUT
        assert result.duration >= 1.0 + 0.1 + 1.0
        assert session or result.survivors == (first,)
    finally:
        os.waitpid(sleep, 0x40000000)  # __WALL: no child of ours
    eventually(lambda: not is_alive(first), "the first process has ended")


@pytest.mark.slow
def test_children_without_an_environment(make_runner: MakeRunner, lines: Lines) -> None:
    """K2: only their parent tells whose they are, and it does so before it is killed."""
    program = "setsid env -i PATH=$PATH sh -c 'echo $$; exec sleep 300'"
    runner = make_runner(f"{TRAP}for i in $(seq 40); do {program} & done; wait", kill_delay=0.1)
    cancel = CancelToken()
    call = Background(lambda: runner.execute(cancel=cancel, check=False))
    lines.wait_for("", 40)
    cancel.cancel()
    (result,) = call.result()
    left = [int(line) for line in lines.lines if is_alive(int(line))]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert result.survivors == ()


@pytest.mark.slow
def test_a_runner_inside_of_the_script(run: RunScript, lines: Lines, tmp_path: Path) -> None:
    """K2: run ids nest, so the scripts of a script's own runner end with it."""
    program = f"""
import sys
from agentscripts import Options, Runner, Script
class Print:
    def send(self, batch): print(*batch.lines, flush=True)
    def flush(self): pass
runner = Runner(Options(data_dir_base={str(tmp_path / "in")!r}, log_dir={str(tmp_path / "in")!r},
                        shell="/bin/sh", get_script_logger=lambda _: Print()))
runner.init([Script(script={f"{TRAP}setsid {SLEEP} & echo inner; sleep 300"!r})])
runner.execute()
"""
    (tmp_path / "inner.py").write_text(program)
    script = Script(script=f"trap '' HUP; {sys.executable} {tmp_path}/inner.py", timeout=3)
    result = run(script, kill_delay=0.5)
    assert "inner" in lines.lines
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()
    assert not any(is_alive(int(line)) for line in lines.lines if line.isdecimal())


def test_cancelled_children_of_other_groups_get_the_stop_signal(
    make_runner: MakeRunner, lines: Lines
) -> None:
    """K1: the stop signal goes to the whole tree, not only to the script's group."""
    token = CancelToken()
    child = (
        "exec 2>/dev/null; trap 'echo stopped; exit' HUP; echo ready; while :; do sleep 0.01; done"
    )
    runner = make_runner(f'setsid sh -c "{child}" & wait', kill_delay=None)
    running = Background(lambda: runner.execute(cancel=token, check=False))
    lines.wait_for("ready")
    token.cancel()
    running.result()
    assert lines.lines == ["ready", "stopped"]


def test_bystanders(make_runner: MakeRunner, lines: Lines) -> None:
    """K3, K6: no process that is not the script's gets a signal, whoever started it."""
    token = CancelToken()
    program = (
        "import signal, sys, time\n"
        "for number in (1, 2, 15, 18):\n"
        "    signal.signal(number, lambda n, _: print(n, flush=True))\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        bystanders = [
            stack.enter_context(
                subprocess.Popen([sys.executable, "-c", program], start_new_session=alone, **pipes)
            )
            for alone in (False, True)
        ]
        for bystander in bystanders:
            assert bystander.stdout is not None
            assert bystander.stdout.readline() == b"ready\n"
        runner = make_runner("setsid sleep 300 & echo ready; sleep 300")
        running = Background(lambda: runner.execute(cancel=token, check=False))
        lines.wait_for("ready")
        token.cancel()
        running.result()
        for bystander in bystanders:
            assert bystander.communicate()[0] == b""
            assert bystander.returncode == 0


def test_a_daemon_of_an_earlier_run(make_runner: MakeRunner, lines: Lines) -> None:
    """K2, K5: a timeout ends its own run's processes, not the daemon that another run left."""
    runner = make_runner(
        Script(script="sleep 300 >/dev/null 2>&1 & echo $!", run_on_start=True),
        Script(script="sleep 300", timeout=0.1),
    )
    runner.execute(lambda script: script.run_on_start)
    daemon = int(lines.lines[0])
    try:
        runner.execute(lambda script: not script.run_on_start, check=False)
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not is_alive(daemon))


def test_children_of_the_host(run: RunScript) -> None:
    """K6: the host's own children are not reaped."""
    with subprocess.Popen(["sh", "-c", "exit 5"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        run(Script(script="sleep 30", timeout=0.05))
        assert run("exit 3").exit_code == 3
        assert child.wait() == 5


def test_signal_handlers_of_the_host(run: RunScript) -> None:
    """K6: nothing is installed for SIGCHLD."""
    before = signal.getsignal(signal.SIGCHLD)
    run("true")
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_host_that_ignores_sigchld(tmp_path: Path) -> None:
    """K6: a run ends also where the kernel reaps, timeouts too; a status is right or unknown."""
    program = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
scripts = Script(script="exit 3"), Script(script="setsid sleep 300 & sleep 300", timeout=0.1)
with make(*scripts) as runner:
    for result in runner.execute(check=False):
        say(result.exit_code)
"""
    first, second = run_host(tmp_path, program)
    assert first in ("3", "None")
    assert second in ("-1", "None")
