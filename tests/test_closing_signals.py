"""``close_on_signals``: the process is asked to end, and ends in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner
from support import Background, Host, end_by, eventually, is_alive, run_host

from agentscripts import RunnerClosedError, Script

slow = pytest.mark.slow  # it starts a Python

_STOP = 'Script(name="stop", script="echo stopping; echo stopped", run_on_stop=True)'
_START = 'Script(name="start", script="sleep 1000 & echo $!; wait", run_on_start=True)'
_STUBBORN = (
    'Script(name="stop", run_on_stop=True,'
    " script=\"trap '' HUP TERM; sleep 1000 & echo $!; while :; do wait; done\")"
)


def _lines(host: Host) -> list[str]:
    return [line.removeprefix("line ") for line in host.finish()]


@slow
@pytest.mark.parametrize(
    "idle",
    ["threading.Event().wait()", "time.sleep(1000)", "sys.stdin.read()"],
)
def test_idle_agent(tmp_path: Path, idle: str) -> None:
    """Signals: wherever the main thread waits, the stop scripts run and SIGTERM is the death."""
    program = f"""
runner = make({_STOP})
runner.close_on_signals()
say("ready")
{idle}
"""
    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "w"), Host(tmp_path, program, stdin=reader) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        assert _lines(host) == ["stopping", "stopped"]
    assert host.returncode == -signal.SIGTERM


@slow
@pytest.mark.parametrize("after", ["pass", "threading.Event().wait()", "sys.exit(5)"])
def test_in_execute(tmp_path: Path, after: str) -> None:
    """Signals: what execute runs is cancelled before the stop scripts run; whatever the main
    thread does then, the process ends by the signal."""
    program = f"""
runner = make({_START}, {_STOP})
runner.close_on_signals(signal.SIGTERM, signal.SIGHUP)
result, _ = [*runner.execute(Stage.START, check=False), None]
say("result", result.status)
{after}
"""
    with Host(tmp_path, program) as host:
        child = int(host.wait_for("line "))
        host.send_signal(signal.SIGHUP)
        assert host.wait_for("result ") == "cancelled"
        assert not is_alive(child)
        assert _lines(host) == ["stopping", "stopped"]
    assert host.returncode == -signal.SIGHUP


@slow
def test_with_block_waits(tmp_path: Path) -> None:
    """Signals: an error that leaves the ``with`` block meanwhile does not cut the stop scripts."""
    program = f"""
with make({_START}, {_STOP}) as runner:
    runner.close_on_signals()
    runner.execute(Stage.START)
"""
    with Host(tmp_path, program) as host:
        host.wait_for("line ")
        host.send_signal(signal.SIGTERM)
        assert _lines(host) == ["stopping", "stopped"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_while_another_thread_closes(tmp_path: Path) -> None:
    """Signals: what that waits for is cancelled, and no stop script runs: it closes already."""
    program = f"""
runner = make(Script(script="exec sleep 1000", run_on_start=True), {_STOP})
runner.close_on_signals()
call = threading.Thread(target=runner.execute, args=(Stage.START,), kwargs={{"check": False}})
call.start()
while not runner.runs():
    time.sleep(0.001)
close = threading.Thread(target=runner.close)
close.start()
with contextlib.suppress(RunnerClosedError):
    while True:
        runner.start_cron()
say("ready")
close.join()
call.join()
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        assert _lines(host) == []
    assert host.returncode == -signal.SIGTERM
    assert "Traceback" not in host.complaints


@slow
def test_schedules_stop_first(tmp_path: Path) -> None:
    """Signals: no schedule fires while the stop scripts run, and none can be started."""
    program = """
class Watch(Say):
    def send(self, batch):
        super().send(batch)
        say("schedules", "agentscripts-cron" in {one.name for one in threading.enumerate()})

runner = make(
    Script(name="tick", script="echo tick; sleep 1000", cron="* * * * * *"),
    Script(name="stop", script="echo stopping", run_on_stop=True),
    on_complete=lambda result: say("end", result.script.name, result.status),
    get_script_logger=lambda _: Watch())
runner.close_on_signals()
runner.start_cron()
say("ready")
signal.pause()
with contextlib.suppress(RunnerClosedError):
    runner.start_cron()
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_for("line tick")
        assert host.wait_for("schedules ") == "True"
        host.send_signal(signal.SIGTERM)
        said = host.finish()
    # Lines and results come by threads of their own, so their order is not one.
    assert [line for line in said if line.startswith("end ")] == [
        "end tick cancelled",
        "end stop succeeded",
    ]
    lines = [line for line in said if not line.startswith("end ")]
    assert lines == ["line stopping", "schedules False"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_second_signal_kills(tmp_path: Path) -> None:
    """Signals: a stop script that ignores everything does not outlive the second signal."""
    program = f"""
runner = make({_STUBBORN}, kill_delay=3600)
runner.close_on_signals()
say("ready")
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        child = int(host.wait_for("line "))
        end_by(host, signal.SIGTERM)
        assert not is_alive(child)
    assert host.returncode == -signal.SIGTERM


