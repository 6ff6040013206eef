"""Archives become recordings: all of them, once, in any order, whatever happens between two steps."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.core.listing import Edit
from scalelite.core.model import SENTINEL_TENANT
from scalelite.core.tracks import Track, read_tracks
from scalelite.flows import importer, recordings, tracks
from scalelite.store import recordings as store
from tests.recordings.conftest import MANY_STEPS, FaultyDisk, recorded

if TYPE_CHECKING:
    from tests.recordings.conftest import Desk

MANY: Final = ("presentation", "video", "podcast")


@pytest.mark.shows("recordings: import", "RE-2")
async def test_an_archive_becomes_a_recording_with_its_files(desk: Desk) -> None:
    what = recorded(metadata={"bbb-context": "Math & <more>", "empty": ""})
    desk.send(what, ("presentation", "video"))
    (outcome,) = await desk.run()
    assert outcome.imported == (what.record_id,)
    (found,) = await desk.listed()
    assert (found.meeting_id, found.name, found.published, found.state) == ("room-1", "Room 1", True, "published")
    assert found.metadata == {"bbb-context": "Math & <more>", "empty": ""}
    assert [(each.format, each.url, each.length) for each in found.formats] == [
        ("presentation", f"/playback/presentation/2.3/{what.record_id}", 2),
        ("video", f"/playback/video/{what.record_id}/", 2),
    ]
    assert found.formats[0].thumbnails[0].url.startswith(f"/presentation/{what.record_id}/")
    assert (desk.folder / "published/video" / what.record_id / "video-0.m4v").read_bytes() == b"video video-0.m4v"
    assert not desk.files("spool")
    assert not desk.files("work")


@pytest.mark.shows("recordings: import", "RE-2")
async def test_formats_that_come_one_by_one_and_again_make_one_recording(desk: Desk) -> None:
    what = recorded()
    for formats in (("video",), MANY, ("presentation",), MANY, ("video",)):
        desk.send(what, formats)
        await desk.run()
    (found,) = await desk.listed()
    assert [each.format for each in found.formats] == sorted(MANY)
    assert not await desk.problems()


@pytest.mark.shows("recordings: import", "RE-2")
async def test_two_importers_at_once_make_one_recording(desk: Desk) -> None:
    others = [await desk.open() for _ in range(3)]
    for round_ in range(5):
        for number in range(4):
            desk.send(recorded(number), MANY[: round_ % 3 + 1])
        rounds = await asyncio.gather(*(desk.run(services) for services in others))
        assert not [outcome for outcomes in rounds for outcome in outcomes if outcome.failed or outcome.waits]
    assert len(await desk.listed()) == 4
    assert not desk.files("spool")
    assert not await desk.problems()


@pytest.mark.shows("recordings: import", "RE-2")
async def test_importers_that_cannot_see_each_others_locks_make_one_recording(desk: Desk) -> None:
    archive = desk.send(recorded(), MANY)
    copies = [archive.with_name(f"copy{number}.tar") for number in range(4)]
    for copy in copies:
        copy.write_bytes(archive.read_bytes())
    outcomes = await asyncio.gather(*(importer.import_archive(desk.services, copy) for copy in copies))
    assert all(outcome and outcome.imported for outcome in outcomes)
    assert len(await desk.listed()) == 1
    assert not await desk.problems()


@pytest.mark.shows("recordings: import", "RE-2")
async def test_what_people_changed_survives_the_same_archive(desk: Desk) -> None:
    what = recorded()
    desk.send(what, ("presentation", "video"))
    await desk.run()
    edit = Edit({"bbb-context": "Physics", "gl-listed": "", "new": "1"}, protect=True)
    async with desk.services.database.use() as connection:
        await store.edit(connection, None, [what.record_id], edit)
        await store.claim(connection, None, [what.record_id], ["published"], "unpublished")
    await recordings.finish(desk.services, what.record_id)
    desk.send(replace(what, name="Renamed"), ("presentation", "video", "podcast"))
    await desk.run()
    (found,) = await desk.listed()
    assert (found.published, found.state, found.protected, found.name) == (False, "unpublished", True, "Renamed")
    assert found.metadata == {"bbb-context": "Physics", "new": "1"}
    assert not await desk.problems()
    assert not desk.files("published")


@pytest.mark.shows("recordings: import")
async def test_a_deleted_recording_comes_back_with_its_archive(desk: Desk) -> None:
    what = recorded()
    desk.send(what)
    await desk.run()
    await recordings.delete(desk.services, None, [what.record_id])
    assert not desk.files("published")
    desk.send(what)
    await desk.run()
    (found,) = await desk.listed()
    assert (found.state, found.published, len(found.formats)) == ("published", True, 1)


@pytest.mark.shows("settings: RECORDING_IMPORT_UNPUBLISHED, PROTECTED_RECORDINGS_ENABLED")
async def test_new_recordings_can_begin_unpublished_and_protected(desk: Desk) -> None:
    desk.send(recorded())
    await desk.run(await desk.open(RECORDING_IMPORT_UNPUBLISHED="true", PROTECTED_RECORDINGS_ENABLED="true"))
    (found,) = await desk.listed()
    assert (found.state, found.published, found.protected) == ("unpublished", False, True)
    assert not await desk.problems()


@pytest.mark.shows("bbb-api: tenants")
async def test_a_recording_belongs_to_the_tenant_that_its_meeting_had(desk: Desk) -> None:
    tenant = "11111111-1111-4111-8111-111111111111"
    ended = "https://acme.sl.example.com/bigbluebutton/api/end_callback/0123"
    async with desk.services.database.use() as connection:
        await connection.execute("INSERT INTO tenant (id, name, from_rev) VALUES (%s, 'acme', 1)", (tenant,))
    desk.send(recorded(1, metadata={"tenant-id": tenant, "secret-lrs-payload": "hidden", "endcallbackurl": ended}))
    desk.send(recorded(2, metadata={"tenant-id": "99999999-9999-4999-8999-999999999999"}))
    desk.send(recorded(3, metadata={"tenant-id": "no uuid"}))
    await desk.run()
    owners = {found.meeting_id: str(found.tenant) for found in await desk.listed()}
    assert owners == {"room-1": tenant, "room-2": str(SENTINEL_TENANT), "room-3": str(SENTINEL_TENANT)}
    assert not any({"secret-lrs-payload", "endcallbackurl"} & {*found.metadata} for found in await desk.listed())


@pytest.mark.shows("issue F: recording-ready callbacks", "bbb-api: callbacks")
async def test_who_asked_is_called_once_the_recording_is_listed(desk: Desk) -> None:
    async with desk.services.database.use() as connection:
        await connection.execute(
            "INSERT INTO callback_hook (generation, name, tenant, meeting_id, server, url, secret, token) VALUES"
            " (1, 'meta_bn-recording-ready-url', %s, 'room-1', 'bbb1', 'https://lms.example.com/ready', 's', 't')",
            (SENTINEL_TENANT,),
        )
    bad = recorded(1)
    desk.send(bad, (), replaced={f"video/{bad.record_id}/metadata.xml": b"<x/>"})
    desk.send(recorded(2))
    await desk.run()
    async with desk.services.database.use() as connection:
        assert (await (await connection.execute("SELECT FROM callback")).fetchall()) == []
    desk.send(recorded(1))
    await desk.run()
    async with desk.services.database.use() as connection:
        rows = await (await connection.execute("SELECT kind, url, record_id FROM callback")).fetchall()
    called = {"kind": "recording ready", "url": "https://lms.example.com/ready", "record_id": recorded(1).record_id}
    assert rows == [called]


@pytest.mark.shows("issue F: text tracks", "RE-2")
async def test_subtitles_that_are_put_while_an_import_runs_are_kept(desk: Desk) -> None:
    what, loop, takes = recorded(), asyncio.get_running_loop(), [0]
    folder = desk.folder / "published" / "presentation" / what.record_id

    async def put(lang: str = "de") -> None:
        takes.append(len(takes))
        track = Track(lang, f"take {takes[-1]}", "captions", "upload")
        await tracks.store_track(desk.services, what.record_id, track, "WEBVTT\n")

    # While an archive is unpacked and the tracks are carried over, in a thread of their own.
    def putting() -> None:
        asyncio.run_coroutine_threadsafe(put(), loop).result()

    desk.send(what)
    await desk.run()
    await put("en")
    disk = FaultyDisk(0, putting, counted=("create",))
    services = await desk.open(disk)
    for step in range(MANY_STEPS):
        disk.wait_for(step)
        desk.send(what)
        (outcome,) = await desk.run(services)
        assert outcome.imported
        labels = {each.lang: each.label for each in read_tracks((folder / "captions.json").read_bytes())}
        assert labels == {"en": "take 1", "de": f"take {takes[-1]}"}
        if not disk.was_reached:
            break
    assert step > 8


# --- archives that are not complete, or not right --------------------------------------------------------------------


@pytest.mark.shows("recordings: a partly written archive is left alone", "RE-3")
async def test_an_archive_that_grows_is_left_alone(desk: Desk) -> None:
    archive = desk.send(recorded())
    assert await importer.import_waiting(desk.services) == []
    whole = archive.read_bytes()
    end_of_files = -(-len(whole.rstrip(b"\0")) // 512) * 512
    for length in (0, 100, 512, 1024, len(whole) // 2, end_of_files):
        archive.write_bytes(whole[:length])
        (outcome,) = await desk.run()
        assert outcome.waits, f"{length} bytes of {len(whole)}"
        assert archive.read_bytes() == whole[:length]
    archive.write_bytes(whole)
    (outcome,) = await desk.run()
    assert outcome.imported


@pytest.mark.shows("recordings: a partly written archive is left alone", "RE-3", "RE-1")
async def test_an_archive_that_was_given_up_is_set_aside(desk: Desk) -> None:
    archive = desk.send(recorded())
    content = archive.read_bytes()[:3000]
    archive.write_bytes(content)
    long_ago = time.time() - 7200
    os.utime(archive, (long_ago, long_ago))
    (outcome,) = await desk.run()
    assert outcome.failed
    failed = desk.spool / "failed"
    assert (failed / archive.name).read_bytes() == content
    assert "end" in (failed / f"{archive.name}.reason.txt").read_text()


@pytest.mark.shows("RE-1")
async def test_one_bad_format_is_told_and_the_others_are_imported(desk: Desk) -> None:
    bad, good = recorded(1), recorded(2)
    failed_before = importer.IMPORTS.labels("failed")._value.get()
    desk.send(bad, MANY, replaced={f"video/{bad.record_id}/metadata.xml": b"<recording><id>"})
    desk.send(good)
    outcomes = await desk.run()
    assert {outcome.archive: bool(outcome.failed) for outcome in outcomes} == {
        f"{bad.record_id}.tar": True,
        f"{good.record_id}.tar": False,
    }
    formats = {found.record_id: [each.format for each in found.formats] for found in await desk.listed()}
    assert formats == {bad.record_id: ["podcast", "presentation"], good.record_id: ["presentation"]}
    assert importer.IMPORTS.labels("failed")._value.get() == failed_before + 1
    reason = (desk.spool / "failed" / f"{bad.record_id}.tar.reason.txt").read_text()
    assert reason.startswith(f"video/{bad.record_id}: metadata.xml cannot be read")
    assert not desk.files("published/video")


@pytest.mark.shows("RE-1")
async def test_what_nobody_thought_of_is_set_aside_and_the_others_go_on(desk: Desk) -> None:
    def happens() -> None:
        raise RecursionError("deep")

    desk.send(recorded(1))
    desk.send(recorded(2))
    outcomes = await desk.run(await desk.open(FaultyDisk(3, happens, counted=("create",))))
    assert sorted((len(outcome.imported), len(outcome.failed)) for outcome in outcomes) == [(0, 1), (1, 0)]
    (reason,) = (desk.spool / "failed").glob("*.reason.txt")
    assert reason.read_text().startswith("unexpected RecursionError")
    assert len(list((desk.spool / "failed").glob("*.tar"))) == 1


@pytest.mark.shows("RE-1")
async def test_texts_of_any_length_hold_up_nobody(desk: Desk) -> None:
    long = "\U0001f600" * 5000
    desk.send(recorded(1, name=long, metadata={"k" * 3000: "x", "note": long, "n" * 256: long}))
    desk.send(recorded(2, meeting_id=long))
    desk.send(recorded(3))
    outcomes = {outcome.archive: outcome.failed for outcome in await desk.run()}
    assert outcomes[f"{recorded(2).record_id}.tar"]
    found = {each.record_id: each for each in await desk.listed()}
    assert found.keys() == {recorded(1).record_id, recorded(3).record_id}
    assert found[recorded(1).record_id].metadata == {"note": long, "n" * 256: long}


@pytest.mark.shows("RE-1")
async def test_an_archive_that_fails_twice_is_kept_twice(desk: Desk) -> None:
    for _ in range(2):
        desk.send(recorded(), (), replaced={"presentation/abc/metadata.xml": b"<x/>"})
        await desk.run()
    assert len(list((desk.spool / "failed").glob("*.tar"))) == 2
    assert len(list((desk.spool / "failed").glob("*.reason.txt"))) == 2
