"""Publishing, unpublishing and deleting: rows and files go together, whatever happens between two steps."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest

from scalelite.core.listing import Filter
from scalelite.errors import DatabaseAway, RecordingNotFound, RecordingNotMoved
from scalelite.flows import recordings
from scalelite.store import recordings as store
from tests.recordings.conftest import MANY_STEPS, FaultyDisk, fails, recorded
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from scalelite.flows.services import Services
    from tests.recordings.conftest import Desk

FORMATS: Final = ("podcast", "notes")
CHANGES: Final = ("published", "unpublished", "deleted")


async def change(services: Services, record_id: str, wanted: str) -> None:
    """What publishRecordings and deleteRecordings do to one recording."""
    async with services.database.use() as connection:
        await store.claim(connection, None, [record_id], ["published", "unpublished"], wanted)
    await recordings.finish(services, record_id)


async def with_each_step(desk: Desk, wanted: str, disk: FaultyDisk, expected: type[BaseException]) -> int:
    """Make a change of a new recording with something happening at the first, the second, … step; then repair."""
    services = await desk.open(disk)
    for step in range(MANY_STEPS):
        what = recorded(step)
        desk.send(what, FORMATS)
        await desk.run()
        if wanted == "published":
            await change(desk.services, what.record_id, "unpublished")
        disk.wait_for(step)
        with suppress(expected):
            await change(services, what.record_id, wanted)
        assert not await desk.problems()
        await recordings.repair(desk.services, wait=True)
        assert not await desk.problems()
        roots = {path.partition("/")[0] for path in desk.files() if what.record_id in path}
        (found,) = await desk.listed(Filter(prefixes=(what.record_id,), states=None))
        was = "unpublished" if wanted == "published" else "published"
        # Only what was never begun may be as before.
        assert (found.state, roots) in [(wanted, {wanted} - {"deleted"})] + [(was, {was})] * (step == 0)
        if not disk.was_reached:
            return step
    raise AssertionError("the steps do not end")


@pytest.mark.shows("issue F: fault injection of publish and delete", "recordings: publishRecordings", "RE-5")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["disk full", "EIO"])
@pytest.mark.parametrize("wanted", CHANGES)
async def test_a_disk_that_fails_at_any_step(desk: Desk, wanted: str, code: int) -> None:
    assert await with_each_step(desk, wanted, FaultyDisk(0, fails(code)), RecordingNotMoved) >= len(FORMATS)


@pytest.mark.shows("issue F: fault injection of publish and delete", "RE-5")
@pytest.mark.parametrize("wanted", CHANGES)
async def test_postgres_that_goes_away_at_any_step(desk: Desk, wanted: str) -> None:
    assert await with_each_step(desk, wanted, FaultyDisk(0, desk.cut_importers), DatabaseAway) >= len(FORMATS)


# Forks for each step, so that only the first one pays for loading the program.
KILLED: Final = """
import asyncio, json, os, signal, sys
from pathlib import Path
from scalelite.settings import read_settings
from scalelite.wiring import open_services
from tests.recordings.conftest import FaultyDisk, environment
from tests.recordings.test_changes import change

folder, conninfo, wanted = Path(sys.argv[1]), sys.argv[2], sys.argv[3]

