"""What a worker remembers of meetings, and when that counts: spec/data.md."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING

import pytest

from scalelite.core import commands
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.store.specs import Author
from tests.e2e.chaos import gate_to
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from tests.web.conftest import Cluster, Service


async def move(cluster: Cluster, by: Service) -> str:
    """Have `room` placed anew through one instance, by a hold of its server; returns the new server's URL."""
    (home,) = [row[1] for row in await cluster.meetings()]
    acting = Acting(Author("ops"), uuid.uuid4)
    for server in cluster.servers:
        wish = commands.set_state(server.name, "disabled" if server.name == home else "enabled")
        await admin.change(cluster.connection, acting, wish)
    await cluster.poll()
    snapshot = by.app.ctx.proxy.snapshot

    async def known() -> bool:
        return bool(snapshot.server_state(home) == "disabled")

    await eventually(known, 5)
    assert (await by.create("room")).succeeded

    async def confirmed() -> bool:
        return [row[2] for row in await cluster.meetings()] == ["running"]

    await eventually(confirmed, 5)
    (new,) = [row[1] for row in await cluster.meetings()]
    assert new != home
    return next(server.url for server in cluster.servers if server.name == new)


@pytest.mark.shows("data: memory counts while the listener was heard from in the last 5 s", "data: snapshots")
async def test_memory_counts_only_while_the_listener_is_heard_from(cluster: Cluster) -> None:
    """The listener alone hangs: what it is not told is asked of Postgres, once it was not heard from for 5 s."""
    first = await cluster.start(3)
    gate = await cluster.stack.enter_async_context(gate_to(cluster.conninfo))
    second = await cluster.serve(LISTEN_DATABASE_URL=gate.conninfo)
    assert (await first.create("room")).succeeded
    assert (await second.join("room")).location

    async def goes_to(url: str) -> bool:
        return (await second.join("room")).location.startswith(url)

    times = []
    for _ in range(3):
        new = await move(cluster, first)
        began = asyncio.get_running_loop().time()
        await eventually(lambda new=new: goes_to(new), 10)  # type: ignore[misc]
        times.append(asyncio.get_running_loop().time() - began)
    assert min(times) < 1

    gate.freeze()
    cluster.services.remove(second)  # it is not waited for
    new = await move(cluster, first)
    assert not await goes_to(new), "it was heard from just now"
    await eventually(lambda: goes_to(new), 10)
    gate.thaw()


@pytest.mark.shows("data: absence is never remembered")
async def test_absence_is_never_remembered(cluster: Cluster) -> None:
    first = await cluster.start(2)
    second = await cluster.serve()
    for turn in range(3):
        assert (await second.about("getMeetingInfo", "room")).key == "notFound", turn
        assert (await first.create("room", moderatorPW="mp")).succeeded
        assert (await second.about("getMeetingInfo", "room")).succeeded
        assert (await first.about("end", "room", password="mp")).succeeded

        async def forgotten() -> bool:
            return (await second.join("room")).key == "notFound"

        await eventually(forgotten, 5)
