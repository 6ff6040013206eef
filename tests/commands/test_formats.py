"""Every command that lists, in each of its formats."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import pytest
from ruamel.yaml import YAML

from scalelite.cli import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.plan.conftest import Here

# Formats of their own, which other tests show.
OWN: Final = frozenset({"validate", "plan", "apply", "playbook run"})
INVENTORY: Final = "servers: {bbb1: {secret: s}}\ntenants: {acme: {secrets: [t], settings: {record: true}}}\n"
LISTS: Final = {
    "blame": ("server/bbb1",),
    "db status": (),
    "doctor": (),
    "drift": (),
    "history": (),
    "inventory list": ("inv.yml",),
    "inventory show": ("bbb1", "-i", "inv.yml"),
    "meetings info": ("room-1",),
    "meetings list": (),
    "playbook runs": (),
    "recordings list": (),
    "recordings prune": ("--dry-run",),
    "servers list": (),
    "servers meetings": (),
    "status": (),
    "tenant-settings list": (),
    "tenants list": (),
    "tokens list": (),
}
# What they must have something of, in a cluster with something of everything.
EMPTY: Final = frozenset({"drift", "playbook runs", "recordings list", "recordings prune"})


def commands(command: click.Command, context: click.Context, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield name, command
        return
    for below in command.list_commands(context):
        found = command.get_command(context, below)
        assert found is not None
        yield from commands(found, click.Context(found, parent=context), f"{name} {below}".strip())


@pytest.mark.shows("cli: --format")
def test_the_table_has_every_command_with_formats() -> None:
    with_formats = {
        name
        for name, command in commands(cli, click.Context(cli))
        if any("--format" in option.opts for option in command.params)
    }
    assert with_formats == LISTS.keys() | OWN


@pytest.mark.shows("cli: --format")
def test_lists_are_the_same_as_json_and_as_yaml_and_plain_in_a_pipe(cluster: Here) -> None:
    cluster.environ("URL_HOST", "localhost")
    cluster.environ("TENANT_SECRET", "t")
    cluster("tenants", "add", "acme", "env:TENANT_SECRET")
    cluster("tenant-settings", "add", "acme", "record", "true")
    cluster("tokens", "add", "ci", "--scope", "read")
    cluster.write(INVENTORY)
    wrong = []
    for name, arguments in LISTS.items():
        command = [*name.split(), *arguments, "--format"]
        values = json.loads(cluster(*command, "json").out)
        as_yaml = YAML(typ="safe").load(cluster(*command, "yaml").out)
        table = cluster(*command, "table").out
        if name == "doctor":  # its clocks go on
            values = [one["subject"] for one in values]
            as_yaml = [one["subject"] for one in as_yaml]
        elif table != cluster(*command, "text").out:
            wrong.append(f"{name}: text is another table")
        if values != as_yaml:
            wrong.append(f"{name}: {values} is {as_yaml}")
        if name not in EMPTY and not (values and table.count("\n") > 1):
            wrong.append(f"{name}: nothing is listed")
        if "\x1b" in table:
            wrong.append(f"{name}: colour in a pipe")
    assert not wrong


@pytest.mark.shows("cli: servers [list]")
@pytest.mark.parametrize("group", ["servers", "meetings", "tenants", "tenant-settings"])
def test_a_group_alone_lists(cluster: Here, group: str) -> None:
    assert cluster(group, "--format", "json").json == cluster(group, "list", "--format", "json").json
    assert cluster(group).out == cluster(group, "list").out
    assert "Example:" in cluster(group, "--help").out


@pytest.mark.shows("cli: JSON is stable and documented")
def test_the_fields_are_those_that_are_documented(cluster: Here) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "scalelite-tasks.md").read_text()
    cluster.environ("TENANT_SECRET", "t")
    cluster("tenants", "add", "acme", "env:TENANT_SECRET")
    cluster("tenant-settings", "add", "acme", "record", "true")
    cluster("tokens", "add", "ci", "--scope", "read")
    cluster.write("cluster: {name: c}\n" + INVENTORY)
    section = page.partition("## For programs")[2].partition("\n## ")[0]
    row = re.compile(r"^\| `([a-z -]+?)(?: --dry-run)?`(?:, one object)? \| `?((?:[^`|]|\\\|)+)`? \|$", re.MULTILINE)
    documented = dict(row.findall(section))
    assert documented.keys() == LISTS.keys()
    wrong = []
    for name, fields in documented.items():
        values = cluster(*name.split(), *LISTS[name], "--format", "json").json
        one = values[0] if isinstance(values, list) and values else values
        names = re.sub(r"\{.*?\}", "", fields).split()
        if one and name != "meetings info" and [*one] != names:
            wrong.append(f"{name}: {[*one]} is documented as {names}")
    assert not wrong
