"""What a script gets is UTF-8, whatever the host's locale is; names of files are what they are.

In a UTF-8 locale, as nearly everywhere, both functions return their text.
"""

from __future__ import annotations

import os
import sys
from typing import Final

__all__ = ["coded", "from_host", "to_host"]

_UTF_8: Final = "utf-8", "surrogateescape"
_IS_UTF_8: Final = (sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()) == _UTF_8


def coded(text: str) -> bytes:
    """Return what a script gets for a text."""
    return str.encode(text, *_UTF_8)


def from_host(text: str) -> str:
    """Return the text that is coded to the bytes which the host has for a path or a variable."""
    return text if _IS_UTF_8 else os.fsencode(text).decode(*_UTF_8)


def to_host(text: str) -> str:
    """Return what the host has for a script's text, so that it finds the same file."""
    return text if _IS_UTF_8 else os.fsdecode(coded(text))
