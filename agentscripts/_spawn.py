"""How a script's process is started (R6)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agentscripts._command import Command
from agentscripts._native import Starts, code_environment

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

    def spawn(
        self, command: Command, cwd: str, base: dict[str, str], cgroup: Path | None
    ) -> Process:
        """Start a command; ``base`` is the environment that it shares with others.

        Raises ``OSError``, or ``ValueError`` or ``TypeError`` for words that no program can get;
        then nothing was started and nothing is open.
        """
        argv = [_code_argument(number, word) for number, word in enumerate(command.argv)]
        procs = _encode(str(cgroup / "cgroup.procs")) if cgroup else None
        env = dict(command.env)  # which another thread may change
        words = _Words(
            argv,
            code_environment(env, base),
            len(env),
            _encode(cwd),
            procs,
            self._stdin,
            self._die_with_parent,
        )
        return Process(command, words)


class _Words(NamedTuple):
    argv: Sequence[bytes]
    variables: bytes
    variable_count: int
    cwd: bytes
    cgroup_procs: bytes | None
    stdin: int
    die_with_parent: bool


class Process(subprocess.Popen[bytes]):
    """A started script: an unreaped child that leads its session.

    The core starts it, without the GIL: ``Popen`` keeps that until the exec, so that starts would
    not overlap, and leaves ignored and blocked signals to the child.
    """

    # What Popen.__init__ makes of its 25 options takes longer than all else here; so this is what
    # its methods read.
    stdin = stdout = stderr = None
    encoding = errors = None
    text_mode = None
    _input = None
    _communication_started = False
    _sigint_wait_secs = 0.25

    def __init__(self, command: Command, words: _Words) -> None:
        self.args = command.argv
        self.returncode = None
        self._waitpid_lock = threading.Lock()
        sys.audit("subprocess.Popen", command.argv[0], command.argv, words.cwd, command.env)
        programs = _programs(words.argv[0], command.env)
        self.child = _STARTS.spawn(programs, *words)
        self.pid = self.child.pid
        self._child_created = True


def _programs(name: bytes, env: Mapping[str, str]) -> Sequence[bytes]:
    """Return the paths that ``execvpe`` would try."""
    if b"/" in name:
        return (name,)
    return [os.path.join(_encode(entry), name) for entry in os.get_exec_path(env)]


def _encode(text: str) -> bytes:
    """Return what the script gets: UTF-8, as in its file, whatever the host's locale is."""
    return text.encode("utf-8", "surrogateescape")


def _code_argument(number: int, word: str) -> bytes:
    if "\0" in word:
        raise ValueError(f"argument {number} of the command holds a NUL")
    return _encode(word)
