"""The recordings calls: what a caller may see of them, and the changes that people make; rules: spec/recordings.md.

A change of files is noted in the row first, so that whoever finds a note can finish what a crash interrupted.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from scalelite.core import listing, wire
from scalelite.core.listing import Edit, Filter, Links
from scalelite.errors import DatabaseAway, RecordingNotFound, RecordingNotMoved, UnfilteredRecordings
from scalelite.flows.calls import Answer
from scalelite.store import recordings as store
from scalelite.store.playback import add_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from scalelite.core.recording import Recording
    from scalelite.flows.calls import Caller
    from scalelite.flows.proxy import Proxy
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection

log = logging.getLogger(__name__)

_MOVABLE = ("published", "unpublished")
_ALL = ("processing", "processed", "published", "unpublished", "deleted")


def _owner(caller: Caller) -> UUID | None:
    """Whose recordings a caller sees: its tenant's; all of them where there are no tenants."""
    return caller.tenant.id if caller.tenant.name else None


async def get_recordings(proxy: Proxy, caller: Caller) -> Answer:
    """List the caller's recordings."""
    services, settings = proxy.services, proxy.services.settings
    wanted = Filter.from_params(caller.params)
    if settings.get_recordings_filtered and wanted.prefixes is None and wanted.meeting_ids is None:
        raise UnfilteredRecordings
    if settings.recording_disabled:
        return Answer(listing.recordings([], Links("", {}), wanted.page))
    async with services.database.use() as connection:
        found, total = await store.find_recordings(connection, _owner(caller), wanted)
    tokens = await _new_tokens(services, found)
    links = Links(caller.tenant.public_url or caller.origin, tokens, settings.protected_recordings)
    return Answer(listing.recordings(found, links, wanted.page, total))


async def _new_tokens(services: Services, found: Sequence[Recording]) -> dict[tuple[str, str], str]:
    """Make a one-time token for each format of the protected recordings."""
    tokens = {
        (recording.record_id, playback.format): f"{services.random.getrandbits(256):064x}"
        for recording in found
        if recording.protected
        for playback in recording.formats
    }
    if tokens:
        digests = {place: hashlib.sha256(token.encode()).digest() for place, token in tokens.items()}
        async with services.database.use() as connection:
            await add_tokens(connection, digests, services.settings.protected_token_minutes)
    return tokens


async def publish_recordings(proxy: Proxy, caller: Caller) -> Answer:
    """Publish or unpublish the recordings that the call names, all or none."""
    services, ids, publish = proxy.services, listing.record_ids(caller.params), listing.publish_flag(caller.params)
    _check_enabled(services)
    async with services.database.use() as connection:
        await store.claim(connection, _owner(caller), ids, _MOVABLE, "published" if publish else "unpublished")
    for record_id in ids:
        await finish(services, record_id)
    return Answer(wire.success(published="true" if publish else "false"))


async def update_recordings(proxy: Proxy, caller: Caller) -> Answer:
    """Set metadata and protection of the recordings that the call names, all or none."""
    services, ids, wanted = proxy.services, listing.record_ids(caller.params), Edit.from_params(caller.params)
    _check_enabled(services)
    if not wanted:
        return Answer(wire.success(updated="false"))
    try:
        async with services.database.use() as connection:
            await store.edit(connection, _owner(caller), ids, wanted)
    except RecordingNotFound:
        return Answer(wire.success(updated="false"))
    return Answer(wire.success(updated="true"))


async def delete_recordings(proxy: Proxy, caller: Caller) -> Answer:
    """Delete the recordings that the call names, all or none."""
    ids = listing.record_ids(caller.params)
    _check_enabled(proxy.services)
    await delete(proxy.services, _owner(caller), ids)
    return Answer(wire.success(deleted="true"))


def _check_enabled(services: Services) -> None:
    if services.settings.recording_disabled:
        raise RecordingNotFound


async def delete(services: Services, tenant: UUID | None, ids: Sequence[str]) -> None:
    """Delete recordings of a tenant, or of any; raises RecordingNotFound, and then none is."""
    async with services.database.use() as connection:
        await note_deletion(connection, tenant, ids)
    for record_id in ids:
        await finish(services, record_id)


async def note_deletion(connection: Connection, tenant: UUID | None, ids: Sequence[str]) -> None:
    """Note that recordings are to be deleted; raises RecordingNotFound, and then none is."""
    await store.claim(connection, tenant, ids, _ALL, "deleted")


async def finish(services: Services, record_id: str) -> None:
    """Do to a recording's files what its row says is to be done; raises RecordingNotMoved, and the note stays.

    If there are no files to publish or unpublish, the note is taken back: that cannot be finished.
    """
    try:
        if not await _finish(services, record_id):
            async with services.database.use() as connection:
                await store.give_up_pending(connection, record_id)
            log.error("recording %s has no files", record_id)
            raise RecordingNotMoved
    except OSError as error:
        log.error("the files of recording %s: %s; it is tried again", record_id, error)  # noqa: TRY400
        raise RecordingNotMoved from None


async def _finish(services: Services, record_id: str) -> bool:
    """Finish what is pending; False if the files are nowhere. Moving is a rename, so the row stays locked for it."""
    async with services.database.use() as connection, connection.transaction():
        todo = await store.lock_pending(connection, record_id)
        if todo is None:
            return True
        if todo.pending != "deleted":
            there = await services.recordings.move(record_id, todo.formats, published=todo.pending == "published")
            if there:
                await store.finish_publishing(connection, record_id)
            return there
    await services.recordings.remove(record_id)
    async with services.database.use() as connection:
        await store.finish_deleting(connection, record_id)
    return True


async def repair_once(services: Services) -> None:
    """Repair at the start of a process; one that cannot leaves it to the next, or to an importer."""
    try:
        await repair(services)
    except DatabaseAway as error:
        log.warning("recordings that a crash left half done are repaired later: %s", error)


async def repair(services: Services) -> int:
    """Finish what crashes interrupted; returns how many recordings that were."""
    async with services.database.use() as connection:
        pending = await store.all_pending(connection)
    for each in pending:
        try:
            await finish(services, each.record_id)
        except RecordingNotMoved:
            continue
    return len(pending)
