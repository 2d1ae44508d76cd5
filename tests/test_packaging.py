"""The sdist and the wheel: complete, runnable, and refused where they cannot work."""

import configparser
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DIRECTORIES = ("agentscripts", "benchmarks", "csrc", "docs", "examples", "tests", ".ci")
FILES = (
    *(
        "setup.py",
        "pyproject.toml",
        "tox.ini",
        "MANIFEST.in",
        ".clang-format",
        ".clang-tidy",
        ".gitignore",
    ),
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "constraints.txt"),
)
SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")
GENERATED = shutil.ignore_patterns(
    "__pycache__", "*.py[cod]", "*.so", "20*", ".workspace", ".troubles"
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Return the command's output; fail with it when the command does."""
    done = subprocess.run(
        command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build(source: Path, output: Path, *options: str) -> None:
    """Build as for a release, all files of one date."""
    env = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    command = (sys.executable, "-m", "build", "--no-isolation", *options, "--outdir", output)
    run(*command, cwd=source, env=env)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources alone: an old egg-info would make up for a lack in MANIFEST.in."""
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    copy.mkdir()
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    for name in DIRECTORIES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=GENERATED)
    return copy


@pytest.fixture(scope="module")
def dist(checkout: Path) -> Path:
    """The sdist, and the wheel made from it, not from the checkout."""
    output = checkout.with_name("dist")
    build(checkout, output)
    return output


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (path,) = dist.glob("*.whl")
    return path


def test_sdist_holds_every_source_file(checkout: Path, dist: Path) -> None:
    """What the checkout has, the sdist has: C sources, tests and tool settings too."""
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    sources = {
        str(path.relative_to(checkout))
        for path in checkout.rglob("*")
        if path.is_file() and not path.parent.name.endswith(".egg-info")
    }
    assert {"csrc/spawn.c", "csrc/agentscripts.h", "tests/test_packaging.py"} <= sources
    assert sources - packed == set()


def test_the_same_wheel_from_another_directory(checkout: Path, wheel: Path, tmp_path: Path) -> None:
    """Who builds it anew, elsewhere and not from the sdist, gets the same bytes."""
    copy = tmp_path / "somewhere/else"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("*.egg-info", "build", "*.so"))
    build(copy, tmp_path / "dist", "--wheel")
    (again,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(again) as other:
        for entry in one.infolist():
            assert one.read(entry) == other.read(entry.filename), entry.filename
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def test_wheel_is_for_this_python(wheel: Path) -> None:
    """Strings are made by what the stable ABI lacks, so each Python has a wheel of its own."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert re.search(rf"-{tag}-{tag}-linux_\w+\.whl$", wheel.name)


def test_wheel_holds_the_package_and_nothing_else(checkout: Path, wheel: Path) -> None:
    """Modules, type information and the core; no sources, no tests."""
    with zipfile.ZipFile(wheel) as archive:
        package = {name for name in archive.namelist() if ".dist-info/" not in name}
    python = {
        str(path.relative_to(checkout))
        for path in (checkout / "agentscripts").iterdir()
        if path.suffix in {".py", ".pyi"}
    }
    compiled = {"agentscripts/_core.abi3.so", f"agentscripts/_strings{SUFFIX}"}
    built = {*compiled, "agentscripts/py.typed"}
    template = {"agentscripts/timeline.html.jinja"}
    assert package == python | built | template


def test_installed_wheel_works(wheel: Path, tmp_path: Path) -> None:
    """In an environment that has nothing else, the core loads and runs a script."""
    environment = tmp_path / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", wheel, cwd=tmp_path)
    code = f"""
import agentscripts
from importlib.metadata import version
options = agentscripts.Options(data_dir_base={str(tmp_path)!r}, log_dir={str(tmp_path)!r})
with agentscripts.Runner(options) as runner:
    runner.init([agentscripts.Script(script="echo hello")])
    print(version("agentscripts"), agentscripts.__path__[0], runner.execute()[0].tail[0])
"""
    version, package, said = run(python, "-I", "-c", code, cwd=tmp_path).split()
    assert version in wheel.name
    assert Path(package).is_relative_to(environment)
    assert said == "hello"


def test_editable_install_puts_the_core_into_the_checkout(
    checkout: Path, dist: Path, tmp_path: Path
) -> None:
    """`pip install -e .` needs no more than the build requirements that are declared."""
    assert dist.is_dir()  # built from the same checkout, so first
    environment = tmp_path / "venv"
    venv.create(environment)
    python = environment / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "-q", "--no-deps", "--editable", checkout, cwd=tmp_path)
    # Found, not imported: its dependencies are not there.
    code = "from importlib.util import find_spec; print(find_spec('agentscripts').origin)"
    package = Path(run(python, "-I", "-c", code, cwd=tmp_path).strip()).parent
    assert package == checkout / "agentscripts"
    assert (package / "_core.abi3.so").is_file()
    assert (package / f"_strings{SUFFIX}").is_file()


@pytest.mark.parametrize(
    ("pretence", "message"),
    [
        ("sys.platform = 'win32'", "agentscripts runs on Linux only; this system is 'win32'."),
        (
            "sys.version_info, sys.version = (3, 10, 0), '3.10.0'",
            "agentscripts needs Python 3.11 or newer; this is 3.10.0.",
        ),
    ],
)
def test_setup_refuses_what_cannot_work(pretence: str, message: str) -> None:
    """Another system, or an older Python, gets one sentence."""
    code = f"import runpy, sys; {pretence}; runpy.run_path('setup.py')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message + "\n")


def test_pins() -> None:
    """Whatever is installed for work on this has one version in constraints.txt, an allowed one."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version for name, version in (one.split("==") for one in lines)
    }
    assert len(pins) == len(lines)
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    deps = [line for name in tox.sections() for line in tox[name].get("deps", "").splitlines()]
    named = [line for line in deps if line and line[0] not in "{."]
    assert {"ruff", "mypy"} <= set(named)
    for text in (*requires("agentscripts"), *build, *named):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
