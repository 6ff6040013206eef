"""While Postgres is away a worker goes on from memory, fails cleanly where it cannot, and recovers by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalelite.flows import tokens
from tests.e2e.chaos import gate_to
from tests.web.conftest import DOMAIN, eventually

if TYPE_CHECKING:
    from tests.web.conftest import Cluster


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
