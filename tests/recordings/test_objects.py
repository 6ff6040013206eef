"""Recordings in S3-compatible storage, against a real S3 server (moto's)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from scalelite.core.listing import Filter
from scalelite.edge import objects
from scalelite.flows import library, recordings
from scalelite.store import recordings as store
from tests.recordings.conftest import recorded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from scalelite.edge.objects import Objects
    from scalelite.flows.services import Services
    from tests.recordings.conftest import Desk

BUCKET: Final = "recordings"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of an S3 server that checks signatures' form and keeps objects in memory."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


async def with_bucket(desk: Desk, s3: str, bucket: str = BUCKET) -> Services:
    services = await desk.open(
        S3_RECORDING="true",
        S3_BUCKET_NAME=bucket,
        AWS_ACCESS_KEY_ID="test-key",
        AWS_SECRET_ACCESS_KEY="test-secret",
        AWS_ENDPOINT_URL=s3,
    )
    storage = cast("Objects", services.recordings)
    async with storage._send("PUT", "", allowed=(200, 409)):
        pass
    await storage._delete([key async for key in storage._keys("")])
    return services


async def keys(services: Services, prefix: str = "") -> list[str]:
    return [key async for key in cast("Objects", services.recordings)._keys(prefix)]


async def content(services: Services, name: str, start: int = 0, length: int = 1 << 30) -> bytes:
    return b"".join([chunk async for chunk in services.recordings.read(name, start, length)])


@pytest.mark.shows("recordings: S3", "issue F: S3")
async def test_a_recording_is_imported_changed_and_deleted_in_a_bucket(desk: Desk, s3: str) -> None:
    services = await with_bucket(desk, s3)
    what = recorded()
    odd = f"presentation/{what.record_id}/a b+ä&~'(1).txt"
    desk.send(what, ("presentation", "video"), replaced={odd: b"odd"})
    (outcome,) = await desk.run(services)
    assert outcome.imported, outcome
    assert not desk.files()
    assert odd in await keys(services)
    assert await content(services, odd) == b"odd"
    name = f"video/{what.record_id}/video-0.m4v"
    assert await services.recordings.size(name) == 17
    assert await content(services, name, 6, 7) == b"video-0"
    assert await services.recordings.size(f"video/{what.record_id}/none") is None
    assert await content(services, f"video/{what.record_id}/none") == b""
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
    assert not [key for key in await keys(services) if key.endswith("old.txt")]
    assert await content(services, f"presentation/{what.record_id}/shapes.svg") == b"new"
    async with services.database.use() as connection:
        await connection.execute("DELETE FROM recording")
    assert (await library.reread(services)).read == 1
    assert len(await desk.listed(Filter())) == 1


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
    await services.recordings.stage("abc", "video", folder)
    assert await services.recordings.size("video/abc/video.m4v") == len(large)
    assert await content(services, "video/abc/video.m4v", objects.PART - 2, 6) == b"efthe "


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
