"""Recordings whose files are in an object storage: the same doors, and the files come through this program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp
import pytest

from scalelite.flows import importer
from scalelite.sim import write_archive
from tests.recordings.object_storage import between, made_bucket, variables
from tests.web.test_playback import FORMATS, THEIRS, assert_nothing, paths, sent, theatre
from tests.web.test_tracks import SRT, get, put

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Cluster
    from tests.web.test_playback import Theatre


@pytest.fixture
async def stored(cluster: Cluster, s3: str, tmp_path: Path) -> Theatre:
    """The theatre behind nginx, whose files are in a bucket."""
    await made_bucket(s3, "playback")
    it = await theatre(cluster, tmp_path, variables(s3, "playback"))
    assert not list((tmp_path / "published").rglob("*"))
    return it


@pytest.mark.shows("recordings: S3", "recordings: playback", "RE-7")
async def test_files_are_served_with_ranges_and_the_player_by_nginx(stored: Theatre) -> None:
    it, ours = stored, stored.open.record_id
    path = f"/video/{ours}/video-0.m4v"
    whole = await it.get(path)
    assert (whole.status, whole.body, whole.headers["Content-Type"]) == (200, b"video video-0.m4v", "video/mp4")
    for asked, status, body, said in (
        ("bytes=6-12", 206, b"video-0", "bytes 6-12/17"),
        ("bytes=-3", 206, b"m4v", "bytes 14-16/17"),
        ("bytes=17-", 416, b"", "bytes */17"),
    ):
        part = await it.get(path, headers={"Range": asked})
        assert (part.status, part.body, part.headers.get("Content-Range")) == (status, body, said), asked
    assert (await it.get(path, method="HEAD")).headers["Content-Length"] == "17"
    opened = await it.get(f"/recording/{ours}/presentation")
    assert (opened.status, opened.location) == (307, f"/playback/presentation/2.3/{ours}")
    page = await it.get(opened.location)
    assert page.headers["X-Accel-Redirect"] == f"/static-resource/playback/presentation/2.3/{ours}"
    await assert_nothing(it, f"/video/{ours}/missing")


@pytest.mark.shows("recordings: S3", "RE-7", "issue F: every path x every format")
async def test_every_closed_path_is_the_same_404(stored: Theatre) -> None:
    it = stored
    cookies = {name: sent((await it.cookies(it.closed, name))[0]) for name in FORMATS}
    for name in FORMATS:
        others = sent((await it.cookies(it.other, name))[0])
        for path in paths(it.closed, name):
            await assert_nothing(it, path)
            await assert_nothing(it, path, headers=others)
            await assert_nothing(it, path, headers=cookies[name], host=THEIRS)
        assert (await it.get(f"/{name}/{it.closed.record_id}/metadata.xml", headers=cookies[name])).status == 200
    for call, params in (("publishRecordings", {"publish": "false"}), ("deleteRecordings", {})):
        assert (await it.service.call(call, {"recordID": it.closed.record_id, **params})).succeeded
        for name in FORMATS:
            for path in paths(it.closed, name):
                await assert_nothing(it, path, headers=cookies[name])


@pytest.mark.shows("recordings: S3", "issue F: text tracks", "bbb-api: getRecordingTextTracks, putRecordingTextTrack")
async def test_subtitles_are_put_and_served(stored: Theatre) -> None:
    it, ours = stored, stored.open.record_id
    assert await put(it, SRT, recordID=ours, kind="captions", lang="de", label="Deutsch") == "upload_text_track_success"
    (track,) = (await get(it, recordID=ours))["tracks"]
    served = await it.get(f"/presentation/{track['href'].partition('/presentation/')[2]}")
    assert served.body.decode().startswith("WEBVTT\n\n1\n00:00:01.000 -->")


@pytest.mark.shows("recordings: S3", "recordings: playback")
async def test_while_the_storage_is_away_nothing_is_served_and_nothing_else_is_said(
    cluster: Cluster, s3: str, tmp_path: Path
) -> None:
    await made_bucket(s3, "away")
    async with between(s3) as wire:
        it = await theatre(cluster, tmp_path, variables(wire.address, "away"))
        path = f"/video/{it.open.record_id}/video-0.m4v"
        for step in (0, 1):  # its size, its bytes
            wire.expect(step, status=500)
            answer = await it.get(path)
            assert (answer.status, answer.headers["Retry-After"], b"<h1>Not now" in answer.body) == (503, "5", True)
        wire.expect(1, cut=True)
        with pytest.raises(aiohttp.ClientPayloadError):
            await it.get(path)
        wire.expect(-1)
        assert (await it.get(path)).body == b"video video-0.m4v"
        wire.expect(0, status=500)
        assert (await get(it, recordID=it.open.record_id))["messageKey"] == "internalError"
        wire.expect(1, status=500)
        key = await put(it, SRT, recordID=it.open.record_id, kind="captions", lang="de", label="x")
        assert key == "internalError"
        await assert_nothing(it, f"/video/{it.closed.record_id}/video-0.m4v")


@pytest.mark.shows("recordings: S3", "recordings: playback", "RE-2")
async def test_a_file_is_served_while_an_import_puts_another_in_its_place(
    cluster: Cluster, s3: str, tmp_path: Path
) -> None:
    await made_bucket(s3, "switch")
    async with between(s3) as wire:
        it = await theatre(cluster, tmp_path, variables(wire.address, "switch"))

        async def import_anew(_: object) -> None:
            write_archive(it.open, tmp_path / "spool", ("video",))
            await importer.import_waiting(it.services, settled_s=-60)

        for step in (0, 1):  # its size, its bytes
            wire.expect(step, import_anew)
            answer = await it.get(f"/video/{it.open.record_id}/video-0.m4v")
            assert (answer.status, answer.body) == (200, b"video video-0.m4v")
            wire.expect(0, import_anew)
            await assert_nothing(it, f"/video/{it.open.record_id}/never-was")
