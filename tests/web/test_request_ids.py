"""What a call has logged carries its request id, so that one call's events can be told from another's."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest

from scalelite import logs

if TYPE_CHECKING:
    from tests.web.conftest import Cluster


@pytest.mark.shows("operations: logs, a request id throughout")
async def test_events_of_one_call_share_an_id_and_those_of_another_have_their_own(cluster: Cluster) -> None:
    service = await cluster.start(2)
    for server in cluster.servers:
        server.fail("status")
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    for _ in range(2):
        await service.call("getMeetings")
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    ids = [event["request"] for event in events if "left out of getMeetings" in event["message"]]
    assert (len(ids), len(set(ids))) == (4, 2)
    assert ids[0] == ids[1] != ids[2] == ids[3]
