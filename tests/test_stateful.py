"""A runner, used by several threads in any order."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from prometheus_client import CollectorRegistry
from support import PATIENCE, Background, children, descriptors, processes_with, threads

from agentscripts import (
    AlreadyInitializedError,
    CancelToken,
    NotInitializedError,
    Options,
    Overlap,
    Runner,
    RunnerClosedError,
    RunResult,
    RunStatus,
    Script,
    Stage,
)
from agentscripts.testing import RecordingLogger

EXAMPLES: Final = int(os.environ.get("AGENTSCRIPTS_EXAMPLES", "12"))

SCRIPTS: Final = (
    Script(script="echo quick", name="quick", run_on_start=True, run_on_stop=True),
    Script(script="echo bad >&2; exit 3", name="bad", run_on_start=True),
    Script(script="echo slow; sleep 0.05; echo done", name="slow", run_on_start=True),
    Script(script="echo long; exec sleep 60", name="long"),
    Script(script="trap '' HUP; sleep 60 & sleep 60; :", name="stubborn"),
    Script(script="sleep 60", name="limited", timeout=0.05),
    Script(
        script="echo cron", name="cron", cron="* * * * * *", overlap=Overlap.QUEUE, run_on_stop=True
    ),
)
ENDLESS: Final = {"long", "stubborn"}
SELECTIONS: Final = st.sets(st.sampled_from([one.name for one in SCRIPTS]), min_size=1)


class RunnerMachine(RuleBasedStateMachine):
    """R2, R7, S1, S2: each run has one result and one report; close returns; nothing is left."""

    @initialize(parallel=st.none() | st.integers(1, 3))
    def make(self, parallel: int | None) -> None:
        gc.collect()
        self.before = self.holdings()
        self.directory = tempfile.TemporaryDirectory(prefix="stateful-")
        base = Path(self.directory.name)
        self.mark = f"CODER_SCRIPT_BIN_DIR={base}/data/coder-script-data/bin"
        self.logger = RecordingLogger()
        self.reports: list[RunResult] = []
        self.registry = CollectorRegistry()
        self.tokens = [CancelToken()]
        self.calls: list[tuple[Background[Any], int]] = []
        self.others: list[Background[Any]] = []
        self.initialized = self.closing = self.cron = False
        agent_log = logging.getLogger("agentscripts.stateful")
        agent_log.disabled = True
        self.runner = Runner(
            Options(
                data_dir_base=base / "data",
                log_dir=base / "logs",
                shell="/bin/sh",
                kill_delay=0.02,
                max_parallel=parallel,
                logger=agent_log,
                get_script_logger=lambda _: self.logger,
            )
        )
        self.runner.register_metrics(self.registry)

    @staticmethod
    def holdings() -> Counter[str]:
        found = Counter(threads().values())
        found += Counter(name.split(":")[0] for name in descriptors().values())
        return found + Counter("child" for _ in children())

    # ---- what threads may do ----

    @rule()
    def init(self) -> None:
        expected: type[Exception] | None = AlreadyInitializedError if self.initialized else None
        expected = RunnerClosedError if self.closing else expected
        with pytest.raises(expected) if expected else contextlib.nullcontext():
            self.runner.init(SCRIPTS, on_complete=self.reports.append)
        self.initialized = self.initialized or not self.closing

    @rule(names=SELECTIONS, token=st.booleans(), timeout=st.sampled_from([None, 0, 0.03, 5.0]))
    def execute(self, names: set[str], token: bool, timeout: float | None) -> None:
        cancel = self.tokens[-1] if token else None
        call = Background(
            lambda: self.runner.execute(
                lambda one: one.name in names, cancel=cancel, timeout=timeout, check=False
            )
        )
        self.calls.append((call, len(names)))

    @rule(stage=st.sampled_from([Stage.START, Stage.STOP]))
    def execute_stage(self, stage: Stage) -> None:
        count = sum(
            one.run_on_start if stage is Stage.START else one.run_on_stop for one in SCRIPTS
        )
        self.calls.append((Background(lambda: self.runner.execute(stage, check=False)), count))

    @rule(index=st.integers(0, 20))
    def cancel_one(self, index: int) -> None:
        runs = self.runner.runs()
        if runs:
            self.runner.cancel(runs[index % len(runs)].run_id)
        assert not self.runner.cancel("no such run")

    @rule()
    def cancel_token(self) -> None:
        self.tokens[-1].cancel()
        self.tokens.append(CancelToken())

    @rule()
    def start_cron(self) -> None:
        try:
            self.runner.start_cron()
            self.cron = True
        except RunnerClosedError:
            assert self.closing

    @rule(timeout=st.sampled_from([0, 0.05]))
    def close(self, timeout: float) -> None:
        self.closing = True
        self.others.append(Background(lambda: self.runner.close(timeout)))
        # The others see it closed as soon as it lets nothing begin.
        while not self.is_shut():
            time.sleep(0.001)

    @precondition(lambda self: self.initialized)
    @rule(seconds=st.sampled_from([0.0, 0.01, 0.1]))
    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def is_shut(self) -> bool:
        try:
            self.runner.register_metrics(self.registry)
        except RunnerClosedError:
            return True
        return False

    @invariant()
    def looks_go_on(self) -> None:
        for run in self.runner.runs():
            assert run.script in SCRIPTS

    # ---- the end ----

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        self.others.append(Background(lambda: self.runner.close(timeout=0.05)))
        for other in self.others:
            other.result()
        results = [one for call, count in self.calls for one in self.results(call, count)]
        self.check(results)
        assert processes_with(self.mark) == []
        self.calls.clear()
        self.tokens.clear()
        self.directory.cleanup()
        del self.runner
        give_up = time.monotonic() + PATIENCE
        while left := self.holdings() - self.before:
            assert time.monotonic() < give_up, left
            gc.collect()
            time.sleep(0.005)

    def results(self, call: Background[Any], count: int) -> list[RunResult]:
        try:
            results: list[RunResult] = call.result()
        except NotInitializedError:
            return []  # it may have begun before init
        except RunnerClosedError:
            assert self.closing
            return []
        assert len(results) == count
        return results

    def check(self, results: list[RunResult]) -> None:
        for result in results:
            match result.status:
                case RunStatus.SUCCEEDED:
                    assert result.exit_code == 0
                    assert result.script.name not in {*ENDLESS, "bad", "limited"}
                case RunStatus.FAILED:
                    assert (result.script.name, result.exit_code) == ("bad", 3)
                case RunStatus.TIMED_OUT | RunStatus.CANCELLED:
                    assert result.survivors == ()
                case _:
                    raise AssertionError(result)
            assert result.log_error is None
            assert result.lines_dropped == 0
        reported = Counter(one.run_id for one in self.reports)
        assert set(reported.values()) <= {1}
        assert {one.run_id for one in results} <= set(reported)
        assert {
            one.stage for one in self.reports if one.run_id not in {r.run_id for r in results}
        } <= {Stage.CRON}
        counted = sum(
            self.registry.get_sample_value("agent_scripts_executed_total", {"success": word}) or 0
            for word in ("true", "false")
        )
        assert counted == len(self.reports)


RunnerMachine.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=12,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.timeout(60 + 5 * EXAMPLES)
class TestRunner(RunnerMachine.TestCase):  # type: ignore[misc, valid-type]
    """What hypothesis runs."""
