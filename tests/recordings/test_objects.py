"""Recordings in S3-compatible storage, against a real S3 server (moto's)."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core.recording import folder_of
from scalelite.edge import objects
from scalelite.flows import generations, library, recordings
from scalelite.store import recordings as store
from tests.recordings.conftest import recorded
from tests.recordings.object_storage import BUCKET, content, keys, place, with_bucket

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recordings.conftest import Desk


@pytest.mark.shows("recordings: S3", "issue F: S3")
async def test_a_recording_is_imported_changed_and_deleted_in_a_bucket(desk: Desk, s3: str) -> None:
    services = await with_bucket(desk, s3)
    what = recorded()
    odd = f"presentation/{what.record_id}/a b+ä&~'(1).txt"
    desk.send(what, ("presentation", "video"), replaced={odd: b"odd"})
    (outcome,) = await desk.run(services)
    assert outcome.imported, outcome
    assert not desk.files()
    (found,) = await desk.listed()
    odd = f"{place(found, 'presentation')}/a b+ä&~'(1).txt"
    assert odd in await keys(services)
    assert await content(services, odd) == b"odd"
    name = f"{place(found, 'video')}/video-0.m4v"
    assert await services.recordings.size(name) == 17
    assert await content(services, name, 6, 7) == b"video-0"
    assert await services.recordings.size(f"{name}none") is None
    assert await content(services, f"{name}none") == b""
    async with services.database.use() as connection:
        await store.claim(connection, None, [what.record_id], ["published"], "unpublished")
    await recordings.finish(services, what.record_id)
    (found,) = await desk.listed()
    assert found.state == "unpublished"
    await recordings.delete(services, None, [what.record_id])
    assert await keys(services) == []


@pytest.mark.shows("recordings: S3", "RE-2")
async def test_the_same_archive_again_leaves_no_old_objects(desk: Desk, s3: str) -> None:
    services = await with_bucket(desk, s3)
    what = recorded()
    desk.send(what, replaced={f"presentation/{what.record_id}/old.txt": b"old"})
    await desk.run(services)
    desk.send(what, replaced={f"presentation/{what.record_id}/shapes.svg": b"new"})
    await desk.run(services)
    (found,) = await desk.listed()
    folder = place(found, "presentation")
    there = await keys(services)
    assert not [key for key in there if key.endswith("old.txt") or not key.startswith(f"{folder}/")]
    assert await content(services, f"{folder}/shapes.svg") == b"new"
    unfinished = f"presentation/{what.record_id}.2000000000000-0/shapes.svg"
    await services.recordings.write(unfinished, b"half")
    async with services.database.use() as connection:
        await connection.execute("DELETE FROM recording")
    assert await generations.sweep(services, time.time() + 10**10) == 0, "rows may be lost: what they do not know stays"
    assert (await library.reread(services)).read == 1
    assert await desk.listed() == [found]
    assert await generations.sweep(services, time.time()) == 0, "it may be still on its way"
    assert await generations.sweep(services, time.time() + 10**10) == 1
    assert await keys(services) == there


@pytest.mark.shows("RE-5", "recordings: S3")
async def test_more_than_a_thousand_objects_are_deleted(desk: Desk, s3: str) -> None:
    services = await with_bucket(desk, s3)
    what = recorded()
    desk.send(what)
    await desk.run(services)
    prefix = f"capture/{what.record_id}/"
    limit = asyncio.Semaphore(8)

    async def put(number: int) -> None:
        async with limit:
            await services.recordings.write(f"{prefix}{number}", b"x")

    await asyncio.gather(*(put(number) for number in range(1050)))
    assert len(await keys(services, prefix)) == 1050
    await recordings.delete(services, None, [what.record_id])
    assert await keys(services) == []


@pytest.mark.shows("recordings: S3")
async def test_large_files_go_in_parts(desk: Desk, s3: str, tmp_path: Path) -> None:
    services = await with_bucket(desk, s3)
    folder = tmp_path / "large"
    folder.mkdir()
    large = b"0123456789abcdef" * (objects.PART // 16) + b"the rest"
    (folder / "video.m4v").write_bytes(large)
    name = f"{folder_of('abc', 'video', await services.recordings.stage('abc', 'video', folder))}/video.m4v"
    assert await services.recordings.size(name) == len(large)
    assert await content(services, name, objects.PART - 2, 6) == b"efthe "


@pytest.mark.shows("recordings: S3", "RE-1")
async def test_an_archive_waits_for_the_object_storage(desk: Desk, s3: str) -> None:
    away: dict[str, Any] = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    services = await desk.open(
        S3_RECORDING="true", S3_BUCKET_NAME=BUCKET, AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", **away
    )
    archive = desk.send(recorded())
    (outcome,) = await desk.run(services)
    assert outcome.waits
    assert archive.exists()
    assert await desk.listed() == []
    assert (await desk.run(await with_bucket(desk, s3)))[0].imported
