"""How a process is started: what it has, what a failure leaves, and what may go on meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NoReturn

import pytest
from support import PATIENCE, Background, children, eventually, run_host

from agentscripts import Command, _native
from agentscripts._spawn import Process, Spawner

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def spawner() -> Iterator[Spawner]:
    """A spawner that is closed after the test, twice."""
    made = Spawner()
    yield made
    for _ in range(2):
        made.close()


def start(
    spawner: Spawner,
    *argv: str,
    env: Mapping[str, str] = ENVIRONMENT,
    cwd: str = "/",
    cgroup: Path | None = None,
) -> Process:
    return spawner.spawn(Command(argv, env), [cwd], cgroup)


def end(process: Process) -> tuple[int, list[str]]:
    """Return the exit code and the lines of stdout; close what the process holds."""
    code = process.wait(PATIENCE)
    with open(process.child.stdout_fd) as stdout:
        lines = stdout.read().splitlines()
    os.close(process.child.stderr_fd)
    os.close(process.child.pidfd)
    return code, lines


def run(spawner: Spawner, *argv: str, env: Mapping[str, str] = ENVIRONMENT) -> list[str]:
    code, lines = end(start(spawner, *argv, env=env))
    assert code == 0
    return lines


@contextlib.contextmanager
def held_start(spawner: Spawner, base: Path) -> Iterator[Background[Process]]:
    """A start that hangs in the child: its cgroup's file is a FIFO that nobody reads."""
    fifo = base / "cgroup.procs"
    os.mkfifo(fifo)
    before = children()
    starting = Background(lambda: start(spawner, "true", cgroup=base))
    eventually(lambda: children() - before)
    try:
        yield starting
    finally:
        reader = os.open(fifo, os.O_RDONLY)
        end(starting.result())
        os.close(reader)


SPAWN = """
from agentscripts._spawn import Spawner

spawner = Spawner()

def spawn(*argv, directories=("/",), cgroup=None):
    return spawner.spawn(Command(argv, {}), directories, cgroup)

def forbid(call, number):
    import ctypes, struct

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    # Load the call's number; if it is this one, return an error; else allow.
    refuse, allow = 0x00050000 | number, 0x7FFF0000
    lines = (0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, refuse), (0x06, 0, 0, allow)
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    text = ctypes.create_string_buffer(code)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.byref(Program(4, ctypes.addressof(text)))) == 0

"""
CLOSE_RANGE = 436  # on all machines
LIST_DIRECTORY = {"x86_64": 217, "aarch64": 61}.get(platform.machine())


def run_spawn(base: Path, program: str) -> list[str]:
    """Run a host that can ``spawn``, and can ``forbid`` itself system calls."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    return run_host(base, SPAWN + program, env=environment)


# ---- what it has ----


def test_words_and_environment(spawner: Spawner) -> None:
    """R4, R5: the arguments and the variables arrive as they are, empty ones and odd ones too."""
    env = {**ENVIRONMENT, "EMPTY": "", "LINES": "a\nb=c", "PATH": "/bin", "ODD": "\udcff€"}
    script = 'printf "%s|" "$0" "$@"; echo; printf "%s|" "$EMPTY" "$LINES" "$ODD"'
    process = start(spawner, "/bin/sh", "-c", script, "zero", "", "ä b", "", env=env)
    process.wait(PATIENCE)
    output = os.read(process.child.stdout_fd, 999)
    assert output == "zero||ä b||\n|a\nb=c|".encode() + b"\xff\xe2\x82\xac|"
    end(process)


def test_a_variable_may_be_left_out(spawner: Spawner) -> None:
    """R5: a command factory's environment is the whole one."""
    assert run(spawner, "/usr/bin/env", env={"ONLY": "this"}) == ["ONLY=this"]
    assert run(spawner, "/usr/bin/env", env=MappingProxyType({"ANY": "map"})) == ["ANY=map"]
    assert run(spawner, "/usr/bin/env", env={}) == []


