"""Groups and variables beside the real `ansible-inventory`: what it makes of an inventory, we make of it, too.

Where the spec says another order than Ansible has (a server's own keys win over `host_vars`, and what stands in the
section `groups` is of the same rank as `group_vars`), the inventory is written for Ansible so that it says the same.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalelite.core.model import Kind
from scalelite.inventory.load import load_inventory
from tests.inventory.ansible import ansible

if TYPE_CHECKING:
    from pathlib import Path

    from scalelite.inventory.load import Inventory

SERVERS = [f"b{number:02}" for number in range(1, 11)]
RANGES = ["b[01:04]", "b[03:09:3]", "b[09:10]"]
GROUPS = ["red", "green", "blue", "north", "south", "east"]
KEYS = ["tag", "zone", "rack"]  # one key of servers, two free variables

Variables = dict[str, str]


class Group(NamedTuple):
    """A group as it is generated."""

    servers: list[str]
    children: list[str]
    priority: int
    inline: Variables
    file: Variables


class Generated(NamedTuple):
    """An inventory, before it is written in our form and in Ansible's."""

    groups: dict[str, Group]
    all_inline: Variables
    all_file: Variables
    ungrouped: Variables
    hosts: dict[str, Variables]
    own: dict[str, Variables]


values = st.text("abcxyz", min_size=1, max_size=6)
variables = st.dictionaries(st.sampled_from(KEYS), values, max_size=3)


@st.composite
def inventories(draw: st.DrawFn) -> Generated:
    """Generate groups that contain only groups behind them, so that there are no circles."""
    names = draw(st.permutations(GROUPS))
    groups = {
        name: Group(
            draw(st.lists(st.sampled_from([*SERVERS, *RANGES]), max_size=3, unique=True)),
            draw(st.lists(st.sampled_from(names[at + 1 :]), max_size=2, unique=True)) if at + 1 < len(names) else [],
            draw(st.sampled_from([1, 1, 2, 10])),
            draw(variables),
            draw(variables),
        )
        for at, name in enumerate(names)
    }
    some = st.dictionaries(st.sampled_from(SERVERS), variables, max_size=4)
    own = st.dictionaries(st.sampled_from(SERVERS), st.fixed_dictionaries({"tag": values}), max_size=3)
    return Generated(groups, draw(variables), draw(variables), draw(variables), draw(some), draw(own))


def written(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def ours(folder: Path, generated: Generated) -> None:
    shown = " ".join(f"{{{{ {key} | default('-') }}}}" for key in KEYS[1:])
    servers = {name: {"secret": shown, **generated.own.get(name, {})} for name in SERVERS}
    groups: dict[str, Any] = {
        name: {"servers": group.servers, "children": group.children, "priority": group.priority, "vars": group.inline}
        for name, group in generated.groups.items()
    }
    written(folder / "servers.yml", {"servers": servers, "groups": {**groups, "all": {"vars": generated.all_inline}}})
    for name, group in generated.groups.items():
        written(folder / "group_vars" / f"{name}.yml", group.file)
    written(folder / "group_vars" / "all", generated.all_file)
    written(folder / "group_vars" / "ungrouped.json", generated.ungrouped)
    for name, found in generated.hosts.items():
        written(folder / "host_vars" / f"{name}.yml", found)


def ansibles(folder: Path, generated: Generated) -> None:
    groups = {
        name: {
            "hosts": dict.fromkeys(group.servers),
            "children": dict.fromkeys(group.children),
            "vars": {"ansible_group_priority": group.priority},
        }
        for name, group in generated.groups.items()
    }
    written(folder / "hosts.yml", {"all": {"hosts": dict.fromkeys(SERVERS), "children": groups}})
    for name, group in generated.groups.items():
        written(folder / "group_vars" / name / "1.yml", group.inline)
        written(folder / "group_vars" / name / "2.yml", group.file)
    written(folder / "group_vars" / "all" / "1.yml", generated.all_inline)
    written(folder / "group_vars" / "all" / "2.yml", generated.all_file)
    written(folder / "group_vars" / "ungrouped.yml", generated.ungrouped)
    for name in SERVERS:
        written(folder / "host_vars" / name / "1.yml", generated.hosts.get(name, {}))
        written(folder / "host_vars" / name / "2.yml", generated.own.get(name, {}))


def resolved(inventory: Inventory) -> dict[str, list[str]]:
    return {
        key.name: [spec.tag or "-", *spec.secret.reveal().split(" ")]
        for key, spec in inventory.wanted.of_kind(Kind.SERVER)
    }


def members(listed: dict[str, Any], group: str) -> set[str]:
    found = listed.get(group, {})
    return {*found.get("hosts", []), *(host for child in found.get("children", []) for host in members(listed, child))}


@pytest.mark.shows("inventory: precedence", "issue B: Ansible's precedence")
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=inventories())
def test_variables_and_groups_are_those_of_ansible(tmp_path: Path, generated: Generated) -> None:
    for name, write in (("ours", ours), ("ansible", ansibles)):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        write(tmp_path / name, generated)
    folder = tmp_path / "ansible"
    listed = json.loads(ansible("ansible-inventory", "-i", "hosts.yml", "--list", folder=folder))
    inventory = load_inventory([tmp_path / "ours"], environment={})
    hosts = listed["_meta"]["hostvars"]
    assert resolved(inventory) == {name: [hosts.get(name, {}).get(key, "-") for key in KEYS] for name in SERVERS}
    for group in (*GROUPS, "all", "ungrouped"):
        assert set(inventory.groups.members[group]) == members(listed, group)
