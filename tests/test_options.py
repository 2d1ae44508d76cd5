"""Options: defaults, what is stored, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
import math
import signal
from pathlib import Path
from typing import Any

import pytest

from agentscripts._command import Command, ShellCommandFactory
from agentscripts._cron import CronSyntax
from agentscripts._files import OSFilesystem
from agentscripts._logs import DISCARD, discard_logs
from agentscripts._model import Script
from agentscripts._options import Options


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Options: the defaults are those of the reference."""
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    options = Options()
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    assert isinstance(values.pop("command_factory"), ShellCommandFactory)
    assert isinstance(values.pop("filesystem"), OSFilesystem)
    assert values == {
        "data_dir_base": Path("/var/state/agentscripts"),
        "log_dir": Path("/var/state/agentscripts"),
        "logger": logging.getLogger("agentscripts"),
        "get_script_logger": discard_logs,
        "shell": None,
        "working_dir": None,
        "env": {},
        "wait_delay": 10.0,
        "kill_delay": 10.0,
        "stop_signal": signal.SIGHUP,
        "max_parallel": None,
        "cgroup": None,
        "die_with_parent": False,
        "max_line": 65536,
        "max_log_bytes": None,
        "log_backups": 1,
        "append_logs": False,
        "stall_timeout": 5.0,
        "flush_timeout": 10.0,
        "timezone": None,
        "cron_syntax": CronSyntax.CODER,
    }
    assert options.get_script_logger(Script(script="true").id) is DISCARD


def test_paths_are_stored_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Options: a path may be text, relative or start with ``~``; an absolute ``Path`` is kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    options = Options(data_dir_base="data", log_dir="~/logs", cgroup="/cg", working_dir=Path("w"))  # type: ignore[arg-type]
    assert options.data_dir_base == tmp_path / "data"
    assert options.log_dir == Path("/home/me/logs")
    assert options.cgroup == Path("/cg")
    assert options.working_dir == tmp_path / "w"


def test_no_current_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Options: where the current directory was removed, a relative path is a wrong value."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert Options(log_dir=tmp_path).log_dir == tmp_path
    with pytest.raises(ValueError, match=r"^Options\.log_dir ") as caught:
        Options(log_dir="logs")  # type: ignore[arg-type]
    assert str(caught.value) == (
        "Options.log_dir is 'logs', expected an absolute path, for there is no current directory: "
        "No such file or directory"
    )


