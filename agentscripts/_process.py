"""Facts about processes: who holds a pipe, what a pid stands for."""

from __future__ import annotations

import os
import re
import select
import stat
from collections.abc import Iterable, Sequence
from typing import Final

__all__ = ["are_at_end", "command_line", "describe", "pipe_holders", "without_text"]

_NAMED: Final = 5
_LONGEST_COMMAND: Final = 4096
_PLAIN: Final = re.compile(r"[\w./:@%,][\w./:@%,+-]*")
# What follows the letter of a short one may be its text.
_OPTION: Final = re.compile(r"-[A-Za-z]|--[a-z-]+")


def pipe_holders(pipes: Iterable[int]) -> tuple[int, ...]:
    """Return the pids of other processes that hold the write end of one of these pipes."""
    wanted = {f"pipe:[{os.fstat(fd).st_ino}]" for fd in pipes}
    own = str(os.getpid())
    try:
        pids = [name for name in os.listdir("/proc") if name.isdecimal() and name != own]
    except OSError:  # no /proc, or no descriptor to read it by
        return ()
    return tuple(sorted(int(pid) for pid in pids if _holds(pid, wanted)))


def are_at_end(pipes: Sequence[int]) -> bool:
    """Whether nobody holds the write ends of these pipes any more, and nothing is left in them."""
    poll = select.poll()
    for fd in pipes:
        poll.register(fd, select.POLLIN)
    try:
        return [events for _, events in poll.poll(0)] == [select.POLLHUP] * len(pipes)
    except OSError:  # no memory, or fewer descriptors allowed than pipes
        return False


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
    """Return a process's command line, shortened and ``without_text``; ``?`` when it is gone."""
    try:
        # Not all of it, as psutil does: a process may say that it is terabytes of its memory.
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            text = file.read(_LONGEST_COMMAND).decode("utf-8", "replace").rstrip("\0")
    except OSError:
        return "?"
    words = text.split("\0") if text else [_name(pid)]
    text = " ".join(without_text(words))
    return text if len(text) <= 80 else f"{text[:79]}…"


def without_text(words: Sequence[str]) -> Sequence[str]:
    """Return the words of a command but for those in which an interpreter may have got a text.

    Interpreters take a text by all sorts of options, which may be joined with others (``-ce``) or
    with the text itself (``--eval=``). So all from the first option on is left out, and from the
    first word that a shell would read as more than a word, or as a variable.
    """
    for index, word in enumerate(words[1:], start=1):
        if not _PLAIN.fullmatch(word):
            option = word.partition("=")[0]
            shown = [option] if _OPTION.fullmatch(option) else []
            return [*words[:index], *shown, "…"]
    return words


def _name(pid: int) -> str:
    """Return a process's name, which a zombie has as well; ``?`` when it is gone."""
    try:
        import psutil  # only who meets a zombie pays for it
    except ImportError:  # the host may have lost it, or the right to read it
        return "?"
    try:
        return psutil.Process(pid).name()
    except psutil.Error:
        return "?"


def describe(pids: Sequence[int]) -> str:
    """Return ``sleep 60 (pid 123), …`` for messages; of many only the first."""
    named = [f"{command_line(pid)} (pid {pid})" for pid in pids[:_NAMED]]
    if len(pids) > _NAMED:
        named.append(f"and {len(pids) - _NAMED} more")
    return ", ".join(named)
