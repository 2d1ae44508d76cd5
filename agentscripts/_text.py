"""Other people's text made harmless to look at. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

__all__ = ["LONGEST_LINE", "escape", "excerpt"]

LONGEST_LINE: Final = 200
"""Characters of a line that an excerpt shows."""


def escape(text: str) -> str:
    r"""Return a text with all that has no shape of its own written as in ``repr``: ``\x1b``.

    That is control characters other than the tab, line separators, lone surrogates, and those that
    change the direction of the text around them.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char == "\t" or char.isprintable() else repr(char)[1:-1] for char in text
    )


def excerpt(lines: Sequence[str], count: int) -> Iterator[str]:
    """Yield the first and the last lines of ``count`` ones, escaped and cut, with what is left out.

    lines: where they are fewer than ``count``, the first half is the begin, the other the end.
    """
    left_out = count - len(lines)
    for index, line in enumerate(lines):
        if left_out > 0 and index == len(lines) // 2:
            yield f"… {left_out} {'line' if left_out == 1 else 'lines'} …"
        # Cut first, escape then: the cut never lands inside an escape.
        shown = escape(line[:LONGEST_LINE])
        yield f"{shown}…" if len(line) > LONGEST_LINE else shown
