"""The live view: rows at the end of the terminal that are painted over until the run ends."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

from agentscripts._cancel import CancelToken
from agentscripts._console import JoinedThread, Output

__all__ = ["LiveOutput", "LiveView", "Painter", "is_wanted"]

_REFRESH: Final = 0.125  # seconds
_STOPPED: Final = 2.0  # seconds; a wait that lasts so long was one of the whole process
_DUMB: Final = frozenset({"", "dumb", "unknown"})


def is_wanted(stream: TextIO | None, environment: Mapping[str, str], *also: TextIO | None) -> bool:
    """Whether a stream is a terminal that can be painted on, nobody's log, and the others, too."""
    if environment.get("CI", "").lower() not in ("", "0", "false"):
        return False
    if environment.get("TERM", "") in _DUMB:
        return False
    return all(one is not None and one.isatty() for one in (stream, *also))


class Painter:
    """Turns lines into what a terminal does. It owns no thread; one at a time uses it."""

    def __init__(self) -> None:
        # It reads NO_COLOR, COLORTERM and TERM.
        self._console = Console(file=io.StringIO(), force_terminal=True, highlight=False)
        self._painted: list[int] = []  # how many columns each line has that is on the screen

    def forget(self) -> None:
        """Begin below what is there, since others have written to the terminal."""
        self._painted = []

    def paint(self, above: str, lines: Sequence[Text], width: int) -> str:
        """Return what replaces the lines painted last, with a text above that stays.

        width: of the terminal now. It wraps the lines painted before, when it has shrunk.
        """
        rows = sum(max(1, -(-columns // width)) for columns in self._painted)
        up = f"\x1b[{rows}A" if rows else ""
        self._painted = [line.cell_len for line in lines]
        body = "".join(f"{line}\x1b[K\n" for line in self.render(lines))
        # Line by line, as to erase all first would flicker. What wraps is erased before.
        text = "".join(f"\x1b[K{line}\x1b[K\n" for line in above.splitlines())
        return f"\r{up}{text}{body}\x1b[J"

    def render(self, lines: Sequence[Text]) -> list[str]:
        """Return lines with their colours."""
        if not lines:
            return []
        with self._console.capture() as captured:
            self._console.print(
                Text("\n").join(lines), end="", soft_wrap=True, crop=False, highlight=False
            )
        return captured.get().split("\n")


class LiveOutput(Output):
    """Standard error, whose texts go above the rows while these are there. Thread-safe.

    asked: is cancelled with the first word of a signal handler.
    """

    def __init__(self, stream: TextIO | None, hurry: CancelToken, asked: CancelToken) -> None:
        super().__init__(stream, hurry)
        self._asked = asked
        # A signal handler may append, so it needs no lock.
        self._held: collections.deque[str] | None = None
        self._holding = threading.Lock()  # guards that none is held too late

    def hold(self) -> None:
        """Keep texts for ``take`` from now on."""
        self._held = collections.deque()

    def take(self) -> str:
        """Return what was written since."""
        parts = []
        with contextlib.suppress(IndexError):
            while self._held:
                parts.append(self._held.popleft())
        return "".join(parts)

    def release(self) -> None:
        """Write at once again."""
        with self._holding:
            rest, self._held = self._held, None
        self.write("".join(rest or ()))

    def write(self, text: str) -> None:
        """Write a text whole, or keep it."""
        with self._holding:
            if self._held is not None:
                self._held.append(text)
                return
        super().write(text)

    def write_now(self, text: str) -> None:
        """Write a text if the stream takes it at once, or keep it; for signal handlers."""
        self._asked.cancel()
        if (held := self._held) is not None:
            held.append(text)
        else:
            super().write_now(text)

    def paint(self, text: str) -> None:
        """Write past what is kept."""
        super().write(text)

    def size(self) -> tuple[int, int]:
        """Return the terminal's columns and rows."""
        try:
            columns, rows = os.get_terminal_size(self._fd)
        except OSError:
            columns = rows = 0
        return columns or 80, rows or 24

    def is_in_foreground(self) -> bool:
        """Whether the terminal is this process's to write to: it is no job in the background."""
        try:
            return os.tcgetpgrp(self._fd) == os.getpgrp()
        except OSError:  # it is not the terminal that controls this process
            return True


class LiveView(JoinedThread):
    """Paints in a thread of its own, ``agentscripts-live``, while it is entered.

    lines: returns what to show in so many columns and rows.
    """

    def __init__(
        self, output: LiveOutput, lines: Callable[[int, int], Sequence[Text]], painter: Painter
    ) -> None:
        self._output = output
        self._lines = lines
        self._painter = painter
        self._shown: tuple[list[Text], tuple[int, int]] | None = None
        self._over = threading.Event()
        super().__init__(self._show, "agentscripts-live", self._over.set)

    def _show(self) -> None:
        self._output.hold()
        try:
            self._paint_until_over()
        finally:
            self._output.release()

    def _paint_until_over(self) -> None:
        waited = 0.0
        while not self._over.is_set():
            if waited > _STOPPED or not self._output.is_in_foreground():
                self._painter.forget()
                self._shown = None
            if self._output.is_in_foreground():
                self._refresh()
            began = time.monotonic()
            self._over.wait(_REFRESH)
            waited = time.monotonic() - began
        self._output.paint(self._painter.paint(self._output.take(), [], self._output.size()[0]))

    def _refresh(self) -> None:
        size = self._output.size()
        lines, above = list(self._lines(*size)), self._output.take()
        if above or self._shown != (lines, size):
            self._shown = (lines, size)
            self._output.paint(self._painter.paint(above, lines, size[0]))
