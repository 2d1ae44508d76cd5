"""How the API is used, for ``mypy --strict``: this file is checked, never run."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import assert_type
from uuid import UUID

from prometheus_client import CollectorRegistry

from agentscripts import (
    CancelToken,
    Command,
    CommandFactory,
    ExecuteError,
    Filesystem,
    Log,
    LogBatch,
    LogLevel,
    LogTarget,
    Options,
    Run,
    Runner,
    RunResult,
    RunState,
    RunStatus,
    Script,
    ScriptError,
    ScriptLogger,
    ScriptNotStartedError,
    ShellCommandFactory,
    Stage,
)
from agentscripts.testing import MemoryFilesystem, RecordingLogger


class Printer:
    """A user's logger: it needs no base class."""

    def send(self, batch: LogBatch) -> None:
        assert_type(batch.created_at, datetime)
        assert_type(batch.level, LogLevel)
        assert_type(batch.lines, list[str])
        assert_type(batch[0], Log)
        assert_type(batch[1:], list[Log])
        for log in batch:
            assert_type(log, Log)
            assert_type(log.output, str)

    def flush(self) -> None: ...


class Container:
    """A user's command factory."""

    def create_command(self, script: Script, env: Mapping[str, str]) -> Command:
        return Command(("podman", "run", "image", script.script), env, Path("/"))


class Nowhere:
    """A user's file system."""

    def make_dirs(self, path: Path, mode: int) -> None: ...

    def open_log(self, path: Path) -> LogTarget:
        return LogTarget(1, None, path.name)


def get_logger(log_source_id: UUID) -> Printer:
    return Printer()


def report(result: RunResult) -> None:
    assert_type(result.status, RunStatus)
    assert_type(result.exit_code, int | None)
    assert_type(result.error, ScriptError | None)
    assert_type(result.log_path, Path | None)
    assert_type(result.tail, tuple[str, ...])
    assert_type(result.survivors, tuple[int, ...])


def protocols() -> tuple[ScriptLogger, CommandFactory, CommandFactory, Filesystem, Filesystem]:
    logger: ScriptLogger = RecordingLogger()
    logger = Printer()
    return logger, Container(), ShellCommandFactory(), Nowhere(), MemoryFilesystem()


def agent() -> None:
    options = Options(
        data_dir_base=Path("data"),
        log_dir=Path("logs"),
        logger=logging.getLogger("agent"),
        get_script_logger=get_logger,
        command_factory=Container(),
        filesystem=Nowhere(),
        env={"A": "$HOME"},
        stop_signal=signal.SIGTERM,
        wait_delay=None,
        max_parallel=4,
    )
    token = CancelToken()
    with Runner(options) as runner:
        runner.register_metrics(CollectorRegistry())
        runner.register_metrics(None)
        runner.init([Script(script="true", name="a", timeout=1, run_on_start=True)])
        runner.init((one for one in runner.scripts), on_complete=report)
        try:
            assert_type(runner.execute(Stage.START, cancel=token, timeout=3), list[RunResult])
        except ExecuteError as failed:
            assert_type(failed.results, tuple[RunResult, ...])
            for each in failed.exceptions:
                if isinstance(each, ScriptError):
                    assert_type(each.result, RunResult)
        try:
            runner.execute(lambda script: script.name == "a")
        except* ScriptNotStartedError as group:
            for error in group.exceptions:
                print(error)
        for run in runner.runs():
            assert_type(run, Run)
            assert_type(run.state, RunState)
            assert_type(runner.cancel(run.run_id), bool)
        assert_type(runner.data_dir, Path)
        assert_type(runner.script_bin_dir, Path)
        assert_type(runner.scripts, tuple[Script, ...])
        runner.close(timeout=None)
    assert_type(token.wait(0.5), bool)


def wrong(runner: Runner) -> None:
    """Each line is a mistake that the types must show; mypy warns of an unused ignore."""
    runner.execute("start")  # type: ignore[arg-type]
    runner.execute(None, None)  # type: ignore[call-arg]
    runner.init([], print)  # type: ignore[call-arg]
    Script("true")  # type: ignore[call-arg]
    Script(script="true").name = "other"  # type: ignore[misc]
    Options(get_script_logger=get_logger(UUID(int=0)))  # type: ignore[arg-type]
    Options(filesystem=Container())  # type: ignore[arg-type]
