"""What the simulated servers must do so that tests of faults show what they say."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from scalelite.sim import simulate
from tests.web.conftest import eventually


@pytest.mark.shows("cli: simulate")
async def test_a_server_that_refuses_ends_its_idle_connections_and_finishes_what_it_answers() -> None:
    """Whoever kept a connection would wait for an answer else, and a refusal would look like a hang."""
    with ExitStack() as stack:
        async with simulate(1) as (server,):

            async def ask() -> asyncio.StreamReader:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.listener.port)
                stack.callback(writer.close)
                writer.write(b"GET /bigbluebutton/api HTTP/1.1\r\nHost: x\r\n\r\n")
                return reader

            async def both_asked() -> bool:
                return server.request_counts["index"] == 2

            idle = await ask()
            assert b"200 OK" in await idle.readuntil(b"</response>")
            server.fail("slow", seconds=0.3)
            busy = await ask()
            await eventually(both_asked, 5)
            server.refuse()
            assert await asyncio.wait_for(idle.read(), 5) == b""
            assert b"200 OK" in await asyncio.wait_for(busy.read(), 5)
            with pytest.raises(ConnectionRefusedError):
                await ask()
            server.accept()
            again = await ask()
            assert b"200 OK" in await again.readuntil(b"\r\n")
