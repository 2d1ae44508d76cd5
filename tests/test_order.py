"""Which run waits for which, without any process."""

from __future__ import annotations

import gc
import weakref

import pytest

from agentscripts import Dependency, Requires, RunStatus, Script
from agentscripts._order import Order, Verdict

OTHERS = [one for one in RunStatus if one is not RunStatus.SUCCEEDED]


def script(name: str, *on: str, requires: Requires = Requires.SUCCESS) -> Script:
    return Script(
        script="true", name=name, depends_on=tuple(Dependency(one, requires) for one in on)
    )


def after(name: str, *on: str) -> Script:
    return script(name, *on, requires=Requires.COMPLETION)


class Runs:
    """An order of scripts; a run is named by its script and its call: ``a1`` is ``a`` in call 1."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = {one.name: one for one in scripts}
        self.order: Order[str, int] = Order(scripts)
        self.warnings: list[str] = []

    def begin(self, call: int, *names: str, alone: bool = False) -> list[str]:
        """Return the runs that start, and those that are skipped as ``b1: reason``."""
        runs = [(f"{name}{call}", self.scripts[name]) for name in names]
        verdicts, self.warnings = self.order.begin(call, runs, alone=alone)
        return shown(verdicts)

    def end(self, run: str, status: RunStatus = RunStatus.SUCCEEDED) -> list[str]:
        return shown(self.order.end(run, status))


def shown(verdicts: list[Verdict[str, int]]) -> list[str]:
    return [
        f"{one.run}: {one.reason}{' (own failure)' if one.blamed else ''}"
        if one.reason
        else one.run
        for one in verdicts
    ]


def test_diamond() -> None:
    """D1: each starts when the last of its dependencies has ended, others at once."""
    runs = Runs(script("d", "b", "c"), script("b", "a"), script("c", "a"), script("a"), script("x"))
    assert runs.begin(1, "d", "b", "c", "a", "x") == ["a1", "x1"]
    assert runs.order.waits_for("d1") == ("b", "c")
    assert runs.end("x1") == []
    assert runs.end("a1") == ["b1", "c1"]
    assert runs.end("b1") == []
    assert runs.order.waits_for("d1") == ("c",)
    assert runs.end("c1") == ["d1"]
    assert runs.order.waits_for("d1") == ()


@pytest.mark.parametrize("status", OTHERS)
def test_success_is_needed(status: RunStatus) -> None:
    """D1: all but SUCCEEDED skips those that need success, and theirs; the rest starts."""
    runs = Runs(script("a"), script("b", "a"), script("c", "b"), after("d", "a"), after("e", "c"))
    assert runs.begin(1, "a", "b", "c", "d", "e") == ["a1"]
    b, d, c, e = runs.end("a1", status)
    assert b.startswith('b1: dependency "a" ')
    assert (d, c, e) == ("d1", 'c1: dependency "b" was skipped', "e1")


def test_skipped_once() -> None:
    """D1: a script with two failed dependencies is skipped for the first, without waiting."""
    runs = Runs(script("a"), script("b"), script("c", "a", "b"))
    assert runs.begin(1, "a", "b", "c") == ["a1", "b1"]
    assert runs.end("a1", RunStatus.FAILED) == ['c1: dependency "a" failed']
    assert runs.order.waits_for("c1") == ()
    assert runs.end("c1", RunStatus.SKIPPED) == []
    assert runs.end("b1", RunStatus.FAILED) == []


def test_told_again() -> None:
    """D1: an end that is told twice counts once."""
    runs = Runs(script("a"), script("b", "a"))
    runs.begin(1, "a", "b")
    assert runs.end("a1") == ["b1"]
    assert runs.end("a1", RunStatus.FAILED) == []


def test_ended_while_it_waited() -> None:
    """D1: a run that was cancelled while it waited is not started later."""
    runs = Runs(script("a"), script("b", "a"), after("c", "b"))
    runs.begin(1, "a", "b", "c")
    assert runs.end("b1", RunStatus.CANCELLED) == ["c1"]
    assert runs.end("a1") == []


def test_outside_and_running() -> None:
    """D2: a dependency that runs in another call is waited for, and a skip is then a failure."""
    runs = Runs(script("a"), script("b", "a"), script("c", "b"))
    assert runs.begin(1, "a") == ["a1"]
    assert runs.begin(2, "b", "c") == []
    assert runs.warnings == []
    assert runs.end("a1", RunStatus.FAILED) == [
        'b2: dependency "a" failed (own failure)',
        'c2: dependency "b" was skipped',
    ]


def test_outside_and_over() -> None:
    """D2: else its last result counts."""
    runs = Runs(script("a"), script("b", "a"), after("c", "a"), script("d", "b"), after("e", "d"))
    runs.begin(1, "a")
    runs.end("a1", RunStatus.TIMED_OUT)
    assert runs.begin(2, "b", "c", "d", "e") == [
        'b2: dependency "a" timed out (own failure)',
        "c2",
        'd2: dependency "b" was skipped',
        "e2",
    ]
    runs.begin(3, "a")
    runs.end("a3")
    assert runs.begin(4, "b") == ["b4"]
    assert runs.warnings == []


def test_outside_and_over_one_of_two() -> None:
    """D2: of several last results the first bad one counts, whatever comes after it."""
    runs = Runs(script("a"), script("b"), script("c"), script("d", "a", "b", "c"))
    runs.begin(1, "a", "b", "c")
    for run, status in ("a1", RunStatus.FAILED), ("b1", RunStatus.TIMED_OUT):
        runs.end(run, status)
    runs.end("c1")
    assert runs.begin(2, "d") == ['d2: dependency "a" failed (own failure)']


def test_outside_and_never() -> None:
    """D2: one that never ran is ignored, with a warning."""
    runs = Runs(script("a"), script("b", "a"))
    assert runs.begin(1, "b") == ["b1"]
    assert runs.warnings == [
        'script "b" depends on "a", which has not run and is not part of this call: it is not '
        "waited for"
    ]


def test_inside_before_outside() -> None:
    """D2: a dependency that is in the call, too, counts there only."""
    runs = Runs(script("a"), script("b", "a"))
    runs.begin(1, "a")
    assert runs.begin(2, "a", "b") == ["a2"]
    assert runs.end("a1", RunStatus.FAILED) == []
    assert runs.end("a2") == ["b2"]


def test_alone() -> None:
    """D3: a call that looks inside itself only neither waits nor warns."""
    runs = Runs(script("a"), script("b", "a"), script("c", "b"))
    runs.begin(1, "a")
    assert runs.begin(2, "b", "c", alone=True) == ["b2"]
    assert runs.warnings == []
    runs.end("a1", RunStatus.FAILED)
    assert runs.begin(3, "b", alone=True) == ["b3"]
    assert runs.end("b2", RunStatus.FAILED) == ['c2: dependency "b" failed']


def test_one_script_twice() -> None:
    """D1: all runs of a dependency are waited for."""
    runs = Runs(script("a"), script("b", "a"))
    verdicts, _ = runs.order.begin(
        1, [("first", runs.scripts["a"]), ("second", runs.scripts["a"])], alone=False
    )
    assert shown(verdicts) == ["first", "second"]
    assert runs.begin(2, "b") == []
    assert runs.end("first") == []
    assert runs.end("second") == ["b2"]


def test_long_chain_of_skips() -> None:
    """D1: 20,000 scripts in one chain need no recursion."""
    count = 20_000
    chain = [script("0"), *(script(str(one), str(one - 1)) for one in range(1, count))]
    runs = Runs(*chain)
    assert runs.begin(1, *map(str, range(count))) == ["01"]
    assert len(runs.end("01", RunStatus.FAILED)) == count - 1


class _Call:
    """A call that can be seen to be gone."""


def test_a_long_run_keeps_nothing() -> None:
    """D2: the calls that ended while they waited for a run are forgotten before it ends."""
    a, b, c = script("a"), script("b", "a"), script("c", "b")
    order: Order[str, _Call] = Order([a, b, c])
    order.begin(_Call(), [("a", a)], alone=False)
    calls = []
    for number in range(3):
        call = _Call()
        calls.append(weakref.ref(call))
        order.begin(call, [(f"b{number}", b), (f"c{number}", c)], alone=False)
        order.end(f"b{number}", RunStatus.CANCELLED)
        order.end(f"c{number}", RunStatus.SKIPPED)
        del call
    gc.collect()
    assert [one() for one in calls] == [None] * 3
    assert [one.run for one in order.end("a", RunStatus.SUCCEEDED)] == []


def test_a_skip_that_is_told_late() -> None:
    """D2: a skip counts from when it was decided; a result that came since is the last one."""
    runs = Runs(script("a"), script("b", "a"), script("c", "b"))
    runs.begin(1, "a", "b")
    runs.end("a1", RunStatus.FAILED)
    runs.begin(2, "a", "b")
    runs.end("a2")
    runs.end("b2")
    runs.end("b1", RunStatus.SKIPPED)
    assert runs.begin(3, "c") == ["c3"]


def test_two_skips_meet() -> None:
    """D1: a script that two skipped ones lead to is skipped once."""
    runs = Runs(script("a"), script("b", "a"), script("c", "a"), script("d", "b", "c"))
    runs.begin(1, "a", "b", "c", "d")
    assert [one.partition(":")[0] for one in runs.end("a1", RunStatus.FAILED)] == ["b1", "c1", "d1"]
