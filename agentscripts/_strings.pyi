"""The extension module of csrc/python/strings.c."""

from typing_extensions import Buffer

__all__ = ["environment", "split"]

def split(data: Buffer, count: int, ascii: bool, /) -> list[str]: ...
def environment(env: dict[str, str], /) -> bytes: ...
