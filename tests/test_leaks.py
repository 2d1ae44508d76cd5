"""S2: no function of the core leaves memory, descriptors or threads behind."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

PROGRAM: Final = Path(__file__).with_name("leaks.py")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.memory,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        platform.libc_ver()[0] != "glibc", reason="psleak counts what glibc has allocated"
    ),
]


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """What psleak says of each case, in a process that allocates nothing else meanwhile."""
    done = subprocess.run(
        [sys.executable, PROGRAM],
        env={
            **os.environ,
            "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
            "MALLOC_ARENA_MAX": "1",
            "PYTHONMALLOC": "malloc",
            "PYTHONUNBUFFERED": "1",
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_nothing_leaks(report: dict[str, Any]) -> None:
    """S2: neither a run, however it ends, nor any part of it."""
    assert {name: result for name, result in report["results"].items() if result} == {}
    assert len(report["results"]) >= 16


def test_every_function_is_called(report: dict[str, Any]) -> None:
    """S2: of the whole boundary between Python and C."""
    assert report["unreached"] == []


def test_a_leak_would_be_found(report: dict[str, Any]) -> None:
    """S2: a semaphore that is not freed, a descriptor that is not closed."""
    assert report["leaks"]["memory"].startswith("MemoryLeakError")
    assert report["leaks"]["descriptors"].startswith("UnclosedFdError")
