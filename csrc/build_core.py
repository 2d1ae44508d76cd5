"""Describe the extension module `agentscripts._core` to cffi; setup.py runs this.

`agentscripts.h` is the whole boundary: the compiler includes it, cffi parses it.
AGENTSCRIPTS_SANITIZE (`address,undefined` or `thread`) asks for a sanitized build.
"""

import os
from pathlib import Path

from cffi import FFI

CSRC = Path(__file__).parent
HEADER = CSRC / "agentscripts.h"
SANITIZE = os.environ.get("AGENTSCRIPTS_SANITIZE", "")

COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-fvisibility=hidden"]
# The same file from any directory: debug information has names of files.
COMPILE += [f"-ffile-prefix-map={CSRC.parent.absolute()}=."]
COMPILE += ["-fstack-protector-strong", "-U_FORTIFY_SOURCE"]  # Debian's Python has one of its own
LINK = ["-pthread", "-Wl,-z,relro,-z,now"]
if SANITIZE:
    sanitizers = [f"-fsanitize={SANITIZE}", "-fno-sanitize-recover=all"]
    COMPILE += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG", *sanitizers]
    LINK += sanitizers
else:  # sanitizers do not intercept the fortified functions
    COMPILE += ["-O2", "-D_FORTIFY_SOURCE=3"]


def cdef(header: str) -> str:
    """Return the part of a C header that cffi parses: declarations and one-line constants.

    A constant that is more than a number is left to the compiler (`...`). Other preprocessor
    lines go, so a header must not hold a macro that continues on a second line.
    """
    kept = []
    for line in header.splitlines():
        match line.split(maxsplit=2):
            case ["#define", name, value] if name.isidentifier():
                number = value.partition("/*")[0].strip()
                kept.append(f"#define {name} {number if number.isdecimal() else '...'}")
            case [directive, *_] if directive.startswith("#"):
                pass
            case _:
                kept.append(line)
    return "\n".join(kept)


ffibuilder = FFI()
ffibuilder.cdef(cdef(HEADER.read_text(encoding="utf-8")))
ffibuilder.set_source(
    "agentscripts._core",
    f'#include "{HEADER.name}"',
    sources=sorted(str(path) for path in CSRC.glob("*.c")),
    depends=[str(path) for path in CSRC.glob("*.h")],
    include_dirs=[str(CSRC)],
    extra_compile_args=COMPILE,
    extra_link_args=LINK,
)
