"""Each system call of the core and of the runner fails, once, with each error that it can give."""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
from support import Host, processes_with, run_host

FAULTS: Final = Path(__file__).parent / "faults"
# The driver ends by itself at a hang; this is for a busy machine, where its many runs take long.
TIMEOUT: Final = 600.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(TIMEOUT + 30),
    pytest.mark.skipif(
        platform.libc_ver()[0] != "glibc", reason="the shim wraps the allocator of glibc"
    ),
]

# What each run makes, whatever its script does. "!": all calls fail from then on.
CORE: Final = {
    "malloc": "ENOMEM",
    "mmap": "ENOMEM",
    "pthread_mutex_init": "ENOMEM,EAGAIN",
    "eventfd": "EMFILE,ENFILE,ENOMEM",
    "pipe2": "EMFILE,ENFILE",
    "clone": "EAGAIN,ENOMEM,EPERM",
    "close_range": "ENOSYS,EPERM,ENOSYS!",
    "ppoll": "EINTR,ENOMEM",
    "poll": "EINTR,ENOMEM",
    "read": "EINTR,EAGAIN,ENOMEM,ESRCH",
    "read_pipe": "EINTR",  # EAGAIN would be a lie where there is something to read
    "wait": "EINTR,ECHILD",
    "fstat": "EIO,ENOMEM",
    "stat": "EIO,EACCES,ENOENT",
    "close": "EIO,EINTR",
    "open": "EMFILE,ENFILE,ENOMEM,EACCES,ENOENT",
    "openat2": "EMFILE,ENOMEM,EACCES,ENOSYS!,EPERM!",
}
CHILD: Final = {
    "dup3": "EMFILE,EINTR",
    "chdir": "EACCES,ENOENT,EIO,ENOMEM",
    "execve": "EACCES,ENOENT,ENOMEM,EIO,EAGAIN,E2BIG,EMFILE",
}
LOG: Final = {"write_file": "ENOSPC,EIO,EINTR,EDQUOT,EFBIG"}
ROTATION: Final = {
    "renameat": "EIO,ENOSPC,EACCES,ENOENT",
    "renameat2": "EIO,EINVAL,ENOENT,EINVAL!",
    "ftruncate": "EIO,EINTR,EPERM",
}
SCAN: Final = {
    "waitid": "EINTR,ECHILD",
    "getdents64": "ENOMEM,EIO,EINTR",
    "lseek": "EIO",
    "pidfd_open": "ESRCH,EMFILE,ENFILE,ENOMEM",
    "pidfd_send_signal": "ESRCH,EPERM,EINVAL,EINVAL!",
    "getsid": "ESRCH",
    "nanosleep": "EINTR",
}
LIFE: Final = {
    "pthread_cond_init": "ENOMEM,EAGAIN",
    "timerfd_create": "EMFILE,ENFILE,ENOMEM",
}
TIMER: Final = {
    "malloc": "ENOMEM",
    "timerfd_create": "EMFILE,ENFILE,ENOMEM",
    "timerfd_settime": "ECANCELED",
    "eventfd": "EMFILE,ENFILE,ENOMEM",
    "poll": "EINTR,ENOMEM",
    "read": "ECANCELED,EAGAIN",
}
PYTHON: Final = {
    "open": "EMFILE,ENFILE,ENOMEM,EACCES,EIO,ENOSPC,EINTR",
    "fstat": "EIO,ENOMEM",
    "stat": "EIO,EACCES,ENOMEM",
    "close": "EIO,EINTR",
    "poll": "EINTR,ENOMEM",
    "read_pipe": "EINTR,EAGAIN",
    "eventfd": "EMFILE,ENFILE",
    "pipe2": "EMFILE,ENFILE",
    "pthread_create": "EAGAIN",
    "mkdir": "ENOSPC,EACCES,EROFS",
    "opendir": "EMFILE,EACCES",
    "readlink": "EACCES,ENOENT",
    "unlink": "EIO,EACCES",
    "write_file": "ENOSPC,EIO",
}

