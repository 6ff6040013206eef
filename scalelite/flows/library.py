"""What operators do with recordings: hand over, delete by age, list, read their files again; each a revision."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from scalelite.core.listing import Filter, Page
from scalelite.core.model import SENTINEL_TENANT
from scalelite.core.recording import MAX_METADATA_BYTES, folder_of, merged, parse_metadata
from scalelite.core.show import counted
from scalelite.errors import (
    Ambiguous,
    RecordingBusy,
    RecordingInvalid,
    RecordingNotFound,
    RecordingNotMoved,
    RecordingOvertaken,
)
from scalelite.flows import generations, recordings
from scalelite.flows.acting import LOCK_TIMEOUT_S
from scalelite.store import db, imports
from scalelite.store import recordings as store
from scalelite.store.imports import Files
from scalelite.store.revisions import note_recordings
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from scalelite.core.model import TenantSpec
    from scalelite.core.recording import Recording
    from scalelite.edge.folders import Place
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.revisions import Done

log = logging.getLogger(__name__)

_LONGEST_S: Final = 60.0


async def add_to_tenant(
    services: Services, tenant: TenantSpec, wanted: Filter, *, owner: UUID = SENTINEL_TENANT, dry_run: bool = False
) -> int:
    """Give the recordings of `owner`, by default of nobody, that match to a tenant; returns how many."""
    if tenant.id is None and not dry_run:
        return 0
    tenant_id = tenant.id or services.new_id()  # one that a dry run predicts has none yet
    async with services.database.use(_LONGEST_S) as connection, db.apply_lock(connection, LOCK_TIMEOUT_S):
        ids = await store.assign(connection, (tenant_id, tenant.name), wanted, owner=owner, dry_run=dry_run)
        if ids and not dry_run:
            what = f"add-to-tenant {tenant.name}"
            await note_recordings(connection, author(services, what), dict.fromkeys(ids, "update"))
        return len(ids)


def author(services: Services, what: str) -> Author:
    """Return who does something to recordings by a command."""
    return Author(services.settings.actor, f"recordings {what}", {"command": f"recordings {what.partition(' ')[0]}"})


async def named(connection: Connection, texts: Sequence[str]) -> list[str]:
    """Return the ids of the recordings that a person means: whole, or so much that only one begins so; else the text.

    Raises Ambiguous.
    """
    ids = []
    for text in texts:
        wanted = Filter(prefixes=(text,), states=_NOT_DELETED, page=Page(0, _MATCHES))
        found = [one.record_id for one in (await store.find_recordings(connection, None, wanted))[0]]
        if len(found) > 1 and text not in found:
            raise Ambiguous("recording", text, found)
        ids.append(found[0] if len(found) == 1 else text)
    return ids


_NOT_DELETED: Final = ("processing", "processed", "published", "unpublished")
# So many are named where a beginning is not enough.
_MATCHES: Final = 10


async def expired(services: Services) -> list[tuple[str, str]]:
    """Return (tenant's name, record id) of the recordings that are older than their tenants keep them."""
    async with services.database.use(60) as connection:
        return await store.expired(connection, services.now_ms())


def _nobody(_: str) -> None:
    """Whoever wants to hear of each recording as it is done gives another."""


async def delete_each(services: Services, ids: Sequence[str], tell: Callable[[str], None] = _nobody) -> list[str]:
    """Delete recordings as deleteRecordings does, whosesoever; returns those that could not be deleted.

    What is going to be deleted is noted first, in one revision: a crash leaves it to the repair.
    """
    left, noted = [], []
    async with services.database.use(_LONGEST_S) as connection, db.apply_lock(connection, LOCK_TIMEOUT_S):
        for record_id in ids:
            try:
                await recordings.note_deletion(connection, None, [record_id])
            except RecordingNotFound:
                left.append(record_id)
            else:
                noted.append(record_id)
        if noted:
            await note_recordings(connection, author(services, "delete"), dict.fromkeys(noted, "remove"))
    for record_id in noted:
        try:
            await recordings.finish(services, record_id)
        except RecordingNotMoved:
            left.append(record_id)
        tell(record_id)
    return left


@dataclass(frozen=True, slots=True)
class Reread:
    """What came of reading the files again: how many recordings, how many rows that changed, what could not be read."""

    read: int = 0
    changed: int = 0
    problems: tuple[str, ...] = ()

    def __add__(self, other: Reread) -> Reread:
        return Reread(self.read + other.read, self.changed + other.changed, (*self.problems, *other.problems))


async def reread(services: Services, tell: Callable[[str], None] = _nobody) -> Reread:
    """Read the metadata.xml of all files again, and take up recordings that no row knows; people's edits stay.

    What is unpublished by its place is so in its row; what was deleted stays deleted. Each batch is a transaction.
    """
    outcome = Reread()
    for batch in generations.batches(await services.recordings.places()):
        async with services.database.use() as connection:
            rows = await imports.files_of(connection, list(batch))
        read, problems = [], []
        for record_id, places in batch.items():
            files = rows.get(record_id, Files())
            if files.state == "deleted":
                continue
            try:
                read.append((await _recording(services, places, files), files.edition))
            except RecordingInvalid as error:
                problems.append(f"{record_id}: {error.message}")
        outcome += await _renew(services, read) + Reread(problems=tuple(problems))
        tell(counted(outcome.read, "recording"))
    return outcome


async def _renew(services: Services, read: Sequence[tuple[Recording, int]]) -> Reread:
    """Write what was read into the rows, and a revision of those that it changed."""
    ids = [recording.record_id for recording, _ in read]
    problems = []
    async with services.database.use(_LONGEST_S) as connection, db.apply_lock(connection, LOCK_TIMEOUT_S):
        before = await _by_id(connection, ids)
        for recording, edition in read:
            try:
                async with connection.transaction():
                    row = await imports.put_recording(connection, recording, edition)
                    await imports.put_details(connection, row.id, recording)
            except (RecordingBusy, RecordingOvertaken) as error:
                problems.append(f"{recording.record_id}: {error.message}")
        after = await _by_id(connection, ids)
        done: dict[str, Done] = {
            record_id: "update" if record_id in before else "create"
            for record_id, recording in after.items()
            if recording != before.get(record_id)
        }
        if done:
            await note_recordings(connection, author(services, "update"), done)
    return Reread(len(ids) - len(problems), len(done), tuple(problems))


async def _by_id(connection: Connection, ids: Sequence[str]) -> dict[str, Recording]:
    if not ids:
        return {}
    found, _ = await store.find_recordings(connection, None, Filter(prefixes=tuple(ids), states=None))
    return {recording.record_id: recording for recording in found if recording.record_id in ids}


async def _recording(services: Services, places: Sequence[Place], files: Files) -> Recording:
    """Read what the files of a recording say."""
    formats = [await _read(services, each) for each in generations.in_order(places, files).values()]
    return replace(reduce(merged, formats), protected=services.settings.protected_recordings)


async def _read(services: Services, places: Sequence[Place]) -> Recording:
    """Read the metadata.xml of a format, in the first of these places that has one: what has none is not whole."""
    xml, place = b"", places[0]
    for place in places:
        name = f"{folder_of(place.record_id, place.format, place.generation)}/metadata.xml"
        xml = b"".join([chunk async for chunk in services.recordings.read(name, 0, MAX_METADATA_BYTES + 1)])
        if xml:
            break
    found = parse_metadata(xml, place.record_id, place.format, services.settings.recording_formats)
    found = replace(found, formats=tuple(replace(each, generation=place.generation) for each in found.formats))
    if place.published is None or found.published == place.published:
        return found
    return replace(found, published=place.published, state="published" if place.published else "unpublished")