def test_a_colon_in_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R5: in the data directory it is refused wherever it comes from, elsewhere it does no harm."""
    (tmp_path / "a:b").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}/a:b")
    with pytest.raises(ValueError, match=r"data_dir_base is '.*/a:b/agentscripts' and has a ':'"):
        Options()
    monkeypatch.chdir(tmp_path / "a:b")
    with pytest.raises(ValueError, match=r"data_dir_base is '.*/a:b/data' and has a ':'"):
        Options(data_dir_base=Path("data"))
    Options(data_dir_base=tmp_path, log_dir=Path("logs"), working_dir=Path("a:b"))


def test_shell_reaches_the_default_factory() -> None:
    """R4: ``shell`` is what scripts run in, also after ``replace``; an own factory is kept."""
    script = Script(script="true")

    def program(options: Options) -> str:
        return options.command_factory.create_command(script, {}).argv[0]

    options = Options(shell="/bin/one")
    assert program(options) == "/bin/one"
    assert program(dataclasses.replace(options, shell="/bin/two")) == "/bin/two"
    assert program(dataclasses.replace(options, shell=None)) == program(Options())
    own = ShellCommandFactory("/bin/own")
    assert Options(shell="/bin/one", command_factory=own).command_factory is own


def test_stored_values() -> None:
    """Options: a number becomes a signal, the environment a read-only copy out of ``repr``."""
    env = {"TOKEN": "sesame"}
    options = Options(stop_signal=15, env=env)  # type: ignore[arg-type]
    env.clear()
    assert options.stop_signal is signal.SIGTERM
    assert options.env == {"TOKEN": "sesame"}
    assert "sesame" not in repr(options)
    with pytest.raises(TypeError):
        options.env["A"] = "x"  # type: ignore[index]
    assert isinstance(hash(options), int)


@pytest.mark.parametrize("field", ["wait_delay", "kill_delay", "stall_timeout", "flush_timeout"])
@pytest.mark.parametrize("value", [None, 0, 0.5, 3600])
def test_durations_that_work(field: str, value: float | None) -> None:
    """Options: ``None`` is no limit and ``0`` is now."""
    assert getattr(Options(**{field: value}), field) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "fields",
    [
        {"max_line": 4},
        {"max_parallel": 1},
        {"max_log_bytes": 1},
        {"log_backups": 9},
        {"stop_signal": signal.SIGKILL},
    ],
)
def test_limits_that_work(fields: dict[str, Any]) -> None:
    """Options: the smallest values are allowed."""
    [(name, value)] = fields.items()
    assert getattr(Options(**fields), name) == value


SECONDS = "expected a finite number of seconds >= 0, or None"
SIGNAL = "expected a signal of signal.Signals that can ask a process to end"


@pytest.mark.parametrize(
    ("field", "value", "error", "problem"),
    [
        ("wait_delay", -1, ValueError, f"is -1, {SECONDS}"),
        ("kill_delay", math.nan, ValueError, f"is nan, {SECONDS}"),
        ("stall_timeout", math.inf, ValueError, f"is inf, {SECONDS}"),
        ("flush_timeout", "1", TypeError, f"is '1', {SECONDS}"),
        ("max_parallel", 0, ValueError, "is 0, expected an integer >= 1, or None"),
        ("max_parallel", 1.5, TypeError, "is 1.5, expected an integer >= 1, or None"),
        ("max_line", 3, ValueError, "is 3, expected an integer from 4 to 65536"),
        ("max_line", 65537, ValueError, "is 65537, expected an integer from 4 to 65536"),
        ("max_line", None, TypeError, "is None, expected an integer from 4 to 65536"),
        (
            "max_log_bytes",
            0,
            ValueError,
            "is 0, expected an integer from 1 to 4611686018427387904, or None",
        ),
        ("log_backups", 0, ValueError, "is 0, expected an integer from 1 to 1000"),
        ("log_backups", True, TypeError, "is True, expected an integer from 1 to 1000"),
        ("append_logs", 1, TypeError, "is 1, expected True or False"),
        ("die_with_parent", 1, TypeError, "is 1, expected True or False"),
        ("stop_signal", signal.SIGSTOP, ValueError, f"is SIGSTOP, {SIGNAL}"),
        ("stop_signal", signal.SIGTSTP, ValueError, f"is SIGTSTP, {SIGNAL}"),
        ("stop_signal", signal.SIGCONT, ValueError, f"is SIGCONT, {SIGNAL}"),
        ("stop_signal", 0, ValueError, f"is 0, {SIGNAL}"),
        ("stop_signal", "HUP", TypeError, f"is 'HUP', {SIGNAL}"),
        ("shell", "", ValueError, "is '', expected the path of a shell, or None"),
        ("shell", 5, TypeError, "is of type int, expected str"),
        ("log_dir", "", ValueError, "is '', expected a path"),
        ("log_dir", None, TypeError, "is None, expected a path"),
        ("data_dir_base", "a\0", ValueError, r"is 'a\x00' and has a NUL at index 1, expected none"),
        (
            "data_dir_base",
            Path("/x/a:b"),
            ValueError,
            "is '/x/a:b' and has a ':', expected none: a directory in it goes on the scripts' PATH",
        ),
        ("working_dir", b"x", TypeError, "is b'x', expected a path"),
        ("cgroup", 5, TypeError, "is 5, expected a path"),
        (
            "env",
            {"A": 1},
            TypeError,
            "has the variable 'A' whose value is of type int, expected str",
        ),
        ("env", [], TypeError, "is of type list, expected a mapping of str to str"),
        ("logger", "x", TypeError, "is 'x', expected a logging.Logger"),
        ("get_script_logger", 5, TypeError, "is 5, expected a callable that takes a UUID"),
        (
            "command_factory",
            5,
            TypeError,
            "is 5, expected an object with the method create_command()",
        ),
        ("filesystem", 5, TypeError, "is 5, expected an object with the method make_dirs()"),
    ],
)
def test_unusable_value_is_named(
    field: str, value: Any, error: type[Exception], problem: str
) -> None:
    """Options: the error names the field, the value and what was expected."""
    with pytest.raises(error) as caught:
        Options(**{field: value})
    assert type(caught.value) is error
    assert str(caught.value) == f"Options.{field} {problem}"


def test_own_command_factory_needs_no_base_class() -> None:
    """API: an object with the methods of the protocol is enough."""

    class Factory:
        def create_command(self, script: Script, env: Any) -> Command:
            return Command(("true",), env)

    factory = Factory()
    assert Options(command_factory=factory).command_factory is factory
