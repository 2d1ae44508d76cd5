"""``agentscripts run --cron``, ``next``, ``check`` and ``--metrics`` as a user runs them."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
import urllib.request
from pathlib import Path

import pytest
from commandline import OPTIONS, Running, command, wait_for
from support import end_by, is_alive

from agentscripts._escalation import SAME_REQUEST

pytestmark = pytest.mark.slow  # each starts a Python

_TICK = """
[[script]]
name = "tick"
cron = "* * * * * *"
script = "echo tick"
"""
_STOP = """
[[script]]
name = "stop"
run_on_stop = true
script = "echo stopping; echo stopped"
"""
_RUNNING = "agentscripts: running 1 schedule until Ctrl-C, SIGTERM or SIGHUP"


def _start(script: str) -> str:
    return f"[[script]]\nname = 'start'\nrun_on_start = true\nscript = '''{script}'''\n"


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        (signal.SIGINT, "Ctrl-C", 130),
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGHUP, "SIGHUP", 129),
    ],
)
def test_signal_ends_it(tmp_path: Path, number: signal.Signals, name: str, expected: int) -> None:
    """Cron: schedules run until a signal; then the stop scripts run, and the status tells it."""
    with Running(tmp_path, _start("echo go; exit 3") + _TICK + _STOP, "--cron") as process:
        wait_for(process.stderr, "1 of 1 scripts did not succeed")
        wait_for(process.stderr, _RUNNING)
        wait_for(process.stdout, "tick  | tick")
        process.send_signal(number)
        status, stdout, stderr = process.finish()
    assert status == expected
    assert [line for line in stdout.splitlines() if "tick" not in line] == [
        "stop  | stopping",
        "stop  | stopped",
    ]
    # Another thread may say before that it has cancelled a run of the schedule.
    told = f"agentscripts: {name}: cancelling the scripts, then running the stop scripts"
    assert stderr.count(told) == 1
    *rest, last = stderr.splitlines()
    assert ["stop", "succeeded", "0"] in [line.split()[:3] for line in rest]
    assert last == "1 script succeeded"


def test_signal_during_start_scripts(tmp_path: Path) -> None:
    """Cron: start scripts are cancelled, no schedule begins, the stop scripts run."""
    scripts = _start("sleep 1000 & echo $!; wait") + _TICK + _STOP
    with Running(tmp_path, scripts, "--cron") as process:
        child = int(wait_for(process.stdout, "start | "))
        process.send_signal(signal.SIGTERM)
        status, stdout, stderr = process.finish()
    assert status == 143
    assert stdout.splitlines() == ["stop  | stopping", "stop  | stopped"]
    assert ["start", "cancelled", "SIGHUP"] in [line.split()[:3] for line in stderr.splitlines()]
    assert not is_alive(child)


def test_second_signal_kills(tmp_path: Path) -> None:
    """Cron: a stop script that ignores everything does not outlive the second signal."""
    stop = "[[script]]\nname = 'stop'\nrun_on_stop = true\nscript = '''"
    stop += "trap '' HUP TERM; sleep 1000 & echo $!; while :; do wait; done'''\n"
    with Running(tmp_path, _TICK + stop, "--cron", options='kill_delay = "1h"\n') as process:
        wait_for(process.stderr, _RUNNING)
        process.send_signal(signal.SIGTERM)
        child = int(wait_for(process.stdout, "stop | "))
        end_by(process, signal.SIGINT)
        status, _, stderr = process.finish()
    assert status == 143
    assert "agentscripts: killing the scripts\n" in stderr
    assert not is_alive(child)


def test_timeout_sends_twice(tmp_path: Path) -> None:
    """Cron: timeout(1), whose signal comes twice, lets the stop scripts run."""
    stop = _STOP.replace("echo stopping", "echo stopping; sleep 0.3")
    with Running(tmp_path, stop, "--cron", before=("timeout", "1000")) as process:
        wait_for(process.stderr, "agentscripts: running 0 schedules")
        # A signal that it gets has it do what it does when the time is over.
        process.send_signal(signal.SIGTERM)
        status, stdout, stderr = process.finish()
    assert (status, stdout) == (143, "stop | stopping\nstop | stopped\n")
    assert "killing" not in stderr


def test_reader_that_leaves(tmp_path: Path) -> None:
    """Cron: when nobody reads any more, it stops in the same order, and quietly."""
    stop = _STOP.replace("echo stopping", "echo ran >ran; echo stopping")
    with Running(tmp_path, _TICK + stop, "--cron") as process:
        wait_for(process.stdout, "tick | tick")
        wait_for(process.stderr, _RUNNING)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 128 + signal.SIGPIPE
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_reader_that_leaves_after_the_signal(tmp_path: Path) -> None:
    """Cron: that nobody reads any more does not count as a second signal."""
    os.mkfifo(tmp_path / "go")
    script = "echo stopping; read -r x <go; echo more; sleep 0.3; echo ran >ran"
    stop = f"[[script]]\nname = 'stop'\nrun_on_stop = true\nscript = '{script}'\n"
    with Running(tmp_path, stop, "--cron") as process:
        wait_for(process.stderr, "agentscripts: running 0 schedules")
        process.send_signal(signal.SIGTERM)
        wait_for(process.stdout, "stop | stopping")
        time.sleep(SAME_REQUEST)  # from here on a signal would be the second one
        assert process.stdout is not None
        process.stdout.close()
        (tmp_path / "go").write_text("\n")
        assert process.wait() == 143
    assert (tmp_path / "ran").read_text() == "ran\n"


def test_ignored_signal(tmp_path: Path) -> None:
    """Cron: under nohup SIGHUP ends nothing."""
    before = ("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    with Running(tmp_path, _TICK, "--cron", before=before) as process:
        wait_for(process.stderr, _RUNNING)
        process.send_signal(signal.SIGHUP)
        wait_for(process.stdout, "tick | tick")
        wait_for(process.stdout, "tick | tick")
        process.send_signal(signal.SIGTERM)
        assert process.finish()[0] == 143


def test_without_cron_schedules_do_not_run(tmp_path: Path) -> None:
    """Cron: a plain run ends with its start scripts."""
    with Running(tmp_path, _start("sleep 1.1; echo done") + _TICK + _STOP) as process:
        status, stdout, _ = process.finish()
    assert (status, stdout) == (0, "start | done\n")


def test_metrics(tmp_path: Path) -> None:
    """M1: --metrics serves the page while the schedules run; its address is told."""
    with Running(tmp_path, _TICK, "--cron", "--metrics", "127.0.0.1:0") as process:
        url = wait_for(process.stderr, "agentscripts: metrics on ")
        wait_for(process.stdout, "tick | tick")
        wait_for(process.stdout, "tick | tick")
        with urllib.request.urlopen(url) as page:
            text = page.read().decode()
        process.send_signal(signal.SIGTERM)
        assert process.finish()[0] == 143
    assert 'agent_scripts_executed_total{success="true"}' in text
    assert 'agent_scripts_duration_seconds_count{stage="cron"}' in text


def test_metrics_address_in_use(tmp_path: Path) -> None:
    """M1: a port that is taken is one line and status 1, and no script ran."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with Running(tmp_path, _start("touch ran"), "--metrics", address) as process:
            result = process.finish()
    why = f"agentscripts: cannot serve metrics on {address}: Address already in use\n"
    assert result == (1, "", why)
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


