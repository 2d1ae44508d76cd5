"""Facts about processes: who holds a pipe, what a pid stands for."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterable

from agentscripts._native import Census

__all__ = ["command_line", "describe", "end_child", "pipe_holders"]


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
