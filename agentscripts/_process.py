"""Processes: how a script is started, and who holds its pipes after it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agentscripts._command import Command
from agentscripts._native import Census, make_pipes, signals_are_default

__all__ = ["Child", "command_line", "describe", "end_child", "pipe_holders", "spawn"]

_HELPER: Final = str(Path(__file__).with_name("_exec"))


class Child(NamedTuple):
    """A started script: an unreaped child that leads its session, and its pipes' read ends."""

    popen: subprocess.Popen[bytes]
    stdout_fd: int
    stderr_fd: int


def spawn(command: Command, cwd: str, *, stdin: int, cgroup: Path | None) -> Child:
    """Start a command (R6). Raises ``OSError``; then nothing was started and nothing is open."""
    out_read, out_write, err_read, err_write = make_pipes()
    try:
        try:
            popen = _popen(command, cwd, (stdin, out_write, err_write), cgroup)
        finally:
            os.close(out_write)
            os.close(err_write)
    except BaseException:
        os.close(out_read)
        os.close(err_read)
        raise
    return Child(popen, out_read, err_read)


def _popen(
    command: Command, cwd: str, streams: tuple[int, int, int], cgroup: Path | None
) -> subprocess.Popen[bytes]:
    # Popen resets SIGPIPE and SIGXFSZ, and with preexec_fn it could reset the rest, at three times
    # the price: that forbids vfork. So the rare host that ignores or blocks signals pays instead.
    if cgroup is None and signals_are_default():
        return _start(command.argv, command, cwd, streams)
    status_read, status_write = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            program = _find_program(command)
            procs = str(cgroup / "cgroup.procs") if cgroup else ""
            argv = (_HELPER, str(status_write), procs, program, *command.argv)
            popen = _start(argv, command, cwd, streams, (status_write,))
        finally:
            os.close(status_write)
        with open(status_read, "rb", closefd=False) as status:
            report = status.read().split()
    finally:
        os.close(status_read)
    if report:
        popen.wait()
        number, step = int(report[0]), report[1].decode()
        subject = program if step == "exec" else procs or "signals"
        raise OSError(number, os.strerror(number), subject)
    return popen


def _start(
    argv: Sequence[str],
    command: Command,
    cwd: str,
    streams: tuple[int, int, int],
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    stdin, stdout, stderr = streams
    return subprocess.Popen(
        argv,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        env=command.env,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def _find_program(command: Command) -> str:
    """Return the path of the program, as ``execvpe`` would find it."""
    name = command.argv[0]
    if "/" in name:
        return name
    found = shutil.which(name, path=command.env.get("PATH", os.defpath))
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return found


def end_child(census: Census, run_id: str) -> None:
    """Kill and reap the child of a run, if there is one, by the run's id alone."""
    pid = census.find_child(run_id)
    if pid is not None:
        os.killpg(pid, signal.SIGKILL)  # our own unreaped child leads it, so the number is its own
        os.waitpid(pid, 0)


def pipe_holders(pipes: Iterable[int]) -> list[int]:
    """Return the pids of other processes that hold the write end of one of these pipes."""
    wanted = {f"pipe:[{os.fstat(fd).st_ino}]" for fd in pipes}
    own = str(os.getpid())
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and entry.name != own and _holds(entry.name, wanted):
            found.append(int(entry.name))
    return sorted(found)


def _holds(pid: str, wanted: set[str]) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        for name in os.listdir(directory):
            link = f"{directory}/{name}"
            # A link's mode shows how the file is open: who reads the pipe does not hold it open.
            if os.readlink(link) in wanted and os.lstat(link).st_mode & stat.S_IWUSR:
                return True
    except OSError:  # gone, or another user's
        pass
    return False


def command_line(pid: int) -> str:
    """Return a process's command line, shortened; ``?`` when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        text = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return "?"
    return text if len(text) <= 80 else f"{text[:77]}..."


def describe(pids: Iterable[int]) -> str:
    """Return ``sleep 60 (pid 123), …`` for messages."""
    return ", ".join(f"{command_line(pid)} (pid {pid})" for pid in pids)