def test_a_program_on_path(spawner: Spawner, tmp_path: Path) -> None:
    """R4: it is searched as by execvpe; one that may not be executed is passed over, and the first
    that is there and is none is told."""
    first, second = tmp_path / "first", tmp_path / "second"
    for directory in (first, second):
        directory.mkdir()
        (directory / "tool").write_text("#!/bin/sh\necho $0\n")
    (second / "tool").chmod(0o755)
    path = f"{tmp_path}/missing:{first}:{second}"
    assert run(spawner, "tool", env={"PATH": path}) == [f"{second}/tool"]
    (second / "tool").write_text("no program")
    with pytest.raises(PermissionError) as caught:
        start(spawner, "tool", env={"PATH": f"{first}/tool:{path}:{tmp_path}/missing"})
    assert caught.value.filename == "tool"


def test_a_directory_that_is_closed(tmp_path: Path) -> None:
    """R6: the next one counts, as where it is missing."""
    program = """
closed = BASE / "closed"
closed.mkdir(mode=0)
os.geteuid() == 0 and os.setresuid(61234, 61234, 61234)
child = spawn("/bin/true", directories=[str(closed), "/"])
say(child.child.entered, child.wait())
"""
    assert run_spawn(tmp_path, program) == ["1 0"]


@pytest.mark.parametrize("closed", [(0,), (1, 2), (0, 1, 2)])
def test_a_host_without_standard_streams(tmp_path: Path, closed: tuple[int, ...]) -> None:
    """R6: the script has its own, even where the host's ends of its pipes got their numbers."""
    program = f"""
from agentscripts._spawn import Spawner
script = "echo out; echo err >&2; readlink /proc/self/fd/0; ls /proc/$$/fd"
spawner, said = Spawner(), os.dup(1)
for number in {closed}:
    os.close(number)
child = spawner.spawn(Command(("/bin/sh", "-c", script), dict(os.environ)), ["/"], None)
for fd in (child.child.stdout_fd, child.child.stderr_fd):
    os.set_blocking(fd, True)
    with open(fd, "rb", closefd=False) as file:
        os.write(said, file.read())
child.wait()
"""
    lines = run_host(tmp_path, program)
    assert lines == ["out", "/dev/null", "0", "1", "2", "err"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_close_range(tmp_path: Path, number: int) -> None:
    """R6: before Linux 5.9, or where a container forbids the call, no descriptor is left either,
    also where there is none to list them with."""
    program = f"""
forbid({CLOSE_RANGE}, {number})
from support import all_descriptors_taken
runner = make("ls /proc/$$/fd")
leaky = [os.open("/dev/zero", os.O_RDONLY) for _ in range(150)]  # more than one listing takes
for fd in leaky:
    os.set_inheritable(fd, True)
runner.execute()
runner.close()
(BASE / "cgroup.procs").touch()
with all_descriptors_taken(spare=5):  # four ends of pipes; a pidfd, in the child that file
    say(spawn("/bin/true", cgroup=BASE).wait())
"""
    assert run_spawn(tmp_path, program) == ["line 0", "line 1", "line 2", "0"]


@pytest.mark.slow
@pytest.mark.skipif(LIST_DIRECTORY is None, reason="its number is not known here")
def test_descriptors_that_cannot_be_closed(tmp_path: Path) -> None:
    """R6: a script does not start where nothing tells which descriptors it would inherit."""
    program = f"""
forbid({CLOSE_RANGE}, {errno.EPERM})
forbid({LIST_DIRECTORY}, {errno.EIO})
try:
    spawn("/bin/echo", "started")
except OSError as error:
    say(error)
"""
    assert run_spawn(tmp_path, program) == [f"[Errno {errno.EIO}] {os.strerror(errno.EIO)}"]


def test_it_is_a_popen(spawner: Spawner) -> None:
    """R4: whoever meets it in a debugger finds what he knows; its methods do what they say."""
    process = start(spawner, "sleep", "60")
    assert process.poll() is None
    assert process.args == ("sleep", "60")
    assert not process.universal_newlines
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.001)
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.001)
    process.terminate()
    with process:
        assert process.communicate() == (None, None)
    assert process.returncode == -signal.SIGTERM
    assert "-15 args: ('sleep', '60')" in repr(process)
    end(process)


