"""The command as a user runs it: processes, pipes and signals."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from commandline import COMMAND, OPTIONS, command, read_line
from support import end_by

from agentscripts._foreground import Wishes, _Foreground
from agentscripts._manifest import parse_manifest

pytestmark = pytest.mark.slow  # each starts a Python

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start the command on a manifest of scripts; it has ended when the test has."""
    started: list[subprocess.Popen[bytes]] = []

    def start(
        scripts: str, *, options: str = "", before: Sequence[str] = (), **how: Any
    ) -> subprocess.Popen[bytes]:
        (tmp_path / "m.toml").write_text(OPTIONS + options + textwrap.dedent(scripts))
        how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | how
        argv = [*before, *COMMAND, "run", "m.toml"]
        # Unbuffered, because communicate does not know of what readline has buffered.
        process = subprocess.Popen(argv, cwd=tmp_path, process_group=0, bufsize=0, **how)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    """Wait for the command; return its exit status and what it printed on either stream."""
    stdout, stderr = process.communicate()
    return process.returncode, (stdout or b"").decode(), (stderr or b"").decode()


def process_has_ended(pid: int) -> bool:
    """Whether a process is gone; a zombie, which its new parent has yet to reap, is."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_lines_summary_and_failures(start: Start) -> None:
    """Lines of both streams go to stdout with names; the summary goes to stderr; status 1."""
    status, stdout, stderr = finish(
        start(
            r"""
            [[script]]
            name = "good"
            script = 'printf "\033[2Jout\n"; echo err >&2'
            run_on_start = true
            [[script]]
            script = "echo why; exit 3"
            run_on_start = true
            [[script]]
            name = "not at start"
            script = "echo never"
            """
        )
    )
    assert status == 1
    assert sorted(stdout.splitlines()) == [
        "good      | \\x1b[2Jout",
        "good      | err",
        "script[2] | why",
    ]
    lines = stderr.splitlines()
    assert any(line.split()[:3] == ["good", "succeeded", "0"] for line in lines)
    assert any(line.split()[:3] == ["script[2]", "failed", "3"] for line in lines)
    assert lines[lines.index("script[2]: exit status 3") + 2 :] == [
        "  its last lines:",
        "    why",
        "",
        "1 of 2 scripts did not succeed",
    ]


def test_all_went_well(start: Start, tmp_path: Path) -> None:
    """Status 0 when every script succeeded; the log holds what was printed."""
    process = start('[[script]]\nname = "a"\nscript = "echo x"\nrun_on_start = true')
    status, stdout, stderr = finish(process)
    assert (status, stdout) == (0, "a | x\n")
    assert stderr.endswith("\n1 script succeeded\n")
    (log,) = (tmp_path / "logs").iterdir()
    assert log.read_text() == "x\n"


def test_nothing_to_run(start: Start) -> None:
    """A manifest without start scripts is no failure, but it is said."""
    status, stdout, stderr = finish(start('[[script]]\nscript = "echo x"'))
    assert (status, stdout) == (0, "")
    assert stderr == "m.toml: no script has run_on_start = true\n"


def test_shared_source_shares_a_prefix(start: Start) -> None:
    """Scripts with one log source cannot be told apart, so both names are shown."""
    source = 'log_source_id = "00000000-0000-4000-8000-000000000001"'
    one = f'{source}\nid = "00000000-0000-4000-8000-00000000000'
    scripts = "".join(
        f'[[script]]\nname = "{name}"\nscript = "echo x"\nrun_on_start = true\n{one}{number}"\n'
        for number, name in enumerate("ab")
    )
    assert finish(start(scripts))[1] == "a+b | x\na+b | x\n"


def run_script(script: str) -> str:
    return f"[[script]]\nname = 'a'\nrun_on_start = true\nscript = '''{script}'''"


def test_lines_come_at_once_and_an_ignored_signal_is_left_alone(
    start: Start, tmp_path: Path
) -> None:
    """A line is there while its script still runs; under nohup SIGHUP cancels nothing."""
    os.mkfifo(tmp_path / "go")
    process = start(
        run_script("echo ready; read -r word <go; echo $word"),
        before=("/bin/sh", "-c", 'trap "" HUP; exec "$@"', "sh"),
    )
    assert read_line(process.stdout) == "a | ready"
    process.send_signal(signal.SIGHUP)
    (tmp_path / "go").write_text("done\n")
    status, stdout, _ = finish(process)
    assert (status, stdout) == (0, "a | done\n")


@pytest.mark.parametrize(
    ("number", "name", "expected"),
    [
        (signal.SIGINT, "Ctrl-C", 130),
        (signal.SIGTERM, "SIGTERM", 143),
        (signal.SIGHUP, "SIGHUP", 129),
    ],
)
def test_signal_cancels(start: Start, number: signal.Signals, name: str, expected: int) -> None:
    """R8: a signal ends the scripts and what they started, and it is said; then the summary."""
    process = start(run_script("sleep 1000 & echo $!; wait"))
    child = int(read_line(process.stdout).removeprefix("a | "))
    os.killpg(process.pid, number)
    status, _, stderr = finish(process)
    assert status == expected
    assert f"agentscripts: {name}: cancelling the scripts" in stderr
    assert ["a", "cancelled", "SIGHUP"] in [line.split()[:3] for line in stderr.splitlines()]
    assert process_has_ended(child)


def test_second_signal_kills(start: Start) -> None:
    """R8: a script that ignores the first signal does not outlive the second."""
    process = start(
        run_script('trap "" HUP; sleep 1000 & echo $!; wait; wait'), options='kill_delay = "1h"\n'
    )
    child = int(read_line(process.stdout).removeprefix("a | "))
    os.killpg(process.pid, signal.SIGINT)
    assert "once more kills them at once" in read_line(process.stderr)
    end_by(process, signal.SIGINT)
    status, _, stderr = finish(process)
    assert status == 130
    assert stderr.startswith("agentscripts: killing the scripts\n")
    assert ["a", "cancelled", "SIGKILL"] in [line.split()[:3] for line in stderr.splitlines()]
    assert process_has_ended(child)


def test_second_signal_ends_the_wait_for_a_reader(start: Start) -> None:
    """A reader that is stuck keeps the command until the second signal, no longer."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)  # a page: full with the first write
    process = start(run_script("yes | head -n 100000"), stdout=writer)
    os.close(writer)
    select.select([reader], [], [])
    process.send_signal(signal.SIGTERM)
    assert "SIGTERM: cancelling" in read_line(process.stderr)
    end_by(process, signal.SIGTERM)
    assert process.wait() == 143
    os.close(reader)


