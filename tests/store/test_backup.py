"""A backup by Postgres's own programs is all there is to back up: restored, the cluster goes on where it was."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import make_conninfo

from scalelite.core.model import Declared
from scalelite.flows import reconcile
from scalelite.store.db import connect
from scalelite.store.embedded_programs import find_binaries
from tests.web.conftest import cluster  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from tests.web.conftest import Cluster


def program(name: str, *arguments: str | Path) -> None:
    subprocess.run([find_binaries() / name, *arguments], check=True, capture_output=True)


@pytest.mark.shows("HA-3")
async def test_a_restored_backup_serves_the_meetings_that_run(
    cluster: Cluster,  # noqa: F811
    postgres: str,
    tmp_path: Path,
) -> None:
    await cluster.start(2)
    cluster.setting("tenant1", "welcome", value="Hello")
    await cluster.apply()
    created = await cluster.services[0].create("room-1")
    await cluster.poll()  # confirms the claim
    dump = tmp_path / "dump"
    restored = make_conninfo(postgres, dbname="restored")
    try:
        program("pg_dump", "--format=custom", f"--file={dump}", cluster.conninfo)
        program("createdb", f"--maintenance-db={postgres}", "restored")
        program("pg_restore", f"--dbname={restored}", "--exit-on-error", dump)
        service = await cluster.serve(restored)
        again = await service.create("room-1")
        assert again.key == "duplicateWarning"
        assert again.text("internalMeetingID") == created.text("internalMeetingID")
        assert (await service.call("getMeetings")).meeting_ids == ["room-1"]
        async with connect(restored, "tests") as connection:
            planned = await reconcile.plan(connection, Declared(dict(cluster.specs)), "cordon")
        assert planned.plan.changes == ()
    finally:
        await cluster.stack.aclose()
        program("dropdb", f"--maintenance-db={postgres}", "--if-exists", "--force", "restored")
