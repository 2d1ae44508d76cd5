"""What another user of the machine has put on the way to a log or a directory is not used."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRunner
from support import descriptors, umask

from agentscripts import RunStatus, Script, _directories, _native
from agentscripts._directories import make_directory, open_directory
from agentscripts._files import OSFilesystem

STRANGER = 65534
FILES = OSFilesystem()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's files")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users reach, which pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="agentscripts-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def made(path: Path, mode: int = 0o755) -> Path:
    path.mkdir()
    path.chmod(mode)
    return path


def foreign(path: Path) -> Path:
    """Make it another user's."""
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)
    return path


def state(path: Path) -> dict[str, tuple[object, ...]]:
    """Return all that an open for writing, a chmod, a rename or an unlink would change."""
    found = {}
    for one in [path, *path.rglob("*")]:
        status = one.lstat()
        text = one.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        times = (status.st_mtime_ns, status.st_ctime_ns)
        found[str(one)] = (status.st_mode, status.st_ino, *times, text)
    return found


@pytest.fixture(params=["openat2", "walk"])
def _how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the kernel lacks ``openat2``."""
    if request.param == "walk":

        def refuse(path: str) -> int:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

        monkeypatch.setattr(_directories, "open_plain_directory", refuse)


# ---- Z1: links


@pytest.mark.usefixtures("_how")
def test_own_links_are_followed(place: Path) -> None:
    """Z1: links of this user, relative and absolute, through ``..`` and one after the other."""
    (place / "a/b").mkdir(parents=True)
    (place / "one").symlink_to("a/../a")
    (place / "a/two").symlink_to(place / "one/./b")
    before = descriptors()
    fd = open_directory(f"{place}//one/two/../two/")
    try:
        assert os.path.samestat(os.fstat(fd), (place / "a/b").stat())
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
    assert descriptors() == before


@pytest.mark.usefixtures("_how")
@pytest.mark.parametrize("path", ["a", "link", ".", "link/.."])
def test_a_relative_path(place: Path, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Z1: it counts from the current directory, links or not."""
    made(place / "a")
    (place / "link").symlink_to("a")
    monkeypatch.chdir(place)
    fd = open_directory(path)
    try:
        assert os.path.samestat(os.fstat(fd), (place / path).stat())
    finally:
        os.close(fd)


@pytest.mark.parametrize("make", [False, True])
def test_a_circle_of_links(place: Path, make: bool) -> None:
    """Z1: links that lead to each other are an error, not a loop."""
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    before = descriptors()
    with pytest.raises(OSError, match="Too many levels") as caught:
        make_directory(f"{place}/a", 0o700) if make else open_directory(f"{place}/a")
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, f"{place}/a")
    assert descriptors() == before


def test_as_many_links_as_the_kernel_follows(place: Path) -> None:
    """L1: 40 of them are no circle, as for all other programs."""
    (place / "0").mkdir()
    for number in range(1, 42):
        (place / f"{number}").symlink_to(f"{number - 1}")
    os.close(open_directory(f"{place}/40"))
    with pytest.raises(OSError, match="Too many levels"):
        open_directory(f"{place}/41")


