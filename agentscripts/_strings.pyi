"""The extension module of csrc/python/strings.c."""

from typing_extensions import Buffer

__all__ = ["split"]

def split(data: Buffer, /) -> list[str]: ...
