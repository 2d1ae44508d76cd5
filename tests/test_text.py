"""Other people's text made harmless."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscripts._text import LONGEST_LINE, escape, excerpt


@given(st.text())
def test_escape_leaves_nothing_without_a_shape(text: str) -> None:
    """Text: what remains is printable or a tab, valid UTF-8, and unchanged where it was so."""
    escaped = escape(text)
    assert escaped.replace("\t", " ").isprintable()
    escaped.encode("utf-8")
    assert (escaped == text) == text.replace("\t", " ").isprintable()


@pytest.mark.parametrize("char", ["\x1b", "\n", "\x9b", "\u202e", "\u2028", "\ud800", "\U000e0001"])
def test_escapes_are_those_of_python(char: str) -> None:
    """Text: an escape says which character it stands for."""
    assert ast.literal_eval(f'"{escape(char)}"') == char


@given(st.integers(0, 6), st.integers(0, 3))
def test_excerpt_says_what_is_left_out(shown: int, more: int) -> None:
    """Text: the gap stands between the begin and the end, and only where there is one."""
    lines = [str(index) for index in range(shown)]
    found = list(excerpt(lines, shown + more if shown == 6 else shown))
    if shown == 6 and more:
        gap = "… 1 line …" if more == 1 else f"… {more} lines …"
        assert found == [*lines[:3], gap, *lines[3:]]
    else:
        assert found == lines


def test_excerpt_cuts_long_lines() -> None:
    """Text: a line is cut before it is escaped, so no escape is cut."""
    long = "\x1b" * (LONGEST_LINE + 1)
    assert list(excerpt([long[1:], long], 2)) == ["\\x1b" * 200, "\\x1b" * 200 + "…"]
