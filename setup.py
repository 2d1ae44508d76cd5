"""Build agentscripts: the metadata and the two extension modules."""

import sys

# Before setuptools is imported: elsewhere it would end in a compiler's error, not in a sentence.
if sys.platform != "linux":
    raise SystemExit(f"agentscripts runs on Linux only; this system is {sys.platform!r}.")
if sys.version_info < (3, 11):
    raise SystemExit(f"agentscripts needs Python 3.11 or newer; this is {sys.version.split()[0]}.")

import runpy
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent
PACKAGE = "agentscripts"

BENCH = [
    "apscheduler>=3.10,<4",
    "plumbum>=1.9",
    "pyperf>=2.7",
    "rich>=13",
    "sh>=2",
    "subprocess-tee>=0.4",
    "trio>=0.25",
]
CLI = ["click>=8.1", "jinja2>=3.1", "pydantic>=2", "rich>=13"]
DOCS = ["markdown-it-py>=3"]
TEST = [
    "build>=1.2",
    "cffi>=1.17",
    "hypothesis>=6.100",
    "jsonschema>=4.20",
    "packaging>=24",
    "pexpect>=4.9",
    "psleak>=0.1.6",
    "pyte>=0.8.1",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "selenium>=4.20",
    "setuptools>=77",
]


# Flags come from the environment (CFLAGS, AGENTSCRIPTS_SANITIZE), which no time stamp shows.
OPTIONS = {"build_ext": {"force": True}}
BUILD = runpy.run_path(str(ROOT / "csrc/build_core.py"))
STRINGS = Extension(
    f"{PACKAGE}._strings",
    ["csrc/python/strings.c"],
    extra_compile_args=BUILD["COMPILE"],
    extra_link_args=BUILD["LINK"],
)

setup(
    name="agentscripts",
    version=runpy.run_path(str(ROOT / PACKAGE / "_version.py"))["__version__"],
    description="Run an agent's shell scripts: recorded, bounded and cleaned up after",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="agentscripts contributors",
    license_expression="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[PACKAGE],
    package_data={PACKAGE: ["timeline.html.jinja"]},
    zip_safe=False,
    install_requires=[
        "cffi>=1.17",
        "croniter>=6.0",
        "platformdirs>=4.0",
        "prometheus-client>=0.20",
        "psutil>=5.9.6",
    ],
    extras_require={
        "cli": CLI,
        "docs": DOCS,
        "test": CLI + DOCS + TEST,
        "bench": BENCH,
        "dev": [*CLI, *DOCS, *TEST, "tox>=4.40"],
    },
    entry_points={"console_scripts": ["agentscripts = agentscripts.cli:main"]},
    cffi_modules=["csrc/build_core.py:ffibuilder"],
    ext_modules=[STRINGS],
    options=OPTIONS,
)
