"""Log files: where they are, and what is refused as one."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import umask

from agentscripts._files import LogTarget, OSFilesystem, log_path_for
from agentscripts._model import Script

FILES = OSFilesystem()


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextmanager
def opened(path: Path) -> Iterator[LogTarget]:
    target = FILES.open_log(path)
    try:
        yield target
    finally:
        os.close(target.fd)
        if target.dir_fd is not None:
            os.close(target.dir_fd)


@contextmanager
def stream_replaced(number: int, fd: int) -> Iterator[None]:
    saved = os.dup(number)
    os.dup2(fd, number)
    try:
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- L1


def test_log_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """L1: the default name; ``~`` and ``$VAR`` expand; a relative path is under ``log_dir``."""
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("WHERE", "/var/x")
    monkeypatch.delenv("NOWHERE", raising=False)

    def path(text: str) -> str:
        return str(log_path_for(Script(script="true", log_path=text), Path("/logs")))

    script = Script(script="true", name="a")
    default = log_path_for(script, Path("/logs"))
    assert default == Path(f"/logs/coder-script-{script.log_source_id}.log")
    assert path("a/b.log") == "/logs/a/b.log"
    assert path("/abs.log") == "/abs.log"
    assert path("~/b.log") == "/home/me/b.log"
    assert path("$WHERE/b.log") == path("${WHERE}/b.log") == "/var/x/b.log"
    assert path("$NOWHERE.log") == "/logs/$NOWHERE.log"


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o277, 0o777])
def test_directories_have_the_mode(tmp_path: Path, mask: int) -> None:
    """L1: all missing parents get the mode whatever the umask is; the others keep theirs."""
    tmp_path.chmod(0o750)
    with umask(mask):
        FILES.make_dirs(tmp_path / "a/b/c", 0o700)
    for made in ("a", "a/b", "a/b/c"):
        assert mode_of(tmp_path / made) == 0o700
    assert mode_of(tmp_path) == 0o750
    FILES.make_dirs(tmp_path / "a", 0o755)
    assert mode_of(tmp_path / "a") == 0o700


def test_directory_through_a_link(tmp_path: Path) -> None:
    """L1: a link to a directory is a directory."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    FILES.make_dirs(tmp_path / "link/new", 0o700)
    assert (tmp_path / "real/new").is_dir()


@pytest.mark.parametrize("name", ["file", "file/below", "dangling"])
def test_directory_in_the_way(tmp_path: Path, name: str) -> None:
    """L1: something else in the way is named."""
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(NotADirectoryError, match="exists and is not a directory") as caught:
        FILES.make_dirs(tmp_path / name, 0o700)
    assert caught.value.filename == str(tmp_path / name.partition("/")[0])
    assert not (tmp_path / "nowhere").exists()


def test_directories_are_made_by_many_at_once(tmp_path: Path) -> None:
    """L1: runs that start together may make the same directories."""
    barrier = threading.Barrier(4)
    failures: list[OSError] = []

    def make() -> None:
        for number in range(20):
            barrier.wait(10)
            try:
                FILES.make_dirs(tmp_path / f"{number}/a/b", 0o700)
            except OSError as error:
                failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# --- L2: what is opened


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o277, 0o777], ids=oct)
def test_new_log(tmp_path: Path, mask: int) -> None:
    """L2: a missing file is made with mode 0600 and opened with the flags of the rule."""
    with umask(mask), opened(tmp_path / "a.log") as target:
        assert mode_of(tmp_path / "a.log") == 0o600
        flags = fcntl.fcntl(target.fd, fcntl.F_GETFL)
        assert flags & os.O_ACCMODE == os.O_WRONLY
        assert flags & os.O_APPEND
        assert flags & os.O_NONBLOCK
        assert not os.get_inheritable(target.fd)
        assert target.dir_fd is not None
        assert not os.get_inheritable(target.dir_fd)
        assert os.path.samestat(os.fstat(target.dir_fd), tmp_path.stat())
        assert (target.name, target.truncate) == ("a.log", True)


def leads_to(descriptor: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}") == str(path)
    except FileNotFoundError:  # that of the listing itself
        return False


