"""From Python's strings to bytes and back: the extension module ``agentscripts._strings``."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize("odd", [b"\x80", "é".encode(), b"\xff\n"])
def test_split_finds_what_is_no_ascii(odd: bytes) -> None:
    """L5: anywhere; without it nothing is decoded."""
    for size in range(1, 70):
        plain = (b"some words\nmore " * 5)[:size]
        lines = _strings.split(plain)
        assert all(line.isascii() for line in lines)
        assert lines == plain.decode("ascii").split("\n")
        for at in range(size + 1):
            data = plain[:at] + odd + plain[at:]
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


# Whatever a variable may be made of: no NUL, and what is not UTF-8 as os.environ has it.
TEXTS = st.lists(
    st.characters(min_codepoint=1, exclude_categories=["Cs"])
    | st.sampled_from("\udc80\udce9\udcff")
).map("".join)
NAMES = TEXTS.map(lambda text: text.replace("=", ""))


@given(st.dictionaries(NAMES, TEXTS), st.dictionaries(NAMES, TEXTS))
@example({}, {})
@example({"": "", "LONG": "x" * 200_000}, {})
@example({"PATH": "/bin", "Ü": "ü\udce9"}, {"PATH": "/bin", "Ü": "ü\udce9"})
def test_environment(base: dict[str, str], own: dict[str, str]) -> None:
    """R5: each variable as execve takes it, in the order of the dict."""
    env = {**base, **own}
    coded = [f"{name}={value}\0".encode("utf-8", "surrogateescape") for name, value in env.items()]
    assert _strings.environment(env, base) == b"".join(coded)


def test_environment_of_the_agent() -> None:
    """R5: what is the agent's own object gets the encoding of the file system, which is UTF-8 here:
    ``test_a_locale_without_utf_8`` has another one."""
    value = "é\udce9"
    assert _strings.environment({"A": value}, {"A": value}) == b"A=" + os.fsencode(value) + b"\0"
    with pytest.raises(UnicodeEncodeError, match=r"surrogates not allowed"):
        _strings.environment({"A": "\ud800"}, {})


def test_environment_of_other_strings() -> None:
    """R5: what a subclass of str holds counts, not how it shows itself, as for subprocess."""

    class Loud(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            return self.upper()

    assert _strings.environment({Loud("a"): Loud("é")}, {}) == b"a=\xc3\xa9\0"


@pytest.mark.parametrize(
    ("env", "error", "problem"),
    [
        ({"A": "b\0c"}, ValueError, r"environment variable 'A' holds a NUL"),
        ({"A\0": "ü"}, ValueError, r"environment variable 'A\\x00' holds a NUL"),
        ({"A=B": "c"}, ValueError, r"environment variable 'A=B' has a \"=\" in its name"),
        ({"Ä=B": "c"}, ValueError, r"environment variable 'Ä=B' has a \"=\" in its name"),
        ({"A": 5}, TypeError, r"environment variable 'A' is <class 'int'>, expected str"),
        ({b"A": "b"}, TypeError, r"environment variable b'A' is <class 'bytes'>, expected str"),
    ],
)
def test_no_environment(env: dict[str, str], error: type[Exception], problem: str) -> None:
    """R5: what execve would take for something else is named, after what is as it should be."""
    names = list(env)
    references = [sys.getrefcount(name) for name in names]
    for _ in range(10):
        with pytest.raises(error, match=problem):
            _strings.environment({"OK": "1", **env}, {})
    assert [sys.getrefcount(name) for name in names] == references
