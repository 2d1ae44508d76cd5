"""The command as a process of its own, for tests that drive it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import pexpect
import pyte
from support import PATIENCE

COMMAND: Final = (sys.executable, "-m", "agentscripts")
OPTIONS: Final = (
    '[options]\ndata_dir = "data"\nlog_dir = "logs"\nshell = "/bin/sh"\nworking_dir = "."\n'
)


def command(*arguments: str, cwd: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    argv = [*COMMAND, *arguments]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=PATIENCE, **how)


def read_line(pipe: IO[bytes] | None) -> str:
    """Read one line."""
    assert pipe is not None
    return pipe.readline().decode().rstrip("\n")


def wait_for(pipe: IO[bytes] | None, text: str) -> str:
    """Read lines until one begins with a text; return the rest of it."""
    assert pipe is not None
    seen = []
    for line in iter(pipe.readline, b""):
        seen.append(line.decode().rstrip("\n"))
        if seen[-1].startswith(text):
            return seen[-1].removeprefix(text).strip()
    raise AssertionError(f"the command never printed {text!r}: {seen!r}")


class Running(subprocess.Popen[bytes]):
    """``agentscripts run`` on a manifest that is made in ``base``; killed at the end.

    before: a command that starts it.
    """

    def __init__(
        self,
        base: Path,
        scripts: str,
        *arguments: str,
        options: str = "",
        before: Sequence[str] = (),
        **how: Any,
    ) -> None:
        (base / "m.toml").write_text(OPTIONS + options + textwrap.dedent(scripts))
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        argv = [*before, *COMMAND, "run", *arguments, "m.toml"]
        super().__init__(argv, cwd=base, process_group=0, bufsize=0, **how)
        self._watchdog = threading.Timer(PATIENCE, self.kill)  # what is read then is the end
        self._watchdog.daemon = True
        self._watchdog.start()

    def finish(self) -> tuple[int, str, str]:
        """Wait for the end; return the exit status and the rest of what was printed."""
        stdout, stderr = self.communicate()
        return self.returncode, (stdout or b"").decode(), (stderr or b"").decode()

    def __exit__(self, *exc: object) -> None:
        self.kill()
        self._watchdog.cancel()
        self._watchdog.join()
        super().__exit__(*exc)  # type: ignore[arg-type]


class Terminal(pexpect.spawn):
    """``agentscripts`` in a terminal, on a manifest that is made in ``base``; ended at the end.

    screen: what a person sees, line by line.
    """

    def __init__(
        self,
        base: Path,
        scripts: str,
        *arguments: str,
        after: Sequence[str] = (),
        options: str = "",
        size: tuple[int, int] = (80, 24),
        **env: str,
    ) -> None:
        (base / "m.toml").write_text(OPTIONS + options + textwrap.dedent(scripts))
        columns, rows = size
        inherited = {key: value for key, value in os.environ.items() if key not in _UNWANTED}
        super().__init__(
            COMMAND[0],
            [*COMMAND[1:], *(arguments or ("run",)), "m.toml", *after],
            cwd=base,
            env={**inherited, "TERM": "xterm-256color", **env},
            dimensions=(rows, columns),
            timeout=PATIENCE,
            echo=False,
        )
        self._screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self._screen)
        self.printed = b""

    @property
    def screen(self) -> list[str]:
        """The lines that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def wait_for(self, condition: Callable[[list[str]], object], what: str = "") -> list[str]:
        """Read until the screen is as wished; return it."""
        give_up = time.monotonic() + PATIENCE
        while not condition(self.screen):
            assert time.monotonic() < give_up, f"never came {what}: {self.screen}"
            try:
                self._feed(self.read_nonblocking(65536, timeout=1))
            except pexpect.TIMEOUT:
                continue
            except pexpect.EOF:
                assert condition(self.screen), f"ended without {what}: {self.screen}"
        return self.screen

    def shows(self, *words: str) -> list[str]:
        """Wait until one line has all these words, in order; return the screen."""

        def found(screen: list[str]) -> bool:
            return any(_in_order(line, words) for line in screen)

        return self.wait_for(found, repr(words))

    def finish(self) -> int:
        """Read to the end; return the exit status, as a shell tells it."""
        self._feed(self.read())
        self.wait()
        return self.exitstatus if self.signalstatus is None else 128 + self.signalstatus

    def _feed(self, data: bytes) -> None:
        self.printed += data
        self._stream.feed(data)

    def __exit__(self, *exc: object) -> None:
        self.close(force=True)


_UNWANTED: Final = ("CI", "NO_COLOR", "COLORTERM", "FORCE_COLOR", "COLUMNS", "LINES")


def _in_order(line: str, words: Sequence[str]) -> bool:
    place = 0
    for word in words:
        place = line.find(word, place)
        if place < 0:
            return False
        place += len(word)
    return True
