"""The service on sealed secrets: it answers as ever, nothing is in clear, and a rotation of keys loses no call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from scalelite.store.rotation import keys_in_use, rotate
from scalelite.store.seal import Sealer
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from tests.web.conftest import Cluster, Service

OLD, NEW = "old" + "o" * 40, "new" + "n" * 40


async def use(service: Service, meeting_id: str) -> None:
    """Create a meeting twice, go into it, and ask about it."""
    assert (await service.create(meeting_id)).succeeded
    assert (await service.create(meeting_id)).key == "duplicateWarning"
    joined = await service.join(meeting_id, fullName="A", role="MODERATOR")
    assert await service.follow(joined.location) == 302
    assert (await service.about("getMeetingInfo", meeting_id)).succeeded


@pytest.mark.shows("inventory: secrets at rest")
async def test_calls_go_on_over_a_rotation_of_keys(cluster: Cluster) -> None:
    cluster.connection.sealer = Sealer([OLD])
    service = await cluster.start(environment={"SCALELITE_ENCRYPTION_KEY": f"{OLD}:{NEW}"})
    await use(service, "m1")
    assert (await keys_in_use(cluster.connection)).keys() == {Sealer([OLD]).key_id}
    await rotate(cluster.connection, Sealer([NEW]), lock_timeout_s=5)
    assert (await keys_in_use(cluster.connection)).keys() == {Sealer([NEW]).key_id}
    other = await cluster.serve(SCALELITE_ENCRYPTION_KEY=NEW)
    cluster.connection.sealer = Sealer([NEW])
    cluster.server(0, load_multiplier=2.0)
    await cluster.apply()
    for one in (service, other):
        assert (await one.create("m1")).key == "duplicateWarning"
        assert (await one.about("getMeetingInfo", "m1")).succeeded


@pytest.mark.shows("inventory: secrets at rest")
async def test_a_service_that_lacks_a_new_key_goes_on_and_follows_when_it_may(cluster: Cluster) -> None:
    cluster.connection.sealer = Sealer([OLD])
    service = await cluster.start(environment={"SCALELITE_ENCRYPTION_KEY": OLD})
    await use(service, "m1")
    await rotate(cluster.connection, Sealer([NEW]), lock_timeout_s=5)
    cluster.connection.sealer = Sealer([NEW, OLD])
    cluster.server(0, load_multiplier=2.0)
    await cluster.apply(wait=False)
    await asyncio.sleep(0.3)
    await use(service, "m2")
    await rotate(cluster.connection, Sealer([OLD]), lock_timeout_s=5)
    await eventually(lambda: follows(service, 2.0), 10)


async def follows(service: Service, load_multiplier: float) -> bool:
    """Whether the service knows the server by this multiplier."""
    servers = service.app.ctx.proxy.snapshot.declared.servers.values()
    return load_multiplier in {server.load_multiplier for server in servers}
