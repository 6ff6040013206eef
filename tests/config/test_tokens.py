"""`scalelite tokens` through the installed command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
import pytest

from scalelite.errors import Unauthenticated
from scalelite.flows import tokens
from tests.config.test_commands import Command

if TYPE_CHECKING:
    from pathlib import Path

    from scalelite.store.db import Connection


@pytest.fixture
def scalelite(tmp_path: Path, database: str) -> Command:
    return Command(tmp_path, database)


@pytest.mark.shows("bbb-api: management API, tokens")
def test_a_token_is_shown_once_and_listed_without_itself(scalelite: Command, database: str) -> None:
    made = scalelite("tokens", "add", "ci", "--scope", "admin", "--expires", "90d").stdout.strip()
    assert made.startswith("slt_")
    assert len(made) > 40
    [listed] = json.loads(scalelite("tokens", "list", "--format", "json").stdout)
    assert (listed["name"], listed["scope"], listed["created_by"], listed["expired"]) == (
        "ci",
        "admin",
        "tester",
        False,
    )
    assert made not in scalelite("tokens", "list").stdout
    with psycopg.connect(database) as connection:
        assert made.encode() not in b"".join(row[0] for row in connection.execute("SELECT hash FROM token"))
    assert "already" in scalelite("tokens", "add", "ci", "--scope", "read", status=1).stderr
    scalelite("tokens", "remove", "ci")
    assert "no token 'ci'" in scalelite("tokens", "remove", "ci", status=1).stderr


@pytest.mark.shows("bbb-api: management API, tokens")
def test_a_wrong_time_or_scope_is_wrong_usage(scalelite: Command) -> None:
    assert "90d" in scalelite("tokens", "add", "a", "--scope", "read", "--expires", "soon", status=64).stderr
    scalelite("tokens", "add", "a", "--scope", "root", status=64)


@pytest.mark.shows("bbb-api: management API, tokens")
async def test_an_expired_removed_or_unknown_token_is_refused(connection: Connection) -> None:
    good = await tokens.add(connection, "good", "read", "t", 60)
    short = await tokens.add(connection, "short", "read", "t", 0)
    assert (await tokens.authenticate(connection, good)).name == "good"
    for token in (short, good[:-1], "", "slt_", "\udcff"):
        with pytest.raises(Unauthenticated):
            await tokens.authenticate(connection, token)
    await tokens.remove(connection, "good")
    with pytest.raises(Unauthenticated):
        await tokens.authenticate(connection, good)
