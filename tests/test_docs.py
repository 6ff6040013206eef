"""What is generated from the source says what the source says; what the README tells people to type is what CI runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click
import pytest

from scalelite.cli import cli
from scalelite.sim.control import parse
from scalelite.sim.faults import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def typed() -> Iterator[str]:
    """The lines that the README and the how-tos tell people to type."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]:
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            yield from re.sub(r"\\\n\s*", " ", block).splitlines()


@pytest.mark.shows("MO-4", "issue A8: docs")
def test_what_people_are_told_to_type_are_commands_and_options() -> None:
    found = 0
    for line in typed():
        for words in re.findall(r"(?:^ *|&& |[|;] |[$][(]|bin/|=[^ ]* )scalelite ((?!-)[^|;&>#]+)", line):
            found += 1
            context, left = click.Context(cli), shlex.split(words)
            command: click.Command = cli
            while isinstance(command, click.Group) and left and not left[0].startswith("-"):
                name = left.pop(0)
                following = command.get_command(context, name)
                assert following is not None, line
                command = following
            known = {option for parameter in command.params for option in parameter.opts}
            assert {word.partition("=")[0] for word in left if word.startswith("--")} <= known | {"--help"}, line
    assert found > 25


@pytest.mark.shows("issue A7: failure knobs", "MO-4")
def test_what_people_are_told_to_send_to_simulated_servers_is_understood() -> None:
    bodies = [body for line in typed() for body in re.findall(r"-d '([^']*)' \S*/control", line)]
    assert len(bodies) > 5
    for body in bodies:
        parse(body.encode())
    page = (ROOT / "docs" / "how-to" / "rehearse.md").read_text()
    assert all(f"| `{mode}` |" in page for mode in get_args(Mode))


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
