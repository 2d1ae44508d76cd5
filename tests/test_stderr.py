"""The first and the last lines of stderr, as real scripts write them."""

from __future__ import annotations

import logging

import pytest
from conftest import MakeRunner, RunScript

from agentscripts import ExecuteError, Script


@pytest.mark.parametrize("count", [1, 3, 4, 6, 8, 126, 20_000])
def test_ends_of_stderr(run: RunScript, count: int) -> None:
    """R7: the result has the first 3 and the last 3 lines, and says how many there were."""
    result = run(f"seq {count} >&2; seq 9; exit 3")
    lines = [str(number) for number in range(1, count + 1)]
    assert result.stderr_lines == count
    assert result.stderr == tuple(lines if count <= 6 else lines[:3] + lines[-3:])
    assert isinstance(result.error, Exception)
    if count > 6:
        assert f"\n    3\n    … {count - 6} lines …\n    {count - 2}\n" in str(result.error)


def test_unfinished_and_odd_lines(run: RunScript) -> None:
    """L5: a last line without a newline counts, and no byte is too odd."""
    result = run(r"printf 'a\r\n\377\000\n\nend' >&2; exit 1")
    assert result.stderr == ("a", "\ufffd\ufffd", "", "end")
    assert result.stderr_lines == 4


def test_long_lines_are_cut(run: RunScript) -> None:
    """R7: of each line there is at most 1 KiB, whatever comes after it."""
    result = run("head -c 3000 /dev/zero | tr '\\0' x >&2; echo >&2; echo end >&2; exit 1")
    assert result.stderr == ("x" * 1024, "end")


def test_silent_and_stdout_only(run: RunScript) -> None:
    """R7: stdout is not stderr."""
    for script in ("true", "echo out"):
        result = run(script)
        assert (result.stderr, result.stderr_lines) == ((), 0)


def test_agent_log_has_no_line_of_stderr(
    make_runner: MakeRunner, caplog: pytest.LogCaptureFixture
) -> None:
    """X1: with ``set -x`` the script's text is on stderr; the error has it, no log record does."""
    caplog.set_level(logging.DEBUG)
    runner = make_runner(Script(script="set -x; true hunter2; exit 3", name="one"))
    with pytest.raises(ExecuteError) as caught:
        runner.execute()
    runner.close()
    assert "true hunter2" in str(caught.value)
    assert "exit status 3" in caplog.text
    assert "hunter2" not in caplog.text