def test_slow_reader_loses_nothing(start: Start) -> None:
    """A reader that lets the scripts wait gets every line."""
    process = start(run_script("yes | head -n 1000000"))
    assert read_line(process.stdout) == "a | y"
    status, stdout, _ = finish(process)
    assert (status, stdout) == (0, "a | y\n" * 999_999)


def test_no_line_is_given_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """L6: the command sets no limit on how long a reader may pause."""
    manifest = parse_manifest(run_script("true"), tmp_path / "m.toml")
    options = _Foreground(tmp_path / "m.toml", manifest, Wishes())._options()
    assert (options.stall_timeout, options.flush_timeout) == (None, None)


def test_reader_that_leaves(start: Start) -> None:
    """``agentscripts run m.toml | head`` ends the scripts, and quietly."""
    process = start(run_script("yes"))
    assert read_line(process.stdout) == "a | y"
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait() == 128 + signal.SIGPIPE


def test_output_that_cannot_be_written(start: Start) -> None:
    """A full disk ends the run with a reason and status 1."""
    with open("/dev/full", "wb") as full:
        status, _, stderr = finish(start(run_script("yes"), stdout=full))
    assert status == 1
    assert stderr.endswith("agentscripts: cannot write the output: No space left on device\n")


def test_closed_output(start: Start) -> None:
    """A command without stdout runs the scripts all the same."""
    before = ("/bin/sh", "-c", 'exec "$@" >&-', "sh")
    status, _, stderr = finish(start(run_script("echo x"), before=before))
    assert status == 0
    assert stderr.endswith("1 script succeeded\n")


