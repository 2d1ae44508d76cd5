"""M1: the metrics."""

from __future__ import annotations

import gc
import weakref

import pytest
from conftest import MakeRunner
from prometheus_client import CollectorRegistry, Gauge
from support import Background, Lines

from agentscripts import LogBatch, Script, Stage


def test_names_and_labels(make_runner: MakeRunner) -> None:
    """M1: the names are fixed, and no label names a script."""
    registry = CollectorRegistry()
    runner = make_runner(
        Script(script="echo hello", name="secret", run_on_start=True),
        Script(script="echo oh; exit 3", name="other", run_on_start=True),
    )
    runner.register_metrics(registry)
    runner.execute(Stage.START, check=False)
    samples = {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in registry.collect()
        for one in family.samples
        if not one.name.endswith(("_created", "_bucket", "_sum"))
    }
    assert samples == {
        ("agent_scripts_executed_total", (("success", "true"),)): 1,
        ("agent_scripts_executed_total", (("success", "false"),)): 1,
        ("agent_scripts_duration_seconds_count", (("stage", "start"),)): 2,
        ("agent_scripts_running", (("stage", "start"),)): 0,
        ("agent_scripts_output_bytes_total", ()): len("hello\noh\n"),
        ("agent_scripts_log_lines_dropped_total", ()): 0,
    }
    duration = registry.get_sample_value("agent_scripts_duration_seconds_sum", {"stage": "start"})
    assert 0 < (duration or 0) < 30


def test_running(make_runner: MakeRunner, lines: Lines) -> None:
    """M1: the gauge counts what runs now, per stage, and not what waits."""
    registry = CollectorRegistry()
    script = "echo up; exec sleep 60"
    runner = make_runner(script, script, script, max_parallel=2)
    runner.register_metrics(registry)
    call = Background(lambda: runner.execute(check=False))
    lines.wait_for("up", 2)
    assert registry.get_sample_value("agent_scripts_running", {"stage": "manual"}) == 2
    runner.close(timeout=0)
    call.result()
    assert registry.get_sample_value("agent_scripts_running", {"stage": "manual"}) == 0
    executed = registry.get_sample_value("agent_scripts_executed_total", {"success": "false"})
    assert executed == 3


def test_none_does_nothing(make_runner: MakeRunner) -> None:
    """M1: register_metrics(None) is allowed and changes nothing."""
    registry = CollectorRegistry()
    runner = make_runner("true")
    runner.register_metrics(None)
    runner.execute()
    runner.register_metrics(registry)
    runner.register_metrics(None)
    runner.execute()
    assert registry.get_sample_value("agent_scripts_executed_total", {"success": "true"}) == 1


def test_runners_add_up(make_runner: MakeRunner) -> None:
    """M1: several runners share one registry, before and after init, and one may join twice."""
    registry = CollectorRegistry()
    first, second = make_runner("true"), make_runner()
    first.register_metrics(registry)
    first.register_metrics(registry)
    second.register_metrics(registry)
    second.init([Script(script="true")])
    first.execute()
    second.execute()
    assert registry.get_sample_value("agent_scripts_executed_total", {"success": "true"}) == 2


def test_a_registry_that_was_emptied(make_runner: MakeRunner) -> None:
    """M1: metrics that were unregistered come back, whichever runner registers them."""
    registry = CollectorRegistry()
    runner = make_runner("true")
    runner.register_metrics(registry)
    for collector in {*registry._collector_to_names}:
        registry.unregister(collector)
    assert list(registry.collect()) == []
    runner.register_metrics(registry)
    runner.register_metrics(registry)
    runner.execute()
    assert registry.get_sample_value("agent_scripts_executed_total", {"success": "true"}) == 1
    assert len(list(registry.collect())) == 6
    for collector in {*registry._collector_to_names}:
        registry.unregister(collector)
    taken = Gauge("agent_scripts_running", "Another's.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        runner.register_metrics(registry)
    assert {*registry._collector_to_names} == {taken}


def test_not_started(make_runner: MakeRunner) -> None:
    """M1: a script that was not started counts as executed, and has no duration."""
    registry = CollectorRegistry()
    runner = make_runner("#!/no/such/interpreter")
    runner.register_metrics(registry)
    runner.execute(check=False)
    assert registry.get_sample_value("agent_scripts_executed_total", {"success": "false"}) == 1
    count = registry.get_sample_value("agent_scripts_duration_seconds_count", {"stage": "manual"})
    assert count is None


def test_dropped_lines(make_runner: MakeRunner) -> None:
    """M1: lines that a logger was too slow to take are counted."""
    import threading

    registry, release = CollectorRegistry(), threading.Event()

    def stick(batch: LogBatch) -> None:
        release.wait()

    runner = make_runner(
        "echo 1; echo 2",
        get_script_logger=lambda _: Lines(stick),
        stall_timeout=0.02,
        flush_timeout=0.02,
    )
    runner.register_metrics(registry)
    try:
        (result,) = runner.execute()
    finally:
        release.set()
    dropped = registry.get_sample_value("agent_scripts_log_lines_dropped_total")
    assert dropped == result.lines_dropped > 0


def test_a_registry_is_not_kept(make_runner: MakeRunner) -> None:
    """M1: the library keeps no registry alive that its user has dropped."""
    registry = CollectorRegistry()
    runner = make_runner()
    runner.register_metrics(registry)
    runner.init([Script(script="true")])
    runner.execute()
    runner.close()
    watch = weakref.ref(registry)
    runner.register_metrics = None  # type: ignore[assignment]
    del registry
    runner._registry = runner._context = None
    gc.collect()
    assert watch() is None
