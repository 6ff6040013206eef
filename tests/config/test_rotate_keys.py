"""db rotate-keys and db status, through the installed command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.config.test_commands import CANARY, INVENTORY, Command

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = "o" * 32, "n" * 32


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    command = Command(tmp_path, database)
    command.inventory(INVENTORY)
    return command


@pytest.mark.shows("cli: db rotate-keys", "inventory: secrets at rest")
def test_keys_are_rotated_by_command(scalelite: Command, database: str) -> None:
    scalelite("apply", "inv.yml", "-y")
    scalelite.environment["SCALELITE_ENCRYPTION_KEY"] = OLD
    assert "4 secrets in clear" in scalelite("db", "status").stdout
    assert "4 secrets are sealed with key" in scalelite("db", "rotate-keys").stdout
    with psycopg.connect(database) as connection:
        stored = connection.execute("SELECT s::text FROM server s UNION ALL SELECT t::text FROM tenant t").fetchall()
    assert CANARY not in str(stored)
    assert "No changes." in scalelite("plan", "inv.yml").stdout

    scalelite.environment["SCALELITE_ENCRYPTION_KEY"] = NEW
    done = scalelite("plan", "inv.yml", status=1)
    assert "is sealed with key" in done.stderr
    assert "rotate-keys" in done.stderr
    scalelite("db", "rotate-keys", status=1)
    scalelite.environment["SCALELITE_ENCRYPTION_KEY"] = f"{NEW}:{OLD}"
    scalelite("db", "rotate-keys")
    scalelite.environment["SCALELITE_ENCRYPTION_KEY"] = NEW
    assert "No changes." in scalelite("plan", "inv.yml").stdout
    assert "4 secrets are in clear now." in scalelite("db", "rotate-keys", "--to-clear").stdout
    del scalelite.environment["SCALELITE_ENCRYPTION_KEY"]
    assert "No changes." in scalelite("plan", "inv.yml").stdout


@pytest.mark.shows("cli: db rotate-keys")
@pytest.mark.parametrize("key", ["", "short", f"short:{OLD}"])
def test_a_key_that_cannot_be_meant_is_an_error(scalelite: Command, key: str) -> None:
    scalelite.environment["SCALELITE_ENCRYPTION_KEY"] = key
    done = scalelite("db", "rotate-keys", status=64)
    assert "SCALELITE_ENCRYPTION_KEY" in done.stderr
    assert OLD not in done.stderr
