"""The files of ``run --report``: what became of each run, and the page of all."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentscripts._directories import close_quietly, make_private
from agentscripts._files import OSFilesystem
from agentscripts._result import RunResult
from agentscripts._timeline import Record, parse_record, render_timeline

__all__ = ["RESULTS", "TIMELINE", "Report", "read_results", "write_timeline"]

RESULTS: Final = "results.jsonl"
TIMELINE: Final = "timeline.html"


class Report:
    """A directory with both files, for this user alone. One thread's.

    Each result is in its file when ``add`` returns, so a crash loses none that was there; the page
    comes at the end. After the first failure, which ``error`` holds, nothing more is written.

    on_error: called once, with the first failure.

    Raises ``OSError`` when the directory or the file cannot be made.
    """

    def __init__(self, directory: Path, title: str, on_error: Callable[[OSError], object]) -> None:
        files = OSFilesystem()
        files.make_dirs(directory, 0o700)
        self.error: OSError | None = None
        self._directory = directory
        self._title = title
        self._on_error = on_error
        # As a log, for it holds the last lines of each.
        target = files.open_log(directory / RESULTS)
        if target.dir_fd is not None:
            close_quietly(target.dir_fd)
        self._file = os.fdopen(target.fd, "w", encoding="utf-8")
        self._file.truncate(0)

    def add(self, result: RunResult) -> None:
        """Write a result."""
        self._try(lambda: self._write(json.dumps(result.as_dict(), ensure_ascii=False)))

    def close(self) -> None:
        """Write the page."""
        with contextlib.suppress(OSError):  # what a failure before has left in the buffer
            self._file.close()
        self._try(
            lambda: write_timeline(
                self._directory / TIMELINE, read_results(self._directory / RESULTS), self._title
            )
        )

    def _write(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()

    def _try(self, write: Callable[[], object]) -> None:
        if self.error is not None:
            return
        try:
            write()
        except OSError as error:
            self.error = error
            self._on_error(error)


def read_results(path: Path) -> list[Record]:
    """Return the records of a file with a result per line.

    Raises ``OSError``, or ``ValueError`` with the line, what is wrong there and what was expected.
    """
    records = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                records.append(parse_record(json.loads(line)))
            except (ValueError, RecursionError) as error:
                what = f"is no JSON ({error})" if isinstance(error, json.JSONDecodeError) else error
                raise ValueError(f"{path}:{number}: {what}") from None
    return records


def write_timeline(path: Path, records: list[Record], title: str) -> None:
    """Write the page, to a file whole or not at all, and for this user alone (0600).

    Raises ``OSError``.
    """
    text = render_timeline(records, title)
    try:
        _write_whole(path, text)
    except OSError as error:
        # As the user wrote it: the temporary file has another name.
        raise OSError(error.errno, error.strerror, str(path)) from None


def _write_whole(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():  # a device or a pipe, which nothing may replace
        path.write_text(text, encoding="utf-8")
        return
    target = path.resolve()  # a link stays one
    fd, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            make_private(fd)
            file.write(text)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