def test_bad_metrics_address(tmp_path: Path) -> None:
    """M1: what is no address is a mistake like one in the manifest."""
    with Running(tmp_path, _start("touch ran"), "--metrics", "9100") as process:
        status, stdout, stderr = process.finish()
    assert (status, stdout) == (2, "")
    assert stderr.startswith("--metrics '9100' is no address, expected HOST:PORT")
    assert stderr.count("\n") == 1


def test_next(tmp_path: Path) -> None:
    """``next`` prints so many fires with their offset, and in how long they come."""
    done = command("next", "0 * * * *", "--syntax", "unix", "--tz", "Asia/Kolkata", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    form = r"\w{3} \d{4}-\d\d-\d\d \d\d:00:00 \+05:30  (in \d+ (h|h \d+ min|min|min \d+ s|s)|now)"
    assert all(re.fullmatch(form, line) for line in lines), lines
    done = command("next", "0 0 12 * * *", "-n", "2", cwd=tmp_path, env={**os.environ, "TZ": "UTC"})
    assert [line.split("  ")[0][14:] for line in done.stdout.splitlines()] == [
        " 12:00:00 +00:00"
    ] * 2


def test_next_in_a_zone_of_its_own(tmp_path: Path) -> None:
    """``next`` reads the machine's zone where no other is named: a TZ may be a rule, no name."""
    env = {**os.environ, "TZ": "UTC0"}
    for arguments in (["TZ=UTC 0 0 12 * * *"], ["0 0 12 * * *", "--tz", "UTC"]):
        done = command("next", *arguments, "-n", "1", cwd=tmp_path, env=env)
        assert (done.returncode, done.stderr) == (0, "")
    done = command("next", "0 0 12 * * *", cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("TZ is 'UTC0', expected the name")


def test_next_warns_of_five_fields(tmp_path: Path) -> None:
    """C1: five fields are read with the second first, and both readings are told."""
    done = command("next", "30 2 * * *", "-n", "1", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert "'30 2 * * * *'" in done.stderr
    assert "'0 30 2 * * *'" in done.stderr


def test_next_never(tmp_path: Path) -> None:
    """``next`` says of an impossible date that it never comes."""
    done = command("next", "0 0 0 30 2 *", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "never within the next five years\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("bad",), "EXPRESSION is 'bad' and has 1 field, expected 5 or 6"),
        (("* * * * * *", "--syntax", "unix"), "EXPRESSION is '* * * * * *' and has 6 fields"),
        (("* * * * * *", "--tz", "Foo"), "--tz has the time zone 'Foo', expected one of the IANA"),
        (("TZ=Foo * * * * * *",), "EXPRESSION is 'TZ=Foo * * * * * *' and has the time zone 'Foo'"),
    ],
)
def test_next_mistakes(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    """``next`` tells in one line what it was given and what was expected; status 2."""
    done = command("next", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1


def test_check_tells_fires(tmp_path: Path) -> None:
    """``check`` has a line for each schedule, in its zone, and the warning of five fields."""
    (tmp_path / "m.toml").write_text(
        OPTIONS
        + 'timezone = "Asia/Kolkata"\n'
        + _TICK
        + _STOP
        + '[[script]]\nscript = "true"\ncron = "TZ=UTC 0 3 * * *"\n'
    )
    done = command("check", "m.toml", cwd=tmp_path)
    assert done.returncode == 0
    first, tick, third = done.stdout.splitlines()
    assert first == "m.toml: 3 scripts, no mistake"
    assert re.fullmatch(r"  tick       \w{3} \S+ \S+ \+05:30  (in 1 s|now)", tick)
    assert re.fullmatch(r"  script\[3\]  \w{3} \S+ \d\d:03:00 \+00:00  (in .*|now)", third)
    assert done.stderr.startswith("m.toml: schedule of script ")
    assert "'TZ=UTC 0 0 3 * * *'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]
