"""Other people's text made harmless."""

from __future__ import annotations

import ast
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscripts._text import LONGEST_LINE, error_text, escape, excerpt

BIDI = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(st.text(), st.text(alphabet="\x00\t\x1b\x85\u202e\u2066\u2028\ud800é\xa0\u200d"))
def test_escape_leaves_nothing_that_steers(text: str, more: str) -> None:
    """Text: what remains is UTF-8 without control characters, and otherwise unchanged."""
    escaped = escape(text + more)
    escaped.encode("utf-8")
    assert not any(unicodedata.category(char) == "Cc" and char != "\t" for char in escaped)
    assert not any(unicodedata.bidirectional(char) in BIDI for char in escaped)
    assert escape(escaped) == escaped


def test_escape_leaves_text_alone() -> None:
    """Text: other scripts, joined emoji and spaces of all kinds stay."""
    text = "\u200dterminé\xa0: שלום 👩‍👩‍👦 \t"
    assert escape(text) == text


@pytest.mark.parametrize("char", ["\x1b", "\n", "\x9b", "\u202e", "\u2028", "\ud800"])
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


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileNotFoundError(2, "No such file or directory", "x"), "x: No such file or directory"),
        (OSError(2, "the interpreter is not there"), "the interpreter is not there"),
        (OSError("text"), "text"),
        (ValueError("text"), "text"),
        (ValueError(), "ValueError()"),
        (SystemExit(3), "SystemExit(3)"),
    ],
)
def test_error_text(error: BaseException, text: str) -> None:
    """Text: an error is told in words, without its number."""
    assert error_text(error) == text
