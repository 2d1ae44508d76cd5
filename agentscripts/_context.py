"""What the runs of a runner share."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from agentscripts._coding import from_host
from agentscripts._command import base_environment, login_shell
from agentscripts._delivery import Delivery
from agentscripts._files import log_path_for
from agentscripts._lifecycle import OwnThreads, WaitGroup
from agentscripts._metrics import Metrics
from agentscripts._model import Script
from agentscripts._native import Census, Directories, Gate
from agentscripts._options import Options
from agentscripts._order import Order
from agentscripts._outcome import exit_text
from agentscripts._reports import Reports
from agentscripts._result import RunResult
from agentscripts._signals import WakeupPipe
from agentscripts._spawn import Spawner
from agentscripts._supervised import Rules
from agentscripts._text import escape

__all__ = ["Context", "Place"]

_GRACE: Final = 1.0  # seconds


class Place(NamedTuple):
    """Where a script's files are."""

    log_path: Path
    data_dir: Path
    directories: Directories


class Context:
    """A runner's directories, threads and descriptors; made by ``init``, thread-safe."""

    def __init__(
        self, options: Options, scripts: tuple[Script, ...], own_threads: OwnThreads
    ) -> None:
        self.own_threads: Final = own_threads
        self.options: Final = options
        self.scripts: Final = scripts
        self.reports: Reports | None = None
        self.data_dir: Final = options.data_dir_base / "coder-script-data"
        self.script_bin_dir: Final = self.data_dir / "bin"
        self.places: Final = {script.id: self._place(script) for script in scripts}
        self._data_dir_identity: Any = None  # as it was when a run last made what was missing
        self._shell: Final = options.shell or login_shell()
        self._environment: tuple[Mapping[Any, Any] | None, dict[str, str]] = (None, {})
        self.metrics: Metrics | None = None
        self.delivery: Final = Delivery(self.log, own_threads)
        self.gate: Final = Gate(os.cpu_count() or 1)
        self.ended: Final = Ended()
        self.order: Final[Order[Any, Any]] = Order(scripts)
        self._cgroups: set[Path] = set()
        if options.cgroup is not None:
            _check_cgroup(options.cgroup)
        with contextlib.ExitStack() as descriptors:
            self.census: Final = _census()
            descriptors.callback(self.census.close)
            self.spawner: Final = Spawner(die_with_parent=options.die_with_parent)
            descriptors.callback(self.spawner.close)
            self.wakeup: Final = WakeupPipe()
            descriptors.callback(self.wakeup.close)
            self.rules: Final = Rules(
                self.delivery.pool,
                self.census,
                self.spawner.starts,
                max_line=options.max_line,
                stall_timeout=options.stall_timeout,
                wait_delay=options.wait_delay,
                kill_delay=options.kill_delay,
                stop_signal=options.stop_signal,
            )
            descriptors.pop_all()  # from here on close closes them

    def _place(self, script: Script) -> Place:
        log_path = log_path_for(script, self.options.log_dir)
        data_dir = self.data_dir / str(script.log_source_id)
        return Place(log_path, data_dir, Directories(self.data_dir, self.script_bin_dir, data_dir))

    def environment(self) -> dict[str, str]:
        """Return the agent's environment as it is now, with what every script gets."""
        # os.environ codes each name and value anew at each look, 40 µs for 40 of them; the dict
        # inside tells in 1 µs that nothing has changed. What a host puts there may have none.
        current: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
        seen, environment = self._environment
        if seen != current:
            seen, environment = dict(current), base_environment(os.environ, self._shell)
            self._environment = (seen, environment)
        return environment

    def make_directories(self, place: Place) -> None:
        """Make a script's directories, which one may have removed, where they are missing."""
        if not place.directories.are_there(self._data_dir_identity):
            self.options.filesystem.make_dirs(place.data_dir, 0o700)
            self.options.filesystem.make_dirs(self.script_bin_dir, 0o700)
            self._data_dir_identity = place.directories.identity()

    def working_dirs(self, chosen: Path | None, env: Mapping[str, str]) -> list[str]:
        """Return where a script starts: what was chosen, else the home directory, else ``/``."""
        wanted = chosen or self.options.working_dir
        usual = [env.get("HOME") or "/", "/"]
        return usual if wanted is None else [from_host(str(wanted)), *usual]

    def tell_entered(self, directories: list[str], entered: int) -> None:
        """Tell the agent's log when a script does not start where it was to."""
        if entered:
            self.log(
                logging.WARNING,
                "working directory %s cannot be entered; scripts start in %s",
                directories[0],
                directories[entered],
            )

    def make_cgroup(self, parent: Path, run_id: str) -> Path:
        """Make the group of a run. Raises ``OSError``."""
        for left in tuple(self._cgroups):
            self.remove_cgroup(left)
        path = parent / f"agentscripts-{run_id}"
        path.mkdir(exist_ok=True)  # a daemon of an attempt before may still be in it
        return path

    def remove_cgroup(self, path: Path) -> None:
        """Remove a run's group; one in which a daemon goes on is tried again later."""
        try:
            for group, _, _ in os.walk(path, topdown=False):  # the script may have made some in it
                os.rmdir(group)
        except FileNotFoundError:
            self._cgroups.discard(path)
        except OSError:  # EBUSY
            self._cgroups.add(path)
        else:
            self._cgroups.discard(path)

    def log(self, level: int, message: str, *args: object, exc_info: bool = False) -> None:
        """Write to the agent's log, names harmless; a handler that raises harms no script."""
        try:
            if self.options.logger.isEnabledFor(level):
                shown = [arg if isinstance(arg, int | float) else escape(str(arg)) for arg in args]
                self.options.logger.log(level, message, *shown, exc_info=exc_info)
        # Not contextlib.suppress, which costs as much as the call.
        except (Exception, SystemExit):  # noqa: S110 - where would it be told?
            pass

    def report(self, result: RunResult, group: WaitGroup | None) -> None:
        """Tell metrics, ``on_complete`` (the group counts that call), and the agent's log."""
        if self.metrics:
            self.metrics.completed(result)
        if self.reports and group:
            self.reports.put(result, group)
        self.log(
            logging.INFO if result.ok else logging.WARNING,
            'run agent script "%s": %s (%s after %.3f s)',
            result.script.label,
            result.reason or exit_text(result.exit_code),
            result.status,
            result.duration,
        )
        if result.log_error is not None:
            self.log(
                logging.WARNING,
                'log file %s of script "%s" is incomplete: %s',
                result.log_path,
                result.script.label,
                result.log_error,
            )
        if result.lines_dropped:
            self.log(
                logging.WARNING,
                'logger of script "%s" was too slow: %d of %d lines were dropped',
                result.script.label,
                result.lines_dropped,
                result.lines,
            )

    def close(self) -> list[str]:
        """End the threads and close the descriptors; return the names of threads that are stuck.

        May be called again after one that was interrupted.
        """
        stuck = self.reports.close(self.options.flush_timeout) if self.reports else []
        # A logger that is busy now has had its flush_timeout when its run ended.
        stuck += self.delivery.close(_GRACE)
        for left in tuple(self._cgroups):
            self.remove_cgroup(left)
        for one in (self.wakeup, self.spawner, self.census):
            one.close()
        return stuck


