"""Lines as Python's strings: the extension module ``agentscripts._strings``."""

from __future__ import annotations

import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agentscripts import _strings

# Bytes that begin, go on with and end what is UTF-8, or is nearly so.
PIECES = [
    b"\n",
    b"\0",
    b"\r",
    b"ab",
    "é€😀".encode(),
    b"\xc3",
    b"\xe2\x82",
    b"\xf0\x9f",
    b"\x80",
    b"\xff",
]


@given(st.one_of(st.binary(), st.lists(st.sampled_from(PIECES)).map(b"".join)))
@example(b"")
@example(b"\n")
def test_split_is_that_of_str(data: bytes) -> None:
    """L5: what is no UTF-8 becomes what Python's decoder makes of it, line by line or not."""
    assert _strings.split(data) == str(data, "utf-8", "replace").split("\n")


def test_split_takes_any_buffer() -> None:
    """A view of some memory, of which it keeps nothing, or what is wrong with it."""
    memory = bytearray(b"one\ntwo")
    assert _strings.split(memoryview(memory)[1:]) == ["ne", "two"]
    memory.clear()  # an export would forbid it
    for wrong in ("text", 12345, object(), memoryview(b"abcd")[::2]):
        references = sys.getrefcount(wrong)
        for _ in range(10):
            with pytest.raises((TypeError, BufferError)):
                _strings.split(wrong)  # type: ignore[arg-type]
        assert sys.getrefcount(wrong) == references
