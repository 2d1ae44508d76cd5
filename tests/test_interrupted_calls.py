"""S1, S2: a signal handler may raise at any moment of the calls that run no scripts."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
from prometheus_client import CollectorRegistry
from support import Background, eventually, threads

from agentscripts import Options, Runner, Script

# Without those that start a thread: one whose Thread.start is interrupted may never begin, or stay
# where it tells that it has begun.
CALLS: dict[str, Callable[[Runner], object]] = {
    "close": lambda runner: runner.close(),
    "register_metrics": lambda runner: runner.register_metrics(CollectorRegistry()),
}


class Interrupt(KeyboardInterrupt):
    """What the handler raises."""


def interrupt(call: Callable[[], object], moment: int) -> BaseException | None:
    """Raise at one of the moments at which Python calls handlers: a function of Python's begins, or
    one of C's has returned. Return what came out of the call; ``None``: it had fewer moments."""
    left = moment

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        # What is raised in a weak reference's callback goes nowhere.
        if event in ("call", "c_return") and "weakref" not in frame.f_code.co_filename:
            left -= 1
            if left < 0:
                sys.setprofile(None)
                raise Interrupt

    gc.disable()  # what is raised in one of its callbacks goes nowhere, either
    sys.setprofile(count)
    try:
        call()
    # A Condition that was interrupted in its wait says that it is not locked.
    except (Interrupt, RuntimeError) as error:
        return error
    finally:
        sys.setprofile(None)
        gc.enable()
    return None if left >= 0 else Interrupt()  # suppressed, as what comes while a file is closed


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLS)
def test_a_close_after_an_interrupt(tmp_path: Path, name: str) -> None:
    """S1, S2: wherever a handler raises, the next close returns and leaves no thread, also while
    the exception is being handled."""
    script = Script(script="true")
    moment, error = 0, None
    while moment == 0 or error is not None:
        runner = Runner(Options(data_dir_base=tmp_path, log_dir=tmp_path))
        runner.init([script], on_complete=lambda result: None)
        error = interrupt(lambda runner=runner: CALLS[name](runner), moment)  # type: ignore[misc]
        Background(lambda runner=runner: runner.close(timeout=0)).result(10)  # type: ignore[misc]
        moment += 1
    assert moment > 10
    eventually(lambda: not [one for one in threads().values() if one.startswith("agentscripts")])
