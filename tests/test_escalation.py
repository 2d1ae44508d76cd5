"""Which signal is the first, and which one the second."""

from __future__ import annotations

from agentscripts._escalation import SAME_REQUEST, Escalation, Request


def test_first_and_second() -> None:
    """R8: what comes at once after the first is the same request, what comes later the second."""
    escalation = Escalation()
    times = [5.0, 5.0001, 5 + SAME_REQUEST / 2, 5 + SAME_REQUEST * 1.1, 5.2, 9.0]
    none = Request.NONE
    found = [escalation.note(now) for now in times]
    assert found == [Request.FIRST, none, none, Request.SECOND, none, none]


def test_held_key() -> None:
    """R8: repeats that follow one another do not put the second request off."""
    escalation = Escalation()
    found = [escalation.note(step * SAME_REQUEST * 0.9) for step in range(3)]
    assert found == [Request.FIRST, Request.NONE, Request.SECOND]


def test_a_handler_above_another_one() -> None:
    """Signals: a handler that interrupts one in here finds one first request, not two."""
    escalation = Escalation()
    next(escalation._firsts)  # the other one has come so far
    assert escalation.note(5.0) is Request.NONE