async def work(step, record_id):
    disk = FaultyDisk(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    async with open_services(read_settings(environment(folder)), conninfo, name="killed", disk=disk) as services:
        await change(services, record_id, wanted)

for step, line in enumerate(sys.stdin):
    if not (child := os.fork()):
        asyncio.run(work(step, line.strip()))
        os._exit(0)
    print(json.dumps(os.WIFSIGNALED(os.waitpid(child, 0)[1])), flush=True)
"""


@pytest.mark.shows("issue F: fault injection of publish and delete", "RE-5")
@pytest.mark.parametrize("wanted", CHANGES)
async def test_a_process_that_is_killed_at_any_step(desk: Desk, wanted: str) -> None:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(desk.folder), desk.conninfo, wanted),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdin
    assert child.stdout
    for step in range(MANY_STEPS):
        what = recorded(step)
        desk.send(what, FORMATS)
        await desk.run()
        if wanted == "published":
            await change(desk.services, what.record_id, "unpublished")
        child.stdin.write(f"{what.record_id}\n".encode())
        was_killed = json.loads(await child.stdout.readline())
        assert not await desk.problems()
        await recordings.repair(desk.services, wait=True)
        assert not await desk.problems()
        (found,) = await desk.listed(Filter(prefixes=(what.record_id,), states=None))
        roots = {path.partition("/")[0] for path in desk.files() if what.record_id in path}
        assert (found.state, roots) == (wanted, {wanted} - {"deleted"})
        if not was_killed:
            break
    assert step >= len(FORMATS)
    child.stdin.close()
    assert await child.wait() == 0


@pytest.mark.shows("recordings: publishRecordings")
async def test_many_changes_at_once_end_with_rows_and_files_together(desk: Desk) -> None:
    what = recorded()
    desk.send(what, FORMATS)
    await desk.run()
    for _ in range(4):
        await asyncio.gather(
            *(change(desk.services, what.record_id, wanted) for wanted in ("published", "unpublished") * 3)
        )
        await recordings.repair(desk.services)
        (found,) = await desk.listed()
        assert {path.partition("/")[0] for path in desk.files()} == {found.state}
        assert found.published is (found.state == "published")


@pytest.mark.shows("RE-5", "issue F: fault injection of publish and delete", "RE-2")
async def test_a_deletion_that_others_finish_too_takes_nothing_of_what_comes_after(desk: Desk) -> None:
    what, loop, imported = recorded(), asyncio.get_running_loop(), threading.Event()
    others: list[asyncio.Task[Any]] = []

    def late() -> None:
        imported.wait(20)

    async def finish_too() -> None:
        repairing = recordings.repair(await desk.open(FaultyDisk(0, late)))
        finishing = recordings.finish(await desk.open(FaultyDisk(0, late)), what.record_id)
        others.extend(map(asyncio.create_task, (repairing, finishing)))
        await asyncio.sleep(0.2)

    # In the thread that removes.
    disk = FaultyDisk(0, lambda: asyncio.run_coroutine_threadsafe(finish_too(), loop).result())
    desk.send(what, FORMATS)
    await desk.run()
    await recordings.delete(await desk.open(disk), None, [what.record_id])
    desk.send(what, FORMATS)
    (outcome,) = await desk.run()
    assert outcome.imported
    imported.set()
    await asyncio.gather(*others)
    (found,) = await desk.listed()
    assert (found.state, len(found.formats)) == ("published", len(FORMATS))
    assert not await desk.problems()


@pytest.mark.shows("recordings: publishRecordings", "RE-5")
async def test_what_takes_longer_than_a_call_goes_on_and_hides_the_recording_meanwhile(desk: Desk) -> None:
    what, go_on = recorded(), threading.Event()
    desk.send(what, FORMATS)
    await desk.run()

    def hold() -> None:
        go_on.wait(30)

    services = await desk.open(FaultyDisk(0, hold))
    with pytest.raises(RecordingNotMoved):
        await recordings.delete(services, None, [what.record_id], longest_s=0.3)
    assert [found.state for found in await desk.listed()] == ["deleted"]
    assert await recordings.repair(desk.services) == 1, "it is somebody else's"
    assert desk.files("published")
    go_on.set()

    async def done() -> bool:
        return not desk.files("published") and not await recordings.repair(desk.services)

    await eventually(done, 20)


@pytest.mark.shows("RE-5")
async def test_files_of_formats_that_no_row_knows_are_deleted_too(desk: Desk) -> None:
    what = recorded()
    desk.send(what, FORMATS)
    await desk.run()
    for root in ("published", "unpublished"):
        left = desk.folder / root / "capture" / what.record_id
        left.mkdir(parents=True)
        (left / "x").touch()
    await recordings.delete(desk.services, None, [what.record_id])
    assert not desk.files()


@pytest.mark.shows("recordings: all ids must be the caller's own", "MT-3")
async def test_deleting_one_that_is_not_there_deletes_none(desk: Desk) -> None:
    what = recorded()
    desk.send(what)
    await desk.run()
    with pytest.raises(RecordingNotFound):
        await recordings.delete(desk.services, None, [what.record_id, "unknown"])
    (found,) = await desk.listed()
    assert found.state == "published"
    assert not await desk.problems()
