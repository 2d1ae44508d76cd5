"""R4, R5 and R6: how a script is run, with what environment, and what it inherits."""

from __future__ import annotations

import errno
import os
import pwd
import re
import signal
import stat
import subprocess
from collections import UserDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from conftest import MakeRunner, RunScript
from support import Background, Host, Lines, is_alive, run_host

from agentscripts import Command, RunStatus, Script, ScriptNotStartedError

# ---- R4 ----


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ('#!/usr/bin/env perl\nprint "perl $]\\n" if $] > 5; exit 0', r"perl 5\.\d+"),
        ("#!/bin/sh -e\necho one; false; echo two", "one"),
        ("\n  \t#!/bin/sh\necho after white space", "after white space"),
        ("#!/usr/bin/env bash\necho $BASH_VERSION", r"\d+\..*"),
        ("-n; echo dash", "dash"),
        ("echo 'ä €'", "ä €"),
    ],
)
def test_interpreters(run: RunScript, lines: Lines, script: str, expected: str) -> None:
    """R4: the shell, or the interpreter of the #! line with its options."""
    run(script)
    assert any(re.fullmatch(expected, line) for line in lines.lines)


def test_sh_e_stops_at_the_first_failure(run: RunScript) -> None:
    """R4: options of the #! line count."""
    assert run("#!/bin/sh -e\nfalse\nexit 0").exit_code == 1


@pytest.mark.parametrize("head", ["", "#!/bin/sh\n"])
def test_a_long_script(run: RunScript, lines: Lines, tmp_path: Path, head: str) -> None:
    """R4: 300 KiB run, by way of a private file that is gone afterwards."""
    filler = f": {'x' * 1000}\n" * 300
    result = run(f'{head}stat -c %a "$0"\n{filler}echo "$0"\n')
    assert result.ok
    mode, name = lines.lines
    assert mode == "600"
    assert not Path(name).exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("#!/no/such/interpreter\n", ["/no/such/interpreter", "not found"]),
        ("#!/usr/bin/env no-such-program\n", ["no-such-program"]),
        ("#!/etc/passwd\n", ["/etc/passwd", "executable"]),
        ("#!no-such-name\n", ["no-such-name", "PATH"]),
    ],
)
def test_a_missing_interpreter(run: RunScript, lines: Lines, script: str, words: list[str]) -> None:
    """R4: the message names it and says where it was looked for."""
    result = run(script)
    assert not result.ok
    text = " ".join([result.reason, *lines.lines])
    for word in words:
        assert word in text
    if result.status is RunStatus.NOT_STARTED:
        assert isinstance(result.cause, OSError)
        assert isinstance(result.error, ScriptNotStartedError)
        assert result.error.__cause__ is result.cause
        assert result.exit_code is None
    else:
        assert result.exit_code == 127  # env ran, and told


def test_a_missing_shell(run: RunScript) -> None:
    """R4: Options.shell that does not exist is named."""
    result = run("true", shell="/no/such/shell")
    assert result.status is RunStatus.NOT_STARTED
    assert "/no/such/shell" in result.reason


@pytest.mark.parametrize("shell", ["/usr/sbin/nologin", "/bin/false"])
def test_an_agent_without_a_login_shell(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch, shell: str
) -> None:
    """R4: then $SHELL is the shell, else /bin/sh."""
    entry = pwd.struct_passwd((*pwd.getpwuid(os.getuid())[:6], shell))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    for variable, expected in (("/bin/bash", "/bin/bash"), (shell, "/bin/sh"), ("", "/bin/sh")):
        monkeypatch.setenv("SHELL", variable)
        make_runner('echo "$SHELL"; readlink /proc/$$/exe; :', shell=None).execute()
        said, program = lines.lines[-2:]
        assert said == expected
        assert os.path.realpath(expected) == program


# ---- R5 ----


def environment_of(lines: Lines) -> dict[str, str]:
    return dict(line.split("=", 1) for line in lines.lines)


