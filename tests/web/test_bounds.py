"""Bounds, hints and voice bridges of create: what stops a new meeting, what a burst may not exceed, which number."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from scalelite.core.model import Limits, SizeHint
from scalelite.core.params import voice_bridges
from scalelite.flows.create import OVER_LIMIT
from tests.web.conftest import Cluster, failed

if TYPE_CHECKING:
    from tests.web.conftest import Service

FULL = failed("serversFull", "All servers are full.")
TOO_MANY_MEETINGS = failed("maxConcurrent", "The limit of meetings at the same time is reached.")
TOO_MANY_USERS = failed("maxConcurrent", "The limit of users at the same time is reached.")


async def burst(service: Service, count: int, **params: str) -> int:
    """Create so many meetings at once; returns how many there are."""
    answers = await asyncio.gather(*(service.create(f"room-{number}", **params) for number in range(count)))
    return sum(answer.succeeded for answer in answers)


# --- bounds ----------------------------------------------------------------------------------------------------------


@pytest.mark.shows("MT-8", "inventory: limits")
async def test_a_tenants_limit_stops_new_meetings_only(cluster: Cluster) -> None:
    service = await cluster.start()
    cluster.tenant("tenant1", limits=Limits(max_meetings=2))
    await cluster.apply()
    before = OVER_LIMIT.labels("tenant1")._value.get()
    await service.create("room-1")
    await service.create("room-2")
    assert (await service.create("room-3")).failure == TOO_MANY_MEETINGS
    assert OVER_LIMIT.labels("tenant1")._value.get() == before + 1
    assert (await service.create("room-1")).key == "duplicateWarning"
    assert (await (await cluster.serve()).create("room-2")).key == "duplicateWarning"
    assert (await service.join("room-1")).status == 302
    assert (await service.create("room-3", tenant="tenant2")).succeeded
    await service.about("end", "room-1")
    assert (await service.create("room-3")).succeeded


@pytest.mark.shows("MT-8", "inventory: limits")
async def test_a_limit_of_users_counts_whom_the_poll_saw(cluster: Cluster) -> None:
    service = await cluster.start()
    cluster.tenant("tenant1", limits=Limits(max_users=3))
    await cluster.apply()
    await service.create("room-1")
    cluster.hosts_of("room-1")[0].add_users("room-1", 3)
    await service.create("room-2")
    await cluster.poll()
    assert (await service.create("room-3")).failure == TOO_MANY_USERS
    assert (await service.create("room-1")).key == "duplicateWarning"
    cluster.hosts_of("room-1")[0].remove_users("room-1", 1)
    await cluster.poll()
    assert (await service.create("room-3")).succeeded


@pytest.mark.shows("MT-8", "LB-11")
async def test_a_burst_does_not_exceed_a_limit(cluster: Cluster) -> None:
    service = await cluster.start()
    cluster.tenant("tenant1", limits=Limits(max_meetings=3))
    await cluster.apply()
    assert await burst(service, 12) == 3
    assert len(await cluster.meetings()) == 3


@pytest.mark.shows("LB-11", "bbb-api: create 3")
async def test_a_burst_does_not_exceed_the_servers_caps(cluster: Cluster) -> None:
    service = await cluster.start(2)
    for place in (0, 1):
        cluster.server(place, max_meetings=place + 1)
    await cluster.apply()
    await cluster.poll()
    assert await burst(service, 10) == 3
    assert [len(server.meetings) for server in cluster.servers] == [1, 2]
    assert (await service.create("one-more")).failure == FULL


@pytest.mark.shows("LB-11", "bbb-api: create 3")
async def test_a_server_with_as_many_users_as_it_may_have_takes_no_meeting(cluster: Cluster) -> None:
    service = await cluster.start(1)
    cluster.server(0, max_users=2)
    await cluster.apply()
    await service.create("room-1")
    cluster.servers[0].add_users("room-1", 2)
    await cluster.poll()
    assert (await service.create("room-2")).failure == FULL
    assert (await service.create("room-1")).key == "duplicateWarning"


# --- size hints ------------------------------------------------------------------------------------------------------


@pytest.mark.shows("LB-10")
@pytest.mark.parametrize(
    ("hint", "reserved"),
    [("40", 40), ("1000", 200), ("7", 15), ("", 15), ("-40", 15), ("4e9", 15), ("\u0664\u0660", 15), ("9" * 400, 200)],
)
async def test_a_size_hint_raises_the_reservation_up_to_its_cap(cluster: Cluster, hint: str, reserved: int) -> None:
    service = await cluster.start(1)
    assert (await service.create("room-1", **{"meta_size-hint": hint})).succeeded
    (row,) = await (await cluster.connection.execute("SELECT reservation FROM meeting")).fetchall()
    assert row["reservation"] == reserved


@pytest.mark.shows("LB-10")
async def test_the_size_hint_has_the_name_and_cap_that_are_declared(cluster: Cluster) -> None:
    service = await cluster.start(1)
    cluster.settings_of_all(size_hint=SizeHint(metadata="seats", cap=30))
    await cluster.apply()
    await service.create("room-1", **{"meta_seats": "50", "meta_size-hint": "100"})
    (row,) = await (await cluster.connection.execute("SELECT reservation FROM meeting")).fetchall()
    assert row["reservation"] == 30


# --- voice bridges ---------------------------------------------------------------------------------------------------


@pytest.mark.shows("DI-2", "bbb-api: voice bridge")
async def test_a_room_keeps_its_number_and_no_two_meetings_share_one(cluster: Cluster) -> None:
    service = await cluster.start(2)
    first = (await service.create("room-1")).text("voiceBridge")
    assert (len(first), first.isdigit()) == (9, True)
    assert (await service.create("room-1", tenant="tenant2")).text("voiceBridge") != first
    await service.about("end", "room-1")
    assert (await service.create("room-1", voiceBridge="12345")).text("voiceBridge") == first


@pytest.mark.shows("DI-2", "bbb-api: voice bridge")
@pytest.mark.parametrize("digits", [5, 9, 12])
def test_the_number_that_nobody_can_join_is_never_given(digits: int) -> None:
    for number in range(300):
        candidates = voice_bridges(f"room-{number}", digits, "99999")
        assert "99999" not in candidates
        assert len(set(candidates)) == len(candidates)
        assert all(len(bridge) == digits and bridge[0] != "0" for bridge in candidates)


EXTERNAL = [
    ("777123456", "777123456"),
    ("00000000000000012345", "00000000000000012345"),
    ("99999", ""),
    ("0", ""),
    ("12a45", ""),
    ("9" * 20, ""),
    ("\u0661\u0662\u0663\u0664\u0665", ""),
]


@pytest.mark.shows("DI-5", "bbb-api: voice bridge")
@pytest.mark.parametrize("how", ["tenant", "environment"])
async def test_a_calls_own_number_is_used_where_it_may_and_is_free(cluster: Cluster, how: str) -> None:
    everywhere = {"USE_EXTERNAL_VOICE_BRIDGE": "true"} if how == "environment" else {}
    service = await cluster.start(environment=everywhere)
    cluster.tenant("tenant1", external_voice_bridge=how == "tenant")
    await cluster.apply()
    for place, (asked, given) in enumerate(EXTERNAL):
        expected = given or voice_bridges(f"room-{place}", 9)[0]
        assert (await service.create(f"room-{place}", voiceBridge=asked)).text("voiceBridge") == expected
    taken = EXTERNAL[0][1]
    assert (await service.create("late", voiceBridge=taken)).text("voiceBridge") == voice_bridges("late", 9)[0]
    foreign = (await service.create("theirs", tenant="tenant2", voiceBridge="55555")).text("voiceBridge")
    assert foreign == ("55555" if how == "environment" else voice_bridges("theirs", 9)[0])


async def bridges(cluster: Cluster) -> dict[str, str]:
    """The voice bridges that Postgres has, by meeting."""
    rows = await (await cluster.connection.execute("SELECT meeting_id, voice_bridge FROM meeting")).fetchall()
    return {row["meeting_id"]: row["voice_bridge"] for row in rows}


@pytest.mark.shows("bbb-api: create 5", "requirement: nonUniqueVoiceBridge")
@pytest.mark.parametrize("taken", [1, 2])
async def test_a_number_that_is_taken_on_the_server_is_passed_over(cluster: Cluster, taken: int) -> None:
    service = await cluster.start(1)
    numbers = voice_bridges("room-1", 9)
    for number in numbers[:taken]:
        cluster.servers[0].create_meeting(f"foreign-{number}", params={"voiceBridge": number})
    answer = await service.create("room-1")
    assert answer.succeeded
    assert answer.text("voiceBridge") == numbers[taken]
    assert await bridges(cluster) == {"room-1": numbers[taken]}
    assert (await service.create("room-1")).key == "duplicateWarning"


@pytest.mark.shows("bbb-api: create 6", "CR-3", "requirement: nonUniqueVoiceBridge")
async def test_a_server_on_which_no_number_is_free_is_not_asked_for_ever(cluster: Cluster) -> None:
    service = await cluster.start(1)
    for number in voice_bridges("room-1", 9):
        cluster.servers[0].create_meeting(f"foreign-{number}", params={"voiceBridge": number})
    answer = await service.create("room-1")
    assert answer.text("errors/error/key") == "nonUniqueVoiceBridge"
    assert cluster.asked("create") == 3
    assert await cluster.meetings() == []


@pytest.mark.shows("CR-2", "requirement: nonUniqueVoiceBridge")
async def test_creates_at_once_of_one_room_agree_on_its_next_number(cluster: Cluster) -> None:
    service = await cluster.start(1)
    numbers = voice_bridges("room-1", 9)
    cluster.servers[0].create_meeting("foreign-room", params={"voiceBridge": numbers[0]})
    passwords = {"attendeePW": "ap", "moderatorPW": "mp"}
    answers = await asyncio.gather(*(service.create("room-1", **passwords) for _ in range(8)))
    assert all(answer.succeeded for answer in answers)
    assert {answer.text("voiceBridge") for answer in answers} == {numbers[1]}
    assert await bridges(cluster) == {"room-1": numbers[1]}
