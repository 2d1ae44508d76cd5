"""Texts in the columns of a terminal, where a character may take two or none. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size

from agentscripts._text import escape

__all__ = ["LONGEST_PADDED", "align", "fit", "pad", "visible"]

LONGEST_PADDED: Final = 40
"""Columns from which a name is no measure any more for those in the other lines."""


def visible(text: str, encoding: str = "utf-8") -> str:
    """Return a text as the terminal shows it, so that its columns can be counted."""
    harmless = escape(text).replace("\t", " ")
    return harmless.encode(encoding, "backslashreplace").decode(encoding)


def pad(text: str, width: int) -> str:
    """Return a text in so many columns or more."""
    return text + " " * (width - cell_len(text))


def align(names: Sequence[str]) -> list[str]:
    """Return names so that what follows them stands below each other, but behind long ones."""
    width = min(max(map(cell_len, names), default=0), LONGEST_PADDED)
    return [pad(name, width) for name in names]


def fit(text: str, width: int, encoding: str = "utf-8") -> str:
    """Return a text in exactly so many columns, made visible."""
    # A line may have 64 KiB; what is beyond the width is never shown.
    shown = visible(text[: width + 1], encoding)
    if cell_len(shown) <= width:
        return set_cell_size(shown, width)
    more = visible("…", encoding) if encoding.lower().startswith("utf") else "~"
    # A wide character that is cut in two leaves a column over.
    return pad(set_cell_size(shown, width - 1).rstrip() + more, width)
