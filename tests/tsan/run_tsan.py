"""Run pytest with a core that is built for TSan, in the virtual environment of this Python.

    AGENTSCRIPTS_SANITIZE=thread pip install '.[test]'
    python tests/tsan/run_tsan.py PYTEST_ARGUMENT...

TSan's runtime must be loaded before Python, and a shell that loads it crashes. So the environment
gets a command that loads it, which stands in for Python wherever a test starts one, and a
`sitecustomize` by which such a Python hands it to nobody else. A report ends its process, and so
fails the test.
"""

import os
import shlex
import stat
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMAND = Path(sys.prefix) / "bin" / "python-tsan"

SITE = f"""\
import os
import sys

if os.environ.pop("LD_PRELOAD", None):
    sys.executable = {str(COMMAND)!r}
"""


def runtime() -> str:
    command = ["gcc", "-print-file-name=libtsan.so"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: list[str]) -> None:
    if sys.prefix == sys.base_prefix:
        sys.exit(f"{sys.executable} is in no virtual environment, which this would change")
    (Path(sysconfig.get_path("purelib")) / "sitecustomize.py").write_text(SITE, encoding="utf-8")
    # Without randomization: GCC 12's TSan finds no room on a kernel with more than 28 bits of it.
    words = ["setarch", "--addr-no-randomize", "env", f"LD_PRELOAD={runtime()}", sys.executable]
    COMMAND.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', encoding="utf-8")
    COMMAND.chmod(COMMAND.stat().st_mode | stat.S_IXUSR)
    options = f"halt_on_error=1:suppressions={HERE / 'suppressions.txt'}"
    environment = {**os.environ, "TSAN_OPTIONS": options}
    os.execve(COMMAND, [str(COMMAND), "-m", "pytest", *arguments], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
