"""A manifest's scripts run in the foreground: what is shown, the summary, the exit status."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from rich.text import Text

from agentscripts._calls import selects
from agentscripts._cancel import CancelToken
from agentscripts._columns import align
from agentscripts._console import FAILED, SIGNALLED, LineLogger, Output, OutputHandler
from agentscripts._interrupts import Interrupts, ServingInterrupts
from agentscripts._live import LiveOutput, LiveView, Painter, is_wanted
from agentscripts._logs import ScriptLogger, discard_logs
from agentscripts._manifest import Manifest
from agentscripts._metricspage import Address, serve_metrics
from agentscripts._model import Script, Stage
from agentscripts._options import Options
from agentscripts._reminder import Reminder
from agentscripts._result import RunResult
from agentscripts._rows import frame, rows_of
from agentscripts._runner import Runner
from agentscripts._summary import summarize
from agentscripts._text import error_text, escape
from agentscripts.errors import RunnerClosedError

if TYPE_CHECKING:
    from agentscripts._report import Report

__all__ = ["Wishes", "run_in_foreground"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wishes:
    """What to run, and what to show of it.

    stage: whose scripts run at once; ``None``: all scripts.
    timeout: seconds for these scripts together.
    cron: whether to go on with the schedules until a signal.
    metrics: where to serve the page for Prometheus.
    report: the directory for the results and their timeline.
    plain: lines also where there could be a live view. quiet: failures only.
    json: results on standard output, a line each, and all else on standard error.
    """

    stage: Stage | None = Stage.START
    timeout: float | None = None
    cron: bool = False
    metrics: Address | None = None
    report: Path | None = None
    plain: bool = False
    quiet: bool = False
    json: bool = False


def run_in_foreground(path: Path, manifest: Manifest, wishes: Wishes) -> int:
    """Run the scripts, print what ``agentscripts run --help`` tells, and return the exit status.

    Takes over SIGINT, SIGTERM and SIGHUP meanwhile, so only the main thread may call it.
    """
    return _Foreground(path, manifest, wishes).run()


class _Foreground:
    def __init__(self, path: Path, manifest: Manifest, wishes: Wishes) -> None:
        self._path = path
        self._manifest = manifest
        self._wishes = wishes
        self._labels = manifest.labels
        self._report: Report | None = None
        self._cancel = CancelToken()
        self._hurry = CancelToken()
        self._asked = CancelToken()
        # A service may have none, and then its scripts' lines go to their log files only.
        self._stdout = Output(
            sys.stdout, self._hurry, self._cancel.cancel, may_be_closed=not wishes.json
        )
        self._stderr = LiveOutput(sys.stderr, self._hurry, self._asked)
        self._is_live = not (wishes.plain or wishes.quiet or wishes.cron) and is_wanted(
            sys.stderr, os.environ, *([] if wishes.json else [sys.stdout])
        )
        self._painter = Painter()
        self._signals = (ServingInterrupts if wishes.cron else Interrupts)(
            self._stderr, self._hurry
        )
        self._results: list[RunResult] = []

    def run(self) -> int:
        with self._signals, contextlib.suppress(KeyboardInterrupt):
            try:
                if not self._run_with_report():
                    return FAILED
            except OSError as error:  # the directories cannot be made
                self._say(f"agentscripts: cannot start: {escape(error_text(error))}\n")
                return FAILED
            self._summarize()
        return self._exit_status()

    def _run_with_report(self) -> bool:
        directory = self._wishes.report
        if directory is None:
            return self._run_with_metrics()
        from agentscripts._report import TIMELINE, Report

        self._report = Report(directory, str(self._path), self._say_report_failed)
        try:
            return self._run_with_metrics()
        finally:
            self._report.close()
            if self._report.error is None:
                self._inform(f"agentscripts: timeline in {escape(str(directory / TIMELINE))}\n")

    def _say_report_failed(self, error: OSError) -> None:
        self._say(f"agentscripts: cannot write the report: {escape(error_text(error))}\n")

    def _run_with_metrics(self) -> bool:
        """Return whether the page could be served."""
        if self._wishes.metrics is None:
            self._execute(Runner(self._options()))
            return True
        from prometheus_client import CollectorRegistry

        registry = CollectorRegistry()
        with contextlib.ExitStack() as page:
            try:
                address = page.enter_context(serve_metrics(registry, self._wishes.metrics))
            except OSError as error:
                why = escape(error_text(error))
                self._say(f"agentscripts: cannot serve metrics on {self._wishes.metrics}: {why}\n")
                return False
            self._inform(f"agentscripts: metrics on http://{address}/metrics\n")
            runner = Runner(self._options())
            runner.register_metrics(registry)
            self._execute(runner)
        return True

    def _execute(self, runner: Runner) -> None:
        with Reminder(self._asked, runner.runs, self._inform), runner:
            # With a signal execute raises, so the results are taken from the callback.
            runner.init(self._manifest.scripts, on_complete=self._note)
            with contextlib.suppress(KeyboardInterrupt):
                if isinstance(self._signals, ServingInterrupts):
                    self._serve(runner, self._signals)
                else:
                    self._run_stage(runner)

    def _run_stage(self, runner: Runner) -> None:
        wishes = self._wishes
        chosen = [one for one in self._manifest.scripts if selects(wishes.stage, one)]

        def lines(width: int, height: int) -> Sequence[Text]:
            now = datetime.now(UTC)
            results = {result.script.id: result for result in list(self._results)}
            rows = rows_of(chosen, self._labels, runner.runs(), results, now)
            return frame(rows, width, height, self._stderr.encoding)

        with contextlib.ExitStack() as view:
            if self._is_live and chosen:
                view.enter_context(LiveView(self._stderr, lines, self._painter))
            runner.execute(wishes.stage, cancel=self._cancel, timeout=wishes.timeout, check=False)

    def _serve(self, runner: Runner, signals: ServingInterrupts) -> None:
        signals.attach(runner)
        with contextlib.suppress(RunnerClosedError):  # by a signal
            self._run_stage(runner)
            if self._results:
                self._summarize()
                self._results.clear()
            runner.start_cron()
            if not signals.first:
                count = sum(bool(script.cron) for script in self._manifest.scripts)
                schedules = "1 schedule" if count == 1 else f"{count} schedules"
                self._inform(f"agentscripts: running {schedules} until Ctrl-C, SIGTERM or SIGHUP\n")
        signals.wait(self._cancel)

    def _note(self, result: RunResult) -> None:
        if self._wishes.json:
            self._stdout.write(json.dumps(result.as_dict(), ensure_ascii=False) + "\n")
        if self._report is not None:
            self._report.add(result)
        # Those of schedules would grow without end; their failures are warnings of the library.
        if result.stage is not Stage.CRON:
            self._results.append(result)

    def _runs(self, script: Script) -> bool:
        later = self._wishes.cron and (script.run_on_stop or bool(script.cron))
        return later or selects(self._wishes.stage, script)

    def _options(self) -> Options:
        prefixes = self._prefixes()
        output = self._stderr if self._wishes.json else self._stdout

        def print_lines(log_source_id: UUID) -> ScriptLogger:
            return LineLogger(output, prefixes[log_source_id])

        silent = self._is_live or self._wishes.quiet
        logger = logging.Logger("agentscripts", logging.WARNING)
        nameless = [script for script in self._manifest.scripts if not script.name]
        labels = {script.label: self._labels[script.id] for script in nameless}
        logger.addHandler(OutputHandler(self._say, labels))
        return Options(
            **self._manifest.options,
            logger=logger,
            get_script_logger=discard_logs if silent else print_lines,
            # As in a shell, a pager or a stopped terminal holds the scripts back for as long as
            # the user wishes, and then gets the rest; a second signal ends the wait.
            stall_timeout=None,
            flush_timeout=None,
        )

    def _prefixes(self) -> dict[UUID, str]:
        """Return what goes before lines, by source; scripts that share a source share it."""
        names: defaultdict[UUID, list[str]] = defaultdict(list)
        for script in self._manifest.scripts:
            if self._runs(script):
                names[script.log_source_id].append(escape(self._labels[script.id]))
        joined = {source: "+".join(parts) for source, parts in names.items()}
        aligned = align(list(joined.values()))
        return {source: f"{name} | " for source, name in zip(joined, aligned, strict=True)}

    def _summarize(self) -> None:
        order = {script.id: place for place, script in enumerate(self._manifest.scripts)}
        results = sorted(self._results, key=lambda result: order[result.script.id])
        if results:
            self._show(results)
        elif not self._signals.first and not self._wishes.cron:
            stage = self._wishes.stage
            which = f"script has run_on_{stage} = true" if stage else "script"
            self._inform(f"{escape(str(self._path))}: no {which}\n")

    def _show(self, results: Sequence[RunResult]) -> None:
        is_terminal = self._stderr.is_terminal
        lines = summarize(
            results,
            self._labels,
            width=self._stderr.size()[0] if is_terminal else None,
            failures_only=self._wishes.quiet,
        )
        shown = self._painter.render(lines) if is_terminal else [line.plain for line in lines]
        self._say("".join(f"{line}\n" for line in shown))

    def _exit_status(self) -> int:
        if self._signals.first:
            return SIGNALLED + self._signals.first
        if status := self._stdout.exit_status(self._stderr.write):
            return status
        if self._report is not None and self._report.error is not None:
            return FAILED
        return 0 if all(result.ok for result in self._results) else FAILED

    def _inform(self, text: str) -> None:
        if not self._wishes.quiet:
            self._say(text)

    def _say(self, text: str) -> None:
        # Nor does that reader want one on what it did to the scripts.
        if not self._stdout.was_left:
            self._stderr.write(text)
