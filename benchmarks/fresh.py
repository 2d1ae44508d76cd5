"""Calls one function in a process of its own: ``python -m benchmarks.fresh MODULE:NAME JSON``."""

from __future__ import annotations

import importlib
import json
import sys

from benchmarks.limits import default_signals, raise_limits

__all__: list[str] = []


def main() -> None:
    """Call the function and print what it returned."""
    module, _, name = sys.argv[1].partition(":")
    raise_limits()
    default_signals()
    function = getattr(importlib.import_module(module), name)
    print(json.dumps(function(*json.loads(sys.argv[2]))), flush=True)


if __name__ == "__main__":
    main()
