"""After a signal: what the command still waits for."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Final

from agentscripts._cancel import CancelToken
from agentscripts._console import JoinedThread
from agentscripts._model import Run
from agentscripts._text import escape

__all__ = ["Reminder", "waiting_text"]

_FIRST: Final = 1.0  # seconds: most scripts have ended by then
_AGAIN: Final = 10.0
_NAMED: Final = 5


class Reminder(JoinedThread):
    """Says what it waits for, in a thread of its own, ``agentscripts-reminder``, while entered.

    asked: is cancelled by the signal, which may come at any time; until then the thread sleeps.
    """

    def __init__(
        self, asked: CancelToken, runs: Callable[[], list[Run]], say: Callable[[str], object]
    ) -> None:
        self._asked = asked
        self._runs = runs
        self._say = say
        self._over = CancelToken()
        super().__init__(self._remind, "agentscripts-reminder", self._over.cancel)

    def _remind(self) -> None:
        poll = select.poll()
        poll.register(self._asked, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        poll.poll()
        wait = _FIRST
        while not self._over.wait(wait):
            if runs := self._runs():
                self._say(waiting_text(runs))
            wait = _AGAIN


def waiting_text(runs: list[Run]) -> str:
    """Return a line that names the first of these runs."""
    names = [
        f'"{escape(run.script.label)}"{f" (pid {run.pid})" if run.pid else ""}'
        for run in runs[:_NAMED]
    ]
    more = [f"{len(runs) - _NAMED} more"] if len(runs) > _NAMED else []
    return f"agentscripts: waiting for {', '.join(names + more)}\n"
