"""What is generated from the source says what the source says; what the README tells people to type is what CI runs."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.shows("MO-4", "issue A8: docs")
@pytest.mark.parametrize("page", ["settings.md", "commands.md", "problems.md", "management-api.md", "modules.md"])
def test_reference_pages_are_fresh(page: str) -> None:
    """`python docs/generate.py` makes them."""
    assert (ROOT / "docs" / "reference" / page).read_text() == generator().PAGES[page]()


@pytest.mark.shows("inventory: schema")
@pytest.mark.parametrize("name", ["inventory.schema.json", "playbook.schema.json"])
def test_schemas_are_fresh(name: str) -> None:
    """`python docs/generate.py` makes them."""
    assert (ROOT / "schemas" / name).read_text() == generator().SCHEMAS[name]()


@pytest.mark.shows("MO-4")
def test_each_command_has_an_example() -> None:
    text = generator().commands_page()
    for section in text.split("\n## ")[1:]:
        assert "Example:" in section, section.partition("\n")[0]


@pytest.mark.shows("issue A9")
def test_ci_runs_the_readmes_test_command() -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- tests -->\n```sh\n(.*)\n```", readme)
    assert found is not None
    assert found[1].endswith(".venv/bin/python -m tests")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.shows("issue A8: docs")
def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)\)", page.read_text())]
    assert len(links) > 10
    lost = [f"{page.name}: {link}" for page, link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost
