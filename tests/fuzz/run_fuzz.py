"""Run the fuzzers, one after the other.

    python tests/fuzz/run_fuzz.py [--seconds N] [--keep DIRECTORY] [NAME...]

    --seconds: for each. Default: 60.
    --keep: where inputs that found something new stay, and those that fail. Default: nowhere.
    NAME: lines, queue, logfile (C, by clang's libFuzzer with ASan and UBSan), cron, manifest
        (Python, by atheris), runner (Python, by hypothesis). Default: all.

Each begins with the inputs of tests/fuzz/corpus. Exit status 0: nothing was found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
C_FUZZERS: Final = ("lines", "queue", "logfile")
PYTHON_FUZZERS: Final = ("cron", "manifest")
RUNNER: Final = "runner"
FLAGS: Final = (
    *("-std=c11", "-D_GNU_SOURCE", "-pthread", "-O1", "-g", "-fno-omit-frame-pointer"),
    *("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all"),
    *(f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests' / 'c'}"),
)


def compiled(name: str, directory: Path) -> list[str]:
    """Return the command of a fuzzer in C."""
    program = directory / f"fuzz_{name}"
    sources = [HERE / f"fuzz_{name}.c", *sorted((ROOT / "csrc").glob("*.c"))]
    subprocess.run(["clang", *FLAGS, "-o", program, *sources], check=True)
    # Clang's sanitizers find no room on a kernel that randomizes more than 28 bits.
    fixed = ["setarch", "--addr-no-randomize"]
    allowed = subprocess.run([*fixed, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return [*(fixed if allowed else []), str(program)]


def fuzz(name: str, seconds: int, directory: Path) -> int:
    """Run a libFuzzer program; return its exit status."""
    if name in C_FUZZERS:
        command = compiled(name, directory)
    else:
        command = [sys.executable, str(HERE / f"fuzz_{name}.py")]
    found = directory / name
    found.mkdir(exist_ok=True)
    return subprocess.run(
        [
            *command,
            *(f"-max_total_time={seconds}", "-max_len=4096", "-print_final_stats=1"),
            *("-verbosity=0", f"-artifact_prefix={directory}/{name}-"),
            *(str(found), str(HERE / "corpus" / name)),
        ]
    ).returncode


def fuzz_runner(seconds: int) -> int:
    """Run the stateful tests with other examples each time; return an exit status."""
    ends_at = time.monotonic() + seconds
    status = rounds = 0
    environment = {**os.environ, "AGENTSCRIPTS_EXAMPLES": "100"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=900"]
    while status == 0 and time.monotonic() < ends_at:
        test = str(ROOT / "tests" / "test_stateful.py")
        status = subprocess.run([*command, test], cwd=ROOT, env=environment).returncode
        rounds += 1
    print(f"runner: {rounds} rounds of 100 examples")
    return status


def main() -> int:
    """Return the exit status."""
    names = (*C_FUZZERS, *PYTHON_FUZZERS, RUNNER)
    parser = argparse.ArgumentParser(description="Run the fuzzers, one after the other.")
    parser.add_argument("--seconds", type=int, default=60, help="for each (default: 60)")
    parser.add_argument("--keep", type=Path, help="where the inputs that were found stay")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"no fuzzer is called {', '.join(sorted(unknown))}; names: {', '.join(names)}")
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        directory: Path = options.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        for name in options.names or names:
            began = time.monotonic()
            print(f"{name}:", flush=True)
            if name == RUNNER:
                status = fuzz_runner(options.seconds)
            else:
                status = fuzz(name, options.seconds, directory.absolute())
            took = time.monotonic() - began
            print(f"{name}: {'FAILED' if status else 'ok'} after {took:.0f} s", flush=True)
            failed += [name] if status else []
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