def test_two_make_a_directory(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L1: one that somebody has made since the look is as good."""
    mkdir = os.mkdir

    def twice(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        mkdir(name, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", twice)
    make_directory(f"{place}/a/b", 0o700)
    assert stat.S_IMODE((place / "a/b").stat().st_mode) == 0o700


def test_a_directory_of_a_group(place: Path) -> None:
    """L1: what the umask took is given back, and what is inherited stays."""
    place.chmod(0o2755)
    with umask(0o777):
        make_directory(f"{place}/a/b", 0o700)
    assert [stat.S_IMODE((place / one).stat().st_mode) for one in ("a", "a/b")] == [0o2700] * 2


@needs_root
@pytest.mark.usefixtures("_how")
@pytest.mark.parametrize("target", ["victim", "nowhere"])
def test_foreign_links_are_refused(place: Path, target: str) -> None:
    """Z1: another user's link leads nowhere, wherever it stands; its target stays as it was."""
    made(place / "victim")
    (place / "victim/a.log").write_text("precious")
    foreign(made(place / "home"))
    (place / "home/logs").symlink_to(place / target)
    foreign(place / "home/logs")
    before, was = descriptors(), state(place)
    words = f"is a symbolic link of user {STRANGER}, expected one of this user or of root"
    for attempt in (
        lambda: FILES.open_log(place / "home/logs/a.log"),
        lambda: FILES.make_dirs(place / "home/logs/new", 0o700),
        lambda: FILES.make_dirs(place / "home/logs", 0o700),
    ):
        with pytest.raises(OSError, match=words) as caught:
            attempt()
        assert caught.value.errno == errno.ELOOP
        assert caught.value.filename == str(place / "home/logs")
    assert state(place) == was
    assert descriptors() == before


# ---- Z2: what is in a directory that all may write to


@needs_root
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_foreign_directories_are_refused(place: Path, mode: int) -> None:
    """Z2: one that was there before, where all may write, is not made ours."""
    base = made(place / "tmp", mode)
    data = foreign(made(base / "coder-script-data", 0o777))
    was = state(base)
    words = f"belongs to user {STRANGER}, in a directory that all may write to"
    with pytest.raises(PermissionError, match=words) as caught:
        FILES.make_dirs(data / "bin", 0o700)
    assert caught.value.filename == str(data)
    assert state(base) == was
    foreign(made(data / "bin"))  # one more level does not make it better
    with pytest.raises(PermissionError, match=words):
        FILES.make_dirs(data / "bin", 0o700)


@needs_root
def test_a_runner_with_foreign_directories(place: Path, make_runner: MakeRunner) -> None:
    """Z2: ``init`` says so: nobody's programs come first on ``PATH``."""
    base = made(place / "tmp", 0o1777)
    foreign(made(base / "coder-script-data"))
    with pytest.raises(PermissionError, match="coder-script-data"):
        make_runner("true", data_dir_base=base)


@needs_root
def test_a_place_that_was_given_to_another_user(place: Path) -> None:
    """Z2: a directory that only its owner may write to holds what he wants: it was chosen."""
    home = foreign(made(place / "home"))
    foreign(made(home / "state"))
    FILES.make_dirs(home / "state/new", 0o700)
    assert (home / "state/new").stat().st_uid == 0
    (home / "a.log").write_text("")
    foreign(home / "a.log")
    target = FILES.open_log(home / "a.log")
    os.close(target.fd)
    assert target.dir_fd is not None
    os.close(target.dir_fd)


@needs_root
@pytest.mark.parametrize("mode", [0o1777, 0o777])
def test_foreign_files_are_no_logs(place: Path, mode: int) -> None:
    """Z2: a file that another user made in /tmp, and may read, is refused, and left alone."""
    base = made(place / "tmp", mode)
    (base / "a.log").write_text("old")
    foreign(base / "a.log").chmod(0o666)
    before, was = descriptors(), state(base)
    words = f"belongs to user {STRANGER}, in a directory that all may write to"
    with pytest.raises(PermissionError, match=words) as caught:
        FILES.open_log(base / "a.log")
    assert caught.value.filename == str(base / "a.log")
    assert state(base) == was
    assert descriptors() == before


@pytest.mark.parametrize("bit", [stat.S_ISUID, stat.S_ISGID])
def test_programs_with_rights_are_no_logs(place: Path, bit: int) -> None:
    """Z2: who moves such a program to a log's path would choose its text: root keeps the bit."""
    path = place / "a.log"
    path.write_text("program")
    path.chmod(0o755 | bit)
    was = state(place)
    with pytest.raises(PermissionError, match="is a program that changes its user"):
        FILES.open_log(path)
    assert state(place) == was


# ---- Z3: what is swapped in between


@needs_root
def test_a_directory_that_was_swapped_keeps_its_mode(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Z3: after ``mkdir`` another directory may have the name; it is not given a mode."""
    home = foreign(made(place / "home"))
    foreign(made(place / "theirs", 0o500))
    mkdir = os.mkdir

    def swap(name: str, mode: int, *, dir_fd: int) -> None:
        mkdir(name, mode, dir_fd=dir_fd)
        (home / "logs").rmdir()
        (place / "theirs").rename(home / "logs")

    monkeypatch.setattr(os, "mkdir", swap)
    FILES.make_dirs(home / "logs", 0o700)
    assert stat.S_IMODE((home / "logs").stat().st_mode) == 0o500


ATTACKER = """
import os, sys
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
home, victim = sys.argv[1:]
os.chdir(home)
names = {"a.log": victim + "/a.log", "a.log.1": victim + "/b.log", "a.log.2": victim + "/sub"}

def attempt(call, *arguments):
    try:
        call(*arguments)
    except OSError:
        pass

print("ready", flush=True)
while True:
    for directory in ("logs", "deep"):
        attempt(os.rename, directory, "aside")
        attempt(os.symlink, victim, directory)
        attempt(os.unlink, directory)
        attempt(os.rename, "aside", directory)
        attempt(os.mkdir, directory)
    for name, target in names.items():
        attempt(os.unlink, "logs/" + name)
        attempt(os.symlink, target, "logs/" + name)
        attempt(os.unlink, "logs/" + name)
        attempt(os.link, victim + "/open.log", "logs/" + name)
        attempt(os.unlink, "logs/" + name)
"""


@contextlib.contextmanager
def attack(home: Path, victim: Path) -> Iterator[None]:
    command = [sys.executable, "-I", "-c", ATTACKER, str(home), str(victim)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "ready\n"
            yield
            assert attacker.poll() is None, "the attacker has given up"
        finally:
            attacker.kill()


@needs_root
@pytest.mark.slow
def test_swaps_in_a_tight_loop(place: Path, make_runner: MakeRunner) -> None:
    """Z3: while another user swaps directories and files around runs that rotate their logs, no
    file of others is opened for writing, emptied, renamed, removed, or given a mode."""
    victim = made(place / "victim")
    made(victim / "sub")
    for name in ("a.log", "b.log", "a.log.1", "open.log"):
        (victim / name).write_text("precious")
    (victim / "open.log").chmod(0o666)  # else fs.protected_hardlinks forbids his links to it
    home = foreign(made(place / "home"))
    foreign(made(home / "logs"))
    was, listed = state(victim), sorted(os.listdir(victim))
    runner = make_runner(
        Script(script="yes | head -c 20000", log_path=f"{home}/logs/a.log"),
        Script(script="echo one", log_path=f"{home}/deep/er/b.log"),
        max_log_bytes=4096,
        log_backups=2,
    )
    statuses = set()
    with attack(home, victim):
        for _ in range(60):
            statuses |= {result.status for result in runner.execute(check=False)}
    assert RunStatus.SUCCEEDED in statuses
    assert sorted(os.listdir(victim)) == listed
    now = state(victim)
    # His own links to open.log change its ctime.
    mode, inode, changed, _, text = was.pop(str(victim / "open.log"))
    assert now.pop(str(victim / "open.log"))[:3] == (mode, inode, changed)
    assert (victim / "open.log").read_bytes() == text
    assert now == was


def test_directories_that_are_there_still(tmp_path: Path) -> None:
    """R5: the same one, and in it directories that are ours: no file, no link, none of another."""
    base, inside = tmp_path / "base", tmp_path / "base" / "inside"
    inside.mkdir(parents=True)
    both = _native.Directories(base, inside)
    if (identity := both.identity()) is None:
        pytest.skip("openat2 is missing or forbidden here")
    assert both.are_there(identity)
    if os.geteuid() == 0:
        os.chown(inside, STRANGER, -1)
        assert not both.are_there(identity)
    inside.rmdir()
    assert not both.are_there(identity)
    inside.touch()
    assert not both.are_there(identity)
    inside.unlink()
    inside.symlink_to(tmp_path)
    assert not both.are_there(identity)
    inside.unlink()
    inside.mkdir()
    assert both.are_there(identity)
    base.rename(tmp_path / "old")
    inside.mkdir(parents=True)
    assert not both.are_there(identity)
    assert both.are_there(both.identity())
