"""What the runs of a runner share."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agentscripts._command import base_environment, login_shell
from agentscripts._delivery import Delivery
from agentscripts._lifecycle import WaitGroup
from agentscripts._metrics import NoMetrics
from agentscripts._model import Script
from agentscripts._native import Census, Gate
from agentscripts._options import Options
from agentscripts._reports import Reports
from agentscripts._result import RunResult

__all__ = ["Context"]


class Context:
    """A runner's directories, threads and descriptors; made by ``init``, thread-safe."""

    def __init__(self, options: Options, scripts: tuple[Script, ...], reports: Reports | None):
        self.options: Final = options
        self.scripts: Final = scripts
        self.reports: Final = reports
        self.order: Final = {script.id: index for index, script in enumerate(scripts)}
        self.data_dir: Final = options.data_dir_base / "coder-script-data"
        self.script_bin_dir: Final = self.data_dir / "bin"
        self.shell: Final = options.shell or login_shell()
        self.metrics = NoMetrics()
        self.delivery: Final = Delivery(options.logger)
        self.gate: Final = Gate(os.cpu_count() or 1)
        self.census: Final = Census()
        self.stdin: Final = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self.ended: Final = Ended()
        self._cgroups: set[Path] = set()

    def environment(self) -> dict[str, str]:
        """Return the agent's environment as it is now, with what every script gets."""
        return base_environment(os.environ, self.shell)

    def working_dir(self, chosen: Path | None, env: Mapping[str, str]) -> str:
        """Return where a script starts: what was chosen, else the home directory, else ``/``."""
        wanted = chosen or self.options.working_dir
        if wanted is not None:
            if os.path.isdir(wanted):
                return str(wanted)
            self.options.logger.warning(
                "working directory %s is no directory; scripts start in the home directory", wanted
            )
        home = env.get("HOME", "/")
        return home if os.path.isdir(home) else "/"

    def make_cgroup(self, run_id: str) -> Path | None:
        """Make the child group of a run, if ``Options.cgroup`` asks for it. Raises ``OSError``."""
        if self.options.cgroup is None:
            return None
        for left in tuple(self._cgroups):
            self.remove_cgroup(left)
        path = self.options.cgroup / f"agentscripts-{run_id}"
        path.mkdir()
        return path

    def remove_cgroup(self, path: Path) -> None:
        """Remove a run's group; one in which a daemon goes on is tried again later."""
        try:
            path.rmdir()
        except FileNotFoundError:
            self._cgroups.discard(path)
        except OSError:  # EBUSY
            self._cgroups.add(path)
        else:
            self._cgroups.discard(path)

    def report(self, result: RunResult, group: WaitGroup) -> None:
        """Hand a result to the metrics and to ``on_complete``."""
        self.metrics.completed(result)
        if self.reports:
            self.reports.put(result, group)

    def close(self, timeout: float | None) -> list[str]:
        """End the threads and close the descriptors; return the names of threads that are stuck."""
        stuck = self.reports.close(timeout) if self.reports else []
        stuck += self.delivery.close(timeout)
        for left in tuple(self._cgroups):
            self.remove_cgroup(left)
        self.census.close()
        os.close(self.stdin)
        return stuck


class Ended:
    """Tells runs that lack a descriptor or a process that another one has ended. Thread-safe."""

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._running = 0
        self._ends = 0

    def start(self) -> None:
        """Count a run that holds descriptors and processes."""
        with self._condition:
            self._running += 1

    def end(self) -> None:
        """Say that it holds none any more."""
        with self._condition:
            self._running -= 1
            self._ends += 1
            self._condition.notify_all()

    def wait_for_one(self, timeout: float) -> bool:
        """Wait until another run ends or the time passes; ``False``: no other run is there."""
        with self._condition:
            ends = self._ends
            if self._running == 0:
                return False
            self._condition.wait_for(lambda: self._ends != ends, timeout)
            return True