def test_usual_log(tmp_path: Path) -> None:
    """L2: what one call opens is as by ``open_log``: mode and flags, and nothing is emptied."""
    path, before = tmp_path / "a.log", descriptors()
    assert FILES.open_usual(path, 100) is None
    path.write_text("")
    log = FILES.open_usual(path, 100)
    assert log is not None
    (fd,) = (int(name) for name in descriptors() if leads_to(name, path))
    with opened(path) as target:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) == fcntl.fcntl(target.fd, fcntl.F_GETFL)
    assert not os.get_inheritable(fd)
    os.write(fd, b"old")
    log.close()
    again = FILES.open_usual(path, 100)
    assert again is not None
    assert path.read_bytes() == b"old"
    again.begin(empty=True)
    assert path.read_bytes() == b""
    again.close()
    assert descriptors() == before


def make_link_on_the_way(path: Path) -> None:
    real = path.parent.with_name("real")
    path.parent.rename(real)
    path.parent.symlink_to(real)


def make_set_user_id(path: Path) -> None:
    path.write_text("")
    path.chmod(0o4600)


def make_foreign(path: Path) -> None:
    path.write_text("")
    os.chown(path, 65534, 65534)


@pytest.mark.parametrize(
    "make",
    [
        make_link_on_the_way,
        make_set_user_id,
        pytest.param(
            make_foreign,
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away"),
        ),
    ],
)
def test_unusual_log(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """L2: what has to be looked at more closely is not opened in one call."""
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs/a.log"
    make(path)
    before = descriptors()
    assert FILES.open_usual(path, 100) is None
    assert descriptors() == before


def test_existing_log_is_appended_to(tmp_path: Path) -> None:
    """L2: opening truncates nothing and changes no mode."""
    path = tmp_path / "a.log"
    path.write_text("old ")
    path.chmod(0o640)
    with opened(path) as target:
        assert path.read_text() == "old "
        os.write(target.fd, b"new")
    assert path.read_text() == "old new"
    assert mode_of(path) == 0o640


def test_directory_stays_the_same(tmp_path: Path) -> None:
    """L4: the descriptor of the directory holds the file's own, also when the path moves on."""
    (tmp_path / "logs").mkdir()
    with opened(tmp_path / "logs/a.log") as target:
        (tmp_path / "logs").rename(tmp_path / "moved")
        (tmp_path / "logs").mkdir()
        os.rename("a.log", "a.log.1", src_dir_fd=target.dir_fd, dst_dir_fd=target.dir_fd)
    assert (tmp_path / "moved/a.log.1").exists()


def test_link_on_the_way(tmp_path: Path) -> None:
    """L2: only the file itself must not be a link; its directory may be reached by one."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with opened(tmp_path / "link/a.log"):
        assert (tmp_path / "real/a.log").exists()


def test_null_is_allowed() -> None:
    """L2: ``/dev/null`` is allowed, with neither rotation nor truncation."""
    before = descriptors()
    with opened(Path("/dev/null")) as target:
        assert (target.dir_fd, target.name, target.truncate) == (None, "null", False)
        assert os.write(target.fd, b"x") == 1
    assert descriptors() == before


@pytest.mark.parametrize(("name", "number"), [("/dev/stdout", 1), ("/dev/stderr", 2)])
def test_standard_streams(name: str, number: int) -> None:
    """L2: the host's pipe is opened anew, so that its own flags stay as they are."""
    reading, writing = os.pipe()
    with stream_replaced(number, writing):
        os.close(writing)
        before = fcntl.fcntl(number, fcntl.F_GETFL)
        with opened(Path(name)) as target:
            assert (target.dir_fd, target.name, target.truncate) == (None, name, False)
            assert fcntl.fcntl(target.fd, fcntl.F_GETFL) & os.O_NONBLOCK
            assert not os.get_inheritable(target.fd)
            os.write(target.fd, b"line")
        assert fcntl.fcntl(number, fcntl.F_GETFL) == before
    assert os.read(reading, 100) == b"line"
    os.close(reading)


def test_standard_stream_that_is_a_file(tmp_path: Path) -> None:
    """L2: a regular file is duplicated, so that the host's own lines and these do not collide."""
    path = tmp_path / "stream"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with stream_replaced(1, fd):
        os.close(fd)
        with opened(Path("/dev/stdout")) as target:
            os.write(target.fd, b"script ")
            os.write(1, b"host ")
            os.write(target.fd, b"script")
    assert path.read_bytes() == b"script host script"


def test_standard_stream_that_is_a_socket() -> None:
    """L2: a socket cannot be opened anew, so it is duplicated."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with stream_replaced(1, theirs.fileno()), opened(Path("/dev/stdout")) as target:
            assert not os.get_inheritable(target.fd)
            os.write(target.fd, b"line")
        assert ours.recv(16) == b"line"


def test_standard_stream_that_is_closed() -> None:
    """L2: a closed stream is an error that names it."""
    saved = os.dup(1)
    os.close(1)
    try:
        with pytest.raises(OSError, match=r"descriptor 1 is closed, .*'/dev/stdout'") as caught:
            FILES.open_log(Path("/dev/stdout"))
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert caught.value.errno == errno.EBADF


# --- L2: what is refused


def make_symlink(path: Path) -> None:
    path.symlink_to("target")


def make_dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def make_hard_link(path: Path) -> None:
    path.hardlink_to(path.with_name("target"))


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "number", "text"),
    [
        (make_symlink, errno.ELOOP, "is a symbolic link"),
        (make_dangling, errno.ELOOP, "is a symbolic link"),
        (make_hard_link, errno.EMLINK, "has 2 hard links"),
        (Path.mkdir, errno.EISDIR, "is a directory"),
        (make_fifo, errno.EINVAL, "is a FIFO"),
        (make_socket, errno.EINVAL, "is a socket"),
    ],
)
def test_refused(tmp_path: Path, make: Callable[[Path], None], number: int, text: str) -> None:
    """L2: all else is refused, its target untouched, and no descriptor is left."""
    target = tmp_path / "target"
    target.write_text("precious")
    path = tmp_path / "a.log"
    make(path)
    before, names = descriptors(), sorted(os.listdir(tmp_path))
    assert FILES.open_usual(path, 100) is None
    with pytest.raises(OSError, match=text) as caught:
        FILES.open_log(path)
    assert caught.value.errno == number
    assert caught.value.filename == str(path)
    assert "remove it or choose another log_path" in str(caught.value)
    assert descriptors() == before
    assert sorted(os.listdir(tmp_path)) == names
    assert target.read_text() == "precious"


def test_fifo_with_a_reader_is_refused(tmp_path: Path) -> None:
    """L2: a FIFO is refused also when it can be opened, and its reader gets nothing."""
    path = tmp_path / "a.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        before = descriptors()
        assert FILES.open_usual(path, 100) is None
        with pytest.raises(OSError, match="is a FIFO"):
            FILES.open_log(path)
        assert descriptors() == before
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/dev/zero", "is a character device"),
        ("/dev/tty", "is a character device"),
        ("/", "is a directory"),
        ("/tmp/..", "is a directory"),
        ("/proc/self/fd/1", "is a symbolic link"),
    ],
)
def test_system_files_are_refused(path: str, text: str) -> None:
    """L2: devices, the root and links to descriptors are refused."""
    before = descriptors()
    assert FILES.open_usual(Path(path), 100) is None
    with pytest.raises(OSError, match=text):
        FILES.open_log(Path(path))
    assert descriptors() == before


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("none/a.log", FileNotFoundError),
        ("file/a.log", NotADirectoryError),
        ("x" * 300, OSError),
    ],
)
def test_failed_open_names_the_path(tmp_path: Path, name: str, error: type[OSError]) -> None:
    """L2: an error of the system keeps its type, names a path and leaves no descriptor."""
    (tmp_path / "file").write_text("")
    before = descriptors()
    assert FILES.open_usual(tmp_path / name, 100) is None
    with pytest.raises(error) as caught:
        FILES.open_log(tmp_path / name)
    assert str(caught.value.filename) in (str(tmp_path / name), str((tmp_path / name).parent))
    assert descriptors() == before


def test_a_log_in_the_root_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: it is not one of that name where the agent is."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(IsADirectoryError):
        FILES.open_log(Path("/proc"))
    assert list(tmp_path.iterdir()) == []


def test_two_make_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: one that somebody has made since the look is opened, and keeps what it has."""
    log, before = tmp_path / "a.log", os.open

    def late(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if flags & os.O_CREAT:
            log.write_text("theirs")
        return before(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", late)
    with opened(log) as target:
        os.write(target.fd, b" and mine")
    assert log.read_text() == "theirs and mine"
