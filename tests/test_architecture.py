"""The import order: who may use whom, read from the imports themselves."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import agentscripts

PACKAGE = Path(agentscripts.__file__).parent

# Each module imports only modules of the layers above its own; docs/architecture.md has this table.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("_coding", "_native", "_text"),
    (
        "_atexit",
        "_cancel",
        "_directories",
        "_escalation",
        "_frozen",
        "_init",
        "_lifecycle",
        "_logs",
        "_model",
        "_schedule",
        "_version",
        "_zones",
        "errors",
    ),
    (
        "_agenda",
        "_command",
        "_cron",
        "_delivery",
        "_files",
        "_order",
        "_overlap",
        "_preview",
        "_process",
        "_result",
        "_signals",
        "_supervised",
        "_validation",
    ),
    (
        "_closing",
        "_metrics",
        "_options",
        "_outcome",
        "_reports",
        "_retry",
        "_spawn",
        "_writers",
        "testing",
    ),
    ("_context", "_crontab", "_scheduler"),
    ("_launch",),
    ("_execution",),
    ("_dispatch",),
    ("_calls",),
    ("_cronruns",),
    ("_shutdown",),
    ("_runner",),
    ("__init__",),
    ("_columns",),
    ("_console", "_metricspage", "_places", "_summary"),
    ("_follow", "_interrupts", "_live", "_reminder", "_rows", "_tables", "_timeline"),
    ("_mistakes", "_report"),
    ("_manifest",),
    ("_foreground", "_parameters"),
    ("_commands",),
    ("cli",),
    ("__main__",),
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}

# They decide and hold; they start no thread, take no lock and call no kernel.
PURE = {
    "errors",
    "_agenda",
    "_cron",
    "_escalation",
    "_frozen",
    "_logs",
    "_model",
    "_options",
    "_outcome",
    "_overlap",
    "_preview",
    "_result",
    "_retry",
    "_schedule",
    "_text",
    "_validation",
    "_version",
    "_columns",
    "_manifest",
    "_mistakes",
    "_places",
    "_rows",
    "_summary",
    "_tables",
}
IMPURE_MODULES = {"threading", "subprocess", "select", "socket", "time", "_thread"}
# Only these may know of processes, threads or the core.
ONLY = {
    "agentscripts._core": {"_native", "_supervised"},
    "agentscripts._strings": {"_native"},
    "subprocess": {"_spawn"},
    "croniter": {"_cron"},
    "prometheus_client": {"_foreground", "_metrics", "_metricspage", "_runner"},
    "click": {"cli", "_commands", "_parameters"},
    "jinja2": {"_timeline"},
    "pydantic": {"_manifest", "_mistakes", "_tables", "_timeline"},
    "rich": {"_columns", "_foreground", "_live", "_rows", "_summary"},
}


def imports(name: str, *, typing: bool = True) -> set[str]:
    """Return the modules that a module imports, anywhere in it; those for types only if asked."""
    tree = ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            assert node.module is not None
            if node.module == "agentscripts":
                # A submodule, or a name of the package.
                for alias in node.names:
                    is_module = any(PACKAGE.glob(f"{alias.name}.py*"))
                    found.add(f"agentscripts.{alias.name}" if is_module else "agentscripts")
            else:
                found.add(node.module)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(tree)
    return found


def own_imports(name: str, *, typing: bool = True) -> set[str]:
    found = {one for one in imports(name, typing=typing) if one.split(".")[0] == "agentscripts"}
    return {one.partition(".")[2] or "__init__" for one in found} - {"_core", "_strings"}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def test_every_module_has_a_layer() -> None:
    """Architecture: the table names each module once, and no other."""
    assert sorted(LAYER) == modules()
    assert sum(map(len, LAYERS)) == len(LAYER)


@pytest.mark.parametrize("name", modules())
def test_imports_go_one_way(name: str) -> None:
    """Architecture: a module knows only what comes before it; for types, errors may look ahead."""
    wrong = {one for one in own_imports(name, typing=False) if LAYER[one] >= LAYER[name]}
    assert wrong == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_pure_modules(name: str) -> None:
    """Architecture: what decides has no threads, no processes and no clock."""
    assert {one.split(".")[0] for one in imports(name, typing=False)} & IMPURE_MODULES == set()


@pytest.mark.parametrize("library", sorted(ONLY))
def test_who_may_import(library: str) -> None:
    """Architecture: the core, processes and each dependency have one place."""
    users = {
        name
        for name in modules()
        if any(one == library or one.startswith(f"{library}.") for one in imports(name))
    }
    assert users <= ONLY[library]
    assert users


def test_no_module_is_two_things() -> None:
    """Architecture: a module stays under 400 lines."""
    sizes = {name: len((PACKAGE / f"{name}.py").read_text().splitlines()) for name in modules()}
    assert {name: size for name, size in sizes.items() if size >= 400} == {}
