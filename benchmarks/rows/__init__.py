"""The rows: each module of this package has a tuple ``ROWS``, and is found by being here."""

from __future__ import annotations

import importlib
import pkgutil

from benchmarks.row import Row

__all__ = ["all_rows"]


def all_rows() -> list[Row]:
    """Return the rows of all modules, in the order of their ``ORDER``."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return [row for module in sorted(modules, key=lambda one: one.ORDER) for row in module.ROWS]
