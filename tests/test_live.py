"""The live view, in a terminal: what a person sees, and what is left when it is over."""

from __future__ import annotations

import array
import fcntl
import os
import shutil
import signal
import subprocess
import termios
import textwrap
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from commandline import COMMAND, OPTIONS, Terminal
from support import eventually, is_alive

pytestmark = [
    pytest.mark.slow,  # each starts a Python
    # pexpect forks; what it does in the child is C.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]

# It prints its pid, and goes on until it is told to.
_HELD = """
[[script]]
name = "held"
run_on_start = true
timeout = 600
script = '''
trap "echo stopped >stopped; exit 7" HUP
printf 'not \\033[2J this\\npid %s\\n' $$
mkfifo go
read -r word <go
'''
[[script]]
name = "next"
run_on_start = true
depends_on = ["held"]
script = "echo done"
"""
_STUBBORN = """
[[script]]
name = "stubborn"
run_on_start = true
script = '''
trap "" HUP
sleep 1000 &
echo "pid $!"
while :; do wait; done
'''
"""


def release(base: Path) -> None:
    (base / "go").write_text("on\n")


def pid_on(screen: list[str]) -> int:
    (line,) = [line for line in screen if " pid " in line]
    return int(line.rpartition(" pid ")[2])


def test_rows_then_summary(tmp_path: Path) -> None:
    """A row tells state, time, what is left of it, and the last line; then comes the summary."""
    with Terminal(tmp_path, _HELD) as terminal:
        screen = terminal.shows("held", "running", "s ", "left", "pid ")
        assert len(screen) == 2
        terminal.shows("next", "waiting", "for held")
        assert any(left in screen[0] for left in ("10m00s left", " 9m"))
        eventually(lambda: (tmp_path / "go").exists())
        release(tmp_path)
        assert terminal.finish() == 0
        lines = [line.split()[:3] for line in terminal.screen]
    assert lines[0] == ["script", "status", "exit"]
    assert lines[1:3] == [["held", "succeeded", "0"], ["next", "succeeded", "0"]]
    assert lines[3:] == [["2", "scripts", "succeeded"]]


def test_finished_rows_stay(tmp_path: Path) -> None:
    """A script that has ended keeps its row, with why it failed, while others run."""
    failing = '[[script]]\nname = "bad"\nrun_on_start = true\nscript = "echo x >&2; exit 3"\n'
    with Terminal(tmp_path, failing + _HELD) as terminal:
        terminal.shows("bad", "failed", "exit status 3")
        terminal.shows("held", "running", "pid ")
        eventually(lambda: (tmp_path / "go").exists())
        release(tmp_path)
        assert terminal.finish() == 1
        assert terminal.screen[-3:] == ["  its standard error:", "    x", terminal.screen[-1]]


def test_escapes_of_scripts_are_shown(tmp_path: Path) -> None:
    """No script can steer the terminal, neither by its lines nor by its name."""
    script = _HELD.replace("pid %s", r"\033[2Jpid %s").replace("$$", "5")
    with Terminal(tmp_path, script) as terminal:
        terminal.shows("held", "running", r"\x1b[2Jpid 5")
        terminal.sendintr()
        assert terminal.finish() == 130
    assert b"\x1b[2J" not in terminal.printed


@pytest.mark.parametrize(
    ("ask", "name", "status"),
    [(signal.SIGINT, "Ctrl-C", 130), (signal.SIGTERM, "SIGTERM", 143)],
)
def test_signal(tmp_path: Path, ask: signal.Signals, name: str, status: int) -> None:
    """R8: one signal ends the scripts, says so, and leaves the terminal as it was."""
    with Terminal(tmp_path, _HELD) as terminal:
        pid = pid_on(terminal.shows("held", "running", "pid "))
        before = termios.tcgetattr(terminal.child_fd)
        terminal.kill(ask) if ask is not signal.SIGINT else terminal.sendintr()
        terminal.shows(f"agentscripts: {name}: cancelling the scripts")
        assert terminal.finish() == status
        assert termios.tcgetattr(terminal.child_fd) == before
        screen = terminal.screen
    assert (tmp_path / "stopped").exists()
    assert not is_alive(pid)
    assert ["held", "cancelled", "7"] in [line.split()[:3] for line in screen]
    _check_left_alone(terminal.printed)


def _check_left_alone(printed: bytes) -> None:
    """Whatever was switched on is off again: the cursor is there, the colours are the old ones."""
    assert printed.count(b"\x1b[?25l") == printed.count(b"\x1b[?25h")
    assert b"\x1b[?1049" not in printed
    assert printed.rfind(b"\x1b[0m") >= max(printed.rfind(b"\x1b[1"), printed.rfind(b"\x1b[3"))


@pytest.mark.parametrize(("ask", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_second_signal_kills(tmp_path: Path, ask: signal.Signals, status: int) -> None:
    """R8: after the first signal it says what it waits for; the second one kills at once."""
    with Terminal(tmp_path, _STUBBORN, options='kill_delay = "1h"\n') as terminal:
        pid = pid_on(terminal.shows("stubborn", "running", "pid "))
        terminal.kill(ask)
        terminal.shows("stubborn", "stopping")
        terminal.shows('agentscripts: waiting for "stubborn" (pid ')
        terminal.kill(ask)
        assert terminal.finish() == status
        assert "agentscripts: killing the scripts" in terminal.screen
    assert not is_alive(pid)
    _check_left_alone(terminal.printed)


def test_terminal_that_is_stopped(tmp_path: Path) -> None:
    """A terminal that takes nothing (Ctrl-S) keeps the command until the second signal only."""
    # Nobody reads, and rows that change fill the terminal's buffer.
    noisy = "".join(
        f"""
        [[script]]
        name = "noisy {number}"
        run_on_start = true
        script = '''
        trap "trap '' HUP; sleep 0.2; echo >stopped" HUP
        while :; do i=$((i + 1)); echo $i; sleep 0.05; done
        '''
        """
        for number in range(10)
    )
    options = 'kill_delay = "1h"\n'
    with Terminal(tmp_path, noisy, options=options) as terminal:
        wait_until_full(terminal)
        terminal.kill(signal.SIGTERM)
        eventually(lambda: (tmp_path / "stopped").exists())
        terminal.kill(signal.SIGTERM)
        eventually(lambda: not is_alive(terminal.pid))  # while nobody reads
        assert terminal.finish() == 143


def unread(terminal: Terminal) -> int:
    """Return how many bytes wait for a reader of the terminal."""
    count = array.array("i", [0])
    fcntl.ioctl(terminal.child_fd, termios.FIONREAD, count)
    return count[0]


def wait_until_full(terminal: Terminal) -> None:
    """Wait until no more comes, though the rows change eight times a second."""
    before, since = -1, 0.0

    def is_full() -> bool:
        nonlocal before, since
        if (now := unread(terminal)) != before:
            before, since = now, time.monotonic()
        return bool(now) and time.monotonic() - since > 1

    eventually(is_full)


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("run", "--plain"), {}),
        (("run",), {"TERM": "dumb"}),
        (("run",), {"CI": "true"}),
        (("run",), {"AGENTSCRIPTS_PLAIN": "1"}),
    ],
)
def test_lines_where_no_view_is_wanted(
    tmp_path: Path, arguments: tuple[str, ...], env: dict[str, str]
) -> None:
    """With --plain, in CI and on a dumb terminal each line comes with its script's name."""
    script = '[[script]]\nname = "a"\nrun_on_start = true\nscript = "echo x; echo y"'
    with Terminal(tmp_path, script, *arguments, **env) as terminal:
        assert terminal.finish() == 0
        assert terminal.screen[:2] == ["a | x", "a | y"]
    assert b"\x1b[K" not in terminal.printed


