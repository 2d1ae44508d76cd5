"""Deadlines while another thread keeps the interpreter for itself (K7)."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import run_host

PROGRAM = """
TIMEOUT, KILL = 1.0, 0.4

# It records when the stop signal comes.
(BASE / "script.pl").write_text(r'''
use Time::HiRes qw(time);
$SIG{HUP} = sub { open my $file, ">", "$ARGV[0]/stopped"; printf $file "%.6f", time; exit };
open my $ready, ">", "$ARGV[0]/ready";
close $ready;
sleep 1 while 1;
''')
# It ignores the stop signal; its last beat tells when SIGKILL came.
(BASE / "child.pl").write_text(r'''
use Time::HiRes qw(time);
use POSIX;
$SIG{HUP} = "IGNORE";
POSIX::setsid();
open my $file, ">", "$ARGV[0]/beat";
while (1) {
    sysseek $file, 0, 0;
    syswrite $file, sprintf("%.6f", time);
    select undef, undef, undef, 0.0005;
}
''')
command = f"perl {BASE}/child.pl {BASE} & exec perl {BASE}/script.pl {BASE}"
runner = make(Script(script=command, timeout=TIMEOUT), kill_delay=KILL)

def spin():
    while not (BASE / "ready").exists():
        time.sleep(0.002)
    end = time.monotonic() + TIMEOUT + KILL + 0.3  # by then both have come, or are too late
    while time.monotonic() < end:
        pass

def lateness(hog):
    for name in ("ready", "stopped", "beat"):
        (BASE / name).unlink(missing_ok=True)
    thread = threading.Thread(target=spin if hog else int)
    thread.start()
    (result,) = runner.execute(check=False)
    thread.join()
    began = result.started_at.timestamp()
    stopped, killed = (float((BASE / name).read_text()) for name in ("stopped", "beat"))
    return max(stopped - began - TIMEOUT, killed - began - TIMEOUT - KILL)

with runner:
    alone = lateness(hog=False)
    sys.setswitchinterval(10)
    say(any(lateness(hog=True) < max(alone, 0.0) + 0.02 for _ in range(10)))
"""


@pytest.mark.slow
def test_signals_under_a_hog(tmp_path: Path) -> None:
    """K7: the stop signal, and SIGKILL for a child with a session of its own, are on time.

    The machine may be busy as well: what counts is the delay against a run without a hog, at one
    try of ten.
    """
    assert run_host(tmp_path, PROGRAM) == ["True"]
