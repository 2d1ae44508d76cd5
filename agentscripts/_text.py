"""Other people's text made harmless, and numbers in words. Pure."""

from __future__ import annotations

import itertools
import re
import signal
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

__all__ = [
    "LONGEST_LINE",
    "closest",
    "error_text",
    "escape",
    "excerpt",
    "hours_minutes_seconds",
    "number",
    "plain",
    "signal_name",
    "words",
]

LONGEST_LINE: Final = 200
"""Characters of a line that an excerpt shows."""

_MOST_NAMES: Final = 100

# In bits; Python refuses to write integers of more than 4300 digits.
_LONGEST_NUMBER: Final = 4096

# Control characters but the tab, line separators, what turns the direction of the text around it,
# and lone surrogates, which no terminal and no file takes.
_HARMFUL: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def escape(text: str) -> str:
    r"""Return a text with what could steer a terminal or mislead a reader written as ``\x1b``."""
    if text.isprintable():
        return text
    return _HARMFUL.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


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


def plain(text: str) -> str:
    """Return a text that is Unicode: lone surrogates, as for bytes that are no UTF-8, replaced."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def closest(name: str, known: Iterable[str]) -> str:
    """Return which of a few known names may be meant, ``""`` when it is none of them."""
    import difflib

    # The search takes some 10 µs for each of them, and the square of their length.
    some = [one for one in itertools.islice(known, _MOST_NAMES) if len(one) <= LONGEST_LINE]
    if len(name) > LONGEST_LINE:
        return ""
    return next(iter(difflib.get_close_matches(name, some, n=1)), "")


def number(value: object) -> str:
    """Return ``repr(value)``, and of an integer that has too many digits for that its size."""
    if isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        return f"an integer of {value.bit_length()} bits"
    return repr(value)


def signal_name(number: int) -> str:
    """Return ``SIGKILL``, or ``signal 40`` where there is no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def error_text(error: BaseException) -> str:
    """Return what an error says, without its number: ``path: No such file or directory``."""
    if not isinstance(error, OSError) or error.strerror is None:
        said = str(error) if isinstance(error, Exception) else ""
        return said or repr(error)
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def hours_minutes_seconds(seconds: float) -> tuple[int, int, int]:
    """Return a duration in whole units, rounded to the second."""
    minutes, rest = divmod(round(seconds), 60)
    return *divmod(minutes, 60), rest


def words(value: str) -> str:
    """Return a value as a person writes it: ``timed out`` for ``timed_out``."""
    return value.replace("_", " ")
