"""The recipes for CI are YAML, and what they run is what the command line takes; two of them are run."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
from ruamel.yaml import YAML

from scalelite.cli import cli
from tests.plan.conftest import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plan.conftest import Here

RECIPES = Path(__file__).parents[2] / "docs" / "ci"


def commands(node: Any) -> Iterator[list[str]]:
    """Yield the words of all calls of scalelite in a recipe."""
    if isinstance(node, dict):
        for value in node.values():
            yield from commands(value)
    elif isinstance(node, list):
        for value in node:
            yield from commands(value)
    elif isinstance(node, str) and node.startswith("scalelite "):
        yield shlex.split(node.partition(" > ")[0])[1:]


def recipe(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((RECIPES / name).read_text())


@pytest.mark.shows("issue C: CI recipes")
@pytest.mark.parametrize("name", ["github.yml", "gitlab.yml"])
def test_the_commands_of_a_recipe_are_commands(name: str) -> None:
    found = list(commands(recipe(name)))
    assert {words[0] for words in found} == {"validate", "plan", "apply", "drift"}
    context = click.Context(cli, help_option_names=["-h", "--help"])
    for words in found:
        command = cli.get_command(context, words[0])
        assert command is not None
        command.make_context(words[0], words[1:], parent=context)


@pytest.mark.shows("issue C: CI recipes")
def test_a_recipe_runs_from_the_plan_to_the_drift_of_the_night(here: Here) -> None:
    folder = "inventories/production"
    here.write(f"servers:\n  bbb1: {{url: 'https://bbb1/api', secret: {CANARY}}}\n", f"{folder}/servers.yml")
    found = {words[0]: words for words in commands(recipe("gitlab.yml"))}
    for name in ("validate", "plan", "apply", "drift"):
        here(*(word.replace("$INVENTORY", folder).replace("$CI_COMMIT_TITLE", "t") for word in found[name]))
    assert here.sql("SELECT id FROM server") == [("bbb1",)]
    assert here.sql("SELECT message FROM revision") == [("t",)]
    assert "+ server bbb1" in here.read("plan.md")