def test_directory_that_cannot_be_made(start: Start, tmp_path: Path) -> None:
    """What keeps the runner from starting is one line, not a traceback."""
    (tmp_path / "data").touch()
    status, stdout, stderr = finish(start(run_script("echo x")))
    assert (status, stdout) == (1, "")
    assert stderr.startswith("agentscripts: cannot start: ")
    assert stderr.count("\n") == 1


def test_warnings_of_the_library_are_shown(start: Start) -> None:
    """What the library warns of comes on stderr, harmless, as it happens."""
    status, _, stderr = finish(start(run_script("exit 3").replace("'a'", r'"a\u001b"')))
    assert status == 1
    assert stderr.startswith('agentscripts: run agent script "a\\x1b": exit status 3')


@pytest.mark.parametrize("name", ["check", "run"])
def test_wrong_manifest(tmp_path: Path, name: str) -> None:
    """All mistakes are told at once with status 2; nothing ran, nothing was made."""
    manifest = tmp_path / "m.toml"
    manifest.write_text(
        OPTIONS
        + '[[script]]\nrun_on_start = true\nscript = "true"\n'
        + '[[script]]\nname = "b\\u009b"\nscript = "touch ran"\ntimeout = "5x"\nfoo = 1'
    )
    done = command(name, "m.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    place = 'script[2] "b\\x9b" '
    assert first == (
        f'm.toml:12: {place}timeout: "5x" is no duration, '
        'expected seconds or a text such as "1m30s"'
    )
    assert second.startswith(f"m.toml:13: {place}foo: is unknown, expected one of script, name,")
    assert list(tmp_path.iterdir()) == [manifest]


def test_check_runs_nothing(tmp_path: Path) -> None:
    """``check`` says that there is no mistake, and leaves no trace."""
    (tmp_path / "m.toml").write_text(OPTIONS + run_script("touch ran"))
    done = command("check", "m.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "m.toml: 1 script, no mistake\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


def test_missing_manifest(tmp_path: Path) -> None:
    """A file that is not there is a mistake like any other."""
    done = command("run", "none.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "none.toml: No such file or directory, expected a TOML file\n"


def test_help_tells_streams_and_statuses(tmp_path: Path) -> None:
    """``--help`` says what goes where, and what each exit status means."""
    text = " ".join(command("run", "--help", cwd=tmp_path).stdout.split())
    for part in ("Standard output", "Standard error", "Ctrl-C", "130", "141", "143"):
        assert part in text


@pytest.mark.parametrize("redirection", ["", ">&-"])
def test_stray_error(redirection: str) -> None:
    """What the system refuses is told as it is, and not taken for an output that it refuses."""
    code = """if True:
        import agentscripts._commands, agentscripts.cli, os
        agentscripts._commands.commands = lambda prog_name: os.stat("/none\\x1b")
        agentscripts.cli.main()"""
    argv = ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-c", code]
    done = subprocess.run(argv, capture_output=True, text=True)
    why = "agentscripts: /none\\x1b: No such file or directory\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", why)


def test_no_descriptor_left() -> None:
    """A process that may open no file says so in one line, also where it cannot import a module."""
    code = """if True:
        import agentscripts.cli, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        agentscripts.cli.main()"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("agentscripts: /")
    assert done.stderr.endswith(": Too many open files\n")


@pytest.mark.parametrize("module", ["click", "pydantic", "rich"])
def test_without_the_extra(tmp_path: Path, module: str) -> None:
    """Without the extra the command says in one line what to install."""
    code = f"import sys; sys.modules[{module!r}] = None; from agentscripts.cli import main; main()"
    argv = [sys.executable, "-c", code, "check", "m.toml"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "agentscripts: first do: pip install 'agentscripts[cli]'\n"