def test_a_wait_that_is_interrupted(spawner: Spawner, monkeypatch: pytest.MonkeyPatch) -> None:
    """R4: ``KeyboardInterrupt`` comes out of it, as of any ``Popen``."""

    def interrupt(timeout: float | None) -> NoReturn:
        raise KeyboardInterrupt

    process = start(spawner, "true")
    with monkeypatch.context() as patch:
        patch.setattr(process, "_wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            process.wait()
    end(process)


def test_one_that_is_forgotten(spawner: Spawner) -> None:
    """K6: what nobody waited for is said so, and waited for at the next ``Popen``."""
    process = start(spawner, "sleep", "60")
    pid, child = process.pid, process.child
    with pytest.warns(ResourceWarning, match=f"subprocess {pid} is still running"):
        del process
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    subprocess.run(["true"], check=True)
    assert pid not in children()
    for fd in (child.stdout_fd, child.stderr_fd, child.pidfd):
        os.close(fd)


# ---- what fails ----


def holdings() -> tuple[set[int], set[str]]:
    return children(), set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(
    ("argv", "cwd", "cgroup", "number", "name"),
    [
        (["/nowhere/program"], "/", None, errno.ENOENT, "/nowhere/program"),
        (["no-such-name"], "/", None, errno.ENOENT, "no-such-name"),
        (["/etc/passwd"], "/", None, errno.EACCES, "/etc/passwd"),
        (["/bin/true", "x" * 200_000], "/", None, errno.E2BIG, "/bin/true"),
        (["true"], "/nowhere", None, errno.ENOENT, "/nowhere"),
        (["true"], "/etc/passwd", None, errno.ENOTDIR, "/etc/passwd"),
        (["true"], "/", Path("/nowhere"), errno.ENOENT, "/nowhere/cgroup.procs"),
    ],
)
def test_a_failure_is_told(
    spawner: Spawner, argv: Sequence[str], cwd: str, cgroup: Path | None, number: int, name: str
) -> None:
    """R6, K2: by errno and by what it is about; no child and no descriptor is left."""
    before = holdings()
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        start(spawner, *argv, cwd=cwd, cgroup=cgroup)
    assert (caught.value.errno, caught.value.filename) == (number, name)
    assert holdings() == before


@pytest.mark.parametrize(
    ("argv", "env", "words"),
    [
        (["true", "a\0b"], {}, "argument 1 "),
        (["true"], {"A": "\0"}, "'A'"),
        (["true"], {"B=C": ""}, "'B=C'"),
    ],
)
def test_words_that_no_program_can_get(
    spawner: Spawner, argv: Sequence[str], env: Mapping[str, str], words: str
) -> None:
    """R6: they are refused by name or number, not by content, which may be secret."""
    with pytest.raises(ValueError, match=words):
        start(spawner, *argv, env=env)


def test_a_failure_where_sigchld_is_ignored(spawner: Spawner) -> None:
    """K6: the kernel reaps the child then; the failure is told all the same."""
    old = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(FileNotFoundError):
            start(spawner, "/nowhere/program")
    finally:
        signal.signal(signal.SIGCHLD, old)


# ---- what the host has ----


def test_the_threads_mask_comes_back(spawner: Spawner) -> None:
    """R6: a start changes no mask, whether it goes well or not."""
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        run(spawner, "true")
        with pytest.raises(FileNotFoundError):
            start(spawner, "/nowhere/program")
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == mask
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


def test_audit_hooks_hear_of_it(tmp_path: Path) -> None:
    """R4: as from any ``subprocess.Popen``."""
    program = """
sys.addaudithook(lambda name, args: name == "subprocess.Popen" and say(args[0], *args[1]))
make("true").execute()
"""
    assert run_host(tmp_path, program) == ["/bin/sh /bin/sh -c true"]


def test_starts_overlap(spawner: Spawner, tmp_path: Path) -> None:
    """K7: a start that hangs holds up neither Python nor other starts."""
    with held_start(spawner, tmp_path) as starting:
        assert run(spawner, "/bin/echo", "other") == ["other"]
        assert starting.is_alive()


def fork_and_start(spawner: Spawner) -> int:
    """Fork a child that starts a process; return its pid."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.alarm(20)
        try:
            code = run(spawner, "/bin/echo", "child") != ["child"]
        finally:
            os._exit(code)
    return child


def check_starts_in_both(spawner: Spawner, child: int) -> None:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run(spawner, "/bin/echo", "parent") == ["parent"]


@pytest.mark.forks
def test_a_fork_waits_for_a_start(spawner: Spawner, tmp_path: Path) -> None:
    """R6, K5: or the host's child would hold the script's pipes open. Both may start afterwards."""
    with held_start(spawner, tmp_path):
        began = time.monotonic()
        forking = Background(lambda: fork_and_start(spawner))
        forking.join(0.05)
        assert forking.is_alive() or time.monotonic() - began > _native._LONGEST_START
    check_starts_in_both(spawner, forking.result())


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no other libc has such a lock")
def test_starts_wait_for_a_fork_that_waits(spawner: Spawner, tmp_path: Path) -> None:
    """K5: or a host that starts scripts all the time would fork between them, pipes and all."""
    starts, patience = spawner.starts, _native.nanoseconds(PATIENCE)
    others: list[Background[list[str]]] = []

    def fork() -> None:
        assert _native.lib.as_starts_hold(starts.pointer, patience) == 0
        starts.resume_in_parent()

    def another_waits() -> bool:
        others.append(Background(lambda: run(spawner, "true")))
        others[-1].join(0.1)
        return others[-1].is_alive()

    with held_start(spawner, tmp_path):
        forking = Background(fork)
        eventually(another_waits)
    forking.result()
    assert [other.result() for other in others] == [[]] * len(others)


def test_a_fork_that_waited_in_vain(spawner: Spawner, tmp_path: Path) -> None:
    """K5: what it lets go afterwards is neither another fork nor a start."""
    starts, lib = spawner.starts, _native.lib

    def hold() -> int:
        return lib.as_starts_hold(starts.pointer, _native.nanoseconds(0.001))

    def wait_in_vain() -> bool:
        waited = hold()
        starts.resume_in_parent()
        return waited == hold() == lib.AS_TIMEOUT

    assert hold() == 0
    assert Background(wait_in_vain).result()
    starts.resume_in_parent()
    with held_start(spawner, tmp_path):
        assert wait_in_vain()


@pytest.mark.forks
def test_a_handler_that_raises_while_a_fork_waits(tmp_path: Path) -> None:
    """R3: Python drops what is raised in a hook; starts go on all the same."""
    program = """
from support import Background
from agentscripts._spawn import _STARTS

class Boom(Exception): pass

def raise_boom(number, frame):
    raise Boom

signal.signal(signal.SIGALRM, raise_boom)
runner = make("echo up")
held, go = threading.Event(), threading.Event()

def hold():
    _STARTS.hold()
    held.set()
    go.wait()
    _STARTS.resume_in_parent()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
signal.setitimer(signal.ITIMER_REAL, 0.1)
threading.Timer(0.2, go.set).start()
try:
    child = os.fork()
    if child == 0:
        os._exit(0)
except Boom:
    pass
holder.join()
say(*(result.status for result in Background(runner.execute).result()))
runner.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    said = run_host(tmp_path, program, env=environment)
    assert said == ["line up", "succeeded"]


@pytest.mark.forks
def test_a_fork_does_not_wait_for_a_start_that_hangs(spawner: Spawner, tmp_path: Path) -> None:
    """R3: or one dead mount and one fork would end all starts, and the fork, for good."""
    with held_start(spawner, tmp_path) as hanging:
        check_starts_in_both(spawner, Background(lambda: fork_and_start(spawner)).result())
        assert hanging.is_alive()


@pytest.mark.forks
@pytest.mark.slow
def test_forks_and_starts_all_the_time(tmp_path: Path) -> None:
    """K5: children that the host forks meanwhile, and that live on, hold no script's pipes."""
    program = """
forked, over = [], threading.Event()
def fork():
    while not over.is_set():
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        forked.append(child)
        time.sleep(0.002)
forker = threading.Thread(target=fork)
forker.start()
runner = make(*["echo $0"] * 60, wait_delay=20)
for _ in range(2):
    say(*{result.status.value for result in runner.execute(check=False)})
over.set()
forker.join()
for child in forked:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
runner.close()
say("forked", len(forked) > 10)
"""
    lines = [line for line in run_host(tmp_path, program) if not line.startswith("line ")]
    assert lines == ["succeeded", "succeeded", "forked True"]
