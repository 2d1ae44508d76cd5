"""What else a Python program may run scripts with, each doing what ``execute`` does.

A peer's ``run`` starts ``/bin/sh -c SCRIPT`` in a session of its own, writes what it prints to a
log file, decodes its lines, and returns how many there were. Lines are counted and forgotten where
the peer allows that: none pays for a list that it need not keep.
"""

from __future__ import annotations

import codecs
import dataclasses
import importlib.util
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Final

from benchmarks.lab import SHELL

__all__ = [
    "BY_HAND",
    "PEERS",
    "Peer",
    "Readers",
    "run_at_once",
    "run_at_once_in_trio",
    "run_in_trio",
    "start_by_hand",
    "write_without_tee",
]

Run = Callable[[str, Path], int]


@dataclasses.dataclass(frozen=True)
class Peer:
    """A contender of the library.

    module: what must be importable.
    run: runs one script to its end.
    lines: how many lines, at most, it gets in one round, so that the round stays short.
    """

    name: str
    module: str
    run: Run
    lines: int

    @property
    def lack(self) -> str:
        """Why it cannot be used; ``""`` when it can."""
        if importlib.util.find_spec(self.module) is None:
            return f"not installed: pip install {self.name}"
        return ""


def run_at_once(peer: Peer, scripts: Sequence[str], logs: Sequence[Path], threads: int) -> int:
    """Run many scripts from a pool of threads; return how many lines came."""
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(peer.run, scripts, logs))


def run_at_once_in_trio(scripts: Sequence[str], logs: Sequence[Path], limit: int) -> None:
    """Run many scripts, so many at a time, in one event loop."""
    import trio

    async def run_all() -> None:
        limiter = trio.CapacityLimiter(limit)

        async def run(script: str, log: Path) -> None:
            async with limiter:
                await run_in_trio(script, log)

        async with trio.open_nursery() as nursery:
            for script, log in zip(scripts, logs, strict=True):
                nursery.start_soon(run, script, log)

    trio.run(run_all)


# ---- the standard library ----


def write_without_tee(scripts: Sequence[str], logs: Sequence[Path]) -> None:
    """Run scripts that write their logs themselves: nobody sees a line, bounds or rotates them."""

    def run(script: str, log: Path) -> None:
        with log.open("wb") as file:
            subprocess.run([SHELL, "-c", script], stdout=file, stderr=file, start_new_session=True)

    with ThreadPoolExecutor(len(scripts)) as pool:
        list(pool.map(run, scripts, logs))


def _run_and_write(script: str, log: Path) -> int:
    done = subprocess.run(
        [SHELL, "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        start_new_session=True,
    )
    with log.open("wb") as file:
        file.write(done.stdout)
        file.write(done.stderr)
    text = (done.stdout + done.stderr).decode("utf-8", "replace")
    return len(text.split("\n")) - 1


def start_by_hand(script: str) -> subprocess.Popen[bytes]:
    """Start a script as most people do."""
    return subprocess.Popen(
        [SHELL, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


class Readers:
    """A thread per pipe that writes its lines to the log and decodes them."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        assert process.stdout
        assert process.stderr
        self._counts: list[int] = []
        self._file = log.open("wb")
        self._threads = [
            threading.Thread(target=self._read, args=(pipe,))
            for pipe in (process.stdout, process.stderr)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self, pipe: IO[bytes]) -> None:
        lines = 0
        with pipe:
            for line in pipe:
                self._file.write(line)
                line.decode("utf-8", "replace").rstrip("\n")
                lines += 1
        self._counts.append(lines)

    def join(self) -> int:
        """Wait for the ends of both pipes; return how many lines came."""
        for thread in self._threads:
            thread.join()
        self._file.close()
        return sum(self._counts)


def _run_by_hand(script: str, log: Path) -> int:
    with start_by_hand(script) as process:
        readers = Readers(process, log)
        process.wait()
        return readers.join()


# ---- from PyPI ----


def _run_subprocess_tee(script: str, log: Path) -> int:
    import subprocess_tee

    # It starts no session. Without an executable it would take $SHELL.
    with log.open("w") as file:
        done = subprocess_tee.run(script, executable=SHELL, stdout=file, stderr=file)
    return int((done.stdout or "").count("\n") + (done.stderr or "").count("\n"))


def _run_sh(script: str, log: Path) -> int:
    import sh

    # Not by callbacks: with one, the shortest script takes 100 ms.
    with log.open("wb") as file:
        output = sh.Command(SHELL)(
            "-c",
            script,
            _out=file,
            _err_to_out=True,
            _tee=True,
            _new_session=True,
            _tty_out=False,
        )
    return str(output).count("\n")


def _run_plumbum(script: str, log: Path) -> int:
    import plumbum
    from plumbum.commands.processes import iter_lines

    lines = 0
    process = plumbum.local[SHELL].popen(["-c", script], new_session=True, stdin=subprocess.DEVNULL)
    with log.open("w") as file:
        for out, err in iter_lines(process, buffer_size=0):
            file.write(f"{out if err is None else err}\n")
            lines += 1
    return lines


def _run_trio(script: str, log: Path) -> int:
    import trio

    return trio.run(run_in_trio, script, log)


async def run_in_trio(script: str, log: Path, **options: Any) -> int:
    """Run a script under trio; ``options`` go to ``trio.run_process``."""
    import trio

    lines = 0

    async def read(stream: Any, file: IO[bytes]) -> None:
        nonlocal lines
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        async for chunk in stream:
            file.write(chunk)
            lines += len(decode(chunk).split("\n")) - 1

    with log.open("wb") as file:
        async with trio.open_nursery() as nursery:
            start = _trio_starter(script, options)
            process = await nursery.start(start)
            nursery.start_soon(read, process.stdout, file)
            nursery.start_soon(read, process.stderr, file)
    return lines


def _trio_starter(script: str, options: dict[str, Any]) -> Callable[..., Any]:
    import functools

    import trio

    return functools.partial(
        trio.run_process,
        [SHELL, "-c", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        check=False,
        **options,
    )


BY_HAND: Final = Peer("Popen and threads", "subprocess", _run_by_hand, 400_000)

PEERS: Final = (
    Peer("subprocess.run", "subprocess", _run_and_write, 1_000_000),
    BY_HAND,
    Peer("subprocess-tee", "subprocess_tee", _run_subprocess_tee, 40_000),
    Peer("sh", "sh", _run_sh, 20_000),
    Peer("plumbum", "plumbum", _run_plumbum, 20_000),
    Peer("trio", "trio", _run_trio, 1_000_000),
)
