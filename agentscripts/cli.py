"""The ``agentscripts`` command; it needs the extra ``cli``."""

from __future__ import annotations

import os
import sys
from typing import Final

from agentscripts._init import leave_process_1

__all__ = ["main"]

_EXTRA: Final = frozenset({"click", "jinja2", "markupsafe", "pydantic", "pydantic_core", "rich"})


def main() -> None:
    """Run the command line of this process; ends it by ``SystemExit``."""
    # Before the imports, which take long: the kernel drops what process 1 has no handler for.
    leave_process_1()
    try:
        from agentscripts._commands import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("agentscripts: first do: pip install 'agentscripts[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    try:
        commands(prog_name="agentscripts")
    except OSError as error:  # a help text that cannot be written
        print(f"agentscripts: cannot write the output: {error.strerror}", file=sys.stderr)
        # Python writes at its end what the stream still holds, and a failure then is status 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
