"""What operators do: hand over, prune, read again, list, import by hand; through the installed command as well."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.core.listing import Edit, Filter
from scalelite.core.model import TenantSpec
from scalelite.errors import DatabaseAway
from scalelite.flows import importer, library
from scalelite.store import recordings as store
from tests.command import run
from tests.recordings.conftest import ALL_STATES, MANY_STEPS, FaultyDisk, recorded
from tests.web.conftest import eventually

if TYPE_CHECKING:
    from tests.recordings.conftest import Desk

DAY_MS = 86_400_000


async def tenant(desk: Desk, name: str, keep_days: int = 0) -> TenantSpec:
    spec = TenantSpec(id=uuid.uuid4(), name=name)
    async with desk.services.database.use() as connection:
        await connection.execute(
            "INSERT INTO tenant (id, name, recordings, from_rev)"
            " VALUES (%s, %s, jsonb_build_object('keep_days', %s::int), 1)",
            (spec.id, name, keep_days),
        )
    return spec


async def command(desk: Desk, *arguments: str, **how: Any) -> tuple[int, str, str]:
    """Run the installed command; returns exit status and what it said."""
    environment = {**os.environ, **desk.environment(), "DATABASE_URL": desk.conninfo}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scalelite", "recordings", *arguments, env=environment, stdout=-1, stderr=-1, **how
    )
    out, error = await child.communicate()
    return child.returncode or 0, out.decode(), error.decode()


async def revisions(desk: Desk) -> list[tuple[str, str, dict[str, str]]]:
    """Actor, message, and actions by record id of the revisions, oldest first."""
    async with desk.services.database.use() as connection:
        cursor = await connection.execute("SELECT actor, message, changes FROM revision ORDER BY number")
        rows = await cursor.fetchall()
    return [
        (
            row["actor"],
            row["message"],
            {entry["address"].removeprefix("recording/"): entry["action"] for entry in row["changes"]},
        )
        for row in rows
    ]


@pytest.mark.shows("cli: everything that changes state writes a revision", "recordings: add-to-tenant")
async def test_what_operators_do_to_recordings_is_a_revision_of_theirs(desk: Desk) -> None:
    acme = await tenant(desk, "acme")
    ids = [recorded(number).record_id for number in range(3)]
    for number in range(3):
        desk.send(recorded(number))
    await desk.run()
    services = await desk.open(SCALELITE_ACTOR="ada")
    await library.add_to_tenant(services, acme, Filter(prefixes=tuple(ids[:2]), states=None), dry_run=True)
    await library.add_to_tenant(services, acme, Filter(prefixes=tuple(ids[:2]), states=None))
    await library.add_to_tenant(services, acme, Filter(prefixes=tuple(ids[:2]), states=None))
    assert await library.delete_each(services, [ids[2], "unknown"]) == ["unknown"]
    assert await library.delete_each(services, ["unknown"]) == ["unknown"]
    await library.reread(services)
    async with desk.services.database.use() as connection:
        await connection.execute("DELETE FROM recording WHERE record_id = %s", (ids[0],))
        await connection.execute("UPDATE recording SET name = 'Lost' WHERE record_id = %s", (ids[1],))
    assert await library.reread(services) == library.Reread(read=2, changed=2)
    assert await library.reread(services) == library.Reread(read=2, changed=0)
    assert await revisions(desk) == [
        ("ada", "recordings add-to-tenant acme", {ids[0]: "update", ids[1]: "update"}),
        ("ada", "recordings delete", {ids[2]: "remove"}),
        ("ada", "recordings update", {ids[0]: "create", ids[1]: "update"}),
    ]
    environment = {**os.environ, **desk.environment(), "DATABASE_URL": desk.conninfo}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scalelite", "history", "2", env=environment, stdout=-1
    )
    out, _ = await child.communicate()
    assert f"- recording/{ids[2]}" in out.decode()


@pytest.mark.shows("recordings: add-to-tenant", "MT-9")
async def test_recordings_are_handed_over_by_id_and_by_metadata_once(desk: Desk) -> None:
    acme, other = await tenant(desk, "acme"), await tenant(desk, "other")
    for number, context in enumerate(("Math", "Math", "Physics")):
        desk.send(recorded(number, metadata={"bbb-context": context}))
    await desk.run()
    math = Filter(states=None, metadata=(("bbb-context", ("Math",)),))
    assert await library.add_to_tenant(desk.services, acme, math, dry_run=True) == 2
    assert await library.add_to_tenant(desk.services, acme, math) == 2
    assert await library.add_to_tenant(desk.services, acme, math) == 0
    assert await library.add_to_tenant(desk.services, other, ALL_STATES) == 1
    one = Filter(prefixes=(recorded(0).record_id,), states=None)
    assert await library.add_to_tenant(desk.services, other, one) == 0
    assert acme.id
    assert await library.add_to_tenant(desk.services, other, one, owner=acme.id) == 1
    found = {each.record_id: each for each in await desk.listed()}
    owners = [found[recorded(number).record_id].metadata["tenant-name"] for number in range(3)]
    assert owners == ["other", "acme", "other"]
    desk.send(recorded(1, metadata={"tenant-id": str(other.id), "tenant-name": "other"}))
    await desk.run()
    (kept,) = await desk.listed(Filter(prefixes=(recorded(1).record_id,)))
    assert (kept.tenant, kept.metadata["tenant-name"]) == (acme.id, "acme")


@pytest.mark.shows("RE-6", "recordings: retention")
async def test_recordings_are_pruned_by_their_tenants_age_alone(desk: Desk) -> None:
    now_ms = desk.services.now_ms()
    month, never = await tenant(desk, "month", keep_days=30), await tenant(desk, "never")
    for number, (owner, days) in enumerate(((month, 31), (month, 29), (never, 4000), (None, 4000), (month, 0))):
        end_ms = now_ms - days * DAY_MS if days else 0
        metadata = {"tenant-id": str(owner.id)} if owner else {}
        desk.send(recorded(number, start_ms=end_ms - 60_000, end_ms=end_ms, metadata=metadata))
    await desk.run()
    old = recorded(0).record_id
    assert await library.expired(desk.services) == [("month", old)]
    status, out, _ = await command(desk, "prune", "--dry-run")
    assert (status, old in out, "1 recording would be deleted" in out) == (0, True, True)
    refused, _, _ = await command(desk, "prune", stdin=-3)
    assert refused != 0
    assert len(await desk.listed(Filter())) == 5
    status, out, _ = await command(desk, "prune", "--yes")
    assert (status, out) == (0, "1 recording deleted.\n")
    assert len(await desk.listed(Filter())) == 4
    assert not [path for path in desk.files("published") if old in path]


@pytest.mark.shows("RE-6", "recordings: retention", "recordings: shown by plan")
async def test_how_long_a_tenant_keeps_recordings_is_said_in_its_inventory(desk: Desk) -> None:
    inventory = desk.folder / "inventory"
    inventory.mkdir()
    environment = {**os.environ, **desk.environment(), "DATABASE_URL": desk.conninfo, "ACME": "the-secret-of-acme"}

    def says(days: int, *arguments: str) -> str:
        secrets = "[\"{{ lookup('env', 'ACME') }}\"]"
        text = f"tenants:\n  acme:\n    secrets: {secrets}\n    recordings: {{keep_days: {days}}}\n"
        (inventory / "tenants.yml").write_text(text)
        done = run([*arguments, str(inventory)], folder=desk.folder, environment=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    await asyncio.to_thread(says, 400, "apply", "-y")
    owner = next(owner for owner, name in (await owners(desk)).items() if name == "acme")
    end_ms = desk.services.now_ms() - 300 * DAY_MS
    desk.send(recorded(start_ms=end_ms - 60_000, end_ms=end_ms, metadata={"tenant-id": str(owner)}))
    await desk.run()
    assert await library.expired(desk.services) == []
    plan = await asyncio.to_thread(says, 200, "plan")
    assert re.search(r"recordings.*400.*200", plan), plan
    await asyncio.to_thread(says, 200, "apply", "-y")
    assert await library.expired(desk.services) == [("acme", recorded(start_ms=end_ms - 60_000).record_id)]


async def owners(desk: Desk) -> dict[uuid.UUID, str]:
    async with desk.services.database.use() as connection:
        return await store.tenants_by_id(connection)


@pytest.mark.shows("recordings: update")
async def test_rows_are_made_anew_from_the_folders(desk: Desk) -> None:
    for number in range(3):
        desk.send(recorded(number), ("presentation", "video"))
    await desk.run()
    before = await desk.listed()
    shutil.move(desk.folder / "published" / "video", desk.folder / "aside")
    shutil.move(desk.folder / "published" / "presentation" / recorded(2).record_id, desk.folder / "unpublished" / "x")
    (desk.folder / "unpublished" / "presentation").mkdir()
    shutil.move(desk.folder / "unpublished" / "x", desk.folder / "unpublished/presentation" / recorded(2).record_id)
    shutil.move(desk.folder / "aside", desk.folder / "published" / "video")
    async with desk.services.database.use() as connection:
        await store.edit(connection, None, [recorded(0).record_id], Edit({"bbb-context": "Kept"}, protect=None))
        await connection.execute("DELETE FROM recording WHERE record_id = %s", (recorded(1).record_id,))
    outcome = await library.reread(desk.services)
    assert (outcome.read, outcome.problems) == (3, ())
    after = {each.record_id: each for each in await desk.listed()}
    assert after[recorded(0).record_id].metadata["bbb-context"] == "Kept"
    assert after[recorded(1).record_id] == next(each for each in before if each.record_id == recorded(1).record_id)
    assert after[recorded(2).record_id].state == "unpublished"


@pytest.mark.shows("cli: recordings")
async def test_archives_are_imported_listed_and_deleted_by_command(desk: Desk) -> None:
    archive = desk.send(recorded())
    kept = shutil.copy(archive, desk.folder / "kept.tar")
    archive.unlink()
    status, out, _ = await command(desk, "import", str(kept), "--actor", "ada")
    assert await revisions(desk) == [("ada", "recordings import", {recorded().record_id: "create"})]
    assert (status, out) == (0, f"imported {recorded().record_id}\n1 recording imported.\n")
    assert (desk.folder / "kept.tar").exists()
    assert not desk.files("spool")
    status, out, _ = await command(desk, "list", "--format", "json")
    (listed,) = json.loads(out)
    assert (listed["record_id"], listed["state"], listed["formats"]) == (
        recorded().record_id, "published", ["presentation"],
    )  # fmt: skip
    status, out, error = await command(desk, "delete", recorded().record_id, "unknown", "--yes")
    assert (status, out) == (9, "1 recording deleted.\n")
    assert "unknown" in error
    (desk.folder / "bad.tar").write_bytes(b"no archive at all" * 100)
    status, _, error = await command(desk, "import", str(desk.folder / "bad.tar"))
    assert status == 9
    assert "no tar archive" in error


@pytest.mark.shows("cli: everything that changes state writes a revision", "plan: in the same transaction")
async def test_an_import_by_a_person_and_its_revision_come_together_or_not_at_all(desk: Desk) -> None:
    disk = FaultyDisk(0, desk.cut_importers, counted=("rename", "remove_tree"))
    services = await desk.open(disk, SCALELITE_ACTOR="ada")
    by = library.author(services, "import")
    for step in range(MANY_STEPS):
        disk.wait_for(step)
        desk.send(recorded(step), ("notes",))
        with suppress(DatabaseAway):
            await importer.import_waiting(services, settled_s=-60, by=by)
        listed = {found.record_id for found in await desk.listed()}
        assert {record_id for _, _, done in await revisions(desk) for record_id in done} == listed
        if not disk.was_reached:
            break
    assert step > 3
    desk.send(recorded(0))
    await desk.run()
    assert len(await revisions(desk)) == len(listed), "what servers send is no person's change"


@pytest.mark.shows("recordings: watch", "RE-1")
async def test_watch_imports_what_comes_and_ends_when_told(desk: Desk) -> None:
    environment = {**os.environ, **desk.environment(), "DATABASE_URL": desk.conninfo}
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scalelite", "recordings", "watch",
        env={**environment, "RECORDING_IMPORT_POLL_INTERVAL": "0.1"},
    )  # fmt: skip
    archive = desk.send(recorded())
    os.utime(archive, (1, 1))

    async def imported() -> bool:
        return bool(await desk.listed())

    await eventually(imported, 20)
    child.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(child.wait(), 10) == 0
    assert not desk.files("work")
