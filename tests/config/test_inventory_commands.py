"""`scalelite inventory list|graph|show`, and a secret in every place of an inventory, which no output ever holds."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from scalelite.inventory.vault import encrypt
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


# --- a canary in every place -----------------------------------------------------------------------------------------

CANARY = "c4n4ry"  # as short as secrets are guessed to be, and not like anything that is printed
PASSWORD = "swordfish"
GOOD = f"""
vars:
  token: {CANARY}-vars
  hidden: !vault |
    {{vault}}
  nested: {{{{key: {CANARY}-nested, list: [{CANARY}-list]}}}}
# an old secret: {CANARY}-comment
servers:
  bbb1: {{{{secret: {CANARY}-plain, previous_secret: "{{{{{{{{ token }}}}}}}}"}}}}
  bbb2: {{{{secret: "{{{{{{{{ lookup('env', 'CANARY') }}}}}}}}"}}}}
  bbb3: {{{{secret: "{{{{{{{{ lookup('file', 'secret.txt') }}}}}}}}"}}}}
  bbb4: {{{{secret: "{{{{{{{{ lookup('password_file', 'secret.txt') }}}}}}}}"}}}}
  bbb5: {{{{secret: "{{{{{{{{ hidden }}}}}}}}"}}}}
  bbb6: {{{{secret: "{{{{{{{{ from_group | upper | lower }}}}}}}}"}}}}
  bbb7: {{{{}}}}
groups: {{{{all: {{{{vars: {{{{from_inline: {CANARY}-inline}}}}}}}}}}}}
tenants:
  t:
    secrets: ["{CANARY}-tenant", "{{{{{{{{ vars.nested.key }}}}}}}}"]
    lrs:
      endpoint: https://lrs.example.com/
      oidc:
        {{{{token_url: "https://kc/", client_id: c, client_secret: {CANARY}, username: u, password: {CANARY}2}}}}
  colons: {{{{secrets: "{CANARY}-a:{CANARY}-b"}}}}
"""
# Mistakes around secrets: each of them is told, none of them with what it is about.
BAD = f"""
vars:
  a: "{{{{ '{CANARY}' + 5 }}}}"
  b: "{{{{ {CANARY} }}}}"
  c: !{CANARY} x
  c: {CANARY}
servers:
  bbb1: {{secret: 5, secret: {CANARY}-twice}}
  bbb2: {{secret: [{CANARY}-list]}}
  bbb3: {{secret: "{{{{ lookup('file', '{CANARY}') }}}}", secrt: {CANARY}-typo, tag: "{{{{ server.secret }}}}"}}
  bbb4: {{secret: "{{{{ lookup('env', '{CANARY}') }}}}", url: "https://u:{CANARY}@h/api"}}
  bbb5: {{secret: "{{{{ 1 / 0 }}}}{CANARY}"}}
  bbb6: {{secret: "{CANARY}-\\0"}}
  bbb7: {{secret: "{CANARY}", load_multiplier: -1}}  # was {CANARY}-comment
  bbb8: {{secret: !vault "{CANARY}"}}
tenants:
  t: {{secrets: [{CANARY}, 5, {{{CANARY}: {CANARY}}}], lrs: {{basic: {{username: u, password: {{x: {CANARY}}}}}}}}}
  u: {{secrets: {{{CANARY}: 1}}, settings: {{password: {CANARY}}}}}
"""
BROKEN = f"""
servers:
  bbb1: {{secret: {CANARY}-unclosed
  bbb2: {{secret: {CANARY}-after}}
  tag: gpu: {CANARY}
"""


def write(folder: Path, text: str) -> None:
    (folder / "inv").mkdir()
    (folder / "inv" / "inv.yml").write_text(text)
    (folder / "inv" / "secret.txt").write_text(f"{CANARY}-file\n")
    (folder / "inv" / "group_vars").mkdir()
    (folder / "inv" / "group_vars" / "all.yml").write_text(
        encrypt(f"from_group: {CANARY}-group\nsecret: {CANARY}-default\n", PASSWORD)
    )
    (folder / "inv" / "host_vars").mkdir()
    (folder / "inv" / "host_vars" / "bbb7").write_text(f"previous_secret: {CANARY}-host\nfree: {CANARY}-free\n")
    (folder / "password").write_text(PASSWORD)


VALIDATE = [["validate"], ["validate", "--format", "json"], ["validate", "--format", "sarif"]]
SHOW = [["inventory", "show", name, "--explain"] for name in ("t", "bbb6", "bbb7")]
COMMANDS = {
    "good": [
        ["validate"],
        ["plan"],
        ["plan", "--format", "json"],
        ["inventory", "list"],
        ["inventory", "graph"],
        *SHOW,
    ],
    "bad": [*VALIDATE, ["plan"], ["inventory", "list"]],
    "broken": [*VALIDATE, ["plan"]],
}


@pytest.mark.shows("inventory: secrets are a type of their own", "issue B: a canary test", "DE-8")
@pytest.mark.parametrize("kind", COMMANDS)
def test_no_output_holds_a_secret(kind: str, tmp_path: Path, database: str) -> None:
    vault = encrypt(f"{CANARY}-vault", PASSWORD).replace("\n", "\n    ")
    write(tmp_path, {"good": GOOD.format(vault=vault), "bad": BAD, "broken": BROKEN}[kind])
    environment = {"CANARY": f"{CANARY}-env", "DATABASE_URL": database, "LOG_LEVEL": "debug"}
    for words in COMMANDS[kind]:
        arguments = ["--debug", *words, "-i", "inv", "--vault-password-file", "password"]
        said = run(tmp_path, *arguments, status=0 if kind == "good" else 3, **environment)
        assert CANARY not in said.lower(), words
        assert PASSWORD not in said
        assert said.strip()
