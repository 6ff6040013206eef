"""While Postgres is away a worker goes on from memory, fails cleanly where it cannot, and recovers by itself."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from scalelite.flows import tokens
from tests.web.conftest import DOMAIN, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.web.conftest import Cluster


class Gate:
    """A way to Postgres that can be shut: connections break, and new ones are refused."""

    def __init__(self, conninfo: str) -> None:
        parts = conninfo_to_dict(conninfo)
        self._path = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=self._port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def shut(self) -> None:
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        inner, outer = await asyncio.open_unix_connection(self._path)
        try:
            with suppress(asyncio.CancelledError):
                await asyncio.gather(_pump(reader, outer), _pump(inner, writer))
        finally:
            self._tasks.discard(task)
            outer.transport.abort()
            writer.transport.abort()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while content := await source.read(65536):
            target.write(content)
            await target.drain()
    target.close()


@asynccontextmanager
async def gate_to(conninfo: str) -> AsyncIterator[Gate]:
    gate = Gate(conninfo)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.shut()


@pytest.mark.shows("HA-2", "bbb-api: health, Postgres away", "PO-15")
async def test_known_meetings_go_on_creates_fail_cleanly_and_nobody_restarts(cluster: Cluster) -> None:
    await cluster.start(1)
    token = await tokens.add(cluster.connection, "t", "read", "tests")
    gate = await cluster.stack.enter_async_context(gate_to(cluster.conninfo))
    service = await cluster.serve(gate.conninfo)
    assert (await service.create("room")).succeeded
    await gate.shut()

    assert (await service.join("room")).location
    assert (await service.about("getMeetingInfo", "room")).succeeded
    refused = await service.create("new")
    assert (refused.root.tag, refused.text("returncode"), refused.took_s < 12) == ("response", "FAILED", True)
    assert "new" not in cluster.servers[0].meetings
    management = {"Authorization": f"Bearer {token}"}
    answer = await service.send("/scalelite/api/getServers", host=DOMAIN, headers=management)
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/json; charset=utf-8")
    assert (await service.send("/health/live")).status == 200
    assert (await service.send("/health/ready")).status == 503
    assert b"scalelite_database_up 0.0" in (await service.send("/metrics")).body

    await gate.open()

    async def recovered() -> bool:
        ready = (await service.send("/health/ready")).status == 200
        return ready and (await service.create("new")).succeeded

    await eventually(recovered, 30)