def test_data_and_bin_directories(run: RunScript, lines: Lines, tmp_path: Path) -> None:
    """R5: a script finds its two directories; the data directory is its own, mode 0700."""
    script = Script(script="echo $CODER_SCRIPT_DATA_DIR; echo $CODER_SCRIPT_BIN_DIR", name="one")
    run(script)
    root = tmp_path / "base" / "coder-script-data"
    data = root / str(script.log_source_id)
    assert lines.lines == [str(data), str(root / "bin")]
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_a_program_in_the_bin_directory(make_runner: MakeRunner, lines: Lines) -> None:
    """R5: the bin directory is first on PATH."""
    runner = make_runner(
        Script(
            script='printf "#!/bin/sh\\necho mine" > $CODER_SCRIPT_BIN_DIR/ls; '
            "chmod +x $CODER_SCRIPT_BIN_DIR/ls",
            name="make",
        ),
        Script(script="ls", name="use"),
    )
    runner.execute(lambda one: one.name == "make")
    runner.execute(lambda one: one.name == "use")
    assert lines.lines == ["mine"]


def test_layers(
    run: RunScript, lines: Lines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """R5: agent, then USER, LOGNAME, SHELL, then Options.env with $VAR, then Script.env."""
    for name, value in {
        "A": "agent",
        "B": "agent",
        "C": "agent",
        "USER": "x",
        "SHELL": "x",
    }.items():
        monkeypatch.setenv(name, value)
    result = run(
        Script(script="env", env={"C": "script $A", "LITERAL": "$HOME"}),
        env={"B": "options of $A and ${USER}", "C": "options", "D": "$B!"},
    )
    env = environment_of(lines)
    user = pwd.getpwuid(os.getuid()).pw_name
    assert (env["A"], env["B"]) == ("agent", f"options of agent and {user}")
    assert (env["C"], env["D"]) == ("script $A", f"{env['B']}!")
    assert env["LITERAL"] == "$HOME"
    assert (env["USER"], env["LOGNAME"], env["SHELL"]) == (user, user, "/bin/sh")
    assert env["AGENTSCRIPTS_RUN_ID"].split(":")[-1] == result.run_id
    assert len(result.run_id) == 32


def test_run_ids_nest(run: RunScript, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: the id is appended to one that is there."""
    monkeypatch.setenv("AGENTSCRIPTS_RUN_ID", "f" * 32)
    result = run("echo $AGENTSCRIPTS_RUN_ID")
    assert lines.lines == [f"{'f' * 32}:{result.run_id}"]


def test_the_environment_is_that_of_now(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: what the agent sets after init counts."""
    runner = make_runner("echo $LATE")
    monkeypatch.setenv("LATE", "set after init")
    runner.execute()
    assert lines.lines == ["set after init"]


@pytest.mark.parametrize("kind", [dict, UserDict, MappingProxyType])
def test_an_environment_that_was_replaced(
    make_runner: MakeRunner,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    kind: Callable[[dict[str, str]], Mapping[str, str]],
) -> None:
    """R5: whatever mapping the host puts in the place of os.environ, what it holds now counts."""
    runner = make_runner("echo $OTHER $USER")
    monkeypatch.setenv("OTHER", "before")
    runner.execute()
    with monkeypatch.context() as patch:
        for content in {"OTHER": "first"}, {"OTHER": "second"}, {}:
            patch.setattr(os, "environ", kind(content))
            runner.execute()
    runner.execute()
    user = pwd.getpwuid(os.getuid()).pw_name
    texts = ("before ", "first ", "second ", "", "before ")
    assert lines.lines == [f"{text}{user}" for text in texts]


def test_an_empty_environment(
    make_runner: MakeRunner, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R5: who starts the scripts is said also where the agent has no variable at all."""
    for name in os.environ:
        monkeypatch.delenv(name)
    make_runner("echo $LOGNAME $SHELL").execute()
    assert lines.lines == [f"{pwd.getpwuid(os.getuid()).pw_name} /bin/sh"]


class Environment:
    """A command factory whose commands print the environment that it gives them."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env

    def create_command(self, script: Script, env: Mapping[str, str]) -> Command:
        return Command(("/usr/bin/env",), self.env)


def test_a_command_may_have_any_mapping(make_runner: MakeRunner, lines: Lines) -> None:
    """R5: a factory's environment is no dict."""
    env = MappingProxyType({"ALONE": "ü"})
    assert make_runner("true", command_factory=Environment(env)).execute()[0].ok
    assert lines.lines == ["ALONE=ü"]


class Factory:
    """A command factory that returns what it is told, or says that descriptors have run out."""

    def __init__(self, made: object) -> None:
        self.made = made

    def create_command(self, script: Script, env: Mapping[str, str]) -> Any:
        if self.made is None and script.name == "exhausted":
            raise OSError(errno.EMFILE, "Too many open files")
        return self.made


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (None, "create_command returned an object of type NoneType, expected a Command"),
        (["/bin/true"], "create_command returned an object of type list, expected a Command"),
        (Command([], {}), "the command's argv is empty, expected a program and its arguments"),
        (
            Command("/bin/true", {}),
            "the command's argv is of type str, expected a sequence of words",
        ),
        (
            Command(None, {}),  # type: ignore[arg-type]
            "the command's argv is of type NoneType, expected a sequence of words",
        ),
        (
            Command(["/bin/true"], {}, cleanup="left"),  # type: ignore[arg-type]
            "the command's cleanup is of type str, expected a sequence of words",
        ),
        (
            Command(["/bin/true"], {}, cleanup=Path("left")),  # type: ignore[arg-type]
            "the command's cleanup is of type PosixPath, expected a sequence of words",
        ),
        (
            Command(["/bin/true"], {}, cwd=b"/tmp"),  # type: ignore[arg-type]
            "the command's cwd is of type bytes, expected a path",
        ),
        (
            Command(["/bin/true"], {}, cwd=Path("/tmp\0/x")),
            "program or working directory of the command holds a NUL",
        ),
    ],
)
def test_what_is_no_command(make_runner: MakeRunner, made: object, why: str) -> None:
    """R7: a factory's mistake is the run's failure, and says what was expected."""
    (result,) = make_runner("true", command_factory=Factory(made)).execute(check=False)
    assert (result.status, result.reason) == (RunStatus.NOT_STARTED, f"not started: {why}")


@pytest.mark.parametrize("left", ["str", "Path", "missing", "number", "NUL"])
def test_cleanup_of_any_kind(make_runner: MakeRunner, tmp_path: Path, left: str) -> None:
    """R7, R3: whatever a factory leaves to be removed, the run ends, and so do those after it."""
    file = tmp_path / "left"
    file.touch()
    kinds = {"str": str(file), "Path": file, "missing": "/none", "number": -1, "NUL": "\0"}
    factory = Factory(Command(["/bin/true"], {}, cleanup=(kinds[left],)))  # type: ignore[arg-type]
    runner = make_runner(
        Script(script="x"), Script(name="exhausted", script="x"), command_factory=factory
    )
    assert runner.execute(lambda script: not script.name)[0].ok
    assert file.exists() == (left not in ("str", "Path"))
    factory.made = None
    again = Background(lambda: runner.execute(lambda one: one.name != "", check=False))
    assert "Too many open files" in again.result()[0].reason


# ---- R6 ----


def test_a_session_of_its_own(run: RunScript, lines: Lines) -> None:
    """R6: setsid, stdin is /dev/null, and only descriptors 0 to 2 are open."""
    leaky = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leaky, True)
    try:
        run("echo $$; cut -d' ' -f5,6 /proc/$$/stat; readlink /proc/$$/fd/0; ls /proc/$$/fd; cat")
    finally:
        os.close(leaky)
    pid, ids, stdin, *fds = lines.lines
    assert ids == f"{pid} {pid}"
    assert stdin == "/dev/null"
    assert fds == ["0", "1", "2"]


