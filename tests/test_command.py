"""From a script to argv and environment."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from support import umask

from agentscripts import _command
from agentscripts._command import (
    Command,
    ShellCommandFactory,
    base_environment,
    login_shell,
    private_script_file,
    script_environment,
)
from agentscripts._model import Script

PATH = {"PATH": "/usr/bin:/bin"}
RUN_ID = "0123456789abcdef" * 2
LONGEST_ARGUMENT = 131071  # without its NUL


@pytest.fixture(autouse=True)
def private_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Private script files go where the test sees them."""
    directory = tmp_path / "private"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    return directory


def command(text: str, env: Mapping[str, str] = PATH, shell: str = "/bin/sh") -> Command:
    return ShellCommandFactory(shell).create_command(Script(script=text), env)


def run(made: Command) -> str:
    done = subprocess.run(made.argv, env=made.env, capture_output=True, text=True, check=True)
    return done.stdout


def program(directory: Path, name: str = "interpreter", mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text("")
    path.chmod(mode)
    return path


def fake_user(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    entry = pwd.struct_passwd(("me", "x", 7, 7, "", "/home/me", shell))
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)


def no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(uid: int) -> NoReturn:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", missing)
    monkeypatch.setattr(os, "getuid", lambda: 4711)


# --- the shell


def test_plain_script_goes_to_the_shell() -> None:
    """R4: the shell gets ``-c`` and the script, and the environment is passed on as it is."""
    made = command("echo hi")
    assert made == Command(("/bin/sh", "-c", "echo hi"), PATH)
    assert made.env is PATH
    assert (made.cwd, made.cleanup) == (None, ())


def test_shell_default_is_the_login_shell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R4: without a shell of its own the factory takes the user's, and looks it up once."""
    shell = str(program(tmp_path))
    fake_user(monkeypatch, shell)
    factory = ShellCommandFactory()
    assert factory.create_command(Script(script="true"), {}).argv[0] == shell
    fake_user(monkeypatch, "/bin/sh")
    assert factory.shell_program == shell


def test_login_shell_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R4: the password database, then ``$SHELL``, then ``/bin/sh``."""
    one, two = str(program(tmp_path, "one")), str(program(tmp_path, "two"))
    fake_user(monkeypatch, one)
    assert login_shell({"SHELL": two}) == one
    for unusable in ("/usr/sbin/nologin", "/bin/false", str(tmp_path / "missing")):
        fake_user(monkeypatch, unusable)
        assert login_shell({"SHELL": two}) == two
        assert login_shell({"SHELL": unusable}) == "/bin/sh"
        assert login_shell({}) == "/bin/sh"
    no_user(monkeypatch)
    assert login_shell({"SHELL": two}) == two


@pytest.mark.parametrize("name", ["nologin", "false"])
def test_login_shell_that_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """R4: a ``nologin`` or ``false`` is passed over wherever it lies, although it can be run."""
    refusing = str(program(tmp_path, name))
    fake_user(monkeypatch, refusing)
    assert login_shell({"SHELL": refusing}) == "/bin/sh"


def test_login_shell_must_be_usable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R4: a relative path, a directory and a file without execute permission are no shells."""
    plain = str(program(tmp_path, mode=0o644))
    no_user(monkeypatch)
    for unusable in ("", "sh", str(tmp_path), plain):
        assert login_shell({"SHELL": unusable}) == "/bin/sh"
    fake_user(monkeypatch, "")
    other = str(program(tmp_path, "other"))
    assert login_shell({"SHELL": other}) == "/bin/sh", "an empty field is /bin/sh, by passwd(5)"


@pytest.mark.parametrize("text", ["-x", "+x", "--version"])
def test_script_is_never_an_option(text: str) -> None:
    """R4: a script that begins with ``-`` or ``+`` is a command, not an option of the shell."""
    made = command(text)
    assert made.argv[2] == f" {text}"
    done = subprocess.run(made.argv, env=PATH, capture_output=True, check=False)
    assert done.returncode == 127


@pytest.mark.parametrize("char", ["x", "é", "-"])
def test_long_script_goes_through_a_file(char: str, private_tmp: Path) -> None:
    """R4: what the kernel takes as one argument is one; one byte more goes through a file."""
    size = len(char.encode())
    prefix = char + " " * ((LONGEST_ARGUMENT - 1) % size)
    longest = prefix + char * ((LONGEST_ARGUMENT - 1 - len(prefix.encode())) // size)
    assert len(longest.encode()) == LONGEST_ARGUMENT - 1
    made = command(longest)
    assert made.argv[1] == "-c"
    echo = subprocess.run(["/bin/true", made.argv[2]], check=False)
    assert echo.returncode == 0

    [path] = command(longest + "#").cleanup
    assert path.parent == private_tmp
    assert path.read_text() == longest + "#"


def test_long_script_runs() -> None:
    """R4: a script too long for one argument runs too."""
    text = f"echo {'x' * 200_000} | wc -c"
    made = command(text)
    assert made.argv == ("/bin/sh", str(made.cleanup[0]))
    assert run(made).strip() == "200001"


# --- the #! line


def test_interpreter_gets_a_private_file(tmp_path: Path, private_tmp: Path) -> None:
    """R4: the interpreter gets its arguments and a file that holds the script."""
    interpreter = program(tmp_path)
    text = f"#! {interpreter} -e 'a b'\nbody caf\udce9\n"
    made = command(text)
    [path] = made.cleanup
    assert made.argv == (str(interpreter), "-e", "a b", str(path))
    assert path.read_bytes() == os.fsencode(text)
    assert path.parent == private_tmp
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_white_space_before_the_line(tmp_path: Path) -> None:
    """R4: white space may come first; the file begins with ``#!``, as some interpreters need."""
    interpreter = program(tmp_path)
    made = command(f" \n\t#!{interpreter}\r\nbody")
    assert made.argv[0] == str(interpreter)
    assert made.cleanup[0].read_bytes() == f"#!{interpreter}\r\nbody".encode()


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("#!/bin/sh\necho direct", "direct\n"),
        ("#!sh -e\necho found; false; echo no", None),
        ("#!/usr/bin/env sh\necho env", "env\n"),
        ("#!/usr/bin/env -S A=1 sh -u\necho $A", "1\n"),
        ("#!\necho shell", "shell\n"),
        ("#!  \necho shell", "shell\n"),
    ],
)
def test_scripts_run(text: str, output: str | None) -> None:
    """R4: interpreters by path, by ``PATH`` and by ``env`` run; an empty line is the shell's."""
    if output is None:
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run(command(text))
        assert caught.value.stdout == "found\n"
    else:
        assert run(command(text)) == output


