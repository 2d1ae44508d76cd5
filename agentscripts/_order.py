"""Which run waits for which: bookkeeping under one lock, no thread, no time."""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from agentscripts._model import Dependency, Requires, RunStatus, Script

__all__ = ["Order", "Verdict"]

_BECAME: Final = {
    RunStatus.FAILED: "failed",
    RunStatus.TIMED_OUT: "timed out",
    RunStatus.CANCELLED: "was cancelled",
    RunStatus.PIPES_OPEN: "left its output pipes open",
    RunStatus.NOT_STARTED: "was not started",
    RunStatus.SKIPPED: "was skipped",
}

Key = TypeVar("Key")
Call = TypeVar("Call")


class Verdict(NamedTuple, Generic[Key, Call]):
    """A run need not wait any longer.

    reason: why it is skipped; ``""``: it may start.
    blamed: whether it is a failure of its own, because what caused it is not in the same call.
    """

    run: Key
    call: Call
    reason: str = ""
    blamed: bool = False


class _Node(Generic[Key, Call]):
    """A run that has not ended and that has dependencies or may be one."""

    def __init__(self, run: Key, call: Call, script: Script) -> None:
        self.run = run
        self.call = call
        self.name = script.name
        self.settled = False  # it is skipped, or has ended
        self.awaits: dict[_Node[Key, Call], Requires] = {}  # what it waits for
        self.dependents: dict[_Node[Key, Call], None] = {}  # what waits for it


class Order(Generic[Key, Call]):
    """The runs of one runner that wait for others, or that others wait for. Thread-safe.

    Key: names a run, Call: the ``execute`` call that it belongs to.
    """

    def __init__(self, scripts: Iterable[Script]) -> None:
        self._wanted: Final = {one.on for script in scripts for one in script.depends_on}
        self.never_waits: Final = not self._wanted
        """Whether no script depends on another: then nobody need begin or end here."""
        self._lock = threading.Lock()  # guards all below
        self._nodes: dict[Key, _Node[Key, Call]] = {}
        self._running: dict[str, set[_Node[Key, Call]]] = collections.defaultdict(set)
        self._last: dict[str, RunStatus] = {}

    def begin(
        self, call: Call, runs: Sequence[tuple[Key, Script]], *, alone: bool
    ) -> tuple[list[Verdict[Key, Call]], list[str]]:
        """Add the runs of a call; return those that need not wait, and warnings.

        alone: only dependencies inside the call count.
        """
        verdicts: list[Verdict[Key, Call]] = []
        warnings: list[str] = []
        inside: dict[str, list[_Node[Key, Call]]] = collections.defaultdict(list)
        with self._lock:
            nodes = {
                run: _Node(run, call, script)
                for run, script in runs
                if script.depends_on or script.name in self._wanted
            }
            for node in nodes.values():
                inside[node.name].append(node)
            for run, script in runs:
                reason, found = "", nodes.get(run)
                for one in script.depends_on:
                    assert found is not None
                    awaited = inside.get(one.on) or (() if alone else self._running[one.on])
                    for dependency in awaited:
                        found.awaits[dependency] = one.requires
                        dependency.dependents[found] = None
                    if not awaited and not alone:
                        reason = reason or self._failed_before(one)
                        if one.on not in self._last:
                            warnings.append(_never_ran(script, one))
                if reason:
                    verdicts.append(Verdict(run, call, reason, blamed=True))
                elif found is None or not found.awaits:
                    verdicts.append(Verdict(run, call))
            self._nodes.update(nodes)
            for node in nodes.values():
                self._running[node.name].add(node)
            for verdict in [one for one in verdicts if one.reason]:
                self._settle(self._nodes[verdict.run], RunStatus.SKIPPED, verdicts)
        return verdicts, warnings

    def end(self, run: Key, status: RunStatus) -> list[Verdict[Key, Call]]:
        """Say how a run ended; return the runs that need not wait any longer. May be said again."""
        verdicts: list[Verdict[Key, Call]] = []
        with self._lock:
            node = self._nodes.pop(run, None)
            if node is not None and not node.settled:
                self._settle(node, status, verdicts)
        return verdicts

    def waits_for(self, run: Key) -> tuple[str, ...]:
        """Return the names of the scripts that a run waits for."""
        with self._lock:
            node = self._nodes.get(run)
            return tuple(dict.fromkeys(one.name for one in node.awaits)) if node else ()

    def _failed_before(self, one: Dependency) -> str:
        last = self._last.get(one.on, RunStatus.SUCCEEDED)
        return _reason(one.on, last) if one.requires is Requires.SUCCESS else ""

    def _settle(
        self, first: _Node[Key, Call], how: RunStatus, verdicts: list[Verdict[Key, Call]]
    ) -> None:
        """End a run, and with it those that its end skips, and theirs: a loop, for long chains."""
        ended = collections.deque([(first, how)])
        first.settled = True
        while ended:
            node, status = ended.popleft()
            self._last[node.name] = status
            self._running[node.name].discard(node)
            for dependency in node.awaits:  # it may run for days: it must not keep this one
                dependency.dependents.pop(node, None)
            node.awaits.clear()
            for dependent in node.dependents:
                requires = dependent.awaits.pop(node)
                if dependent.settled:
                    continue
                reason = _reason(node.name, status) if requires is Requires.SUCCESS else ""
                if reason:
                    blamed = node.call is not dependent.call
                    verdicts.append(Verdict(dependent.run, dependent.call, reason, blamed))
                    dependent.settled = True
                    ended.append((dependent, RunStatus.SKIPPED))
                elif not dependent.awaits:
                    verdicts.append(Verdict(dependent.run, dependent.call))


def _reason(name: str, status: RunStatus) -> str:
    """Return why those that need a script's success are skipped; ``""``: they are not."""
    became = _BECAME.get(status)
    return f'dependency "{name}" {became}' if became else ""


def _never_ran(script: Script, one: Dependency) -> str:
    return (
        f'script "{script.label}" depends on "{one.on}", which has not run and is not part of this '
        "call: it is not waited for"
    )