def test_working_directory(
    make_runner: MakeRunner, lines: Lines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R6: working_dir, else home."""
    chosen, home = tmp_path / "chosen", tmp_path / "home"
    chosen.mkdir()
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    make_runner("pwd", working_dir=chosen).execute()
    make_runner("pwd").execute()
    assert lines.lines == [str(chosen), str(home)]


@pytest.mark.parametrize("name", ["missing", "loop", "x" * 300])
def test_a_missing_working_directory(
    make_runner: MakeRunner,
    lines: Lines,
    tmp_path: Path,
    name: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """R6: then home, with a warning that names it; without a home, /."""
    monkeypatch.setenv("HOME", str(tmp_path))
    missing = tmp_path / name
    if name == "loop":
        missing.symlink_to("loop")
    runner = make_runner("pwd", working_dir=missing)
    runner.execute()
    assert lines.lines == [str(tmp_path)]
    (warning,) = [one for one in caplog.records if one.levelname == "WARNING"]
    text = f"working directory {missing} cannot be entered; scripts start in "
    assert warning.getMessage() == f"{text}{tmp_path}"
    monkeypatch.setenv("HOME", str(missing))
    runner.execute()
    make_runner("pwd").execute()
    assert lines.lines[1:] == ["/", "/"]
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told[1:] == [f"{text}/"] * 2


def test_a_log_directory_in_the_way(run: RunScript, tmp_path: Path) -> None:
    """L1: a log directory that cannot be made keeps the script from starting, and is named."""
    (tmp_path / "file").touch()
    result = run(f"touch {tmp_path}/started", log_dir=tmp_path / "file" / "logs")
    assert result.status is RunStatus.NOT_STARTED
    assert str(tmp_path / "file") in result.reason
    assert isinstance(result.cause, NotADirectoryError)
    assert not (tmp_path / "started").exists()


def test_an_unwritable_log_directory(make_runner: MakeRunner, tmp_path: Path) -> None:
    """L1: the same for one without permission."""
    logs = tmp_path / "logs"
    logs.mkdir(0o500)
    runner = make_runner("true", log_dir=logs)
    user = os.geteuid()
    if user == 0:  # may write anywhere
        os.seteuid(65534)
    try:
        (result,) = runner.execute(check=False)
    finally:
        os.seteuid(user)
    assert result.status is RunStatus.NOT_STARTED
    assert isinstance(result.cause, PermissionError)
    # The first directory on the way that refuses: pytest's own, where root ran it.
    refused = result.cause.filename
    assert logs.is_relative_to(refused)
    assert f"{refused}: Permission denied" in result.reason


def masks(lines: list[str]) -> dict[str, int]:
    fields = dict(line.split(":", 1) for line in lines if line.startswith("Sig"))
    return {name: int(fields[name], 16) for name in ("SigBlk", "SigIgn")}


@pytest.mark.parametrize("signals", [{signal.SIGHUP}, {signal.SIGTERM, signal.SIGRTMAX}])
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_default_signals(
    make_runner: MakeRunner, lines: Lines, how: str, signals: set[signal.Signals]
) -> None:
    """R6: default dispositions and an empty mask, whatever the host ignores or blocks."""
    runner = make_runner("exec cat /proc/self/status", "true")
    old = {number: signal.getsignal(number) for number in signals}
    try:
        if how == "ignored":
            for number in signals:
                signal.signal(number, signal.SIG_IGN)
        else:
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        for select in (lambda one: one.script != "true", None):
            runner.execute(select)
            assert masks(lines.lines) == {"SigBlk": 0, "SigIgn": 0}
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        for number, handler in old.items():
            signal.signal(number, handler)


def test_a_missing_program_where_a_signal_is_ignored(make_runner: MakeRunner) -> None:
    """R6: with an ignored signal, too, what cannot run is NOT_STARTED and named."""
    runner = make_runner("true", shell="/no/such/shell")
    old = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    try:
        (result,) = runner.execute(check=False)
    finally:
        signal.signal(signal.SIGUSR2, old)
    assert result.status is RunStatus.NOT_STARTED
    assert isinstance(result.cause, FileNotFoundError)
    assert "/no/such/shell" in result.reason


@pytest.mark.slow
def test_an_agent_started_by_nohup(tmp_path: Path) -> None:
    """R6, K1: its scripts hear SIGHUP, so that a cancel ends them at once."""
    program = """
assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
token = CancelToken()
runner = make("echo up $$; exec sleep 60", kill_delay=30)
call = threading.Thread(target=lambda: say(runner.execute(cancel=token, check=False)[0].exit_code))
call.start()
while not any(run.last_line for run in runner.runs()):
    time.sleep(0.01)
os.kill(os.getpid(), signal.SIGHUP)
token.cancel()
call.join()
runner.close()
"""
    with Host(tmp_path, program, wrapper=("nohup",)) as host:
        pid = int(host.wait_for("line up"))
        assert host.finish() == ["-1"]
    assert not is_alive(pid)


def test_a_host_that_can_import_no_more(tmp_path: Path) -> None:
    """R7: its packages were removed, or it may not read them any more: a run has its result."""
    program = """
class Nothing:
    def find_spec(self, name, path=None, target=None):
        raise ModuleNotFoundError(f"No module named {name!r}")
make("true").execute()
runner = make(
    "exit 3",
    Script(script="echo x; exit 1", name="again", retries=1, retry_delay=0.01),
    "sleep 60 & true",
    Script(script="sleep 60", timeout=0.1),
    Script(script="true", depends_on=(Dependency("again"),)),
    "#!/no/such",
    wait_delay=0.1,
)
sys.meta_path.insert(0, Nothing())
try:
    runner.execute()
except ExecuteError as error:
    say(*[one.status.value for one in error.results])
    str(error), repr(error), [one.as_dict() for one in error.results]
runner.close()
"""
    said = run_host(tmp_path, program)
    assert said[-1] == "failed failed pipes_open timed_out skipped not_started"


# ---- K6: hosts that meddle with children ----


@pytest.mark.slow
def test_a_host_that_ignores_sigchld(tmp_path: Path) -> None:
    """K6: no hang; the exit code is right or None."""
    program = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
runner = make(*["sleep 0.05; exit 3"] * 10, "#!/no/such", Script(script="sleep 60", timeout=0.1))
for _ in range(3):
    results = runner.execute(check=False)
    say(*[one.exit_code for one in results[:-2]])
    say(results[-2].status.value, results[-1].status.value, results[-1].survivors)
runner.close()
"""
    lines = run_host(tmp_path, program)
    assert lines[1::2] == ["not_started timed_out ()"] * 3
    assert {code for line in lines[::2] for code in line.split()} <= {"3", "None"}


@pytest.mark.slow
def test_a_host_that_waits_for_every_child(tmp_path: Path) -> None:
    """K6: os.wait() in a loop steals exit codes; no hang, and the code is right or None."""
    program = """
def steal():
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.0005)
threading.Thread(target=steal, daemon=True).start()
runner = make(*["sleep 0.02; exit 3"] * 10, Script(script="sleep 60", timeout=0.1))
for _ in range(5):
    results = runner.execute(check=False)
    say(*[one.exit_code for one in results[:-1]])
    say(results[-1].status.value, results[-1].survivors)
runner.close()
"""
    lines = run_host(tmp_path, program)
    assert lines[1::2] == ["timed_out ()"] * 5
    assert {code for line in lines[::2] for code in line.split()} <= {"3", "None"}


def test_a_hosts_own_child(make_runner: MakeRunner) -> None:
    """K6: a child that others started is not waited for, signalled or reaped."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        runner = make_runner(Script(script="sleep 60", timeout=0.02), *["exit 3"] * 5)
        runner.execute(check=False)
        runner.close()
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_execute_from_a_thread_with_a_mask(make_runner: MakeRunner, lines: Lines) -> None:
    """R6: the mask of the calling thread is not the scripts'."""
    runner = make_runner("exec cat /proc/self/status")

    def call() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
        runner.execute()

    Background(call).result()
    assert masks(lines.lines) == {"SigBlk": 0, "SigIgn": 0}
