"""What operators do with recordings: hand over, delete by age, list, read their files again; each a revision."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from scalelite.core.listing import Filter
from scalelite.core.model import SENTINEL_TENANT
from scalelite.core.recording import MAX_METADATA_BYTES, merged, parse_metadata
from scalelite.errors import RecordingBusy, RecordingInvalid, RecordingNotFound, RecordingNotMoved
from scalelite.flows import recordings
from scalelite.flows.acting import LOCK_TIMEOUT_S
from scalelite.store import db
from scalelite.store import recordings as store
from scalelite.store.revisions import note_recordings
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from scalelite.core.model import TenantSpec
    from scalelite.core.recording import Recording
    from scalelite.edge.folders import Place
    from scalelite.flows.services import Services

log = logging.getLogger(__name__)

AT_ONCE: Final = 100
_LONGEST_S: Final = 60.0


async def add_to_tenant(
    services: Services, tenant: TenantSpec, wanted: Filter, *, owner: UUID = SENTINEL_TENANT, dry_run: bool = False
) -> int:
    """Give the recordings of `owner`, by default of nobody, that match to a tenant; returns how many."""
    if tenant.id is None:
        return 0
    async with services.database.use(_LONGEST_S) as connection, db.apply_lock(connection, LOCK_TIMEOUT_S):
        ids = await store.assign(connection, (tenant.id, tenant.name), wanted, owner=owner, dry_run=dry_run)
        if ids and not dry_run:
            await note_recordings(connection, _author(services, f"add-to-tenant {tenant.name}"), "update", ids)
        return len(ids)


def _author(services: Services, what: str) -> Author:
    return Author(services.settings.actor, f"recordings {what}", {"command": f"recordings {what.partition(' ')[0]}"})


async def expired(services: Services) -> list[tuple[str, str]]:
    """Return (tenant's name, record id) of the recordings that are older than their tenants keep them."""
    async with services.database.use(60) as connection:
        return await store.expired(connection, services.now_ms())


async def delete_each(services: Services, ids: Sequence[str]) -> list[str]:
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
            await note_recordings(connection, _author(services, "delete"), "remove", noted)
    for record_id in noted:
        try:
            await recordings.finish(services, record_id)
        except RecordingNotMoved:
            left.append(record_id)
    return left


@dataclass(frozen=True, slots=True)
class Reread:
    """What came of reading the files again: how many recordings, and what could not be read."""

    read: int
    problems: tuple[str, ...]


async def reread(services: Services) -> Reread:
    """Read the metadata.xml of all files again, and take up recordings that no row knows; people's edits stay.

    What is unpublished by its place is so in its row; what was deleted stays deleted.
    """
    places = await services.recordings.places()
    read: list[str] = []
    problems: list[str] = []
    for batch in _batches(sorted({place.record_id for place in places})):
        async with services.database.use() as connection:
            gone, _ = await store.find_recordings(connection, None, Filter(prefixes=batch, states=("deleted",)))
        deleted = {recording.record_id for recording in gone}
        for record_id in batch:
            if record_id in deleted:
                continue
            try:
                await _reread(services, [place for place in places if place.record_id == record_id])
            except (RecordingInvalid, RecordingBusy) as error:
                problems.append(f"{record_id}: {error.message}")
            else:
                read.append(record_id)
    if read:
        async with services.database.use(_LONGEST_S) as connection, db.apply_lock(connection, LOCK_TIMEOUT_S):
            await note_recordings(connection, _author(services, "update"), "update", read)
    return Reread(len(read), tuple(problems))


def _batches(ids: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(ids), AT_ONCE):
        yield tuple(ids[start : start + AT_ONCE])


async def _reread(services: Services, places: Sequence[Place]) -> None:
    recording = reduce(merged, [await _read(services, place) for place in places])
    recording = replace(recording, protected=services.settings.protected_recordings)
    async with services.database.use() as connection, connection.transaction():
        row = await store.put_recording(connection, recording)
        await store.put_details(connection, row.id, recording)


async def _read(services: Services, place: Place) -> Recording:
    name = f"{place.format}/{place.record_id}/metadata.xml"
    xml = b"".join([chunk async for chunk in services.recordings.read(name, 0, MAX_METADATA_BYTES + 1)])
    found = parse_metadata(xml, place.record_id, place.format, services.settings.recording_formats)
    if place.published is None or found.published == place.published:
        return found
    return replace(found, published=place.published, state="published" if place.published else "unpublished")
