"""An object storage cannot exchange files at once: yet what is listed is whole, whatever happens at any request."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from scalelite.core.tracks import Track, read_tracks
from scalelite.errors import DatabaseAway, RecordingNotFound, RecordingNotMoved
from scalelite.flows import generations, importer, recordings, tracks
from tests.recordings.conftest import MANY_STEPS, recorded
from tests.recordings.object_storage import between, content, keys, place, variables, with_bucket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from aiohttp import web

    from scalelite.flows.services import Services
    from tests.recordings.conftest import Desk
    from tests.recordings.object_storage import Between

# Of few files, since each is a few requests.
FORMATS: Final = {"podcast": ("audio.ogg", "metadata.xml"), "notes": ("metadata.xml", "notes.pdf")}
ID: Final = recorded().record_id


def send(desk: Desk, version: int) -> Path:
    """Put an archive into the spool, of which name and files tell the version."""
    replaced = {f"podcast/{ID}/audio.ogg": b"%d" % version, f"notes/{ID}/notes.pdf": b"%d" % version}
    return desk.send(recorded(1, name=f"Version {version}"), tuple(FORMATS), replaced=replaced)


async def shown(desk: Desk, services: Services) -> str | None:
    """The version that is listed, of which every file must be there; None: nothing is."""
    listed = [found for found in await desk.listed() if found.state != "deleted"]
    if not listed:
        return None
    (found,) = listed
    version = found.name.removeprefix("Version ")
    there = await keys(services)
    for name, files in FORMATS.items():
        folder = place(found, name)
        assert [key for key in there if key.startswith(f"{folder}/")] == [f"{folder}/{file}" for file in files]
        for file in files:
            said = await content(services, f"{folder}/{file}")
            assert set(re.findall(rb"Version (\d+)", said) or [said]) == {version.encode()}
    return version


async def clean(desk: Desk, services: Services) -> None:
    """After a sweep only what is shown is there."""
    await generations.sweep(services, time.time() + 10**10)
    (found,) = await desk.listed()
    assert {key.rpartition("/")[0] for key in await keys(services)} == {place(found, name) for name in FORMATS}


@pytest.fixture
async def wire(s3: str) -> AsyncIterator[Between]:
    async with between(s3) as it:
        yield it


async def import_with(
    desk: Desk, services: Services, wire: Between, expect: Callable[[int], None], *, may_be_gone: bool = False
) -> int:
    """Import anew with something happening at the first, the second, … request; then again without."""
    through = await desk.open(**variables(wire.address))
    for step in range(MANY_STEPS):
        before = await shown(desk, services)
        expect(step)
        archive = send(desk, step)
        with suppress(DatabaseAway):
            await importer.import_archive(through, archive)
        now = await shown(desk, services)
        assert now in {before, str(step)} or (may_be_gone and now is None)
        assert now == str(step) or archive.exists() or may_be_gone
        reached = wire.was_reached
        wire.expect(-1)
        if may_be_gone and not archive.exists():
            send(desk, step)
        await desk.run(services)
        assert await shown(desk, services) == str(step)
        assert not desk.files("spool")
        if not reached:
            await clean(desk, services)
            return step
    raise AssertionError("the steps do not end")


@pytest.mark.shows("RE-1", "recordings: S3", "issue F: fault injection of imports")
@pytest.mark.parametrize(
    "how",
    [{"status": 500}, {"status": 500, "after": True}, {"cut": True}],
    ids=["not done", "done and not answered", "answer breaks off"],
)
async def test_requests_that_fail_show_nothing_half(desk: Desk, s3: str, wire: Between, how: dict[str, Any]) -> None:
    services = await with_bucket(desk, s3)
    assert await import_with(desk, services, wire, lambda step: wire.expect(step, **how)) >= 8


@pytest.mark.shows("RE-1", "recordings: S3", "issue F: fault injection of imports")
async def test_postgres_going_away_at_any_request_shows_nothing_half(desk: Desk, s3: str, wire: Between) -> None:
    services = await with_bucket(desk, s3)

    assert (
        await import_with(
            desk, services, wire, lambda step: wire.expect(step, lambda _: desk.cut_importers(), after=True)
        )
        >= 8
    )


# Forks before each import, so that only the first one pays for loading the program.
KILLED: Final = """
import asyncio, os, sys
from pathlib import Path
from scalelite.flows import importer
from scalelite.settings import read_settings
from scalelite.wiring import open_services
from tests.recordings.conftest import environment
from tests.recordings.object_storage import variables

async def work():
    # The session's token goes with each request: who is asked can tell who asks.
    asked = {**variables(sys.argv[3]), "AWS_SESSION_TOKEN": str(os.getpid())}
    settings = read_settings({**environment(Path(sys.argv[1])), **asked})
    async with open_services(settings, sys.argv[2], name="killed") as services:
        await importer.tidy(services)
        await importer.import_waiting(services, settled_s=-60)

