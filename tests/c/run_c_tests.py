"""Compile and run each tests/c/test_*.c, linked with csrc/*.c, for all sanitizers side by side.

And each tests/fuzz/fuzz_*.c with the inputs of its corpus, so that the fuzzers stay fit for it.

    python tests/c/run_c_tests.py SANITIZER...      e.g. address,undefined thread
    CC="musl-gcc -static" python tests/c/run_c_tests.py none

CC is the compiler, gcc by default, with the options that it needs. A test is a program of its own:
exit status 0 is a pass, its output is shown when it fails.
"""

import os
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
FUZZ = HERE.parent / "fuzz"
CC = shlex.split(os.environ.get("CC", "gcc"))
TIMEOUT = 400.0  # seconds per test, for one that hangs; a busy machine takes four times as long
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-O1", "-g", "-fno-omit-frame-pointer"]


def compile_object(source: Path, flags: list[str], directory: Path) -> Path:
    target = directory / f"{source.stem}.o"
    subprocess.run([*CC, *flags, "-c", "-o", target, source], check=True)
    return target


def fixed_addresses() -> list[str]:
    """The command that turns address randomization off, where that is allowed.

    GCC 12's sanitizers find no room on a kernel that randomizes more than 28 bits.
    """
    command = ["setarch", "--addr-no-randomize"]
    allowed = subprocess.run([*command, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return command if allowed else []


def run_test(program: Path, arguments: list[Path], directory: Path) -> str:
    """Return what went wrong, "" when nothing did."""
    try:
        done = subprocess.run(
            [*fixed_addresses(), program, *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT,
        )
    except subprocess.TimeoutExpired as error:
        return f"still running after {TIMEOUT:g} s\n{(error.stdout or b'').decode()}"
    return f"exit status {done.returncode}\n{done.stdout.decode()}" if done.returncode else ""


def run_all(sanitizer: str, tests: list[Path]) -> int:
    """Return how many tests failed."""
    flags = [*FLAGS, f"-I{CSRC}", f"-I{HERE}"]
    if sanitizer != "none":
        flags += [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    sources = sorted(CSRC.glob("*.c"))
    failures = 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        directory = Path(name)
        sources += [FUZZ / "replay.c"]
        objects = list(
            pool.map(lambda source: compile_object(source, flags, directory), sources + tests)
        )
        *core, replay = objects[: len(sources)]
        # One at a time: some of them check how long something takes.
        for test, compiled in zip(tests, objects[len(sources) :], strict=True):
            program = compiled.with_suffix("")
            corpus = sorted((FUZZ / "corpus" / test.stem.removeprefix("fuzz_")).glob("*"))
            linked = [compiled, replay, *core] if corpus else [compiled, *core]
            subprocess.run([*CC, *flags, "-o", program, *linked], check=True)
            problem = run_test(program, corpus, directory)
            failures += bool(problem)
            print(f"{test.name} [{sanitizer}]: {problem or 'ok'}", flush=True)
    return failures


def main(sanitizers: list[str]) -> str | None:
    """Return the error to exit with, None when all is well."""
    tests = sorted([*HERE.glob("test_*.c"), *FUZZ.glob("fuzz_*.c")])
    if not tests or not sanitizers:
        return f"{len(tests)} tests in {HERE}, {len(sanitizers)} sanitizers: nothing to do"
    try:
        with ThreadPoolExecutor(len(sanitizers)) as pool:
            failures = sum(pool.map(lambda sanitizer: run_all(sanitizer, tests), sanitizers))
    except subprocess.CalledProcessError:
        return f"{CC[0]} failed, see above"
    return f"{failures} of {len(tests) * len(sanitizers)} C tests failed" if failures else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
