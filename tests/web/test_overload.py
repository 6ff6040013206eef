"""More calls at once than can be answered: the rest is told so at once, and whom it does not concern is served."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import aiohttp
import pytest

from scalelite.edge.bbb import CALLS_PER_SERVER
from tests.web.conftest import NO_ACCESS, QUICK

if TYPE_CHECKING:
    from tests.web.conftest import Cluster


@pytest.mark.shows("operations: overload", "bbb-api: one hung server holds none of the others' time")
async def test_a_server_that_hangs_is_waited_for_by_so_many_and_the_rest_is_told_at_once(cluster: Cluster) -> None:
    service = await cluster.start(2, environment={**QUICK, "CONNECT_TIMEOUT": "1", "RESPONSE_TIMEOUT": "6"})
    for room in ("one", "two"):
        await service.create(room)
    hung, well = (cluster.hosts_of(room)[0] for room in ("one", "two"))
    assert hung is not well
    hung.fail("hang", calls=["isMeetingRunning"])
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        many = replace(service, session=session)
        calls = [many.about("isMeetingRunning", "one") for _ in range(CALLS_PER_SERVER + 50)]
        waiting = [asyncio.create_task(call) for call in calls]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        assert (await service.about("isMeetingRunning", "two")).succeeded
        answers = await asyncio.gather(*waiting)
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) == 50
    assert {answer.headers["Retry-After"] for answer in refused} == {"1"}
    assert {answer.text("returncode") for answer in refused} == {"FAILED"}
    assert {answer.failure for answer in answers if answer.status != 503} == {NO_ACCESS}
    assert max(answer.took_s for answer in refused) < min(a.took_s for a in answers if a.status != 503)
    hung.heal()
    assert (await service.about("isMeetingRunning", "one")).succeeded
