"""A manifest's scripts run in the foreground: their lines, the summary, the exit status."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID

from agentscripts._calls import selects
from agentscripts._cancel import CancelToken
from agentscripts._console import LineLogger, Output, OutputHandler
from agentscripts._interrupts import Interrupts, ServingInterrupts
from agentscripts._logs import ScriptLogger
from agentscripts._manifest import Manifest
from agentscripts._metricspage import Address, serve_metrics
from agentscripts._model import Script, Stage
from agentscripts._options import Options
from agentscripts._result import RunResult
from agentscripts._runner import Runner
from agentscripts._summary import summarize
from agentscripts._text import escape
from agentscripts.errors import RunnerClosedError

if TYPE_CHECKING:
    from agentscripts._report import Report

__all__ = ["run_in_foreground"]

_FAILED: Final = 1
# A shell reports a command that a signal ended as 128 and the signal's number.
_SIGNALLED: Final = 128


def run_in_foreground(
    path: Path,
    manifest: Manifest,
    *,
    stage: Stage = Stage.START,
    cron: bool = False,
    metrics: Address | None = None,
    report: Path | None = None,
) -> int:
    """Run the scripts, print what ``agentscripts run --help`` tells, and return the exit status.

    Takes over SIGINT, SIGTERM and SIGHUP meanwhile, so only the main thread may call it.

    stage: whose scripts run at once.
    cron: whether to go on with the schedules until one of these signals.
    metrics: where to serve the page for Prometheus.
    report: the directory for the results and their timeline.
    """
    return _Foreground(path, manifest, stage, cron, metrics, report).run()


class _Foreground:
    def __init__(
        self,
        path: Path,
        manifest: Manifest,
        stage: Stage,
        cron: bool,
        metrics: Address | None,
        report: Path | None,
    ) -> None:
        self._path = path
        self._stage = stage
        self._manifest = manifest
        self._cron = cron
        self._metrics = metrics
        self._report_directory = report
        self._report: Report | None = None
        self._cancel = CancelToken()
        self._hurry = CancelToken()
        self._stdout = Output(sys.stdout, self._hurry, self._cancel.cancel)
        self._stderr = Output(sys.stderr, self._hurry)
        self._signals = (ServingInterrupts if cron else Interrupts)(self._stderr, self._hurry)
        self._results: list[RunResult] = []

    def run(self) -> int:
        with self._signals, contextlib.suppress(KeyboardInterrupt):
            try:
                if not self._run_with_report():
                    return _FAILED
            except OSError as error:  # the directories cannot be made
                self._say(f"agentscripts: cannot start: {escape(str(error))}\n")
                return _FAILED
            self._summarize()
        return self._exit_status()

    def _run_with_report(self) -> bool:
        if self._report_directory is None:
            return self._run_with_metrics()
        from agentscripts._report import TIMELINE, Report

        directory = self._report_directory
        self._report = Report(directory, str(self._path), self._say_report_failed)
        try:
            return self._run_with_metrics()
        finally:
            self._report.close()
            if self._report.error is None:
                self._say(f"agentscripts: timeline in {escape(str(directory / TIMELINE))}\n")

    def _say_report_failed(self, error: OSError) -> None:
        self._say(f"agentscripts: cannot write the report: {escape(str(error))}\n")

    def _run_with_metrics(self) -> bool:
        """Return whether the page could be served."""
        if self._metrics is None:
            self._execute(Runner(self._options()))
            return True
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        with contextlib.ExitStack() as page:
            try:
                address = page.enter_context(serve_metrics(registry, self._metrics))
            except OSError as error:
                why = escape(error.strerror or str(error))
                self._say(f"agentscripts: cannot serve metrics on {self._metrics}: {why}\n")
                return False
            self._say(f"agentscripts: metrics on http://{address}/metrics\n")
            runner = Runner(self._options())
            runner.register_metrics(registry)
            self._execute(runner)
        return True

    def _execute(self, runner: Runner) -> None:
        with runner:
            # With a signal execute raises, so the results are taken from the callback.
            runner.init(self._manifest.scripts, on_complete=self._note)
            with contextlib.suppress(KeyboardInterrupt):
                if isinstance(self._signals, ServingInterrupts):
                    self._serve(runner, self._signals)
                else:
                    runner.execute(self._stage, cancel=self._cancel, check=False)

    def _serve(self, runner: Runner, signals: ServingInterrupts) -> None:
        signals.attach(runner)
        with contextlib.suppress(RunnerClosedError):  # by a signal
            runner.execute(self._stage, cancel=self._cancel, check=False)
            if self._results:
                self._summarize()
                self._results.clear()
            runner.start_cron()
            if not signals.first:
                count = sum(bool(script.cron) for script in self._manifest.scripts)
                schedules = "1 schedule" if count == 1 else f"{count} schedules"
                self._say(f"agentscripts: running {schedules} until Ctrl-C, SIGTERM or SIGHUP\n")
        signals.wait(self._cancel)

    def _note(self, result: RunResult) -> None:
        if self._report is not None:
            self._report.add(result)
        # Those of schedules would grow without end; their failures are warnings of the library.
        if result.stage is not Stage.CRON:
            self._results.append(result)

    def _runs(self, script: Script) -> bool:
        later = self._cron and (script.run_on_stop or bool(script.cron))
        return later or selects(self._stage, script)

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
            if self._runs(script):
                names[script.log_source_id].append(escape(labels[script.id]))
        joined = {source: "+".join(parts) for source, parts in names.items()}
        width = max(map(len, joined.values()), default=0)
        return {source: f"{name:<{width}} | " for source, name in joined.items()}

    def _summarize(self) -> None:
        order = {script.id: place for place, script in enumerate(self._manifest.scripts)}
        results = sorted(self._results, key=lambda result: order[result.script.id])
        if results:
            self._say(summarize(results, self._manifest.labels))
        elif not self._signals.first and not self._cron:
            self._say(f"{escape(str(self._path))}: no script has run_on_{self._stage} = true\n")

    def _exit_status(self) -> int:
        if self._signals.first:
            return _SIGNALLED + self._signals.first
        if error := self._stdout.error:
            if error.errno == errno.EPIPE:
                return _SIGNALLED + signal.SIGPIPE
            self._stderr.write(f"agentscripts: cannot write the output: {error.strerror}\n")
            return _FAILED
        if self._report is not None and self._report.error is not None:
            return _FAILED
        return 0 if all(result.ok for result in self._results) else _FAILED

    def _say(self, text: str) -> None:
        # Who closes a pipe early wants no word on what that did to the scripts.
        if self._stdout.error is None or self._stdout.error.errno != errno.EPIPE:
            self._stderr.write(text)
