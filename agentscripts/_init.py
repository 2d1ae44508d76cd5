"""Process 1 of a container: it reaps orphans and passes signals on to its child, the agent."""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Final

__all__ = ["leave_process_1"]

# These tell of a mistake of the process that gets them, or of its own terminal.
_OWN: Final = frozenset(
    {
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP),
        *(signal.SIGABRT, signal.SIGSYS, signal.SIGPIPE, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD),
    }
)
_FORWARDED: Final = frozenset(signal.valid_signals()) - _OWN
_SIGNALLED: Final = 128
_SI_KERNEL: Final = 0x80  # siginfo.h: sent by the kernel


def leave_process_1() -> None:
    """Go on in a child when this is process 1, which becomes that child's init and ends with its
    exit status, 128 + N after death by signal N. In another process: do nothing.

    To be called before there is a thread: none survives in the child.
    """
    if os.getpid() != 1:
        return
    # Where SIGCHLD is ignored, children leave no status.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # Blocked from before the fork, signals wait until they can be passed on. Those that are
    # blocked also reach a process 1 that has no handler for them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD, signal.SIGTTOU})
    agent = os.fork()
    if agent:
        os._exit(_serve(agent, has_terminal=os.isatty(0)))
    _take_terminal()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _take_terminal() -> None:
    """Have Ctrl-C reach the agent once: by its terminal, and not by process 1, too."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):  # there is none
        os.tcsetpgrp(0, os.getpgrp())


def _serve(agent: int, *, has_terminal: bool) -> int:
    """Reap and forward until the agent ends; return the exit status."""
    while True:
        info = signal.sigwaitinfo({*_FORWARDED, signal.SIGCHLD})
        if info.si_signo == signal.SIGCHLD:
            status = _reap(agent)
            if status is not None:
                return status
        # A terminal that goes away tells the agent's process group itself.
        elif not (has_terminal and info.si_code == _SI_KERNEL):
            os.kill(agent, info.si_signo)  # not reaped yet, so it can be signalled


def _reap(agent: int) -> int | None:
    """Reap all that have ended: one SIGCHLD may stand for many. Return the agent's status."""
    found = None
    with contextlib.suppress(ChildProcessError):  # none is left
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == agent:
                code = os.waitstatus_to_exitcode(ended[1])
                found = code if code >= 0 else _SIGNALLED - code
    return found
