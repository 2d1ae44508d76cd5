"""R1 and R2: what ``init`` checks and makes, and what goes before it and after ``close``."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeRunner
from support import Lines, all_descriptors_taken, descriptors, umask

from agentscripts import (
    AlreadyInitializedError,
    InvalidScriptError,
    NotInitializedError,
    OSFilesystem,
    Runner,
    RunnerClosedError,
    Script,
    Stage,
    _context,
)

GOOD = Script(script="echo good", name="good")
BAD = {
    "empty": ({"script": " \n"}, "script"),
    "NUL": ({"script": "echo \0"}, "script"),
    "duplicate name": ({"name": "good"}, "name"),
    "duplicate id": ({"id": GOOD.id}, "id"),
    "negative timeout": ({"timeout": -1.0}, "timeout"),
    "NaN timeout": ({"timeout": float("nan")}, "timeout"),
    "infinite timeout": ({"timeout": float("inf")}, "timeout"),
    "bad variable": ({"env": {"A=B": ""}}, "env"),
}


@pytest.mark.parametrize(("fields", "field"), BAD.values(), ids=BAD)
def test_a_bad_script_changes_nothing(
    make_runner: MakeRunner, tmp_path: Path, lines: Lines, fields: dict[str, Any], field: str
) -> None:
    """R1: one error names script and field, nothing is on disk, and init may be tried again."""
    bad = Script(**{"script": "echo bad", "name": "bad", **fields})
    runner = make_runner()
    with pytest.raises(InvalidScriptError) as caught:
        runner.init([GOOD, bad])
    assert (caught.value.script, caught.value.field) == (bad.label, field)
    assert list(tmp_path.iterdir()) == []
    assert runner.scripts == ()
    with pytest.raises(NotInitializedError):
        runner.execute()
    runner.init([GOOD])
    runner.execute()
    assert lines.lines == ["good"]


@pytest.mark.parametrize("log_path", ["a.log.1", "a.log.3", "$LOGS/a.log.2", "good.log.1"])
def test_a_log_that_rotation_would_overwrite(
    make_runner: MakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_path: str
) -> None:
    """R1, L4: a script's log must not be where another one's log rotates to."""
    monkeypatch.setenv("LOGS", str(tmp_path / "logs"))
    good = Script(script="true", name="good", log_path="good.log")
    scripts = [
        Script(script="true", name="b", log_path=log_path),
        Script(script="true", name="a", log_path="a.log"),
        good,
    ]
    runner = make_runner(max_log_bytes=1000, log_backups=3)
    with pytest.raises(
        InvalidScriptError, match=r"rotates to, expected another .*\.1 to \.3"
    ) as caught:
        runner.init(scripts)
    assert (caught.value.script, caught.value.field) == ("b", "log_path")
    assert repr(log_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    runner.init([good])


@pytest.mark.parametrize(
    ("log_path", "backup"),
    [
        ("a.log", "sub/../a.log.1"),
        ("sub/../a.log", "a.log.1"),
        ("sub/a.log", "link/a.log.1"),
        ("link/a.log", "sub/a.log.1"),
        ("link/deep/a.log", "sub/deep/../deep/a.log.1"),
    ],
)
def test_rotation_and_paths_that_mean_the_same(
    make_runner: MakeRunner, tmp_path: Path, log_path: str, backup: str
) -> None:
    """R1, L4: what counts is where a path leads, also one to directories that are missing yet."""
    (tmp_path / "logs").mkdir(mode=0o700)
    if "link" in log_path + backup:
        (tmp_path / "logs/sub").mkdir(mode=0o700)
        (tmp_path / "logs/link").symlink_to("sub")
    scripts = [Script(script="true", name=path, log_path=path) for path in (log_path, backup)]
    with pytest.raises(InvalidScriptError, match="rotates to") as caught:
        make_runner(max_log_bytes=1000).init(scripts)
    assert (caught.value.script, caught.value.field) == (backup, "log_path")


@pytest.mark.parametrize("log_path", ["a.log", "a.log.4", "a.log.01", "a.log.0", "b/a.log.1"])
def test_a_log_that_rotation_leaves_alone(make_runner: MakeRunner, log_path: str) -> None:
    """R1, L4: a log may have a name that no rotation uses, and that of another log."""
    scripts = [Script(script="true", log_path=path) for path in ("a.log", log_path)]
    make_runner(*scripts, max_log_bytes=1000, log_backups=3)


def test_without_rotation_any_log_will_do(make_runner: MakeRunner) -> None:
    """R1, L4: where nothing rotates, nothing is overwritten."""
    make_runner(*(Script(script="true", log_path=path) for path in ("a.log", "a.log.1")))


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENOTDIR, errno.EACCES])
def test_no_proc(
    make_runner: MakeRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """R1: the error names what is missing, nothing is on disk, and init may be tried again."""
    runner = make_runner()
    before = descriptors()
    with monkeypatch.context() as patch:
        patch.setattr(_context, "Census", lambda: _fail(code))
        with pytest.raises(OSError, match="expected a mounted proc file system: '/proc'") as caught:
            runner.init([GOOD])
    assert caught.value.errno == code
    assert list(tmp_path.iterdir()) == []
    assert descriptors() == before
    runner.init([GOOD])
    assert runner.execute()[0].ok


def _fail(code: int) -> None:
    raise OSError(code, os.strerror(code))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((None,), "init: scripts is None, expected an iterable of Script"),
        ((GOOD,), f"init: scripts is {GOOD!r}, expected an iterable of Script"),
    ],
)
def test_no_scripts(make_runner: MakeRunner, arguments: tuple[Any], expected: str) -> None:
    """R1: what is no collection of scripts is named."""
    with pytest.raises(TypeError) as caught:
        make_runner().init(*arguments)
    assert str(caught.value) == expected


def test_callbacks_are_checked(make_runner: MakeRunner) -> None:
    """R1: what cannot be called, or is no registry or no Options, is refused where it is given."""
    runner = make_runner()
    with pytest.raises(TypeError, match="init: on_complete is 5, expected a callable or None"):
        runner.init([GOOD], on_complete=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="on_signal is 5, expected a callable or None"):
        runner.close_on_signals(on_signal=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="registry is 5, expected a CollectorRegistry"):
        runner.register_metrics(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Runner: options is {}, expected Options or None"):
        Runner({})  # type: ignore[arg-type]
    runner.init([GOOD])


def test_init_works_once(make_runner: MakeRunner) -> None:
    """R1: a second init is refused and changes nothing."""
    runner = make_runner(GOOD)
    with pytest.raises(AlreadyInitializedError):
        runner.init([Script(script="echo other")])
    assert runner.scripts == (GOOD,)


def test_two_inits_at_once(make_runner: MakeRunner) -> None:
    """R1: the one that is done first takes effect, the other one tells of it."""
    other = Script(script="echo other")

    class Late(OSFilesystem):
        def make_dirs(self, path: Path, mode: int) -> None:
            super().make_dirs(path, mode)
            if not runner.scripts:
                begun.append(path)
                if len(begun) == 1:
                    runner.init([GOOD])

    begun: list[Path] = []
    runner = make_runner(filesystem=Late())
    with pytest.raises(AlreadyInitializedError):
        runner.init([other])
    assert runner.scripts == (GOOD,)
    assert runner.execute()[0].ok


def test_init_takes_any_iterable(make_runner: MakeRunner) -> None:
    """R1: the scripts are read once; none at all is fine."""

    def scripts() -> Iterator[Script]:
        yield GOOD

    runner = make_runner()
    runner.init(scripts())
    assert runner.scripts == (GOOD,)
    empty = make_runner()
    empty.init([])
    assert empty.execute() == []


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o777], ids=oct)
def test_directories(make_runner: MakeRunner, tmp_path: Path, mask: int) -> None:
    """R2: data_dir_base/coder-script-data/bin is made with mode 0700, whatever the umask."""
    with umask(mask):
        runner = make_runner(GOOD)
    assert runner.data_dir == tmp_path / "base" / "coder-script-data"
    assert runner.script_bin_dir == runner.data_dir / "bin"
    for directory in (tmp_path / "base", runner.data_dir, runner.script_bin_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_directories_that_cannot_be_made(make_runner: MakeRunner, tmp_path: Path) -> None:
    """R1, R2: init raises the OSError, keeps nothing open, and may be tried again."""
    (tmp_path / "base").write_text("in the way")
    runner = make_runner()
    before = descriptors()
    with pytest.raises(NotADirectoryError, match="base"):
        runner.init([GOOD])
    assert descriptors() == before
    (tmp_path / "base").unlink()
    runner.init([GOOD])
    assert runner.script_bin_dir.is_dir()


def test_an_init_that_runs_out_of_descriptors(make_runner: MakeRunner) -> None:
    """R1, S2: wherever it does, it keeps nothing open, and may be tried again."""
    runner = make_runner()
    before = descriptors()
    failures = 0
    while not runner.scripts:
        try:
            with all_descriptors_taken(spare=failures):
                runner.init([GOOD])
        except OSError:
            failures += 1
            assert descriptors() == before
        assert failures < 20
    assert failures > 3
    assert runner.execute()[0].ok


def test_an_interrupt_at_the_end_of_init(
    make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R1: one that comes when all is done takes nothing away from the runner."""
    runner = make_runner()
    take = runner._shutdown.take_context

    def interrupted(context: _context.Context) -> None:
        take(context)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner._shutdown, "take_context", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.init([GOOD])
    assert runner.execute()[0].ok


