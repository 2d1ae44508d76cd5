"""Make ``docs/troubles.svg``: what a terminal shows when ``examples/troubles.toml`` has run.

Run it as ``python docs/troubles.py``; it needs the extras ``cli`` and ``test``.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pexpect
from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "troubles.svg"
COMMAND = "agentscripts run examples/troubles.toml"
COLUMNS = 100


def run() -> str:
    """Run the example in a terminal of its own; return the summary, with its colours."""
    unwanted = ("CI", "NO_COLOR", "COLORTERM")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory).resolve()
        shutil.copy(ROOT / "examples" / "troubles.toml", base)
        printed, status = pexpect.run(
            f"{sys.executable} -m agentscripts run {base}/troubles.toml",
            env={**env, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)},
            timeout=60,
            withexitstatus=True,
            encoding="utf-8",
        )
    if status != 1:
        raise SystemExit(f"the example ended with exit status {status}, expected 1:\n{printed}")
    # The rows of the live view are gone when the summary comes.
    return printed.rpartition("\x1b[J")[2].replace("\r\n", "\n").replace(f"{base}/", "examples/")


def picture(text: str) -> str:
    """Return what was printed as a picture, without what differs from machine to machine."""
    text = re.sub(r"\(pid \d+\)", "(pid 4711)", text)
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {COMMAND}"))
    console.print(Text.from_ansi(text.rstrip()))
    return console.export_svg(title="agentscripts")


if __name__ == "__main__":
    PICTURE.write_text(picture(run()), encoding="utf-8")
