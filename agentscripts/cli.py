"""The ``agentscripts`` command; it needs the extra ``cli``."""

from __future__ import annotations

import sys
from typing import Final

from agentscripts._init import leave_process_1
from agentscripts._text import error_text, escape

__all__ = ["main"]

_EXTRA: Final = frozenset({"click", "jinja2", "markupsafe", "pydantic", "pydantic_core", "rich"})


def main() -> None:
    """Run the command line of this process; ends it by ``SystemExit``."""
    # Before the imports, which take long: the kernel drops what process 1 has no handler for.
    leave_process_1()
    try:
        _run()
    except OSError as error:
        # Python would try at its end to write what click could not: completions.
        sys.stdout = None
        print(f"agentscripts: {escape(error_text(error))}", file=sys.stderr)
        raise SystemExit(1) from None


def _run() -> None:
    try:
        from agentscripts._commands import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("agentscripts: first do: pip install 'agentscripts[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    commands(prog_name="agentscripts")
