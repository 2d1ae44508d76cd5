"""Lines of tables and fields, in TOML and in JSON."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentscripts._places import json_lines, line_of, toml_lines

TOML = r"""
# [[script]]
top = { a = 1, b = [
    2, # ]
] } # }
after = 1
'a b'."c=d".e = 5

[[script]]   # [x]
text = '''
[[script]]
timeout = 1 ''' ''
"quo\"ted" = "[[script]] # no comment"
[script.env]
A = 1
[[script]]
multi = ""\"
\""" [[script]]
x = ""\"""
last = [
    ["]"],
    ['['],
    { a = 1 },
]
[options]
env.X = 1
""".replace('""\\"', '"""').replace("''' ''", "'''")


def test_toml() -> None:
    """Texts, comments and brackets that look like something else mislead nobody."""
    tomllib.loads(TOML)
    lines = toml_lines(TOML)
    assert lines == {
        ("top",): 3,
        ("after",): 6,
        ("a b",): 7,
        ("a b", "c=d"): 7,
        ("a b", "c=d", "e"): 7,
        ("script",): 9,
        ("script", 0): 9,
        ("script", 0, "text"): 10,
        ("script", 0, 'quo"ted'): 13,
        ("script", 0, "env"): 14,
        ("script", 0, "env", "A"): 15,
        ("script", 1): 16,
        ("script", 1, "multi"): 17,
        ("script", 1, "last"): 20,
        ("options",): 25,
        ("options", "env"): 26,
        ("options", "env", "X"): 26,
    }
    assert line_of(("script", 1, "last", 0, 0), lines) == 20
    assert line_of(("script", 0, "none"), lines) == 9
    assert line_of(("none",), lines) is None
    assert line_of((), lines) is None


@pytest.mark.parametrize("quote", ['"', "'"])
@pytest.mark.parametrize("count", [3, 4, 5])
def test_quotes_at_the_end_of_a_text(quote: str, count: int) -> None:
    """One or two right before the three that end it are part of it, and begin no other text."""
    text = "\n".join(f"{name} = {quote * 3}x{quote * count}" for name in "abc")
    assert tomllib.loads(text)["c"] == f"x{quote * (count - 3)}"
    assert toml_lines(text) == {("a",): 1, ("b",): 2, ("c",): 3}


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends(end: str) -> None:
    """A file with the line ends of another system has the same lines."""
    assert toml_lines(end.join(["[[script]]", "a = 1", "", "b = 2"])) == {
        ("script",): 1,
        ("script", 0): 1,
        ("script", 0, "a"): 2,
        ("script", 0, "b"): 4,
    }


KEYS = st.text(min_size=1, max_size=5)
TEXTS = st.text(alphabet="ab[]{}#=\"'\\\n ", max_size=12)


@given(st.lists(st.dictionaries(KEYS, TEXTS, max_size=3), max_size=4))
def test_toml_of_any_text(tables: list[dict[str, str]]) -> None:
    """Whatever keys and texts hold, each field is on the line where it was written."""
    written = [""]
    expected: dict[tuple[str | int, ...], int] = {}
    for index, table in enumerate(tables):
        expected["script", index] = "\n".join(written).count("\n") + 1
        expected.setdefault(("script",), expected["script", index])
        written[-1:] = ["[[script]]", ""]
        for key, text in table.items():
            expected["script", index, key] = "\n".join(written).count("\n") + 1
            raw = text.replace("\\", "\\\\").replace('"', '\\"')
            written[-1:] = [f'{_quoted(key)} = """\n{raw}""" # "', ""]
    text = "\n".join(written)
    assert tomllib.loads(text).get("script", []) == tables
    assert toml_lines(text) == expected


def _quoted(key: str) -> str:
    return '"' + "".join(f"\\U{ord(char):08x}" for char in key) + '"'


def test_json() -> None:
    """Objects and fields have their lines, however the file is laid out."""
    text = '\n[ {"a": [1, {"x": "]"}],\n"b" :\n{}},\n5, {}, {\n"c": "}"}\n]'
    json.loads(text)
    assert json_lines(text) == {
        ("script", 0): 2,
        ("script", 0, "a"): 2,
        ("script", 0, "b"): 3,
        ("script", 1): 5,
        ("script", 2): 5,
        ("script", 3): 5,
        ("script", 3, "c"): 6,
    }


@pytest.mark.parametrize("value", [None, 5, {"a": []}, []])
def test_json_without_objects(value: Any) -> None:
    """What is no array of objects has no lines."""
    assert json_lines(json.dumps(value)) == {}
