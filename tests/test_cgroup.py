"""Options.cgroup: what no scan can find ends, too."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import MakeRunner, RunScript
from support import Lines, descriptors, eventually, is_alive
from test_tree import CHAIN, beats

from agentscripts import Options, Runner, RunStatus, Script

ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """An empty cgroup v2 directory that this process may write."""
    path = None
    problems = []
    for root in ROOTS:
        if not (root / "cgroup.procs").exists():
            continue
        path = root / f"agentscripts-test-{uuid.uuid4().hex}"
        try:
            path.mkdir()
            if not (path / "cgroup.kill").exists():
                path.rmdir()
                raise OSError("it has no cgroup.kill (Linux 5.14)")
            break
        except OSError as error:
            problems.append(f"{path}: {error}")
            path = None
    if path is None:
        pytest.skip(f"no cgroup v2 can be made: {problems or 'none is mounted'}")
    yield path
    (path / "cgroup.kill").write_text("1")
    for child in path.iterdir():
        if child.is_dir():
            eventually(lambda child=child: "populated 0" in (child / "cgroup.events").read_text())
            child.rmdir()
    path.rmdir()


def groups_in(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.is_dir()]


def test_a_run_has_its_group(run: RunScript, lines: Lines, cgroup: Path) -> None:
    """K2: a run is in a group of its own, which is gone afterwards, and so is its descriptor."""
    before = descriptors()
    result = run("cat /proc/self/cgroup", cgroup=cgroup)
    assert result.ok
    assert f"{cgroup.name}/agentscripts-{result.run_id}" in "".join(lines.lines)
    assert groups_in(cgroup) == []
    assert not {fd for fd, to in descriptors().items() if str(cgroup) in to} - set(before)


def test_the_group_is_no_descriptor_of_the_script(
    make_runner: MakeRunner, lines: Lines, cgroup: Path
) -> None:
    """R6: neither its own nor that of another that starts at the same time."""
    make_runner(*["ls -l /proc/$$/fd"] * 20, cgroup=cgroup).execute()
    links = [line.split()[-3] for line in lines.lines if " -> " in line]
    assert sorted(links) == sorted(["0", "1", "2"] * 20)


@pytest.mark.slow
def test_without_an_environment(run: RunScript, lines: Lines, cgroup: Path) -> None:
    """K2: a process that clears its environment, leaves the session and its parent is killed."""
    child = "trap '' HUP; echo $$; while :; do sleep 1; done"
    script = f'(env -i setsid /bin/sh -c "{child.replace("$", chr(92) + "$")}" &); sleep 300'
    result = run(Script(script=script, timeout=1.5), kill_delay=0.2, cgroup=cgroup)
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()
    assert not is_alive(int(lines.lines[0]))
    assert groups_in(cgroup) == []


@pytest.mark.parametrize("trap", [":", "trap '' HUP"])
def test_groups_in_the_group(run: RunScript, lines: Lines, cgroup: Path, trap: str) -> None:
    """K2: nor does one that the script has put into a group in the run's own, and no such group
    stays."""
    script = f"""
        inner=$(echo {cgroup}/agentscripts-*)/inner; mkdir $inner $inner/most
        echo $$ >$inner/most/cgroup.procs
        env -i setsid sh -c "{trap}; (echo up; exec sleep 300) &" </dev/null
        echo $$ >{cgroup}/cgroup.procs
        exec sleep 300
        """
    result = run(Script(script=script, timeout=1.5), kill_delay=0.2, cgroup=cgroup)
    assert lines.lines == ["up"]
    assert result.status is RunStatus.TIMED_OUT
    assert result.survivors == ()
    assert (result.duration >= 1.7) is (trap != ":")
    assert groups_in(cgroup) == []


@pytest.mark.slow
@pytest.mark.parametrize("period", [0.001, 0.01])
def test_forks_anew_all_the_time(
    run: RunScript, tmp_path: Path, cgroup: Path, period: float
) -> None:
    """K2: nor does a process escape that goes on in a new child every millisecond."""
    (tmp_path / "chain.pl").write_text(CHAIN)
    beat = tmp_path / "beat"
    chain = f"env -i perl {tmp_path}/chain.pl {period} {beat} >/dev/null 2>&1"
    result = run(Script(script=f"{chain} & sleep 300", timeout=1.5), kill_delay=0.3, cgroup=cgroup)
    assert not beats(beat)
    assert result.status is RunStatus.TIMED_OUT
    assert result.duration >= 1.8
    assert groups_in(cgroup) == []


def test_a_daemon_stays(make_runner: MakeRunner, lines: Lines, cgroup: Path) -> None:
    """K5: a normal end kills nothing in the group; it is removed once the daemon has ended."""
    runner = make_runner("sleep 300 >/dev/null 2>&1 & echo $!", cgroup=cgroup)
    assert runner.execute()[0].ok
    daemon = int(lines.lines[0])
    assert is_alive(daemon)
    os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not is_alive(daemon))
    (group,) = groups_in(cgroup)
    eventually(lambda: "populated 0" in (group / "cgroup.events").read_text())
    runner.close()
    assert groups_in(cgroup) == []


@pytest.mark.parametrize("what", ["missing", "file", "directory"])
def test_no_directory_of_groups(tmp_path: Path, what: str) -> None:
    """K2: ``init`` tells of a directory that is no writable cgroup v2 directory."""
    path = tmp_path / "cgroup"
    if what == "file":
        path.touch()
    elif what == "directory":
        path.mkdir()
    with Runner(Options(cgroup=path, data_dir_base=tmp_path, log_dir=tmp_path)) as runner:
        expected = "is no writable cgroup v2 directory, as cgroup has to be: "
        with pytest.raises(NotADirectoryError, match=f"{expected}'{path}'"):
            runner.init([Script(script="true")])


def test_no_such_group(run: RunScript, tmp_path: Path) -> None:
    """K2: a script does not start outside of its group."""
    (tmp_path / "cgroup.controllers").touch()
    result = run(f"touch {tmp_path}/started", cgroup=tmp_path)
    assert result.status is RunStatus.NOT_STARTED
    assert "cgroup.procs" in result.reason
    assert not (tmp_path / "started").exists()
