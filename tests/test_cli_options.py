"""What ``agentscripts run`` is told by options and by the environment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commandline import COMMAND, OPTIONS, Running, command
from rich.cells import cell_len

pytestmark = pytest.mark.slow  # each starts a Python

_SCRIPTS = """
[[script]]
name = "good"
script = "echo out; echo err >&2"
run_on_start = true
[[script]]
name = "bad"
script = "echo why >&2; exit 3"
run_on_start = true
[[script]]
name = "clean"
script = "echo cleaning"
run_on_stop = true
[[script]]
name = "other"
script = "echo other"
depends_on = ["clean"]
"""
_GOOD = '[[script]]\nname = "good"\nrun_on_start = true\nscript = "echo out"\n'


def run(base: Path, *arguments: str, scripts: str = _SCRIPTS, **env: str) -> Any:
    (base / "m.toml").write_text(OPTIONS + scripts)
    return command("run", "m.toml", *arguments, cwd=base, env={**os.environ, **env})


def names(base: Path, *arguments: str, **env: str) -> list[str]:
    """Return which scripts ran, in their order."""
    done = run(base, *arguments, "--json", **env)
    assert done.returncode in (0, 1), done.stderr
    found = {json.loads(line)["script"]["name"] for line in done.stdout.splitlines()}
    return [name for name in ("good", "bad", "clean", "other") if name in found]


def test_a_colon_in_the_data_directory(tmp_path: Path) -> None:
    """R5: it is a mistake in what was given: an option, its variable, or the user's environment;
    and no matter where another directory is given."""
    wrong = f"is '{tmp_path}/a:b' and has a ':'"
    default = f"data_dir_base is '{tmp_path}/x:y/agentscripts' and has a ':'"
    (tmp_path / "m.toml").write_text('[options]\nlog_dir = "logs"\n' + _GOOD)

    def run_it(*arguments: str, **env: str) -> tuple[int, str]:
        env = {**os.environ, "XDG_STATE_HOME": f"{tmp_path}/x:y", **env}
        done = command("run", *arguments, "m.toml", cwd=tmp_path, env=env)
        return done.returncode, done.stderr.partition(", expected none")[0]

    assert run_it("--data-dir", "a:b") == (2, f"--data-dir {wrong}")
    assert run_it(AGENTSCRIPTS_DATA_DIR="a:b") == (2, f"AGENTSCRIPTS_DATA_DIR {wrong}")
    assert run_it() == (2, default)
    assert run_it("--data-dir", "data")[0] == 0
    env = {**os.environ, "XDG_STATE_HOME": f"{tmp_path}/x:y"}
    for words in (("check", "m.toml"), ("logs", "m.toml", "good")):
        assert command(*words, cwd=tmp_path, env=env).returncode == 0


def test_json(tmp_path: Path) -> None:
    """--json: results are lines of JSON on stdout, as ``as_dict`` has them; all else on stderr."""
    done = run(tmp_path, "--json")
    assert done.returncode == 1
    results = {
        (one := json.loads(line))["script"]["name"]: one for line in done.stdout.splitlines()
    }
    assert sorted(results) == ["bad", "good"]
    assert (results["good"]["status"], results["good"]["exit_code"]) == ("succeeded", 0)
    assert (results["bad"]["status"], results["bad"]["stderr"]) == ("failed", ["why"])
    assert {"good | out", "good | err", "bad  | why"} <= set(done.stderr.splitlines())
    assert done.stderr.endswith("\n1 of 2 scripts did not succeed\n")


def test_json_comes_as_scripts_end(tmp_path: Path) -> None:
    """--json: a result is there when its script has ended, not when all have."""
    os.mkfifo(tmp_path / "go")
    held = '[[script]]\nname = "held"\nrun_on_start = true\nscript = "read -r word <go"\n'
    with Running(tmp_path, _GOOD + held, "--json", "--quiet") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert first["script"]["name"] == "good"
        (tmp_path / "go").write_text("on\n")
        status, stdout, stderr = process.finish()
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["script"]["name"] == "held"


def test_json_of_schedules(tmp_path: Path) -> None:
    """--json: runs of schedules are told, too."""
    tick = '[[script]]\nname = "tick"\ncron = "* * * * * *"\nscript = "true"\n'
    with Running(tmp_path, tick, "--cron", "--json") as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["stage"] == "cron"
        process.terminate()
        assert process.finish()[0] == 143


def test_quiet(tmp_path: Path) -> None:
    """--quiet: nothing of what went well, all of what did not."""
    done = run(tmp_path, "--quiet", scripts=_GOOD)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = run(tmp_path, "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(
        "  its standard error:\n    why\n\n1 of 2 scripts did not succeed\n"
    )
    assert "good" not in done.stderr
    done = run(tmp_path, "--quiet", scripts='[[script]]\nscript = "true"')
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["good", "bad"]),
        (["--stage", "stop"], ["clean"]),
        (["--only", "good"], ["good"]),
        (["--only", "other"], ["clean", "other"]),
        (["--only", "clean", "--only", "good"], ["good", "clean"]),
        (["--only", "other", "--stage", "stop"], ["clean"]),
        (["--only", "clean", "--stage", "start"], []),
    ],
)
def test_which_scripts_run(tmp_path: Path, arguments: list[str], expected: list[str]) -> None:
    """D1: --only takes along what a script depends on; --stage picks among these."""
    assert names(tmp_path, *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "goof"], '--only "goof" is no script, did you mean "good"?'),
        (
            ["--timeout", "5x"],
            '--timeout is "5x", which is no duration, expected seconds or a text such as 1m30s',
        ),
        (
            ["--cron", "--stage", "stop"],
            "--stage is stop, expected start: with --cron stop scripts run at the end",
        ),
        (
            ["--cron", "--only", "other"],
            "--only: no such script has run_on_start = true or a cron",
        ),
    ],
)
def test_mistakes(tmp_path: Path, arguments: list[str], message: str) -> None:
    """What cannot be used ends in one line, and nothing has run."""
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{message}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


def test_names_of_any_width(tmp_path: Path) -> None:
    """What stands behind names lines up, also behind wide ones, and a long name moves no other."""
    scripts = "".join(
        f'[[script]]\nname = "{name}"\nscript = "echo x"\n'
        'run_on_start = true\ncron = "0 0 0 1 1 *"\n'
        for name in ("日本", "abcde", "n" * 200)
    )
    done = run(tmp_path, scripts=scripts)
    pad = " " * 36
    assert sorted(done.stdout.splitlines()) == [
        f"abcde{pad[1:]} | x",
        f"{'n' * 200} | x",
        f"日本{pad} | x",
    ]
    lines = command("check", "m.toml", cwd=tmp_path).stdout.splitlines()[1:]
    assert [line.split()[0] for line in lines] == ["日本", "abcde", "n" * 200]
    assert [cell_len(line) for line in lines[:2]] == [cell_len(lines[2]) - 160] * 2


@pytest.mark.parametrize("argument", ["--stage=now", "--max-parallel=0", "--unknown"])
def test_mistakes_of_usage(tmp_path: Path, argument: str) -> None:
    """A wrong choice is told with the usage, status 2."""
    done = run(tmp_path, argument)
    assert done.returncode == 2
    assert "Usage: agentscripts run" in done.stderr


def test_timeout(tmp_path: Path) -> None:
    """K1: --timeout ends what still runs."""
    scripts = '[[script]]\nname = "a"\nrun_on_start = true\nscript = "sleep 1000"\n'
    done = run(tmp_path, "--timeout", "0.1", scripts=scripts)
    assert done.returncode == 1
    assert "a       timed out" in done.stderr


def test_directories(tmp_path: Path) -> None:
    """--log-dir and --data-dir go before the manifest's, and count from the current directory."""
    script = '[[script]]\nname = "a"\nrun_on_start = true\nscript = "echo $CODER_SCRIPT_DATA_DIR"\n'
    done = run(tmp_path, "--log-dir", "elsewhere", "--data-dir", "there", scripts=script)
    assert done.stdout.startswith(f"a | {tmp_path}/there/coder-script-data/")
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("option", ["log-dir", "data-dir", "cgroup", "report"])
def test_empty_path(tmp_path: Path, option: str) -> None:
    """An empty path, as of a variable that is not set, is not the current directory."""
    done = run(tmp_path, f"--{option}", "")
    why = f"--{option} is '', expected a path\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", why)
    assert [path.name for path in tmp_path.iterdir()] == ["m.toml"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["logs", "{}", "good", "--log-dir", "l"], "--log-dir is 'l', "),
        (["run", "{}", "--log-dir", "l"], "--log-dir is 'l', "),
        (["run", "../m.toml"], "../m.toml: "),
    ],
)
def test_no_current_directory(tmp_path: Path, words: list[str], named: str) -> None:
    """In a directory that was removed, the option or manifest that counts from it is named."""
    (tmp_path / "m.toml").write_text(OPTIONS + _GOOD)
    (tmp_path / "gone").mkdir()
    remove = ["/bin/sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh"]
    arguments = [word.format(tmp_path / "m.toml") for word in words]
    done = subprocess.run(
        [*remove, *COMMAND, *arguments],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    expected = "expected an absolute path, for there is no current directory"
    assert done.stderr.startswith(f"{named}{expected}")


def test_interrupt_before_scripts_start(tmp_path: Path) -> None:
    """Ctrl-C while the manifest is read is told as at any other time: 130, and nothing else."""
    os.mkfifo(tmp_path / "m.toml")
    argv = [*COMMAND, "run", "m.toml"]
    with (
        subprocess.Popen(argv, cwd=tmp_path, stdout=-1, stderr=-1) as process,
        (tmp_path / "m.toml").open("w"),  # it has opened the manifest, too
    ):
        process.send_signal(signal.SIGINT)
        assert process.communicate() == (b"", b"")
    assert process.returncode == 130


def test_labels_of_nameless_scripts(tmp_path: Path) -> None:
    """A script without a name goes by its place in the manifest in all that is told of it."""
    text = """
        [[script]]
        cron = "*/5 * * * *"
        script = "true"
        [[script]]
        run_on_start = true
        script = "exit 3"
        """
    label = 'script "script[2]": exit status 3 '
    assert f"agentscripts: run agent {label}" in run(tmp_path, scripts=text).stderr
    done = command("check", "m.toml", cwd=tmp_path)
    warning = "m.toml: schedule of script \"script[1]\": '*/5 * * * *' has 5 fields"
    assert done.stderr.startswith(warning)


def test_max_parallel(tmp_path: Path) -> None:
    """R3: --max-parallel holds back scripts; ``mkdir`` fails for the second of two at once."""
    script = "mkdir lock && sleep 0.1 && rmdir lock"
    scripts = "".join(f'[[script]]\nrun_on_start = true\nscript = "{script}"\n' for _ in "abc")
    assert run(tmp_path, "--max-parallel", "1", scripts=scripts).returncode == 0


def test_environment(tmp_path: Path) -> None:
    """Each option has a variable; the option itself goes first."""
    assert names(tmp_path, AGENTSCRIPTS_ONLY="good, clean") == ["good", "clean"]
    assert names(tmp_path, "--only", "bad", AGENTSCRIPTS_ONLY="good") == ["bad"]
    assert names(tmp_path, AGENTSCRIPTS_STAGE="stop") == ["clean"]
    done = run(
        tmp_path,
        scripts=_GOOD,
        AGENTSCRIPTS_LOG_DIR="x",
        AGENTSCRIPTS_DATA_DIR="y",
        AGENTSCRIPTS_TIMEOUT="1h",
        AGENTSCRIPTS_MAX_PARALLEL="2",
        AGENTSCRIPTS_QUIET="1",
        AGENTSCRIPTS_JSON="1",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["ok"] is True
    assert {path.name for path in tmp_path.iterdir()} >= {"x", "y"}
    done = run(tmp_path, AGENTSCRIPTS_TIMEOUT="soon")
    assert (done.returncode, done.stderr.partition(",")[0]) == (
        2,
        'AGENTSCRIPTS_TIMEOUT is "soon"',
    )
    done = run(tmp_path, AGENTSCRIPTS_ONLY="good one")
    assert done.stderr.startswith('AGENTSCRIPTS_ONLY "good one" is no script')
    spaced = _GOOD.replace('"good"', '"good one"')
    assert run(tmp_path, scripts=spaced, AGENTSCRIPTS_ONLY="good one").stdout == "good one | out\n"


def test_cgroup(tmp_path: Path) -> None:
    """--cgroup is handed on: a directory that is none keeps the scripts from starting."""
    done = run(tmp_path, "--cgroup", "none", scripts=_GOOD)
    problem = "is no writable cgroup v2 directory, as cgroup has to be"
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"agentscripts: cannot start: {tmp_path}/none: {problem}\n"


def test_help_and_version(tmp_path: Path) -> None:
    """The help has examples and the variables; --version tells the version."""
    text = command("run", "--help", cwd=tmp_path).stdout
    for option in [
        "only",
        "stage",
        "cron",
        "timeout",
        "max-parallel",
        "log-dir",
        "data-dir",
        "cgroup",
        "metrics",
    ]:
        assert f"--{option} " in text
        assert f"AGENTSCRIPTS_{option.replace('-', '_').upper()}" in text
    assert "agentscripts run workspace.toml --only build --timeout 5m\n" in text
    text = " ".join(command("--help", cwd=tmp_path).stdout.split())
    assert "paths count from the manifest's directory, log_path from log_dir." in text
    version = command("--version", cwd=tmp_path).stdout
    assert version.startswith("agentscripts, version ")


def test_each_command_has_examples_and_statuses(tmp_path: Path) -> None:
    """The help of the whole tells in a line what each command does, that of each one how."""
    text = command("--help", cwd=tmp_path).stdout
    listed = [line.split() for line in text.partition("Commands:\n")[2].splitlines()]
    assert [words[0] for words in listed] == ["check", "logs", "next", "run", "timeline"]
    for name, *words in listed:
        assert words[-1].endswith(".")
        assert not words[-1].endswith("..")
        text = " ".join(command(name, "--help", cwd=tmp_path).stdout.split())
        assert f"Examples: agentscripts {name} " in text
        assert "Exit status: 0" in text
        assert "141 if standard output was closed early" in text


_ANSWERS = [
    ["check", "m.toml"],
    ["next", "0 0 0 * * *"],
    ["timeline", "results.jsonl"],
    ["--help"],
    ["run", "--help"],
    ["--version"],
]
# With this variable, Python would hold nothing back until its end.
_BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.mark.parametrize("arguments", _ANSWERS)
def test_answer_that_cannot_be_written(tmp_path: Path, arguments: list[str]) -> None:
    """On a full disk a command says so, status 1."""
    (tmp_path / "m.toml").write_text(_GOOD)
    (tmp_path / "results.jsonl").touch()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=_BUFFERED,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    why = "agentscripts: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, why)


def test_completion_that_cannot_be_written(tmp_path: Path) -> None:
    """What a shell is to read of completions fails in one line, too."""
    env = {**_BUFFERED, "_AGENTSCRIPTS_COMPLETE": "zsh_source"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(COMMAND, env=env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "agentscripts: No space left on device\n")


@pytest.mark.parametrize(
    "arguments", [*_ANSWERS, ["logs", "m.toml", "good"], ["run", "m.toml", "--json", "--quiet"]]
)
def test_answer_without_standard_output(tmp_path: Path, arguments: list[str]) -> None:
    """A command whose standard output is closed says that it cannot answer, status 1."""
    (tmp_path / "m.toml").write_text(OPTIONS + _GOOD + 'log_path = "good.log"\n')
    (tmp_path / "results.jsonl").touch()
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/good.log").write_text("out\n")
    closed = ["/bin/sh", "-c", 'exec "$@" >&-', "sh"]
    done = subprocess.run(
        [*closed, *COMMAND, *arguments], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    why = "agentscripts: cannot write the output: Bad file descriptor\n"
    assert (done.returncode, done.stderr) == (1, why)


@pytest.mark.parametrize("arguments", _ANSWERS)
def test_reader_that_has_left(tmp_path: Path, arguments: list[str]) -> None:
    """A command whose output nobody reads ends quietly, with the status of SIGPIPE."""
    (tmp_path / "m.toml").write_text(_GOOD)
    (tmp_path / "results.jsonl").touch()
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=tmp_path, stdout=pipe, stderr=subprocess.PIPE, text=True
        )
    assert (done.returncode, done.stderr) == (141, "")


def test_results_that_are_not_there(tmp_path: Path) -> None:
    """``timeline`` names the file and what is wrong with it, as the other commands do."""
    done = command("timeline", "none.jsonl", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "none.jsonl: No such file or directory\n"


def complete(base: Path, words: str) -> list[str]:
    """Return what bash would offer for the last word of a line."""
    env = {
        **os.environ,
        "_AGENTSCRIPTS_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    argv = [*COMMAND]
    done = subprocess.run(argv, env=env, cwd=base, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion(tmp_path: Path) -> None:
    """A shell completes commands, options, and the names of the scripts of the manifest."""
    (tmp_path / "m.toml").write_text(_SCRIPTS)
    (tmp_path / "wrong.toml").write_text("script = 5")
    assert complete(tmp_path, "agentscripts r") == ["run"]
    assert "--max-parallel" in complete(tmp_path, "agentscripts run m.toml --m")
    assert complete(tmp_path, "agentscripts run m.toml --only ") == [
        "good",
        "bad",
        "clean",
        "other",
    ]
    assert complete(tmp_path, "agentscripts run m.toml --only go") == ["good"]
    assert complete(tmp_path, "agentscripts logs m.toml cl") == ["clean"]
    (tmp_path / "m.toml").write_text(_GOOD.replace("good", "all good"))
    assert complete(tmp_path, "agentscripts run m.toml --only al") == ["'all good'"]
    assert complete(tmp_path, 'agentscripts run m.toml --only "al') == ["all good"]
    assert complete(tmp_path, "agentscripts run wrong.toml --only ") == []
    assert complete(tmp_path, "agentscripts run --only ") == []


def test_completion_of_names_that_a_shell_would_read(tmp_path: Path) -> None:
    """X2: a name that is a command, a pattern, an option or more than a line is not offered."""
    harmless = ["good", "terminé-1.x"]
    others = ["$(id)", "a;b", "a`b`", "-x", "a*", "a\\nplain,b", "'", "~"]
    tables = [f'[[script]]\nscript = "true"\nname = "{name}"\n' for name in harmless + others]
    (tmp_path / "m.toml").write_text("".join(tables))
    assert complete(tmp_path, "agentscripts logs m.toml ") == ["good", "'terminé-1.x'"]