def test_execute_before_init(make_runner: MakeRunner) -> None:
    """R2: execute needs the scripts."""
    with pytest.raises(NotInitializedError):
        make_runner().execute(Stage.START)


def test_after_close(make_runner: MakeRunner, tmp_path: Path) -> None:
    """R2: after close nothing starts, and every method but close says so."""
    runner = make_runner(f"touch {tmp_path}/started")
    runner.close()
    for call in (
        runner.execute,
        lambda: runner.init([GOOD]),
        lambda: runner.register_metrics(None),
    ):
        with pytest.raises(RunnerClosedError):
            call()
    runner.close()
    assert runner.runs() == []
    assert not runner.cancel("0" * 32)
    assert not (tmp_path / "started").exists()


def test_close_before_init(make_runner: MakeRunner) -> None:
    """R2: a runner that was never used closes, and stays closed."""
    runner = make_runner()
    runner.close()
    with pytest.raises(RunnerClosedError):
        runner.init([GOOD])


def test_a_registry_that_refuses_the_metrics(make_runner: MakeRunner) -> None:
    """R1: whatever makes init fail, nothing is left of it, and it may be tried again."""
    from prometheus_client import CollectorRegistry, Counter

    registry = CollectorRegistry()
    taken = Counter("agent_scripts_output_bytes", "Somebody else's.", registry=registry)
    runner = make_runner()
    with pytest.raises(ValueError, match="agent_scripts_output_bytes"):
        _register_and_init(runner, registry)
    registry.unregister(taken)
    _register_and_init(runner, registry)
    runner.execute()
    assert registry.get_sample_value("agent_scripts_output_bytes_total") == len("good\n")


def _register_and_init(runner: Runner, registry: Any) -> None:
    runner.register_metrics(registry)
    runner.init([GOOD], on_complete=lambda result: None)
