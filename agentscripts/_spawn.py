"""How a script's process is started (R6)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agentscripts._command import Command
from agentscripts._native import make_pipes, signals_are_default

__all__ = ["Child", "Spawner"]

_HELPER: Final = str(Path(__file__).with_name("_exec"))


class Child(NamedTuple):
    """A started script: an unreaped child that leads its session, and its pipes' read ends."""

    popen: subprocess.Popen[bytes]
    stdout_fd: int
    stderr_fd: int


def _encode(text: str) -> bytes:
    """Return what the script gets: UTF-8, as in its file, whatever the host's locale is."""
    return text.encode("utf-8", "surrogateescape")


class _Setting(NamedTuple):
    cwd: str
    env: Mapping[bytes, bytes]
    stdout: int
    stderr: int


class Spawner:
    """Starts scripts for one runner. Thread-safe."""

    def __init__(self) -> None:
        self._stdin = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        # A host that ignores real-time signals does so from its start, if at all. The others, above
        # all SIGHUP, are looked at for each script: 5 µs, and another 5 for the real-time ones.
        self._needs_helper = not signals_are_default(real_time_too=True)
        self._coded: tuple[Mapping[str, str], dict[bytes, bytes]] = ({}, {})

    def close(self) -> None:
        """Close its descriptor."""
        os.close(self._stdin)

    def spawn(
        self, command: Command, cwd: str, base: Mapping[str, str], cgroup: Path | None
    ) -> Child:
        """Start a command; ``base`` is the environment that it shares with others.

        Raises ``OSError``; then nothing was started and nothing is open.
        """
        env = self._code(command.env, base)
        with _no_fork:
            return self._spawn(command, cwd, env, cgroup)

    def _spawn(
        self, command: Command, cwd: str, env: Mapping[bytes, bytes], cgroup: Path | None
    ) -> Child:
        out_read, out_write, err_read, err_write = make_pipes()
        setting = _Setting(cwd, env, out_write, err_write)
        try:
            try:
                # Popen resets SIGPIPE and SIGXFSZ. With preexec_fn it could reset the rest, but
                # that forbids vfork: three times the price. The rare host that ignores or blocks
                # signals pays for a second exec instead.
                if cgroup or self._needs_helper or not signals_are_default(real_time_too=False):
                    popen = self._start_by_helper(command, setting, cgroup)
                else:
                    popen = self._start(command.argv, setting)
            finally:
                os.close(out_write)
                os.close(err_write)
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        return Child(popen, out_read, err_read)

    def _start(
        self, argv: Sequence[str], setting: _Setting, pass_fds: tuple[int, ...] = ()
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [_encode(word) for word in argv],
            stdin=self._stdin,
            stdout=setting.stdout,
            stderr=setting.stderr,
            cwd=setting.cwd,
            env=setting.env,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    def _start_by_helper(
        self, command: Command, setting: _Setting, cgroup: Path | None
    ) -> subprocess.Popen[bytes]:
        program = _find_program(command)
        procs = str(cgroup / "cgroup.procs") if cgroup else ""
        status_read, status_write = os.pipe2(os.O_CLOEXEC)
        with open(status_read, "rb") as status:
            try:
                argv = (_HELPER, str(status_write), procs, program, *command.argv)
                popen = self._start(argv, setting, (status_write,))
            finally:
                os.close(status_write)
            report = status.read().split()  # its end comes with the exec, or a failure before it
        if report:
            popen.wait()
            number, step = int(report[0]), report[1]
            subject = program if step == b"exec" else procs
            raise OSError(number, os.strerror(number), subject)
        return popen

    def _code(self, env: Mapping[str, str], base: Mapping[str, str]) -> Mapping[bytes, bytes]:
        """Return the environment in bytes, most of it coded before: Popen would take 20 µs."""
        coded_base, coded = self._coded
        if coded_base is not base:
            coded = {os.fsencode(name): os.fsencode(value) for name, value in base.items()}
            self._coded = (base, coded)
        result = dict(coded)
        for name, value in env.items():
            if base.get(name) is not value:
                result[_encode(name)] = _encode(value)
        # A command factory may have left some out.
        if len(result) == len(env):
            return result
        return {_encode(name): _encode(value) for name, value in env.items()}


# A child that the host forks while a script is started would hold the script's pipes open, and that
# by which Popen learns of the exec: it would wait until that child ends.
_no_fork = threading.RLock()
os.register_at_fork(
    before=_no_fork.acquire, after_in_parent=_no_fork.release, after_in_child=_no_fork.release
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
