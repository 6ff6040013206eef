"""What was changed outside of the inventory since it was applied: found, and forgotten where both agree by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalelite.core import drift as core
from scalelite.core.align import identified
from scalelite.inventory.places import Places
from scalelite.store import db, history, revisions, specs

if TYPE_CHECKING:
    from scalelite.core.drift import Drift
    from scalelite.core.model import Declared, Key
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author


async def find_drift(
    connection: Connection, wanted: Declared | None, ids_from_urls: frozenset[str] = frozenset()
) -> tuple[Drift, ...]:
    """Return what was changed outside of the inventory since it was applied; reads one snapshot."""
    async with db.snapshot(connection):
        live = (await specs.load_live(connection)).declared
        pasts = await history.load_pasts(connection)
    return core.drift(live, pasts, wanted and identified(live, wanted, ids_from_urls))


async def note_agreement(
    connection: Connection, wanted: Declared, author: Author, lock_timeout_s: float | None = None
) -> None:
    """Remember as applied what an inventory says and is so already: that was changed, or made, outside of it.

    Takes the lock of an apply when a time for it is given, else the caller holds it.
    """
    if not author.inventory or not (opened := await _open(connection)):
        return None
    if lock_timeout_s is not None:
        async with db.apply_lock(connection, lock_timeout_s):
            return await note_agreement(connection, wanted, author)
    live = await specs.load_live(connection)
    there, gone = core.agreed(live.declared, opened, wanted)
    files = {key: place.file if (place := wanted.places.get((key, ""))) else "" for key in there}
    return await revisions.mark_applied(connection, files, gone, live.revision)


async def moved(connection: Connection, wanted: Declared, author: Author) -> dict[Key, str]:
    """Return what stands in another file than when it was applied, with that file: what did not change else, too."""
    if not author.inventory:
        return {}
    places = wanted.places
    files = (
        places.files()
        if isinstance(places, Places)
        else {key: place.file for (key, field), place in places.items() if not field}
    )
    used = set(files.values())
    if len(used) == 1 and await history.applied_files(connection) <= used:
        return {}  # between one file and itself nothing moves
    known = await history.load_files(connection, files)
    return {key: file for key, file in files.items() if known.get(key, file) != file}


async def _open(connection: Connection) -> set[Key]:
    """Return the objects that an inventory has not applied as they are."""
    return {*await history.load_pasts(connection), *await history.never_applied(connection)}
