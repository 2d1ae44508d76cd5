"""The command as a process of its own, for tests that drive it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Final

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