@slow
def test_second_signal_ends_a_logger_that_hangs(tmp_path: Path) -> None:
    """Signals: nothing that is stuck in the host's own code keeps the process."""
    program = f"""
class Stuck:
    def send(self, batch):
        say("stuck")
        threading.Event().wait()
    def flush(self): pass

runner = make({_STOP}, stall_timeout=None, flush_timeout=None,
              get_script_logger=lambda _: Stuck())
runner.close_on_signals()
say("ready")
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        host.wait_for("stuck")
        end_by(host, signal.SIGTERM)
    assert host.returncode == -signal.SIGTERM


@slow
def test_timeout_sends_twice(tmp_path: Path) -> None:
    """Signals: timeout(1), whose signal comes twice, lets the stop scripts run."""
    program = """
runner = make(Script(script="echo stopping; sleep 0.3; echo stopped", run_on_stop=True))
runner.close_on_signals(on_signal=lambda number, second: say("told", number, second))
say("ready")
threading.Event().wait()
"""
    # A signal that it gets has it do what it does when the time is over.
    with Host(tmp_path, program, wrapper=("timeout", "1000")) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        assert host.finish() == ["told 15 False", "line stopping", "line stopped"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_repeat_is_no_second_signal(tmp_path: Path) -> None:
    """Signals: what comes twice, or with another one as systemd sends them, is one request."""
    program = """
