"""``python -m benchmarks``."""

from __future__ import annotations

import sys

_EXTRA = frozenset({"rich"})

if __name__ == "__main__":
    try:
        from benchmarks.cli import main
    except ModuleNotFoundError as error:
        if error.name not in _EXTRA | {"agentscripts"}:
            raise
        print("benchmarks: first do: pip install '.[bench]'", file=sys.stderr)
        raise SystemExit(2) from None
    raise SystemExit(main())
