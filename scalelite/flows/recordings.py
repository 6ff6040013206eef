"""The recordings calls: what a caller may see of them, and the changes that people make; rules: spec/recordings.md.

A change of files is noted in the row first, so that whoever finds a note can finish what a crash interrupted.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Final

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

# Every answer comes within 12 s.
_LONGEST_CALL_S: Final = 9.0
# To move files to another file system is to copy them.
_LONGEST_S: Final = 900.0
_MOVABLE = ("published", "unpublished")
_going_on: Final[set[asyncio.Task[None]]] = set()
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
    await _finish_in_time(services, ids)
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


async def delete(
    services: Services, tenant: UUID | None, ids: Sequence[str], longest_s: float = _LONGEST_CALL_S
) -> None:
    """Delete recordings of a tenant, or of any; raises RecordingNotFound, and then none is."""
    async with services.database.use() as connection:
        await note_deletion(connection, tenant, ids)
    await _finish_in_time(services, ids, longest_s)


async def note_deletion(connection: Connection, tenant: UUID | None, ids: Sequence[str]) -> None:
    """Note that recordings are to be deleted; raises RecordingNotFound, and then none is."""
    await store.claim(connection, tenant, ids, _ALL, "deleted")


async def _finish_in_time(services: Services, ids: Sequence[str], longest_s: float = _LONGEST_CALL_S) -> None:
    """Finish these, or raise RecordingNotMoved when that takes longer than a call may: then it goes on by itself.

    What works in a thread cannot be stopped, and must not be overtaken by who does the same anew.
    """

    async def finishing() -> None:
        for record_id in ids:
            await finish(services, record_id)

    task = asyncio.create_task(finishing())
    done, _ = await asyncio.wait([task], timeout=longest_s)
    if not done:
        log.warning("recordings %s: their files take longer than a call", ", ".join(ids))
        _going_on.add(task)
        task.add_done_callback(_ended)
        raise RecordingNotMoved
    task.result()


def _ended(task: asyncio.Task[None]) -> None:
    _going_on.discard(task)
    if not task.cancelled() and (error := task.exception()):
        log.warning("what took longer than a call: %s; the repair goes on with it", error)


async def finish(services: Services, record_id: str, *, wait: bool = True) -> None:
    """Do to a recording's files what its row says is to be done; raises RecordingNotMoved, and the note stays.

    If there are no files to publish or unpublish, the note is taken back: that cannot be finished. Without `wait`, one
    that somebody else works on is left to them.
    """
    try:
        if not await _finish(services, record_id, wait=wait):
            async with services.database.use() as connection:
                await store.give_up_pending(connection, record_id)
            log.error("recording %s has no files", record_id)
            raise RecordingNotMoved
    except OSError as error:
        log.error("the files of recording %s: %s; it is tried again", record_id, error)  # noqa: TRY400
        raise RecordingNotMoved from None


async def _finish(services: Services, record_id: str, *, wait: bool) -> bool:
    """Finish what is pending; False if the files are nowhere.

    The row stays locked for it: who else would finish the same waits, and finds it done; nobody brings files meanwhile.
    """
    storage = services.recordings
    async with services.database.use(_LONGEST_S) as connection, connection.transaction():
        todo = await store.lock_pending(connection, record_id, wait=wait)
        if todo is None:
            return True
        if todo.pending == "deleted":
            await storage.remove(record_id)
            await store.finish_deleting(connection, record_id)
            return True
        there = await storage.move(record_id, todo.formats, published=todo.pending == "published")
        if there:
            await store.finish_publishing(connection, record_id)
        return there


async def repair_once(services: Services) -> None:
    """Repair at the start of a process; one that cannot leaves it to the next, or to an importer."""
    try:
        await repair(services, wait=True)
    except DatabaseAway as error:
        log.warning("recordings that a crash left half done are repaired later: %s", error)


async def repair(services: Services, *, wait: bool = False) -> int:
    """Finish what crashes interrupted; returns how many recordings that were.

    Without `wait`, those that somebody works on, who may take long, are left to them.
    """
    async with services.database.use() as connection:
        pending = await store.all_pending(connection)
    for each in pending:
        try:
            await finish(services, each.record_id, wait=wait)
        except RecordingNotMoved:
            continue
    return len(pending)