# Which of the rows a scenario must reach: else it would prove nothing.
Rows = Mapping[str, str]
TABLE: Final[dict[str, tuple[Rows, set[str], set[str]]]] = {
    "run": (
        {**CORE, **CHILD, **LOG},
        {*CORE, *CHILD, *LOG} - {"open", "poll", "read"},  # these depend on what comes first
        {"open", "fstat"},
    ),
    "file": (CORE, {"malloc", "clone"}, {"open", "stat", "unlink", "write_file", "close"}),
    "many": ({**CORE, **CHILD}, {"clone", "execve"}, {"eventfd", "poll", "pthread_create"}),
    "output": (
        {**CORE, **LOG, "set_pipe_size": "EPERM,EBUSY,ENOMEM"},
        {*LOG, "mmap", "ppoll", "read_pipe", "set_pipe_size"},
        set(),
    ),
    "stop": (
        {
            **SCAN,
            **{call: CORE[call] for call in ("malloc", "open", "read", "close", "ppoll", "poll")},
        },
        {*SCAN, "open", "read"} - {"nanosleep"},
        set(),
    ),
    "rotate": ({**CORE, **LOG, **ROTATION}, {*LOG, *ROTATION, "open"}, set()),
    "linger": (CORE, {"ppoll"}, {"opendir", "readlink"}),
    "whole": ({**CORE, **LIFE}, {*LIFE, "open"}, {"pipe2", "pthread_create", "mkdir"}),
    "timer": (TIMER, set(TIMER), set()),
}


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes calls fail."""
    library = tmp_path_factory.mktemp("faults") / "shim.so"
    flags = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fPIC", "-shared", "-fno-builtin"]
    subprocess.run(["gcc", *flags, "-o", library, FAULTS / "shim.c"], check=True)
    return library


@pytest.mark.parametrize(
    ("scenario", "scope"),
    [
        *((scenario, "core") for scenario in TABLE),
        *((scenario, "python") for scenario, (_, _, reached) in TABLE.items() if reached),
    ],
)
def test_a_fault_harms_one_run_at_most(shim: Path, scenario: str, scope: str) -> None:
    """R7, S2, K1, L3: whatever fails, the result says so, nothing hangs or leaks, and the next
    ``execute`` works."""
    core_rows, core_reached, python_reached = TABLE[scenario]
    rows, reached = (core_rows, core_reached) if scope == "core" else (PYTHON, python_reached)
    done = subprocess.run(
        [
            *(sys.executable, FAULTS / "driver.py", scenario, scope),
            *(f"{call}={errors}" for call, errors in rows.items()),
        ],
        env={**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(FAULTS.parent)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print(report["faults"], report["outcomes"])
    assert report["problems"] == []
    assert {call for call, count in report["faults"].items() if count} >= reached


def test_a_host_that_is_killed_before_its_script_begins(shim: Path, tmp_path: Path) -> None:
    """S2: with die_with_parent the script does not begin when it is too late for the signal."""
    program = """
import ctypes
shim = ctypes.CDLL(None)
shim.fault_core(ctypes.c_size_t(0), ctypes.c_size_t(2**63))
runner = make(": > " + str(BASE / "begun") + "; exec sleep 60", die_with_parent=True)
shim.fault_arm(b"prctl", 0, 1, 1, 0)
runner.execute()
"""
    with Host(tmp_path, program, env={**os.environ, "LD_PRELOAD": str(shim)}) as host:
        assert host.finish() == []  # the script's process has its stdout, too, until it begins
        assert host.returncode == -signal.SIGKILL
        mark = f"CODER_SCRIPT_BIN_DIR={tmp_path}/data/coder-script-data/bin"
        for _ in range(20):  # one that begins all the same may still be on its way
            assert processes_with(mark) == []
            assert not (tmp_path / "begun").exists()


def test_a_start_does_not_hold_the_pipes_of_another(shim: Path, tmp_path: Path) -> None:
    """K5: a script that starts has copies of another one's pipes until its exec; a cancel in that
    moment finds no process to blame."""
    program = """
import ctypes
from support import state_of
shim = ctypes.CDLL(None)
shim.fault_core(ctypes.c_size_t(0), ctypes.c_size_t(2**63))
runner = make("echo up", "echo up")
shim.fault_arm(b"close_range", 0, 1, 1, 1)
results = []
thread = threading.Thread(target=lambda: results.extend(runner.execute(check=False)))
thread.start()
while not (ended := [run for run in runner.runs() if run.pid and state_of(run.pid) == "Z"]):
    if not thread.is_alive():
        break
for run in ended:
    runner.cancel(run.run_id)
thread.join()
say(*{one.status.value for one in results})
runner.close()
"""
    environment = {**os.environ, "LD_PRELOAD": str(shim), "PYTHONPATH": str(FAULTS.parent)}
    lines = run_host(tmp_path, program, env=environment)
    assert [line for line in lines if not line.startswith("line")] == ["succeeded"]
