"""How a script's process is started (R6)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agentscripts._coding import coded
from agentscripts._command import Command
from agentscripts._native import Child, Starts, code_environment

__all__ = ["Process", "Spawner"]

_STARTS: Final = Starts()
os.register_at_fork(
    before=_STARTS.hold,
    after_in_parent=_STARTS.resume_in_parent,
    after_in_child=_STARTS.resume_in_child,
)


class Spawner:
    """Starts scripts for one runner. Thread-safe."""

    def __init__(self, *, die_with_parent: bool = False) -> None:
        self.starts: Final = _STARTS
        self._die_with_parent = die_with_parent
        self._stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Close its descriptor; may be called again."""
        stdin, self._stdin = self._stdin, -1  # no signal handler runs between this and the call
        if stdin >= 0:
            os.close(stdin)

    def spawn(self, command: Command, directories: Sequence[str], cgroup: Path | None) -> Process:
        """Start a command, in the first of the directories (``from_host``) that it can enter.

        Raises ``OSError``, or ``ValueError`` or ``TypeError`` for words that no program can get;
        then nothing was started and nothing is open.
        """
        args = command.argv
        argv = [coded(word) for word in args]
        env = dict(command.env)  # which another thread may change
        variables = code_environment(env)
        sys.audit("subprocess.Popen", args[0], args, directories[0], env)
        child = _STARTS.spawn(
            [argv[0]] if b"/" in argv[0] else _programs(argv[0], env),
            [coded(directory) for directory in directories],
            argv,
            variables,
            len(env),
            os.fsencode(cgroup / "cgroup.procs") if cgroup else None,
            self._stdin,
            self._die_with_parent,
        )
        return Process(args, child)


class Process(subprocess.Popen[bytes]):
    """A started script: an unreaped child that leads its session.

    The core starts it, without the GIL: ``Popen`` keeps that until the exec, so that starts would
    not overlap, and leaves ignored and blocked signals to the child.
    """

    # What Popen.__init__ makes of its 25 options takes longer than all else here; so this is what
    # its methods read.
    stdin = stdout = stderr = None
    returncode: int | None = None
    encoding = errors = None
    text_mode = None
    _input = None
    _communication_started = False
    _sigint_wait_secs = 0.25

    def __init__(self, args: Sequence[str], child: Child) -> None:
        self.args = args
        self.child = child
        self.pid = child.pid
        self._waitpid_lock = threading.Lock()
        self._child_created = True

    def __del__(self) -> None:
        if self.returncode is None:
            super().__del__()


def _programs(name: bytes, env: Mapping[str, str]) -> Sequence[bytes]:
    """Return the paths that ``execvpe`` would try for a name."""
    return [os.path.join(coded(entry), name) for entry in os.get_exec_path(env)]