def test_colours(tmp_path: Path) -> None:
    """NO_COLOR is honoured, in the rows and in the summary."""
    script = '[[script]]\nname = "a"\nrun_on_start = true\nscript = "exit 1"'
    with Terminal(tmp_path, script) as terminal:
        assert terminal.finish() == 1
        assert b"31m" in terminal.printed
    with Terminal(tmp_path, script, NO_COLOR="1") as terminal:
        assert terminal.finish() == 1
        assert b"31m" not in terminal.printed


def test_more_scripts_than_rows(tmp_path: Path) -> None:
    """Where there is no room for all, those that run stay, and the last row counts the rest."""
    held = "".join(
        f'[[script]]\nname = "held {number}"\nrun_on_start = true\n'
        f"script = 'echo ready; sleep 1000'\n"
        for number in (0, 1)
    )
    quick = "".join(
        f'[[script]]\nname = "quick {number}"\nrun_on_start = true\nscript = "true"\n'
        for number in range(30)
    )
    with Terminal(tmp_path, quick + held, size=(40, 8)) as terminal:
        screen = terminal.shows("30 of 32 ended, 2 running, 0 waiting")
        assert len(screen) == 7
        assert all(len(line) < 40 for line in screen)
        terminal.shows("held 0", "running")
        terminal.shows("held 1", "running")
        terminal.sendintr()
        assert terminal.finish() == 130


# ---- a terminal that wraps lines anew when its size changes ----


class Tmux:
    """A terminal with a shell in it."""

    def __init__(self, base: Path, columns: int, rows: int) -> None:
        self._name = f"agentscripts-{uuid.uuid4().hex}"
        size = ("-x", str(columns), "-y", str(rows))
        self._run("-f", "/dev/null", "new-session", "-d", *size, "-c", str(base), "env PS1='$ ' sh")

    def _run(self, *arguments: str) -> str:
        env = {key: value for key, value in os.environ.items() if key not in ("TMUX", "CI")}
        argv = ["tmux", "-L", self._name, *arguments]
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    def type(self, line: str) -> None:
        self._run("send-keys", line, "Enter")

    def interrupt(self) -> None:
        self._run("send-keys", "C-c")

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-x", str(columns), "-y", str(rows))

    def screen(self) -> list[str]:
        return [line.rstrip() for line in self._run("capture-pane", "-p").splitlines() if line]

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux, the terminal of this test")
    terminal = Tmux(tmp_path, 100, 24)
    yield terminal
    terminal.close()


def test_resizing(tmux: Tmux, tmp_path: Path) -> None:
    """Whatever size the terminal gets, each row is there once, on one line."""
    (tmp_path / "m.toml").write_text(OPTIONS + textwrap.dedent(_HELD))
    command = " ".join(COMMAND)
    tmux.type(f"clear; echo above; {command} run m.toml; echo 'status' $?")
    eventually(lambda: any("pid " in line for line in tmux.screen()))
    for columns, rows in (40, 24), (90, 10), (30, 6), (120, 30):
        tmux.resize(columns, rows)

        def settled(columns: int = columns) -> list[str]:
            screen = tmux.screen()
            starts = [line.split()[0] for line in screen]
            fits = all(len(line) < columns for line in screen)
            wide = columns < 60 or any("pid " in line for line in screen)
            # What was above may have been scrolled away by the terminal.
            rows_once = [start for start in starts if start != "above"] == ["held", "next"]
            return screen if rows_once and fits and wide else []

        eventually(settled, f"{columns} x {rows}")
    tmux.interrupt()
    screen = eventually(
        lambda: screen if "status 130" in (screen := tmux.screen()) else [], "the end"
    )
    assert sum(line.startswith("held") for line in screen) == 1
