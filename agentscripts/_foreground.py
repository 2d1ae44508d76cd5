"""A manifest's start scripts run in the foreground: their lines, signals, the exit status."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
from collections import defaultdict
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, Self
from uuid import UUID

from agentscripts._cancel import CancelToken
from agentscripts._console import LineLogger, Output, OutputHandler, escape
from agentscripts._logs import ScriptLogger
from agentscripts._manifest import Manifest
from agentscripts._model import Stage
from agentscripts._options import Options
from agentscripts._result import RunResult
from agentscripts._runner import Runner
from agentscripts._summary import summarize

__all__ = ["run_in_foreground"]

_FAILED: Final = 1
# A shell reports a command that a signal ended as 128 and the signal's number.
_SIGNALLED: Final = 128


def run_in_foreground(path: Path, manifest: Manifest) -> int:
    """Run the scripts, print what ``agentscripts run --help`` tells, and return the exit status.

    Takes over SIGINT, SIGTERM and SIGHUP meanwhile, so only the main thread may call it.
    """
    return _Foreground(path, manifest).run()


class _Foreground:
    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._manifest = manifest
        self._cancel = CancelToken()
        self._hurry = CancelToken()
        self._stdout = Output(sys.stdout, self._hurry, self._cancel.cancel)
        self._stderr = Output(sys.stderr, self._hurry)
        self._signals = _Signals(self._stderr, self._hurry)
        self._results: list[RunResult] = []

    def run(self) -> int:
        with self._signals, contextlib.suppress(KeyboardInterrupt):
            try:
                self._execute()
            except OSError as error:  # the directories cannot be made
                self._say(f"agentscripts: cannot start: {escape(str(error))}\n")
                return _FAILED
            self._summarize()
        return self._exit_status()

    def _execute(self) -> None:
        with Runner(self._options()) as runner:
            # With a signal execute raises, so the results are taken from the callback.
            runner.init(self._manifest.scripts, on_complete=self._results.append)
            with contextlib.suppress(KeyboardInterrupt):
                runner.execute(Stage.START, cancel=self._cancel, check=False)

    def _options(self) -> Options:
        prefixes = self._prefixes()

        def get_script_logger(log_source_id: UUID) -> ScriptLogger:
            return LineLogger(self._stdout, prefixes[log_source_id])

        logger = logging.Logger("agentscripts", logging.WARNING)
        logger.addHandler(OutputHandler(self._say))
        return Options(
            **self._manifest.options,
            logger=logger,
            get_script_logger=get_script_logger,
            # As in a shell, a pager or a stopped terminal holds the scripts back for as long as
            # the user wishes, and then gets the rest; a second signal ends the wait.
            stall_timeout=None,
            flush_timeout=None,
        )

    def _prefixes(self) -> dict[UUID, str]:
        """Return what goes before lines, by source; scripts that share a source share it."""
        labels = self._manifest.labels
        names: defaultdict[UUID, list[str]] = defaultdict(list)
        for script in self._manifest.scripts:
            if script.run_on_start:
                names[script.log_source_id].append(escape(labels[script.id]))
        joined = {source: "+".join(parts) for source, parts in names.items()}
        width = max(map(len, joined.values()), default=0)
        return {source: f"{name:<{width}} | " for source, name in joined.items()}

    def _summarize(self) -> None:
        order = {script.id: place for place, script in enumerate(self._manifest.scripts)}
        results = sorted(self._results, key=lambda result: order[result.script.id])
        if results:
            self._say(summarize(results, self._manifest.labels))
        elif not self._signals.first:
            self._say(f"{escape(str(self._path))}: no script has run_on_start = true\n")

    def _exit_status(self) -> int:
        if self._signals.first:
            return _SIGNALLED + self._signals.first
        if error := self._stdout.error:
            if error.errno == errno.EPIPE:
                return _SIGNALLED + signal.SIGPIPE
            self._stderr.write(f"agentscripts: cannot write the output: {error.strerror}\n")
            return _FAILED
        return 0 if all(result.ok for result in self._results) else _FAILED

    def _say(self, text: str) -> None:
        # Who closes a pipe early wants no word on what that did to the scripts.
        if self._stdout.error is None or self._stdout.error.errno != errno.EPIPE:
            self._stderr.write(text)


class _Signals:
    """Takes over the signals that ask this process to end, but for those that it was told to
    ignore. Each raises ``KeyboardInterrupt``: for ``execute`` the first one cancels, the second
    one kills.

    first: the number of the first one; 0 before.
    """

    def __init__(self, stderr: Output, hurry: CancelToken) -> None:
        self.first = 0
        self._stderr = stderr
        self._hurry = hurry
        self._busy = False
        self._replaced = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM:
            old = signal.getsignal(number)
            if old is not signal.SIG_IGN or number == signal.SIGALRM:
                self._replaced.callback(signal.signal, number, old)
                signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._replaced.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._busy:
            # This call interrupts another one, which is about to raise. What both raise would be
            # one exception, so this one comes again as an alarm, when the other one has raised.
            signal.setitimer(signal.ITIMER_REAL, 0.01)
            return
        self._busy = True
        if self.first:
            self._hurry.cancel()
            self._stderr.write_now("agentscripts: killing the scripts\n")
        else:
            self.first = number
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            text = f"agentscripts: {name}: cancelling the scripts; once more kills them at once\n"
            self._stderr.write_now(text)
        self._busy = False
        raise KeyboardInterrupt
