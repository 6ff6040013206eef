"""Archives become recordings, whatever happens between two steps: nothing is lost, and nothing half is shown."""

from __future__ import annotations

import asyncio
import errno
import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest

from scalelite.errors import DatabaseAway
from scalelite.flows import importer
from tests.recordings.conftest import MANY_STEPS, FaultyDisk, fails, recorded

if TYPE_CHECKING:
    from tests.recordings.conftest import Desk

# Of few files, since each is a few steps.
SMALL: Final = ("podcast", "notes")


async def every_step(desk: Desk, disk: FaultyDisk, expected: type[Exception] = OSError) -> int:
    """Import with something happening at the first, the second, … step; then again without. Returns the steps."""
    desk.send(recorded(0), SMALL)
    await desk.run()
    services = await desk.open(disk)
    for step in range(MANY_STEPS):
        disk.wait_for(step)
        new, known = recorded(step + 1), recorded(0, name=f"Renamed {step}")
        archives = [desk.send(known, SMALL[:1]), desk.send(new, SMALL)]
        for archive in archives:
            with suppress(expected):
                await importer.import_archive(services, archive)
        assert not await desk.problems()
        names = {found.record_id: found for found in await desk.listed()}
        assert archives[0].exists() or names[known.record_id].name == known.name
        assert archives[1].exists() or len(names[new.record_id].formats) == len(SMALL)
        assert not desk.files("spool/failed")
        await importer.tidy(desk.services)
        await desk.run()
        assert not desk.files("spool")
        assert not desk.files("work")
        assert not await desk.problems()
        if not disk.was_reached:
            assert len(await desk.listed()) == step + 2
            return step
    raise AssertionError("the steps do not end")


@pytest.mark.shows("RE-1", "issue F: fault injection of imports")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["disk full", "EIO"])
async def test_a_disk_that_fails_at_any_step_loses_and_shows_nothing(desk: Desk, code: int) -> None:
    assert await every_step(desk, FaultyDisk(0, fails(code))) > 30


@pytest.mark.shows("RE-1", "issue F: fault injection of imports")
async def test_postgres_going_away_at_any_step_loses_and_shows_nothing(desk: Desk) -> None:
    # What happens before the files are put in place happens without Postgres.
    disk = FaultyDisk(0, desk.cut_importers, counted=("rename", "exchange", "remove", "remove_tree"))
    assert await every_step(desk, disk, DatabaseAway) > 8


@pytest.mark.shows("RE-1")
async def test_an_archive_waits_for_postgres(desk: Desk) -> None:
    archive = desk.send(recorded())
    with pytest.raises(DatabaseAway):
        await desk.run(await desk.open(conninfo="host=127.0.0.1 port=1 user=x dbname=x"))
    assert archive.exists()
    await desk.run()
    assert len(await desk.listed()) == 1


# Forks before each import, so that only the first one pays for loading the program; prints when no step is left.
KILLED: Final = """
import asyncio, json, os, signal, sys
from pathlib import Path
from scalelite.flows import importer
from scalelite.settings import read_settings
from scalelite.wiring import open_services
from tests.recordings.conftest import MANY_STEPS, FaultyDisk, environment, recorded
from scalelite.sim import write_archive

folder, conninfo = Path(sys.argv[1]), sys.argv[2]

async def work(step):
    disk = FaultyDisk(step, lambda: os.kill(os.getpid(), signal.SIGKILL))
    async with open_services(read_settings(environment(folder)), conninfo, name="killed", disk=disk) as services:
        await importer.tidy(services)
        await importer.import_waiting(services, settled_s=-60)

for step in range(MANY_STEPS):
    write_archive(recorded(1, name=f"Renamed {step}"), folder / "spool", ("podcast", "notes"))
    write_archive(recorded(step + 2), folder / "spool", ("podcast", "notes"))
    if not (child := os.fork()):
        asyncio.run(work(step))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(json.dumps({"step": step, "killed": os.WIFSIGNALED(status)}), flush=True)
    if sys.stdin.readline().strip() != "go on" or not os.WIFSIGNALED(status):
        break
"""


@pytest.mark.shows("RE-1", "issue F: fault injection of imports")
async def test_an_importer_that_is_killed_at_any_step_loses_and_shows_nothing(desk: Desk) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, str(desk.folder), desk.conninfo,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin
    assert child.stdout
    steps = 0
    async for line in child.stdout:
        said = json.loads(line)
        assert not await desk.problems(), said
        ids = {found.record_id for found in await desk.listed()}
        for number in range(1, said["step"] + 3):
            what = recorded(number)
            assert what.record_id in ids or (desk.spool / f"{what.record_id}.tar").exists(), said
        steps += said["killed"]
        child.stdin.write(b"go on\n")
    assert await child.wait() == 0
    assert steps > 30
    await importer.tidy(desk.services)
    await desk.run()
    assert not desk.files("spool")
    assert not desk.files("work")
    assert len(await desk.listed()) == steps + 2
    assert not await desk.problems()