for line in sys.stdin:
    if not (child := os.fork()):
        sys.stdin.close()
        asyncio.run(work())
        os._exit(0)
    print(os.WIFSIGNALED(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.shows("RE-1", "recordings: S3", "issue F: fault injection of imports")
async def test_an_importer_that_is_killed_at_any_request_shows_nothing_half(desk: Desk, s3: str, wire: Between) -> None:
    services = await with_bucket(desk, s3)
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(desk.folder), desk.conninfo, wire.address),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout

    def kill(request: web.Request) -> None:
        os.kill(int(request.headers["x-amz-security-token"]), signal.SIGKILL)

    for step in range(MANY_STEPS):
        wire.expect(step, kill, after=bool(step % 2))
        before = await shown(desk, services)
        archive = send(desk, step)
        child.stdin.write(b"go on\n")
        was_killed = (await child.stdout.readline()).strip() == b"True"
        now = await shown(desk, services)
        assert now in {before, str(step)}
        assert now == str(step) or archive.exists()
        wire.expect(-1)
        await desk.run(services)
        assert await shown(desk, services) == str(step)
        if not was_killed:
            break
    assert step > 8
    await clean(desk, services)
    child.stdin.close()
    assert await child.wait() == 0


@pytest.mark.shows("recordings: S3", "RE-2", "RE-5")
async def test_a_deletion_at_any_request_of_an_import_leaves_all_or_nothing(desk: Desk, s3: str, wire: Between) -> None:
    services = await with_bucket(desk, s3)

    async def delete(_: object) -> None:
        with suppress(RecordingNotFound):
            await recordings.delete(services, None, [ID])

    assert await import_with(desk, services, wire, lambda step: wire.expect(step, delete), may_be_gone=True) >= 8


@pytest.mark.shows("issue F: text tracks", "recordings: S3", "RE-2")
async def test_subtitles_that_are_put_while_an_import_runs_are_kept(desk: Desk, s3: str, wire: Between) -> None:
    services = await with_bucket(desk, s3)
    through = await desk.open(**variables(wire.address))
    desk.send(recorded())
    await desk.run(services)
    takes = ["first"]

    async def put(_: object) -> None:
        takes.append(f"take {len(takes)}")
        await store(takes[-1], "de")

    async def store(label: str, lang: str) -> None:
        track = Track(lang, label, "captions", "upload")
        await tracks.store_track(services, ID, track, f"WEBVTT\n\n{label}\n")

    await store("first", "en")
    for step in range(MANY_STEPS):
        wire.expect(step, put, cut=step % 2 == 1)
        archive = desk.send(recorded())
        (outcome,) = await desk.run(through)
        assert outcome.imported or (outcome.waits and archive.exists())
        reached = wire.was_reached
        await desk.run(services)
        (found,) = await desk.listed()
        folder = place(found, "presentation")
        listed = {each.lang: each.label for each in read_tracks(await content(services, f"{folder}/captions.json"))}
        assert listed == {"en": "first", "de": takes[-1]}
        assert await content(services, f"{folder}/caption_de.vtt") == f"WEBVTT\n\n{takes[-1]}\n".encode()
        if not reached:
            break
    assert step > 10


@pytest.mark.shows("recordings: S3", "RE-2")
async def test_imports_of_one_recording_at_once_leave_one_whole(desk: Desk, s3: str) -> None:
    services = await with_bucket(desk, s3)
    other = await desk.open(**variables(s3))
    for _ in range(3):
        archives = [send(desk, version).rename(desk.spool / f"{version}.tar") for version in range(4)]
        importing = [
            importer.import_archive(importing, archive)
            for archive, importing in zip(archives, (services, other, services, other), strict=True)
        ]
        outcomes = await asyncio.gather(*importing)
        assert all(outcome and outcome.imported for outcome in outcomes), outcomes
        assert await shown(desk, services)
        await clean(desk, services)


@pytest.mark.shows("recordings: S3", "RE-5", "issue F: fault injection of publish and delete")
@pytest.mark.parametrize("after", [False, True], ids=["not done", "done and not answered"])
async def test_a_deletion_whose_requests_fail_is_finished_by_the_repair(
    desk: Desk, s3: str, wire: Between, after: bool
) -> None:
    services = await with_bucket(desk, s3)
    through = await desk.open(**variables(wire.address))
    for step in range(MANY_STEPS):
        send(desk, step)
        await desk.run(services)
        wire.expect(step, after=after, status=500)
        with suppress(RecordingNotMoved):
            await recordings.delete(through, None, [ID])
        assert await shown(desk, services) is None
        await recordings.repair(services)
        assert await keys(services) == []
        if not wire.was_reached:
            break
    assert step > 4
