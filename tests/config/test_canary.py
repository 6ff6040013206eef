"""A secret in every place where one can stand, which no output, error, traceback or saved plan ever holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from scalelite.inventory.vault import encrypt
from tests.config.test_inventory_commands import run

if TYPE_CHECKING:
    from pathlib import Path

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


@pytest.fixture
def cluster(tmp_path: Path, database: str) -> Path:
    """A folder with the inventory of above, applied, with secrets sealed in Postgres."""
    vault = encrypt(f"{CANARY}-vault", PASSWORD).replace("\n", "\n    ")
    write(tmp_path, GOOD.format(vault=vault))
    quietly(tmp_path, database, "plan", "-o", "plan.json", *INVENTORY)
    quietly(tmp_path, database, "apply", "plan.json", *OPENED)
    return tmp_path


OPENED = ["--vault-password-file", "password"]
INVENTORY = ["-i", "inv", *OPENED]
KEY = f"{CANARY}-key-of-32-characters-at-least"


def quietly(folder: Path, database: str, *words: str, status: int = 0, key: str = KEY) -> str:
    """Run a command at the most talkative, and look through all that it says and writes beside the inventory."""
    said = run(
        folder, "--debug", *words, status=status,
        CANARY=f"{CANARY}-env", DATABASE_URL=database, LOG_LEVEL="debug", SCALELITE_ENCRYPTION_KEY=key,
    )  # fmt: skip
    written = "".join(path.read_text() for path in folder.glob("*.json"))
    for secret in (CANARY, PASSWORD):
        assert secret not in (said + written).lower(), words
    assert said.strip()
    return said


@pytest.mark.shows("issue B: a canary test", "inventory: secrets at rest")
def test_no_secret_is_told_in_the_life_of_a_cluster(cluster: Path, database: str) -> None:
    inventory = cluster / "inv" / "inv.yml"
    inventory.write_text(inventory.read_text().replace(f"{CANARY}-", f"{CANARY}-new-"))
    assert "(sensitive value changed)" in quietly(cluster, database, "plan", *INVENTORY)
    quietly(cluster, database, "apply", "-y", "--message", "new secrets", *INVENTORY)
    quietly(cluster, database, "servers", "update", "bbb7", "--secret", "env:CANARY")
    assert "secret" in quietly(cluster, database, "drift", *INVENTORY)
    for style in ("text", "json"):
        for words in (["history"], ["history", "2"], ["blame", "server/bbb7"], ["blame", "tenant/t/lrs"], ["drift"]):
            quietly(cluster, database, *words, "--format", style)
    for words in (["servers"], ["tenants"], ["tenant-settings"], ["status"], ["db", "status"]):
        quietly(cluster, database, *words)
    for choice in ("omit", "env", "vault"):
        quietly(cluster, database, "export", "--secrets", choice, *OPENED)
    quietly(cluster, database, "rollback", "1", "-y", *INVENTORY)
    quietly(cluster, database, "db", "rotate-keys")
    with psycopg.connect(database) as connection:
        for table in ("server", "tenant", "version", "revision"):
            assert CANARY not in str(connection.execute(f"SELECT t::text FROM {table} t").fetchall())


@pytest.mark.shows("issue B: a canary test", "plan: never a secret in a traceback")
def test_no_secret_is_told_when_something_fails(cluster: Path, database: str) -> None:
    (cluster / "wrong").write_text("sesame")
    wrong = ["--vault-password-file", "wrong"]
    for words in (["view"], ["decrypt"], ["rekey", "--new-vault-password-file", "wrong"]):
        quietly(cluster, database, "vault", *words, *wrong, "inv/group_vars/all.yml", status=3)
    quietly(cluster, database, "vault", "encrypt", *wrong, "inv/group_vars/all.yml", status=64)
    quietly(cluster, database, "plan", "-i", "inv", *wrong, status=3)
    quietly(cluster, database, "plan", *INVENTORY, key="another key of 32 characters, too", status=1)
    quietly(cluster, f"postgresql://u:{CANARY}@127.0.0.1:1/x?password={CANARY}", "plan", *INVENTORY, status=1)
    quietly(cluster, f"postgresql://u:{CANARY}@[/{CANARY}", "plan", *INVENTORY, status=64)


@pytest.mark.shows("issue B: a canary test", "plan: database errors carry values")
@pytest.mark.parametrize("key", [KEY, ""])
def test_no_secret_is_told_when_the_database_refuses_its_row(key: str, cluster: Path, database: str) -> None:
    inventory = cluster / "inv" / "inv.yml"
    inventory.write_text(inventory.read_text().replace(f"{CANARY}-plain", f"{CANARY}-refused"))
    if not key:
        quietly(cluster, database, "db", "rotate-keys", "--to-clear")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE server ADD CHECK (id <> 'bbb1') NOT VALID")
    said = quietly(cluster, database, "apply", "-y", *INVENTORY, status=7, key=key)
    assert "Traceback" in said


@pytest.mark.shows("issue B: a canary test", "cli: done in part")
def test_no_secret_is_told_when_servers_do_not_answer(cluster: Path, database: str) -> None:
    inventory = cluster / "inv" / "inv.yml"
    (cluster / "inv" / "host_vars" / "bbb7").unlink()
    away = "url: http://127.0.0.1:1/bigbluebutton/api"
    inventory.write_text(inventory.read_text().replace("bbb1: {", f"bbb1: {{{away}, ").replace("  bbb7: {}\n", ""))
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation)"
            " SELECT id, 'm', 'bbb7', 1, '1', 15 FROM tenant WHERE name = 't'"
        )
    quietly(cluster, database, "apply", "-y", "--mode", "force", *INVENTORY)
    assert "no answer from" in quietly(cluster, database, "plan", "--refresh", *INVENTORY)