runner = make(Script(script="echo stopping; sleep 0.3; echo stopped", run_on_stop=True))
runner.close_on_signals(signal.SIGTERM, signal.SIGHUP)
for number in signal.SIGTERM, signal.SIGTERM, signal.SIGHUP:
    signal.raise_signal(number)
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        assert _lines(host) == ["stopping", "stopped"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_two_signals_are_told(tmp_path: Path) -> None:
    """Signals: on_signal hears of the first one and of the second, and of no other."""
    program = f"""
runner = make({_STUBBORN}, kill_delay=3600)
runner.close_on_signals(signal.SIGTERM, signal.SIGHUP,
                        on_signal=lambda number, second: say("told", number, second))
say("ready")
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        assert host.wait_for("told ") == "15 False"
        host.wait_for("line ")
        end_by(host, signal.SIGHUP)
        assert [line for line in host.finish() if line.startswith("told")] == ["told 1 True"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_stop_scripts_run_once(tmp_path: Path) -> None:
    """Signals: a signal while the host itself runs the stop scripts does not run them again."""
    go = tmp_path / "go"
    os.mkfifo(go)
    program = f"""
runner = make(Script(script="echo stopping; read -r x <{go}; echo $x", run_on_stop=True))
runner.close_on_signals()
runner.execute(Stage.STOP)
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_for("line stopping")
        host.send_signal(signal.SIGTERM)
        go.write_text("on\n")
        assert _lines(host) == ["on"]
    assert host.returncode == -signal.SIGTERM


@slow
def test_handler_is_kept(tmp_path: Path) -> None:
    """Signals: a handler that was there is called once, when all is closed, instead of death."""
    program = f"""
def handler(number, frame):
    say("handler", number, threading.current_thread() is threading.main_thread())
    try:
        runner.execute()
    except RunnerClosedError:
        raise SystemExit(7)

signal.signal(signal.SIGTERM, handler)
runner = make({_STOP})
runner.close_on_signals()
say("ready")
threading.Event().wait()
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGTERM)
        assert _lines(host) == ["stopping", "stopped", "handler 15 True"]
    assert host.returncode == 7


@slow
def test_interrupt_is_raised(tmp_path: Path) -> None:
    """Signals: Ctrl-C, once it is one of them, is a KeyboardInterrupt after the close."""
    program = f"""
with make({_STOP}) as runner:
    runner.close_on_signals(signal.SIGINT)
    say("ready")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        say("interrupted")
say(signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    with Host(tmp_path, program) as host:
        host.wait_until_blocked()
        host.send_signal(signal.SIGINT)
        assert _lines(host) == ["stopping", "stopped", "interrupted", "True"]
    assert host.returncode == 0


@slow
def test_ignored_signal(tmp_path: Path) -> None:
    """Signals: under nohup SIGHUP still means nothing."""
    program = f"""
runner = make({_STOP})
runner.close_on_signals(signal.SIGHUP)
say(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)
runner.close()
"""
    wrapper = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    assert run_host(tmp_path, program, wrapper=wrapper) == ["True"]


@pytest.mark.forks
@slow
def test_forked_child(tmp_path: Path) -> None:
    """S2, signals: a forked child dies by the signal, and its parent hears nothing of it."""
    program = f"""
runner = make({_STOP})
runner.close_on_signals()
child = os.fork()
if not child:
    os.kill(os.getpid(), signal.SIGTERM)
    say("alive")
    os._exit(1)
say(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
runner.close()
"""
    assert run_host(tmp_path, program) == ["-15"]


@pytest.mark.forks
@slow
def test_forked_child_that_is_ended_at_once(tmp_path: Path) -> None:
    """S2, signals: no signal is lost on a child that has only just been forked."""
    program = f"""
runner = make({_STOP})
runner.close_on_signals()
ends = set()
for _ in range(20):
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(writer)
        os.read(reader, 1)
        os._exit(1)
    os.kill(child, signal.SIGTERM)
    os.close(writer)  # a child that has lost it goes on
    ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    os.close(reader)
say(ends, signal.pthread_sigmask(signal.SIG_BLOCK, ()))
runner.close()
"""
    assert run_host(tmp_path, program) == ["{-15} set()"]


@slow
def test_process_1(tmp_path: Path) -> None:
    """Signals: process 1, which no signal of its own kills, ends with 128 and the number."""
    program = """
runner = make()
runner.close_on_signals()
os.kill(os.getpid(), signal.SIGTERM)
threading.Event().wait()
"""
    wrapper = ("unshare", "--pid", "--fork", "--kill-child")
    if subprocess.run([*wrapper, "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody make a pid namespace")
    with Host(tmp_path, program, wrapper=wrapper) as host:
        host.finish()
    assert host.returncode == 128 + signal.SIGTERM


def test_close_puts_handlers_back(make_runner: MakeRunner) -> None:
    """Signals: a runner that is closed without a signal leaves all as it was."""
    before = signal.getsignal(signal.SIGTERM)
    runner = make_runner()
    runner.close_on_signals()
    runner.close_on_signals(signal.SIGTERM, signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGUSR1) != signal.SIG_DFL
    runner.close()
    assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL
    with pytest.raises(RunnerClosedError):
        runner.close_on_signals()


def test_close_in_another_thread(make_runner: MakeRunner) -> None:
    """Signals: a handler that could not be put back passes the signal on."""
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
    try:
        runner = make_runner()
        runner.close_on_signals(signal.SIGUSR1)
        Background(runner.close).result()
        signal.raise_signal(signal.SIGUSR1)
        assert seen == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_later_handler_stays(make_runner: MakeRunner) -> None:
    """Signals: a handler that the host installed afterwards is not replaced by close."""
    runner = make_runner()
    runner.close_on_signals(signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    runner.close()
    assert signal.signal(signal.SIGUSR1, signal.SIG_DFL) is signal.SIG_IGN


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGKILL, ValueError, "SIGKILL.*expected one that a process can catch"),
        (signal.SIGCHLD, ValueError, "SIGCHLD.*expected one .* that may ask it to end"),
        (signal.SIGCONT, ValueError, "SIGCONT"),
        (0, ValueError, "signal is 0"),
        (999, ValueError, "signal is 999"),
        ("SIGTERM", TypeError, "signal is 'SIGTERM', expected a signal.Signals"),
        (True, TypeError, "signal is True"),
    ],
)
def test_bad_signal(
    make_runner: MakeRunner, number: Any, error: type[Exception], words: str
) -> None:
    """Signals: what cannot be caught is refused, and then nothing was changed."""
    runner = make_runner()
    with pytest.raises(error, match=words):
        runner.close_on_signals(signal.SIGUSR1, number)
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_main_thread_only(make_runner: MakeRunner) -> None:
    """Signals: another thread, and a call inside execute, are told what was expected."""
    runner = make_runner(Script(script="true"))
    with pytest.raises(RuntimeError, match="expected the main thread"):
        Background(runner.close_on_signals).result()

    def predicate(script: Script) -> bool:
        runner.close_on_signals()
        return True

    with pytest.raises(RuntimeError, match="inside execute"):
        runner.execute(predicate)


def test_thread_is_there_only_for_who_asks(make_runner: MakeRunner) -> None:
    """Signals: the thread starts with the call, not with a signal, and ends with the runner."""

    def found() -> bool:
        return any(one.name == "agentscripts-signals" for one in threading.enumerate())

    runner = make_runner(Script(script="true"))
    runner.execute()
    assert not found()
    runner.close_on_signals(signal.SIGUSR1)
    assert found()
    runner.close()
    assert eventually(lambda: not found())


@slow
@pytest.mark.parametrize("last", ["runner.close()", "sys.exit(5)"])
def test_handler_during_close(tmp_path: Path, last: str) -> None:
    """Signals: a handler that was there may close and raise, though the main thread waits in
    ``close`` or for the process's exit."""
    program = f"""
def handler(number, frame):
    runner.close()
    say("handler")
    os._exit(9) if {last!r} != "runner.close()" else sys.exit(8)

signal.signal(signal.SIGTERM, handler)
runner = make({_START}, {_STOP})
runner.close_on_signals()
runner.execute(Stage.START, check=False)
{last}
"""
    with Host(tmp_path, program) as host:
        host.wait_for("line ")
        host.send_signal(signal.SIGTERM)
        assert _lines(host) == ["stopping", "stopped", "handler"]
    assert host.returncode == (8 if last == "runner.close()" else 9)
