"""`scalelite inventory list|graph|show`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests import command
from tests.inventory.ansible import ansible

if TYPE_CHECKING:
    from pathlib import Path

SERVERS = """
servers:
  bbb[1:3].example.com: {secret: s3cr3t}
  big1: {secret: s3cr3t, tag: own}
groups:
  eu: {servers: ["bbb[1:2].example.com"], children: [large]}
  large: {servers: [big1], vars: {load_multiplier: 0.5, tag: large}}
tenants:
  school: {secrets: [s3cr3t], settings: {record: true}, limits: {max_users: 7}}
"""


def run(folder: Path, *arguments: str, status: int | None = 0, **environment: str) -> str:
    variables = {**os.environ, "MULTITENANCY_ENABLED": "true", **environment}
    done = command.run(arguments, folder=folder, environment=variables)
    assert status is None or done.returncode == status, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "inv" / "group_vars").mkdir(parents=True)
    (tmp_path / "inv" / "servers.yml").write_text(SERVERS)
    (tmp_path / "inv" / "group_vars" / "all.yml").write_text("max_users: 300\nzone: eu-1\n")
    return tmp_path


@pytest.mark.shows("inventory: show --explain", "issue B: inventory list|graph|show")
def test_show_explains_where_each_value_stands(folder: Path) -> None:
    shown = run(folder, "inventory", "show", "big", "-i", "inv", "--explain")
    rows = dict(line.split(None, 1) for line in shown.splitlines() if line and not line.startswith("Groups"))
    assert rows["load_multiplier"].split() == ["0.5", "inv/servers.yml:7:52"]
    assert rows["tag"].split() == ["own", "inv/servers.yml:4:31"]
    assert rows["max_users"].split() == ["300", "inv/group_vars/all.yml:1:12"]
    assert rows["max_meetings"].split() == ["0", "default"]
    assert rows["secret"].split() == ["********", "inv/servers.yml:4:18"]
    assert rows["vars.zone"].split() == ["(not", "shown)", "inv/group_vars/all.yml:2:7"]
    assert "Groups: eu, large" in shown


@pytest.mark.shows("inventory: show")
def test_show_finds_by_address_name_and_unique_beginning(folder: Path) -> None:
    tenant = json.loads(run(folder, "inventory", "show", "school", "-i", "inv", "--format", "json", "--explain"))
    assert tenant["address"] == "tenant/school"
    assert tenant["values"]["settings.record.value"] == "true"
    assert tenant["values"]["limits.max_users"] == 7
    assert tenant["places"]["limits.max_users"]["line"] == 9
    assert tenant["places"]["limits.max_meetings"] is None or tenant["places"]["limits.max_meetings"]["line"] == 9
    assert "server/bbb2.example.com" in run(folder, "inventory", "show", "bbb2", "-i", "inv", "--format", "json")
    assert "may be server/bbb1.example.com, server/bbb2" in run(
        folder, "inventory", "show", "bbb", "-i", "inv", status=64
    )
    assert "no server or tenant 'none'" in run(folder, "inventory", "show", "none", "-i", "inv", status=64)


@pytest.mark.shows("inventory: list")
def test_list_is_the_whole_inventory_as_json(folder: Path) -> None:
    text = run(folder, "inventory", "list", "-i", "inv")
    listed = json.loads(text)
    assert listed["servers"]["big1"]["load_multiplier"] == 0.5
    assert listed["servers"]["big1"]["groups"] == ["eu", "large"]
    assert listed["groups"]["eu"] == {
        "servers": ["bbb1.example.com", "bbb2.example.com", "big1"],
        "children": ["large"],
    }
    assert listed["groups"]["ungrouped"]["servers"] == ["bbb3.example.com"]
    assert listed["tenants"]["school"]["settings"]["record"]["value"] == "true"
    assert "s3cr3t" not in text


@pytest.mark.shows("inventory: graph")
def test_graph_is_drawn_as_ansible_draws_it(folder: Path) -> None:
    hosts = {
        "all": {
            "hosts": {"bbb3.example.com": None},
            "children": {
                "eu": {
                    "hosts": {"bbb[1:2].example.com": None},
                    "children": {"large": {"hosts": {"big1": None}}},
                }
            },
        }
    }
    (folder / "hosts.yml").write_text(json.dumps(hosts))
    drawn = ansible("ansible-inventory", "-i", "hosts.yml", "--graph", folder=folder).splitlines()
    assert sorted(run(folder, "inventory", "graph", "-i", "inv").splitlines()) == sorted(drawn)


@pytest.mark.shows("inventory: tenants while multitenancy is off")
def test_tenants_are_taken_with_a_warning_while_there_is_no_multitenancy(folder: Path, database: str) -> None:
    plan = ["plan", "-i", "inv"]
    off = run(folder, *plan, DATABASE_URL=database, MULTITENANCY_ENABLED="false")
    assert "warning: MULTITENANCY_ENABLED is not true" in off
    assert "MULTITENANCY" not in run(folder, *plan, DATABASE_URL=database)
