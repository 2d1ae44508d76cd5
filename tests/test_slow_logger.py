"""A logger that is slow, stuck or broken."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import MakeRunner, RunScript
from support import PATIENCE, Background, Lines, eventually

from agentscripts import LogBatch, Runner, RunState, RunStatus, Script
from agentscripts._delivery import Delivery
from agentscripts._native import Batch
from agentscripts.testing import RecordingLogger

LONG_LINES = 'perl -e \'print "x" x 59999, "\\n" for 1..{0}\''
"""So many lines of 60,000 bytes: 13 fill the queue."""


class Stuck(RecordingLogger):
    """A logger whose ``send`` does not return before ``release`` is set."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        super().__init__(self._stick)

    def _stick(self, batch: LogBatch) -> None:
        self.entered.set()
        assert self.release.wait(PATIENCE)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    """A stuck logger that is released after the test."""
    logger = Stuck()
    yield logger
    logger.release.set()


def warnings_of(logger: RecordingLogger) -> list[str]:
    return [line for batch in logger.batches if batch.level == "warn" for line in batch.lines]


def output_size(runner: Runner) -> int:
    """Return how much the log files hold."""
    return sum(path.stat().st_size for path in (runner.data_dir / "../../logs").iterdir())


@pytest.mark.slow
def test_a_logger_of_40_ms(run: RunScript) -> None:
    """L6: 600 lines to a logger that takes 40 ms for each are all delivered (default options)."""
    logger = RecordingLogger(lambda batch: time.sleep(0.04 * len(batch)))
    result = run("seq 600", get_script_logger=lambda _: logger)
    assert result.ok
    assert logger.lines == [str(i) for i in range(1, 601)]
    assert (result.lines, result.lines_dropped) == (600, 0)
    assert logger.flushes == 1


