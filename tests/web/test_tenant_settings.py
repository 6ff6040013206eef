"""Tenants' settings and the rotation of secrets, through the service."""

from __future__ import annotations

from urllib.parse import parse_qsl

import pytest

from scalelite.core.model import Secret
from tests.web.conftest import BAD_CHECKSUM, Cluster


@pytest.mark.shows("TS-3", "TS-1")
async def test_a_setting_goes_to_the_calls_that_it_is_for(cluster: Cluster) -> None:
    service = await cluster.start(1)
    cluster.setting("tenant1", "welcome", value="hello", calls=("create",))
    cluster.setting("tenant1", "userdata-bbb_x", value="1", calls=("join",))
    cluster.setting("tenant1", "logo", value="both", override=True)
    await cluster.apply()
    await service.create("room-1", logo="mine")
    created = cluster.last_params("create")
    assert (created["welcome"], created["logo"], created.get("userdata-bbb_x")) == ("hello", "both", None)
    joined = dict(parse_qsl((await service.join("room-1", password="x")).location.partition("?")[2]))
    assert (joined.get("welcome"), joined["logo"], joined["userdata-bbb_x"]) == (None, "both", "1")
    await service.create("room-2", tenant="tenant2")
    assert "welcome" not in cluster.servers[0].requests[-1].params


@pytest.mark.shows("SE-3", "bbb-api: previous_secret")
async def test_a_servers_secret_changes_without_a_failed_call(cluster: Cluster) -> None:
    service = await cluster.start(1)
    await service.create("room-1")
    (server,) = cluster.servers
    cluster.server(0, secret=Secret("new-secret"), previous_secret=Secret(server.secret))
    await cluster.apply()
    outcome = await cluster.poll()
    assert outcome.failed == ()
    for call in ("getMeetingInfo", "isMeetingRunning", "create"):
        assert (await service.about(call, "room-1", name="Room")).succeeded, call
    assert (await service.create("room-2")).succeeded
    assert (await service.call("getMeetings")).meeting_ids == ["room-1", "room-2"]


@pytest.mark.shows("SE-2", "bbb-api: checksum")
async def test_all_secrets_of_a_tenant_work_until_they_are_removed(cluster: Cluster) -> None:
    service = await cluster.start(1)
    old, new = "tenant1-secret", "new-secret"
    for secrets, works in (((new, old), (old, new)), ((new,), (new,))):
        cluster.tenant("tenant1", secrets=tuple(map(Secret, secrets)))
        await cluster.apply()
        for secret in (old, new):
            answer = await service.call("create", {"meetingID": "room-1", "name": "Room"}, secret=secret)
            assert answer.succeeded if secret in works else answer.failure == BAD_CHECKSUM
