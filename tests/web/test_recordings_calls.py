"""The recordings calls over HTTP: what filters find, what edits change, and that none changes a part of its ids."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import pytest

from scalelite.flows import importer
from scalelite.flows.callbacks import deliver_due
from scalelite.sim import write_archive
from tests.recordings.conftest import environment, recorded
from tests.web.conftest import TENANTS, eventually
from tests.web.receiver import receiving
from tests.web.test_callbacks import claims

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Answer, Cluster, Service

LONG: Final = "x" * 300
# Number, meeting, metadata and state of the caller's recordings; the last is another tenant's.
MADE: Final[tuple[tuple[int, str, dict[str, str], str], ...]] = (
    (1, "room-a", {"course": "math", "term": "1", "long": LONG + "1"}, "published"),
    (2, "room-a", {"course": "math", "term": "2", "long": LONG + "2"}, "unpublished"),
    (3, "room-b", {"course": "art", "term": "1", "odd": 'a&b <c> "d" ü%_'}, "published"),
    (4, "room-b", {"course": "art%", "term": "2"}, "processed"),
    (5, "room_b", {"course": "", "Case": "Up"}, "published"),
    (6, "room-a", {"course": "math", "term": "1"}, "published"),
)
IDS: Final = {number: recorded(number).record_id for number, *_ in MADE}


async def library(cluster: Cluster, folder: Path, **variables: str) -> Service:
    """A service whose recordings are those above."""
    await cluster.start(1, environment={**environment(folder), **variables})
    rows = await (await cluster.connection.execute("SELECT name, id FROM tenant")).fetchall()
    tenants = {row["name"]: str(row["id"]) for row in rows}
    for number, meeting_id, metadata, state in MADE:
        owner = tenants["tenant2" if number == 6 else "tenant1"]
        what = recorded(number, meeting_id=meeting_id, metadata={"tenant-id": owner, **metadata}, state=state)
        write_archive(what, folder / "spool", ("podcast", "notes"))
    services = cluster.services[0].app.ctx.proxy.services
    outcomes = await importer.import_waiting(services, settled_s=-60)
    assert not [outcome for outcome in outcomes if outcome.failed or outcome.waits]
    return cluster.services[0]


def numbers(answer: Answer) -> list[int]:
    found = [str(text) for text in answer.root.xpath("recordings/recording/recordID/text()")]
    return [number for record_id in found for number, known in IDS.items() if known == record_id]


def metadata_of(answer: Answer) -> dict[str, str]:
    return {str(node.tag): node.text or "" for node in answer.root.xpath("recordings/recording[1]/metadata/*")}


def files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*") if path.is_file())


@pytest.mark.shows("recordings: getRecordings", "MT-4", "bbb-api: recordings")
async def test_filters_find_what_matches_all_of_them_newest_first(cluster: Cluster, tmp_path: Path) -> None:
    service = await library(cluster, tmp_path)
    everything: dict[str, str] = {"state": "any"}
    for params, wanted in (
        ({}, [5, 3, 2, 1]),
        (everything, [5, 4, 3, 2, 1]),
        ({"state": "unpublished"}, [2]),
        ({"state": "unpublished,processed"}, [4, 2]),
        ({"state": "published,any"}, [5, 4, 3, 2, 1]),
        ({"state": "deleted"}, []),
        ({"meetingID": "room-a"}, [2, 1]),
        ({"meetingID": "room-a,room-b,"}, [3, 2, 1]),
        ({"meetingID": "room"}, []),
        ({"meetingID": ""}, [5, 3, 2, 1]),
        ({"recordID": IDS[3]}, [3]),
        ({"recordID": f"{IDS[3]},{IDS[1]}"}, [3, 1]),
        ({"recordID": f"{IDS[3]},{IDS[3][:40]}"}, [3]),
        ({"recordID": IDS[3][:40]}, [3]),
        ({"recordID": "0" * 39}, [5, 3, 2, 1]),
        ({"recordID": IDS[6]}, []),
        ({"recordID": IDS[3], "meetingID": "room-a"}, [3]),
        ({"recordID": IDS[3].replace("0", "_")}, []),
        ({"recordID": "%"}, []),
        ({"meta_course": "math"}, [2, 1]),
        ({"meta_course": "math", "meta_term": "1"}, [1]),
        ({"meta_course": "math", "meta_term": "3"}, []),
        ({"meta_course": "math,art"}, [3, 2, 1]),
        ({"meta_course": "math,art", "meta_term": "1"}, [3, 1]),
        ({"meta_course": "mat"}, []),
        ({"meta_course": "art%", **everything}, [4]),
        ({"meta_course": "ar_", **everything}, []),
        ({"meta_course": "MATH"}, []),
        ({"meta_long": f"{LONG}1"}, [1]),
        ({"meta_long": LONG}, []),
        ({"meta_none": "x"}, []),
        ({"meta_course": "math", "meetingID": "room-b"}, []),
        ({"meta_term": "1", "limit": "1"}, [3]),
        ({"meta_term": "1", "limit": "1", "offset": "1"}, [1]),
    ):
        answer = await service.call("getRecordings", params)
        assert (answer.succeeded, numbers(answer)) == (True, wanted), params
        assert (answer.key == "noRecordings") == (not wanted)
    answer = await service.call("getRecordings", {"recordID": IDS[3]})
    assert metadata_of(answer).items() >= MADE[2][2].items()
    assert answer.text("recordings/recording/meetingID") == "room-b"
    posted = await service.call("getRecordings", {"recordID": IDS[3]}, method="POST")
    assert posted.body == answer.body


@pytest.mark.shows("recordings: updateRecordings", "bbb-api: recordings")
async def test_an_edit_sets_and_removes_metadata_and_protects_all_that_it_names(
    cluster: Cluster, tmp_path: Path
) -> None:
    service = await library(cluster, tmp_path, PROTECTED_RECORDINGS_ENABLED="true")
    ids = {"recordID": f"{IDS[1]},{IDS[2]}"}
    tenant_id = metadata_of(await service.call("getRecordings", {"recordID": IDS[1]}))["tenant-id"]

    async def about(number: int) -> tuple[dict[str, str], str]:
        answer = await service.call("getRecordings", {"recordID": IDS[number]})
        return metadata_of(answer), answer.text("recordings/recording/protected")

    edit = {"meta_course": "physics", "meta_term": "", "meta_New": "a<b>&\"' ü", "protect": "false"}
    assert (await service.call("updateRecordings", {**ids, **edit})).text("updated") == "true"
    for number in (1, 2):
        metadata, protected = await about(number)
        assert metadata.keys() == {"tenant-id", "course", "long", "new"}
        assert (metadata["course"], metadata["new"], protected) == ("physics", "a<b>&\"' ü", "false")
    assert (await about(3))[1] == "true"
    reserved = {"meta_tenant-id": "x", "meta_TENANT-NAME": "x", "meta_server-tag": "x", "meta_Secret-LRS-Payload": "x"}
    assert (await service.call("updateRecordings", {**ids, **reserved})).text("updated") == "false"
    assert (await service.call("updateRecordings", {**ids, **reserved, "meta_new": "y"})).text("updated") == "true"
    metadata, _ = await about(1)
    assert (metadata["tenant-id"], metadata["new"], len(metadata)) == (tenant_id, "y", 4)
    assert (await service.call("updateRecordings", {**ids, "protect": "true"})).text("updated") == "true"
    assert [(await about(number))[1] for number in (1, 2)] == ["true", "true"]


@pytest.mark.shows("recordings: all ids must be the caller's own", "MT-3", "MT-2")
async def test_a_list_with_one_id_that_is_not_the_callers_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    service = await library(cluster, tmp_path)

    async def state() -> tuple[Any, list[str]]:
        rows = await cluster.connection.execute(
            "SELECT r, (SELECT array_agg(m) FROM recording_metadata m WHERE m.recording = r.id) FROM recording r"
            " ORDER BY r.id"
        )
        return await rows.fetchall(), files(tmp_path)

    before = await state()
    for call, params in (
        ("publishRecordings", {"publish": "false"}),
        ("publishRecordings", {"publish": "true"}),
        ("updateRecordings", {"meta_x": "y", "protect": "true"}),
        ("deleteRecordings", {}),
    ):
        answers = [
            await service.call(call, {"recordID": f"{IDS[1]},{other},{IDS[2]}", **params})
            for other in (IDS[6], "unknown", IDS[3][:40])
        ]
        assert len({answer.body for answer in answers}) == 1
        assert not answers[0].root.xpath("published | deleted | updated[. = 'true']")
        assert await state() == before, (call, params)
    assert (await service.call("deleteRecordings", {"recordID": f"{IDS[1]},{IDS[2]},{IDS[1]}"})).text(
        "deleted"
    ) == "true"
    assert numbers(await service.call("getRecordings", {"state": "any"})) == [5, 4, 3, 2, 1]
    assert numbers(await service.call("getRecordings", {"state": "deleted"})) == [2, 1]


@pytest.mark.shows("settings: RECORDING_DISABLED, GET_RECORDINGS_API_FILTERED", "bbb-api: recordings")
async def test_the_calls_can_be_turned_off_and_narrowed(cluster: Cluster, tmp_path: Path) -> None:
    service = await library(cluster, tmp_path, GET_RECORDINGS_API_FILTERED="true")
    for params in ({}, {"meta_course": "math"}, {"meetingID": ""}, {"state": "any"}):
        answer = await service.call("getRecordings", params)
        assert (answer.key, answer.text("message")) == (
            "missingParameters",
            "param meetingID or recordID must be included.",
        )
    assert numbers(await service.call("getRecordings", {"meetingID": "room-a"})) == [2, 1]
    await cluster.start(1, environment={"GET_RECORDINGS_API_FILTERED": "false", "RECORDING_DISABLED": "true"})
    off = cluster.services[-1]
    listed = await off.call("getRecordings", {"meetingID": "room-a"})
    assert (listed.succeeded, numbers(listed), listed.key) == (True, [], "noRecordings")
    for call, params in (
        ("publishRecordings", {"publish": "false"}),
        ("updateRecordings", {"meta_x": "y"}),
        ("deleteRecordings", {}),
        ("getRecordingTextTracks", {}),
    ):
        assert b"FAILED" in (await off.call(call, {"recordID": IDS[1], **params})).body
    assert numbers(await service.call("getRecordings", {"meetingID": "room-a"})) == [2, 1]


@pytest.mark.shows("recordings: publishRecordings", "recordings: repaired at the next start", "RE-5")
async def test_what_a_crash_left_half_done_is_finished_at_the_next_start(cluster: Cluster, tmp_path: Path) -> None:
    service = await library(cluster, tmp_path)
    await cluster.connection.execute("UPDATE recording SET pending = 'unpublished' WHERE record_id = %s", (IDS[1],))
    await cluster.connection.execute("UPDATE recording SET pending = 'deleted' WHERE record_id = %s", (IDS[3],))
    assert numbers(await service.call("getRecordings", {"state": "published"})) == [5]
    assert [path for path in files(tmp_path) if "/published/" in path and IDS[3] in path]
    await cluster.start(1, environment=environment(tmp_path))

    async def finished() -> bool:
        rows = await cluster.connection.execute("SELECT FROM recording WHERE pending IS NOT NULL")
        return not await rows.fetchall()

    await eventually(finished, 20)
    left = {number: [path for path in files(tmp_path) if IDS[number] in path] for number in (1, 3)}
    assert (len(left[1]), left[3]) == (4, [])
    assert all("/unpublished/" in path for path in left[1])
    assert numbers(await service.call("getRecordings", {"state": "unpublished"})) == [2, 1]


@pytest.mark.shows("issue F: recording-ready callbacks", "bbb-api: callbacks", "SE-1", "CB-2")
async def test_who_created_a_meeting_is_told_once_its_recording_is_listed(cluster: Cluster, tmp_path: Path) -> None:
    service = await cluster.start(1, environment={**environment(tmp_path), "CALLBACK_ALLOW_PRIVATE": "true"})
    services = await cluster.poller()
    async with receiving() as client:
        client.statuses = [500, 200]
        await service.create("room-x", **{"meta_bbb-recording-ready-url": f"{client.url}/ready", "meta_note": "n"})
        sent = {name.removeprefix("meta_"): text for name, text in cluster.last_params("create").items()}
        await service.about("end", "room-x")
        metadata = {name: sent[name] for name in ("tenant-id", "tenant-name", "note")}
        what = recorded(7, meeting_id="room-x", metadata=metadata)
        write_archive(what, tmp_path / "spool", ("podcast",))
        assert await deliver_due(services) == 0
        (outcome,) = await importer.import_waiting(services, settled_s=-60)
        assert outcome.imported
        listed = await service.call("getRecordings", {"meetingID": "room-x"})
        assert metadata_of(listed) == metadata
        for _ in range(2):
            assert await deliver_due(services) == 1
            await cluster.connection.execute("UPDATE callback SET due_at = now()")
        assert await deliver_due(services) == 0
    tokens = [parse_qs(call.body.decode())["signed_parameters"][0] for call in client.received]
    assert [claims(token, TENANTS["tenant1"], hashlib.sha256) for token in tokens] == [
        {"meeting_id": "room-x", "record_id": what.record_id}
    ] * 2
    elsewhere = await service.call("getRecordings", {"meetingID": "room-x"}, tenant="tenant2")
    assert elsewhere.key == "noRecordings"