@pytest.mark.skipif(shutil.which("bash", path="/usr/bin:/bin") is None, reason="needs bash")
def test_env_with_argument() -> None:
    """R4: ``#!/usr/bin/env bash -e`` works, which the kernel would pass as one word."""
    made = command("#!/usr/bin/env bash -e\n[[ $- == *e* ]] && echo yes")
    assert run(made) == "yes\n"


def test_path_is_that_of_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: the interpreter is looked up on the script's ``PATH``, in order, for a usable file."""
    monkeypatch.chdir(tmp_path)
    program(tmp_path)
    for directory in ("relative", "plain", "usable", "later"):
        (tmp_path / directory).mkdir()
    program(tmp_path / "relative")
    program(tmp_path / "plain", mode=0o644)
    usable = program(tmp_path / "usable")
    program(tmp_path / "later")
    path = f"relative:{tmp_path}/plain::{tmp_path}/usable:{tmp_path}/later"
    assert command("#!interpreter\n", {"PATH": path}).argv[0] == str(usable)


def test_relative_interpreter_is_left_to_exec() -> None:
    """R4: a relative path depends on the working directory, which is not known here."""
    assert command("#!./tool x\n").argv[:2] == ("./tool", "x")


def test_missing_interpreter_is_named(tmp_path: Path, private_tmp: Path) -> None:
    """R4: the error says which interpreter of which line, and where it was looked for."""
    env = {"PATH": f"{tmp_path}:/none"}
    with pytest.raises(FileNotFoundError) as caught:
        command("\n\n#!nothing -e sesame\n", env)
    assert caught.value.strerror == (
        "interpreter 'nothing', named by the \"#!\" in line 3 of the script, "
        f"is not found on PATH: {tmp_path}:/none"
    )
    (tmp_path / "file").touch()
    for missing in "/none/x", f"{tmp_path}/file/x":
        with pytest.raises(FileNotFoundError, match=f"'{missing}', .* line 1 .* not found at this"):
            command(f"#!{missing}")
    assert list(private_tmp.iterdir()) == []


def test_interpreter_that_is_not_executable(tmp_path: Path, private_tmp: Path) -> None:
    """R4: a file without execute permission and a directory are refused."""
    path = program(tmp_path, mode=0o644)
    with pytest.raises(PermissionError, match=f"on PATH at {path}, but is not executable"):
        command("#!interpreter", {"PATH": str(tmp_path)})
    for unusable in (path, tmp_path):
        with pytest.raises(PermissionError, match=f"'{unusable}', .* is not an executable file"):
            command(f"#!{unusable}")
    assert list(private_tmp.iterdir()) == []


def test_line_that_cannot_be_split() -> None:
    """R4: a quote that does not end is an ``OSError`` that says where it is, not what."""
    with pytest.raises(
        OSError, match=r"line 2 of the script cannot be split .*quotation"
    ) as caught:
        command("\n#!/bin/sh 'sesame\n")
    assert "sesame" not in str(caught.value)


