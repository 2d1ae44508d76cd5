"""The exec helper: what the program that it becomes starts with, and how a failure is told."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import agentscripts

HELPER = Path(agentscripts.__file__).with_name("_exec")
FAILED = 127
OVERFLOWS = (str(2**32 + 2), str(2 - 2**32), "9" * 20)  # the first two are 2 in 32 bits


def run(
    *command: str | Path, cgroup: str | Path = ""
) -> tuple[str, subprocess.CompletedProcess[str]]:
    """Return what the helper wrote to its status descriptor, and how the process ended."""
    read_end, write_end = os.pipe()
    with open(read_end) as status:
        try:
            done = subprocess.run(
                [HELPER, str(write_end), cgroup, *command],
                pass_fds=[write_end],
                capture_output=True,
                text=True,
            )
        finally:
            os.close(write_end)
        return status.read(), done


def signal_masks(status: str) -> dict[str, int]:
    """The masks SigBlk, SigIgn and SigCgt of a /proc/PID/status."""
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt")}


def test_signals_are_default_and_unblocked() -> None:
    """R6: a program starts with default dispositions and an empty mask, whatever the host has."""
    host = {signal.SIGHUP, signal.SIGTERM, signal.SIGRTMAX}
    script = "import signal, os, sys\n" + "".join(
        f"signal.signal({number:d}, signal.SIG_IGN)\n" for number in host
    )
    script += f"signal.pthread_sigmask(signal.SIG_BLOCK, {[int(number) for number in host]})\n"
    script += "os.execv(sys.argv[1], sys.argv[1:])"
    wrapped = [sys.executable, "-I", "-S", "-c", script]
    direct = subprocess.run(
        [*wrapped, "/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    helped = subprocess.run(
        [*wrapped, HELPER, "2", "", "/bin/cat", "cat", "/proc/self/status"],
        capture_output=True,
        text=True,
        check=True,
    )
    bits = sum(1 << (number - 1) for number in host)
    assert signal_masks(direct.stdout)["SigIgn"] & bits == bits
    assert signal_masks(direct.stdout)["SigBlk"] & bits == bits
    assert signal_masks(helped.stdout)["SigIgn"] & bits == 0
    assert signal_masks(helped.stdout)["SigBlk"] == 0


def test_a_program_inherits_nothing_but_the_standard_streams(tmp_path: Path) -> None:
    """R6: neither the status descriptor nor the cgroup's is open in it; the parent reads EOF."""
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    script = 'echo "$0" "$@"; ls /proc/$$/fd'
    status, done = run("/bin/sh", "sh", "-c", script, "a", "b c", "", cgroup=procs)
    assert status == ""
    assert done.stdout.splitlines() == ["a b c ", "0", "1", "2"]
    assert done.returncode == 0


def test_argument_zero_is_the_callers() -> None:
    """R4: the program's own name is ARG0, not PROGRAM."""
    _, done = run("/bin/cat", "another name", "/proc/self/cmdline")
    assert done.stdout.split("\0")[0] == "another name"


@pytest.mark.parametrize(
    ("program", "number"),
    [("/nowhere/program", errno.ENOENT), ("/etc/passwd", errno.EACCES), ("/", errno.EACCES)],
)
def test_a_failed_exec_tells_its_errno(program: str, number: int) -> None:
    """R6: a program that cannot run is an errno and the step, and exit status 127."""
    status, done = run(program, "name")
    assert (status, done.returncode) == (f"{number} exec", FAILED)


def test_the_cgroup_is_joined_before_the_program_runs(tmp_path: Path) -> None:
    """K2: the helper puts itself ("0") into the cgroup."""
    procs = tmp_path / "cgroup.procs"
    procs.touch()
    status, done = run("/bin/cat", "cat", procs, cgroup=procs)
    assert (status, done.stdout) == ("", "0")


def test_a_cgroup_that_cannot_be_joined_stops_the_program(tmp_path: Path) -> None:
    """K2: outside its cgroup no script runs."""
    status, done = run("/bin/echo", "echo", cgroup=tmp_path / "missing")
    assert (status, done.stdout) == (f"{errno.ENOENT} cgroup", "")
    assert done.returncode == FAILED


@pytest.mark.parametrize("descriptor", ["", "x", "1x", "-1", "9999", *OVERFLOWS])
def test_a_bad_status_descriptor_is_named(descriptor: str) -> None:
    """R6: without a descriptor to report to, the helper starts nothing."""
    done = subprocess.run(
        [HELPER, descriptor, "", "/bin/echo", "echo"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (FAILED, "")
    assert f'"{descriptor}"' in done.stderr
