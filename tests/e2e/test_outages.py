"""Postgres away, and frozen so that it answers nothing: what callers of real processes get, and that all recovers.

In the full level 30 s of each, at the same time; else a little more than the 5 s in which memory counts by itself.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest

from tests.e2e.chaos import gate_to
from tests.e2e.replicas import declare, replica
from tests.e2e.test_faults import creates, goes_on_polling
from tests.web.conftest import DOMAIN, Answer, Cluster, Service, eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable

HELD_S: Final = 30.0 if os.environ.get("SCALELITE_TESTS") == "full" else 7.0
# Memory counts by itself for so long after the listener was last heard from, and a heartbeat.
FRESH_S: Final = 5.5
LONGEST_S: Final = 5.0
CALLBACK: Final = "https://lms.example.com/ended"
SLIDES: Final[dict[str, Any]] = {
    "method": "POST",
    "body": b"<modules><module name='presentation'/></modules>",
    "headers": {"Content-Type": "application/xml"},
}


@pytest.mark.shows("operations: Postgres away", "operations: Postgres frozen", "HA-2", "PO-12", "data: snapshots")
async def test_while_postgres_is_away_or_frozen_known_meetings_go_on_and_all_recovers(cluster: Cluster) -> None:
    await declare(cluster, 2, POLL_INTERVAL="1")
    await asyncio.gather(outage(cluster, "away"), outage(cluster, "frozen"))


async def outage(cluster: Cluster, how: Literal["away", "frozen"]) -> None:
    """One instance of the service, with a way to Postgres of its own that fails."""
    gate = await cluster.stack.enter_async_context(gate_to(cluster.conninfo))
    async with replica(cluster, conninfo=gate.conninfo) as each:
        service, below = each.service, await each.below()
        for room in ("room", "first", "second", "third"):
            assert await creates(service, f"{how}-{room}")
        if how == "away":
            await gate.shut()
        else:
            gate.freeze()
        began = asyncio.get_running_loop().time()
        await sweep(service, how, "first")
        await asyncio.sleep(FRESH_S)
        times = [await sweep(service, how, "second")]
        await asyncio.sleep(max(0, began + HELD_S - asyncio.get_running_loop().time()))
        times.append(await sweep(service, how, "third"))
        # The better of two: the machine has its own delays.
        late = {call: took for call in times[0] if (took := min(each[call] for each in times)) > LONGEST_S}
        assert not late
        if how == "away":
            await gate.open()
        else:
            gate.thaw()
        healed = asyncio.get_running_loop().time()
        await eventually(lambda: creates(service, f"{how}-after"), 30)
        print(f"{how}: new meetings {asyncio.get_running_loop().time() - healed:.1f} s after")  # noqa: T201
        assert (await service.join(f"{how}-room")).location
        assert await each.below() == below, "nobody had to be started again"
        await goes_on_polling(cluster, each)


async def sweep(service: Service, how: str, turn: str) -> dict[str, float]:
    """Make all kinds of calls at once; returns how long each took."""
    known, ended = f"{how}-room", f"{how}-{turn}"
    goes_on: dict[str, Awaitable[Answer]] = {
        "join": service.join(known),
        "isMeetingRunning": service.about("isMeetingRunning", known),
        "getMeetingInfo": service.about("getMeetingInfo", known),
        "insertDocument": service.call("insertDocument", {"meetingID": known}, **SLIDES),
        "create of a known meeting": service.create(known),
    }
    fails: dict[str, Awaitable[Answer]] = {
        "create of a new meeting": service.create(f"{known}-{turn}"),
        "create of a known meeting with a callback": service.create(known, meetingEndedURL=CALLBACK),
        "join of an unknown meeting": service.join("unknown"),
        "end": service.about("end", ended),
        "getMeetings": service.call("getMeetings"),
        "getSessions": service.call("getSessions"),
        "getRecordings": service.call("getRecordings"),
        "publishRecordings": service.call("publishRecordings", {"recordID": "a", "publish": "true"}),
    }
    others: dict[str, Awaitable[Answer]] = {
        "ready": service.send("/health/ready"),
        "live": service.send("/health/live"),
        "metrics": service.send("/metrics", host=DOMAIN),
        "a recording": service.send("/video/abc/index.html"),
        "meeting ended": service.send("/bigbluebutton/api/meeting_ended/token"),
        "management": service.send("/scalelite/api/getServers", headers={"Authorization": "Bearer x"}, host=DOMAIN),
    }
    calls = goes_on | fails | others
    answers = dict(zip(calls, await asyncio.gather(*calls.values()), strict=True))
    assert [call for call in goes_on if not (answers[call].location or answers[call].succeeded)] == []
    assert [call for call in fails if not told(answers[call])] == []
    assert [answers[call].status for call in ("ready", "live", "metrics", "a recording")] == [503, 200, 200, 503]
    return {call: answer.took_s for call, answer in answers.items()}


def told(answer: Answer) -> bool:
    """Whether it is a failure as BigBlueButton's; 503 where all that is missing is Postgres."""
    return answer.status in {200, 503} and answer.text("returncode") == "FAILED"
