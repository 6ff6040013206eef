"""`scalelite` in this process, on a database of the test's own and simulated servers in a thread."""

from __future__ import annotations

import io
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from tests.golden.rake import running_servers
from tests.plan.conftest import Here

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalelite.sim import RunningServer

ENVIRONMENT = {
    "SCALELITE_ACTOR": "tester", "LOG_LEVEL": "error", "CONNECT_TIMEOUT": "1", "RESPONSE_TIMEOUT": "2",
}  # fmt: skip


@pytest.fixture(scope="session")
def running() -> Iterator[list[RunningServer]]:
    with running_servers() as servers:
        yield servers


@pytest.fixture
def servers(running: list[RunningServer]) -> list[RunningServer]:
    """Three servers as if just started."""
    for server in running:
        server.reset()
    return running


@pytest.fixture
def here(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    for name, value in {**ENVIRONMENT, "DATABASE_URL": database}.items():
        monkeypatch.setenv(name, value)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Here(tmp_path, database, monkeypatch.setenv)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def cluster(here: Here, servers: list[RunningServer]) -> Here:
    """The three servers, declared, enabled and polled; bbb1 has two meetings."""
    for server in servers:
        here.environ("SERVER_SECRET", server.secret)
        here("servers", "add", server.url, "env:SERVER_SECRET", "--id", server.name)
        here("servers", "enable", server.name)
    for name in ("room-1", "room-2"):
        servers[0].create_meeting(name, params={"moderatorPW": "pw"})
        here.sql(
            "INSERT INTO meeting (tenant, meeting_id, server, generation, voice_bridge, reservation, moderator_pw,"
            " claimed_at) SELECT id, %s, 'bbb1', nextval('claim_sequence'), %s, 0, 'pw', now() - interval '1 hour'"
            " FROM tenant",
            name, name,
        )  # fmt: skip
    here("poll", "--once")
    return here
