"""The law of the house: who may import whom, where SQL and the environment are, how long a function may be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "scalelite"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A package: what it may import besides itself; all may import errors. `logs` formats what the processes say.
MAY_IMPORT = {
    "errors": set(),
    "logs": set(),
    "settings": set(),
    "core": set(),
    "sim": set(),
    "inventory": {"core"},
    "store": {"core"},
    "edge": {"core"},
    "flows": {"inventory", "store", "edge", "core", "settings"},
    "wiring": {"settings", "flows", "store", "edge", "core"},
    "playbook": {"flows", "inventory", "core"},
    "web": {"flows", "wiring", "settings", "core", "logs"},
    "cli": {"flows", "wiring", "settings", "core", "logs", "playbook", "inventory", "web", "sim", "store"},
    "__main__": {"cli"},
    "__init__": set(),
}
LONGEST_FUNCTION = 60
VAGUE = {"utils", "helpers", "common", "base", "manager", "misc"}


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_packages(path: Path) -> set[str]:
    """Packages of ours that a module imports, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module] if node.module != "scalelite" else [f"scalelite.{alias.name}" for alias in node.names]
        found |= {
            name.split(".")[1] for name in names if name.startswith("scalelite.") and not name.endswith("__version__")
        }
    return found


@pytest.mark.shows("issue A8: import test")
@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_inwards(path: Path) -> None:
    package = package_of(path)
    assert imported_packages(path) <= MAY_IMPORT[package] | {package, "errors"}


@pytest.mark.shows("issue A8: import test")
def test_the_law_names_every_package() -> None:
    assert {package_of(path) for path in MODULES} <= MAY_IMPORT.keys()


@pytest.mark.shows("playbooks: modules import nothing that does IO")
@pytest.mark.parametrize("path", sorted((PACKAGE / "playbook" / "modules").glob("*.py")), ids=lambda path: path.name)
def test_modules_of_playbooks_import_only_core_and_their_registry(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}
    ours = {module for module in imported if module.startswith("scalelite") and module != "scalelite.core"}
    assert {module for module in ours if not module.startswith(("scalelite.core.", "scalelite.playbook.modules"))} <= {
        "scalelite.errors",
        "scalelite.playbook.registry",
        "scalelite.playbook.values",
    }


@pytest.mark.shows("architecture: store is the only SQL")
def test_sql_is_in_the_store_alone() -> None:
    statement = re.compile(r"\b(SELECT\s+.+\s+FROM|INSERT INTO|DELETE FROM|UPDATE \w+ SET)\b", re.DOTALL)
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in MODULES
        if package_of(path) != "store"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and statement.search(node.value)
    ]
    assert not found


@pytest.mark.shows("architecture: settings is the only reader of the environment")
def test_the_environment_is_read_in_settings_alone() -> None:
    readers = [
        str(path.relative_to(PACKAGE))
        for path in MODULES
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text()) and package_of(path) != "settings"
    ]
    assert not readers


@pytest.mark.shows("style: functions")
def test_no_function_is_too_long() -> None:
    long = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    ]
    assert not long


@pytest.mark.shows("style: names")
def test_no_module_has_a_vague_name() -> None:
    assert not {path.stem for path in MODULES} & VAGUE