@pytest.mark.slow
def test_batches_fit_the_logger(run: RunScript) -> None:
    """L6: a send that takes time for each line takes half of stall_timeout at most, and mostly a
    tenth, at the pace of the one before."""
    logger = RecordingLogger(lambda batch: time.sleep(0.005 * len(batch)))
    run("seq 400", get_script_logger=lambda _: logger, stall_timeout=1.0)
    sizes = sorted(map(len, logger.batches))
    assert sizes[-1] <= 100
    assert sizes[len(sizes) // 2] <= 20


@pytest.mark.slow
def test_a_logger_that_takes_time_for_each_send(run: RunScript) -> None:
    """L6: more than a tenth of stall_timeout for any number of lines: it gets many at once."""
    logger = RecordingLogger(lambda _: time.sleep(0.12))
    result = run("seq 5000", get_script_logger=lambda _: logger, stall_timeout=1.0)
    assert len(logger.lines) == 5000
    assert result.lines_dropped == 0
    assert len(logger.batches) < 200


def test_batches_are_bounded(run: RunScript) -> None:
    """L6: a batch holds at most 64 KiB and 8,192 lines."""
    logger = RecordingLogger()
    run(
        "yes '' | head -n 200000; yes 12345678901234567890 | head -n 50000",
        get_script_logger=lambda _: logger,
    )
    assert len(logger.lines) == 250_000
    assert max(map(len, logger.batches)) <= 8192
    assert max(sum(len(line) + 1 for line in batch.lines) for batch in logger.batches) <= 65536 + 1


@pytest.mark.slow
@pytest.mark.parametrize("length", [23_706, 35_595, 45_247])
def test_the_script_goes_on_when_there_is_room(run: RunScript, length: int) -> None:
    """L6: a script that was held back goes on as soon as the logger has made room.

    Without a limit on the stall it would wait for ever otherwise.
    """
    logger = RecordingLogger(lambda _: time.sleep(0.001))
    script = f'perl -e \'syswrite STDOUT, "y" x {length} . "\\n" for 1..200\''
    result = run(script, get_script_logger=lambda _: logger, stall_timeout=None)
    assert logger.lines == ["y" * length] * 200
    assert result.lines_dropped == 0


@pytest.mark.slow
def test_silence_is_no_stall(run: RunScript) -> None:
    """L6: the time in which a script prints nothing does not count as the logger's."""
    logger = RecordingLogger(lambda _: time.sleep(0.02))
    script = f"printf begin; sleep 0.6; {LONG_LINES.format(30)}"
    result = run(script, get_script_logger=lambda _: logger, stall_timeout=0.5)
    assert len(logger.lines) == result.lines == 30
    assert result.lines_dropped == 0


@pytest.mark.slow
def test_a_last_line_after_silence(run: RunScript) -> None:
    """L5, L6: an unfinished line is delivered, however long ago it came."""
    logger = RecordingLogger()
    result = run("printf x; sleep 3", get_script_logger=lambda _: logger, flush_timeout=2)
    assert logger.lines == ["x"]
    assert (result.lines, result.lines_dropped) == (1, 0)
    assert logger.flushes == 1


def test_a_stuck_logger_loses_lines_and_holds_up_nothing(run: RunScript, stuck: Stuck) -> None:
    """L6: what finds the queue full after stall_timeout is dropped and counted; the file has it."""
    result = run(
        LONG_LINES.format(40),
        get_script_logger=lambda _: stuck,
        stall_timeout=0.05,
        flush_timeout=0.05,
    )
    assert result.status is RunStatus.SUCCEEDED
    assert result.output_bytes == 40 * 60_000
    assert result.log_path is not None
    assert result.log_path.stat().st_size == 40 * 60_000
    # The cut may leave a part of a line in the queue. The first one is in the logger's hands.
    assert result.lines in (40, 41)
    assert result.lines_dropped == result.lines - 1


def test_a_logger_that_comes_back(make_runner: MakeRunner, stuck: Stuck) -> None:
    """L6: after a gap one WARN line says how many lines are missing, and delivery goes on."""
    runner = make_runner(
        f'{LONG_LINES.format(40)}; echo full >&2; cat "$CODER_SCRIPT_DATA_DIR/../go"; echo last',
        get_script_logger=lambda _: stuck,
        stall_timeout=0.05,
    )
    os.mkfifo(runner.data_dir / "go")
    running = Background(runner.execute)
    assert stuck.entered.wait(PATIENCE)
    # The script opens the FIFO once its 40 lines are out, dropped or not.
    with (runner.data_dir / "go").open("w"):
        stuck.release.set()
        # Else the last line, too, may find the queue full.
        eventually(lambda: len(stuck.lines) >= 3, "there is room again")
    (result,) = running.result()
    assert "last" in stuck.lines
    assert result.lines_dropped > 0
    assert len(stuck.lines) == result.lines - result.lines_dropped + 1
    (warning,) = warnings_of(stuck)
    # The line that the gap's end cuts is known to be lost only when its newline comes.
    missing = int(re.findall(r"\d+", warning)[0])
    assert result.lines_dropped - missing in (0, 1)


def test_a_gap_at_the_end(make_runner: MakeRunner, stuck: Stuck) -> None:
    """L6: the WARN line comes also when the script ends before the logger is back."""
    runner = make_runner(
        LONG_LINES.format(40), get_script_logger=lambda _: stuck, stall_timeout=0.05
    )
    running = Background(runner.execute)
    assert stuck.entered.wait(PATIENCE)
    eventually(lambda: runner.runs()[0].state is RunState.DELIVERING)
    eventually(lambda: output_size(runner) == 40 * 60_000)
    stuck.release.set()
    (result,) = running.result()
    assert result.lines_dropped > 0
    (warning,) = warnings_of(stuck)
    # The line that the gap's end cuts is known to be lost only when its newline comes.
    missing = int(re.findall(r"\d+", warning)[0])
    assert result.lines_dropped - missing in (0, 1)


@pytest.mark.parametrize("stall_timeout", [0.05, None])
def test_timeout_with_a_stuck_logger(
    run: RunScript, stuck: Stuck, stall_timeout: float | None
) -> None:
    """K1, L6: a script whose logger hangs ends at its timeout like any other.

    After its end flush_timeout counts, also where stall_timeout is no limit.
    """
    result = run(
        Script(script="yes", timeout=1),
        get_script_logger=lambda _: stuck,
        stall_timeout=stall_timeout,
        flush_timeout=0.1,
    )
    assert result.status is RunStatus.TIMED_OUT
    assert result.lines_dropped > 0


@pytest.mark.slow
def test_close_with_a_stuck_logger(make_runner: MakeRunner, stuck: Stuck) -> None:
    """S1, L6: close(timeout=1) returns within 2 s plus flush_timeout."""
    runner = make_runner(
        "echo x; yes", get_script_logger=lambda _: stuck, flush_timeout=0.5, kill_delay=0.1
    )
    running = Background(lambda: runner.execute(check=False))
    assert stuck.entered.wait(PATIENCE)
    begin = time.monotonic()
    runner.close(timeout=1)
    took = time.monotonic() - begin
    (result,) = running.result()
    assert result.status is RunStatus.CANCELLED
    assert took < 2 + 0.5
    stuck.release.set()


def test_one_stuck_logger_stops_no_other(make_runner: MakeRunner, stuck: Stuck) -> None:
    """L6: the runs of other loggers are delivered meanwhile."""
    scripts = [Script(script=f"echo {i}", name=str(i)) for i in range(12)]
    quick = RecordingLogger()
    bad = {script.log_source_id for script in scripts[:8]}
    runner = make_runner(
        *scripts,
        get_script_logger=lambda key: stuck if key in bad else quick,
        flush_timeout=PATIENCE,
    )
    running = Background(runner.execute)
    eventually(lambda: len(quick.lines) == 4)
    assert not stuck.lines
    stuck.release.set()
    running.result()
    assert sorted(stuck.lines) == sorted(map(str, range(8)))


@pytest.mark.parametrize("method", ["send", "flush"])
def test_a_logger_that_raises(
    run: RunScript, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R7: what a logger raises is logged, once per run, and harms nothing."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError("broken logger")

    logger = RecordingLogger()
    setattr(logger, method, fail)
    result = run("seq 5000", get_script_logger=lambda _: logger)
    assert result.ok
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 1
    assert "failed" in failures[0].message


def test_send_is_called_by_one_thread_at_a_time(run: RunScript) -> None:
    """L7: sends of a run never overlap, come in order, and flush comes after the last."""
    busy = threading.Lock()
    calls: list[str] = []

    class Strict:
        def send(self, batch: LogBatch) -> None:
            assert busy.acquire(blocking=False)
            calls.extend(batch.lines)
            busy.release()

        def flush(self) -> None:
            assert busy.acquire(blocking=False)
            calls.append("flush")
            busy.release()

    run("seq 100000", get_script_logger=lambda _: Strict())
    assert calls == [*map(str, range(1, 100_001)), "flush"]


def test_lines_that_no_logger_was_called_for(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L6: what a thread has in hand when the run is given up, as on a machine with too much to do,
    counts as dropped."""
    given_up, deliver = threading.Event(), Delivery._deliver

    def deliver_late(self: Delivery, batch: Batch) -> None:
        given_up.wait(30)
        deliver(self, batch)

    monkeypatch.setattr(Delivery, "_deliver", deliver_late)
    runner = make_runner("echo line", flush_timeout=0.02)
    (result,) = runner.execute()
    given_up.set()
    runner.close()
    assert lines.lines == []
    assert (result.lines, result.lines_dropped) == (1, 1)
