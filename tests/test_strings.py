"""From Python's strings to bytes and back: the extension module ``agentscripts._strings``."""

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


def split(data: bytes, *, ascii: bool) -> list[str]:
    return _strings.split(data, data.count(b"\n") + 1, ascii)


@given(st.one_of(st.binary(), st.lists(st.sampled_from(PIECES)).map(b"".join)))
@example(b"")
@example(b"\n")
def test_split_is_that_of_str(data: bytes) -> None:
    """L5: what is no UTF-8 becomes what Python's decoder makes of it, line by line or not."""
    assert split(data, ascii=False) == str(data, "utf-8", "replace").split("\n")


@given(st.text(st.characters(max_codepoint=127) | st.just("\n")))
@example("")
@example("\n")
def test_split_of_ascii(text: str) -> None:
    """L5: it comes out as it was, and as what Python takes for ASCII."""
    for known in (False, True):
        lines, expected = split(text.encode(), ascii=known), text.split("\n")
        assert lines == expected
        assert [*map(hash, lines)] == [*map(hash, expected)]
        assert all(line.isascii() for line in lines)


def test_split_by_a_wrong_count() -> None:
    """The core counts; if it did so wrongly, nothing would be lost, or read beyond the end."""
    assert _strings.split(b"a\nb\nc", 2, False) == ["a", "b\nc"]
    assert _strings.split(b"a\nb", 4, True) == ["a", "b", "", ""]
    assert _strings.split(b"a\n", 0, True) == []


def test_split_takes_any_buffer() -> None:
    """A view of some memory, of which it keeps nothing, or what is wrong with it."""
    memory = bytearray(b"one\ntwo")
    assert _strings.split(memoryview(memory)[1:], 2, True) == ["ne", "two"]
    memory.clear()  # an export would forbid it
    for wrong in ("text", 12345, object(), memoryview(b"abcd")[::2]):
        references = sys.getrefcount(wrong)
        for _ in range(10):
            with pytest.raises((TypeError, BufferError)):
                _strings.split(wrong, 1, False)  # type: ignore[arg-type]
        assert sys.getrefcount(wrong) == references


# Whatever a variable may be made of: no NUL, and what is not UTF-8 as os.environ has it.
TEXTS = st.lists(
    st.characters(min_codepoint=1, exclude_categories=["Cs"])
    | st.sampled_from("\udc80\udce9\udcff")
).map("".join)
NAMES = TEXTS.map(lambda text: text.replace("=", ""))


@given(st.dictionaries(NAMES, TEXTS))
@example({})
@example({"": "", "LONG": "x" * 200_000})
@example({"A": "x" * 8190})  # a byte more than there is room for at first
@example({"PATH": "/bin", "Ü": "ü\udce9"})
def test_environment(env: dict[str, str]) -> None:
    """R5: each variable as execve takes it, in the order of the dict."""
    coded = [f"{name}={value}\0".encode("utf-8", "surrogateescape") for name, value in env.items()]
    assert _strings.environment(env) == b"".join(coded)


def test_what_cannot_be_coded() -> None:
    """R5: a lone surrogate that stands for no byte is an error, as for subprocess."""
    with pytest.raises(UnicodeEncodeError, match=r"surrogates not allowed"):
        _strings.environment({"A": "\ud800"})


def test_environment_of_other_strings() -> None:
    """R5: what a subclass of str holds counts, not how it shows itself, as for subprocess."""

    class Loud(str):
        __slots__ = ()

        def __format__(self, spec: str) -> str:
            return self.upper()

    assert _strings.environment({Loud("a"): Loud("é")}) == b"a=\xc3\xa9\0"


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
            _strings.environment({"OK": "1", **env})
    assert [sys.getrefcount(name) for name in names] == references
