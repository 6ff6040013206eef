"""export through the installed command: where it writes, for whom, and what it refuses."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.config.test_commands import CANARY, INVENTORY, Command

if TYPE_CHECKING:
    from pathlib import Path

ENVIRONMENT = {
    "SERVER_BBB1_EXAMPLE_COM_SECRET",
    "SERVER_BBB2_EXAMPLE_COM_SECRET",
    "TENANT_SCHOOL_SECRET",
    "TENANT_SCHOOL_SECRET_2",
    "TENANT_SCHOOL_LRS_PASSWORD",
}


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    command = Command(tmp_path, database)
    command.inventory(INVENTORY.replace(f"[{CANARY}]", f'[{CANARY}, "it\'s {CANARY}"]'))
    command("apply", "inv.yml", "-y")
    return command


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.mark.shows("inventory: export", "inventory: --secrets env")
def test_a_folder_gets_a_file_a_section_and_the_environment_a_private_one(scalelite: Command) -> None:
    scalelite("export", "--secrets", "env", "--env-file", "secrets.env", "-o", "out/")
    folder = scalelite.folder / "out"
    assert sorted(path.name for path in folder.iterdir()) == ["cluster.yml", "servers.yml", "tenants.yml"]
    assert mode(scalelite.folder / "secrets.env") == 0o600
    told = subprocess.run(
        ["sh", "-c", "set -a; . ./secrets.env; env -0"],
        cwd=scalelite.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    values = dict(line.split("=", 1) for line in told.split("\0") if line)
    assert values.keys() >= ENVIRONMENT
    assert values["TENANT_SCHOOL_SECRET_2"] == f"it's {CANARY}"
    before = {path: path.read_bytes() for path in folder.iterdir()}
    scalelite.environment |= {name: values[name] for name in ENVIRONMENT}
    assert "No changes. 2 servers, 1 tenant, 1 setting match" in scalelite("plan", "out").stdout
    scalelite("export", "--secrets", "env", "-o", "out")
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.shows("inventory: --secrets plain")
def test_plain_secrets_are_written_for_this_user_alone(scalelite: Command) -> None:
    (scalelite.folder / "all.yml").write_text("old")
    (scalelite.folder / "all.yml").chmod(0o644)
    scalelite("export", "--secrets", "plain", "-o", "all.yml")
    assert mode(scalelite.folder / "all.yml") == 0o600
    assert CANARY in (scalelite.folder / "all.yml").read_text()
    assert "No changes." in scalelite("plan", "all.yml").stdout
    assert [path.name for path in scalelite.folder.iterdir() if path.name.startswith(".all")] == []


@pytest.mark.shows("inventory: --secrets vault", "inventory: export")
def test_where_a_vault_password_is_configured_secrets_are_vaults(scalelite: Command) -> None:
    (scalelite.folder / "password").write_text("the vault's password")
    scalelite.environment["SCALELITE_VAULT_PASSWORD_FILE"] = "password"
    text = scalelite("export").stdout
    assert text.count("!vault |\n") == 5
    assert text == scalelite("export", "--secrets", "vault", "--vault-password-file", "password").stdout
    (scalelite.folder / "all.yml").write_text(text)
    assert "No changes. 2 servers" in scalelite("plan", "all.yml").stdout
    assert "1.2;AES256;prod" in scalelite("export", "--vault-id", "prod@password").stdout


@pytest.mark.shows("inventory: --secrets omit", "inventory: --sections", "data: hold")
def test_standard_output_holds_and_what_was_observed(scalelite: Command, database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO hold (server, state, by, why, since) VALUES"
            " ('bbb2.example.com', 'cordoned', 'ops@lb1', E'audio\n crackles', '2026-11-24 08:55+00')"
        )
        connection.execute(
            "INSERT INTO server_status (server, health, load, bbb_version)"
            " VALUES ('bbb2.example.com', 'online', 1.5, '3.0')"
        )
    assert scalelite("export", "--secrets", "omit", "--sections", "servers").stdout == (
        "# Written by scalelite export.\n"
        "servers:\n"
        "  bbb1.example.com: {}\n"
        '  # held cordoned by ops@lb1 since 2026-11-24 08:55 UTC ("audio\\n crackles"); not declared\n'
        "  bbb2.example.com:\n"
        "    load_multiplier: 2.0\n"
    )
    verbose = scalelite("export", "--secrets", "env", "--sections", "servers", "--verbose").stdout
    (scalelite.folder / "verbose.yml").write_text(verbose)
    assert (
        "    enabled: true\n    state: cordoned\n    load: 3.0\n    online: true\n    bbb_version: '3.0'\n" in verbose
    )
    scalelite.environment |= dict.fromkeys(ENVIRONMENT, CANARY)
    assert "No changes. 2 servers" in scalelite("plan", "verbose.yml").stdout


@pytest.mark.shows("inventory: export", "plan: exit statuses")
def test_what_cannot_be_meant_is_refused_before_anything_is_written(scalelite: Command) -> None:
    done = scalelite("export", status=64)
    assert all(way in done.stderr for way in ("vault", "env", "plain", "omit"))
    assert "Did you" not in done.stderr
    scalelite("export", "--secrets", "plain", "--env-file", "x", status=64)
    scalelite("export", "--secrets", "plain", "--sections", "server", status=64)
    done = scalelite("export", "--secrets", "omit", "-o", ".", status=64)
    assert "holds an inventory of its own (inv.yml)" in done.stderr
    (scalelite.folder / "own").mkdir()
    (scalelite.folder / "own" / "servers.yml").write_text("# by hand\nservers: {}\n")
    assert "(servers.yml)" in scalelite("export", "--secrets", "omit", "-o", "own/", status=64).stderr
    done = scalelite("export", "--secrets", "omit", "-o", "inv.yml/x", status=1)
    assert "inv.yml/x cannot be written: " in done.stderr
    assert sorted(path.name for path in scalelite.folder.iterdir()) == ["inv.yml", "own"]