def _census() -> Census:
    try:
        return Census()
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        problem = "is out of reach, expected a mounted proc file system"
        raise type(error)(error.errno, problem, "/proc") from None


def _check_cgroup(path: Path) -> None:
    # Each group of version 2 has that file, none of version 1 has.
    if not (os.access(path, os.W_OK) and (path / "cgroup.controllers").exists()):
        problem = "is no writable cgroup v2 directory, as cgroup has to be"
        raise NotADirectoryError(errno.ENOTDIR, problem, str(path))


class Ended:
    """Tells runs that lack a descriptor or a process that another one has ended. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._condition = threading.Condition(self._lock)
        self._running = 0
        self._ends = 0
        self._waiting = 0

    def start(self) -> int:
        """Count a run that holds descriptors and processes; return how many have ended."""
        with self._lock:
            self._running += 1
            return self._ends

    def end(self) -> None:
        """Say that it holds none any more."""
        with self._lock:
            self._running -= 1
            self._ends += 1
            if self._waiting:
                self._condition.notify_all()

    def wait_for_one(self, seen: int, timeout: float) -> int | None:
        """Wait until more than ``seen`` runs have ended, or the time passes; return how many have.

        ``None``: none has, and there is no other run but those that wait here.
        """
        with self._lock:
            if self._ends == seen and self._running == self._waiting + 1:
                return None
            self._waiting += 1
            try:
                self._condition.wait_for(lambda: self._ends != seen, timeout)
            finally:
                self._waiting -= 1
            return self._ends