def test_failed_write_leaves_no_file(monkeypatch: pytest.MonkeyPatch, private_tmp: Path) -> None:
    """R4: when the private file cannot be written it is removed."""

    def full(fd: int, mode: str) -> NoReturn:
        os.close(fd)
        raise OSError(errno.ENOSPC, "No space left on device")

    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(UnicodeEncodeError):
        private_script_file("\ud800")
    monkeypatch.setattr(_command, "open", full, raising=False)
    with pytest.raises(OSError, match="No space left"):
        private_script_file("true")
    assert list(private_tmp.iterdir()) == []
    assert len(os.listdir("/proc/self/fd")) == before


def test_private_script_file_whatever_the_umask(private_tmp: Path) -> None:
    """R4: its interpreter can read it."""
    with umask(0o777):
        path = private_script_file("true")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_command_hides_text() -> None:
    """X1: the ``repr`` of a command has neither its arguments nor its environment."""
    assert "sesame" not in repr(command("echo sesame", {"TOKEN": "sesame"}))


# --- the environment


def compose(
    base: Mapping[str, str],
    options_env: Mapping[str, str] = {},
    script_env: Mapping[str, str] = {},
) -> dict[str, str]:
    return script_environment(
        base,
        options_env,
        script_env,
        data_dir=Path("/data/x"),
        bin_dir=Path("/data/bin"),
        run_id=RUN_ID,
    )


def test_base_environment_has_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: the agent's variables, then USER, LOGNAME and SHELL; HOME only where it is missing."""
    fake_user(monkeypatch, "/bin/login")
    env = {"A": "1", "USER": "root", "HOME": "/agent"}
    assert base_environment(env, "/bin/sh") == {
        "A": "1",
        "USER": "me",
        "LOGNAME": "me",
        "SHELL": "/bin/sh",
        "HOME": "/agent",
    }
    assert base_environment({}, "/bin/sh")["HOME"] == "/home/me"
    assert env == {"A": "1", "USER": "root", "HOME": "/agent"}


def test_base_environment_without_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """R5: a user who is not in the password database goes by number."""
    no_user(monkeypatch)
    assert base_environment({}, "/bin/sh") == {
        "USER": "4711",
        "LOGNAME": "4711",
        "SHELL": "/bin/sh",
    }


def test_environment_of_a_run() -> None:
    """R5: what every run gets, with the programs first on PATH; the base is left alone."""
    base = {"PATH": "/bin", "A": "1"}
    assert compose(base) == {
        "PATH": "/data/bin:/bin",
        "A": "1",
        "CODER_SCRIPT_DATA_DIR": "/data/x",
        "CODER_SCRIPT_BIN_DIR": "/data/bin",
        "AGENTSCRIPTS_RUN_ID": RUN_ID,
    }
    assert base == {"PATH": "/bin", "A": "1"}


def test_later_parts_win() -> None:
    """R5: options over the agent, the script over both, the library's own over all."""
    made = compose(
        {"A": "agent", "B": "agent", "C": "agent"},
        {"A": "options", "B": "options"},
        {"A": "script", "CODER_SCRIPT_DATA_DIR": "/elsewhere", "PATH": "/mine"},
    )
    assert (made["A"], made["B"], made["C"]) == ("script", "options", "agent")
    assert made["CODER_SCRIPT_DATA_DIR"] == "/data/x"
    assert made["PATH"] == "/data/bin:/mine"


def test_only_options_expand() -> None:
    """R5: ``$VAR`` in the options means what is there so far; an unknown one stays."""
    options_env = {
        "PATH": "/tools:$PATH",
        "ONE": "${A}x",
        "TWO": "$ONE-$A_",
        "REST": "$ $$ ${} ${A $NONE ${NONE} $é",
    }
    made = compose({"PATH": "/bin", "A": "1"}, options_env, {"S": "$A ${A}"})
    assert made["PATH"] == "/data/bin:/tools:/bin"
    assert made["ONE"] == "1x"
    assert made["TWO"] == "1x-$A_"
    assert made["REST"] == options_env["REST"]
    assert made["S"] == "$A ${A}"


def test_path_that_is_missing_or_empty() -> None:
    """R5: a missing PATH keeps its default; no empty entry (the current directory) comes in."""
    assert compose({})["PATH"] == f"/data/bin:{os.defpath}"
    assert compose({"PATH": ""})["PATH"] == "/data/bin"


def test_run_ids_nest() -> None:
    """R5: the id is appended to one that is there, so that an outer runner knows its own."""
    assert compose({"AGENTSCRIPTS_RUN_ID": "a:b"})["AGENTSCRIPTS_RUN_ID"] == f"a:b:{RUN_ID}"
