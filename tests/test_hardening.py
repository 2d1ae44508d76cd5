"""The extension modules as they are shipped: a mistake in one ends the process, not the machine."""

from __future__ import annotations

import platform
import struct
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from agentscripts import _core, _strings

_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_DYNAMIC: Final = struct.Struct("<qQ")
_SYMBOL: Final = struct.Struct("<IBBHQQ")
_STACK, _RELRO = 0x6474E551, 0x6474E552
_EXECUTABLE, _WRITABLE = 1, 2
_DYNAMIC_SECTION, _SYMBOLS = 6, 11
_TEXT_RELOCATIONS, _FLAGS, _BIND_NOW = 22, 30, 8


class _Elf(NamedTuple):
    segments: dict[int, list[int]]  # the flags of those of each type
    dynamic: dict[int, int]
    symbols: set[str]


def _read(path: Path) -> _Elf:
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        pytest.skip("this machine's programs are not of 64 bits, little-endian")
    programs, sections = struct.unpack_from("<QQ", data, 32)
    sizes = struct.unpack_from("<HHHHH", data, 54)
    segments: dict[int, list[int]] = {}
    for index in range(sizes[1]):
        kind, flags = _PROGRAM_HEADER.unpack_from(data, programs + index * sizes[0])[:2]
        segments.setdefault(kind, []).append(flags)
    headers = [
        _SECTION_HEADER.unpack_from(data, sections + index * sizes[2]) for index in range(sizes[3])
    ]
    dynamic: dict[int, int] = {}
    symbols = set()
    for _, kind, _, _, offset, size, link, *_ in headers:
        part = data[offset : offset + size]
        if kind == _DYNAMIC_SECTION:
            dynamic.update(_DYNAMIC.iter_unpack(part))
        elif kind == _SYMBOLS:
            names = data[headers[link][4] :]
            symbols = {
                names[entry[0] : names.index(b"\0", entry[0])].decode()
                for entry in _SYMBOL.iter_unpack(part)
            }
    return _Elf(segments, dynamic, symbols)


@pytest.fixture(scope="module", params=[_core, _strings], ids=["core", "strings"])
def core(request: pytest.FixtureRequest) -> _Elf:
    elf = _read(Path(request.param.__file__))
    if any(name.startswith(("__asan", "__tsan")) for name in elf.symbols):
        pytest.skip("this core is built with sanitizers, which take the place of these checks")
    return elf


def test_no_function_pointer_of_the_linker_can_be_overwritten(core: _Elf) -> None:
    """Full RELRO: all is bound at the start, and read-only from then on."""
    assert core.dynamic[_FLAGS] & _BIND_NOW
    assert _RELRO in core.segments
    assert _TEXT_RELOCATIONS not in core.dynamic


def test_no_memory_is_both_written_and_executed(core: _Elf) -> None:
    """The stack, and every segment."""
    assert core.segments[_STACK] == [6]  # readable, writable
    for flags in (flag for kind in core.segments.values() for flag in kind):
        assert flags & (_EXECUTABLE | _WRITABLE) != _EXECUTABLE | _WRITABLE


def test_an_overflow_is_noticed(core: _Elf, request: pytest.FixtureRequest) -> None:
    """Functions with arrays have a canary; libc's know how much room there is."""
    assert "__stack_chk_fail" in core.symbols
    if platform.libc_ver()[0] == "glibc":  # others do not know _FORTIFY_SOURCE
        expected = {"__snprintf_chk"} if "core" in request.node.name else set()
        assert core.symbols & {"snprintf", "__snprintf_chk"} == expected
