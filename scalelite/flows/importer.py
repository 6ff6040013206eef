"""Imports archives: unpacked aside, put in place, then said in Postgres, and only then is the archive removed.

Whatever stops this between two steps, the archive is still there, nothing that is not whole is shown, and the next
round does it all again with the same outcome. No lock is held while files are brought into an object storage: they are
a new generation, which the row switches to if nobody else changed the recording's files. Rules: spec/recordings.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from scalelite.core.recording import MAX_METADATA_BYTES, folder_of, merged, parse_metadata
from scalelite.edge.archive import unpack
from scalelite.edge.spool import Spool
from scalelite.errors import (
    ArchiveIncomplete,
    DatabaseAway,
    RecordingBusy,
    RecordingInvalid,
    RecordingOvertaken,
    ScaleliteError,
)
from scalelite.flows import generations, tracks
from scalelite.flows.acting import LOCK_TIMEOUT_S
from scalelite.flows.callbacks import recording_ready
from scalelite.flows.recordings import repair
from scalelite.store import db, imports
from scalelite.store.imports import Files
from scalelite.store.revisions import note_recordings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from scalelite.core.recording import Recording
    from scalelite.edge.archive import Unpacked
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author

log = logging.getLogger(__name__)

IMPORTS: Final = Counter(
    "scalelite_imports",
    "Archives by what became of them: imported, failed (set aside), waiting (tried again).",
    ["outcome"],
)

# An archive that nobody wrote to for so long is not growing.
SETTLED_S: Final = 5.0
# One whose end is missing may still be on its way, on a slow or broken line.
_ABANDONED_S: Final = 3600.0
# Archives that are imported at the same time: most of it is waiting for the disk.
_AT_ONCE: Final = 4
_LEFT_OVER_S: Final = 86400.0
# How often an import begins again because others change the same recording.
_ATTEMPTS: Final = 5
# A rename, or a copy where the folders are on different file systems.
_LONGEST_PLACING_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one archive: the recordings that are in place, and why others are not."""

    archive: str
    imported: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    waits: str = ""


def spool_of(services: Services) -> Spool:
    """Return the spool of the settings."""
    settings = services.settings
    return Spool(settings.recording_spool_dir, settings.recording_work_dir, services.disk)


async def watch(services: Services) -> None:
    """Import what comes, until cancelled; several may watch one spool."""
    tidied_s = -_LEFT_OVER_S
    while True:
        try:
            if time.monotonic() - tidied_s >= _LEFT_OVER_S:
                await tidy(services)
                tidied_s = time.monotonic()
            await repair(services)
            await import_waiting(services)
        except (DatabaseAway, OSError) as error:
            log.warning("the import goes on later: %s", error)
        await asyncio.sleep(services.settings.recording_import_interval_s)


async def tidy(services: Services) -> None:
    """Remove what processes that died left behind."""
    before_s = services.now_ms() / 1000 - _LEFT_OVER_S
    await asyncio.to_thread(spool_of(services).tidy, before_s)
    await services.recordings.tidy(before_s)
    await generations.sweep(services, before_s)


def _nobody(_: Outcome) -> None:
    """Whoever wants to hear of each archive as it is done gives another."""


async def import_waiting(
    services: Services,
    settled_s: float = SETTLED_S,
    *,
    by: Author | None = None,
    tell: Callable[[Outcome], None] = _nobody,
) -> list[Outcome]:
    """Import all archives that are complete, a few at a time; raises DatabaseAway.

    What servers send is not a person's change; with `by`, each recording is a revision.
    """
    now_s = services.now_ms() / 1000
    waiting = await asyncio.to_thread(spool_of(services).waiting, now_s - settled_s)
    outcomes: list[Outcome] = []

    async def work() -> None:
        while waiting:
            if outcome := await import_archive(services, waiting.pop(0), by=by):
                outcomes.append(outcome)
                tell(outcome)

    ends = await asyncio.gather(*(work() for _ in range(_AT_ONCE)), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return outcomes


async def import_archive(services: Services, archive: Path, *, by: Author | None = None) -> Outcome | None:
    """Import one archive and remove it, or set it aside; None if another importer has it.

    What may go away by itself (a full disk, a recording that is being deleted) leaves the archive where it is; raises
    DatabaseAway, and with `by` LockTimeout.
    """
    spool = spool_of(services)
    with spool.claimed(archive) as file:
        if file is None:
            return None
        try:
            with spool.work_folder() as work:
                unpacked = await asyncio.to_thread(unpack, file, work / "archive", services.disk)
                outcome = await _import_unpacked(services, archive.name, unpacked, by)
        except RecordingInvalid as error:
            outcome = Outcome(archive.name, failed=(error.message,))
        except ArchiveIncomplete as error:
            if services.now_ms() / 1000 - os.fstat(file.fileno()).st_mtime < _ABANDONED_S:
                return _waiting(archive, error)
            outcome = Outcome(archive.name, failed=(error.message,))
        except (OSError, RecordingBusy) as error:
            return _waiting(archive, error)
        except ScaleliteError:
            raise
        except Exception as error:
            # What we did not think of is in the archive, most likely: it is kept, and must not stop the others.
            log.exception("archive %s", archive.name)
            outcome = Outcome(archive.name, failed=(f"unexpected {type(error).__name__}; the log says where",))
        try:
            await asyncio.to_thread(_put_away, spool, archive, outcome)
        except OSError as error:
            return _waiting(archive, error)
        return outcome


def _waiting(archive: Path, error: Exception) -> Outcome:
    log.warning("archive %s waits: %s", archive.name, error)
    IMPORTS.labels("waiting").inc()
    return Outcome(archive.name, waits=str(error))


def _put_away(spool: Spool, archive: Path, outcome: Outcome) -> None:
    IMPORTS.labels("failed" if outcome.failed else "imported").inc()
    if outcome.failed:
        place = spool.fail(archive, "\n".join((*outcome.failed, "")))
        log.error("archive %s is set aside: %s", place, "; ".join(outcome.failed))
    else:
        spool.done(archive)
    for record_id in outcome.imported:
        log.info("recording %s is imported", record_id)


async def _import_unpacked(services: Services, name: str, unpacked: Sequence[Unpacked], by: Author | None) -> Outcome:
    """Import each recording of an archive; a format that cannot be read does not hold up the others."""
    if not unpacked:
        raise RecordingInvalid("there is no recording in it")
    readable: dict[str, list[tuple[Unpacked, Recording]]] = {}
    failed = []
    for each in unpacked:
        try:
            recording = await asyncio.to_thread(_read, each, services.settings.recording_formats)
        except RecordingInvalid as error:
            failed.append(f"{each.format}/{each.record_id}: {error.message}")
        else:
            readable.setdefault(each.record_id, []).append((each, recording))
    for formats in readable.values():
        await _import_recording(services, formats, by)
    return Outcome(name, tuple(readable), tuple(failed))


def _read(unpacked: Unpacked, formats: Sequence[str]) -> Recording:
    path = unpacked.folder / "metadata.xml"
    try:
        with path.open("rb") as file:
            xml = file.read(MAX_METADATA_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RecordingInvalid("there is no metadata.xml in it") from None
    return parse_metadata(xml, unpacked.record_id, unpacked.format, formats)


async def _import_recording(
    services: Services, formats: Sequence[tuple[Unpacked, Recording]], by: Author | None
) -> None:
    """Bring the formats of one recording; again, if somebody else changed its files meanwhile."""
    settings = services.settings
    recording = reduce(merged, (each for _, each in formats))
    if settings.recording_import_unpublished and recording.published:
        recording = replace(recording, published=False, state="unpublished")
    recording = replace(recording, protected=settings.protected_recordings)
    for _ in range(_ATTEMPTS):
        with suppress(RecordingOvertaken):
            return await _bring(services, recording, [each for each, _ in formats], by)
    raise RecordingBusy(recording.record_id)


async def _bring(services: Services, recording: Recording, formats: Sequence[Unpacked], by: Author | None) -> None:
    """Put files in place and into the row that says so: files first, so that no row is without them."""
    storage, record_id = services.recordings, recording.record_id
    async with services.database.use() as connection:
        before = (await imports.files_of(connection, [record_id])).get(record_id, Files())
    if before.pending == "deleted":
        raise RecordingBusy(record_id)
    staged: dict[str, str] = {}
    try:
        for each in formats:
            if each.format == tracks.FORMAT and each.format in before.generations:
                old = folder_of(record_id, each.format, before.generations[each.format])
                await tracks.keep_uploads(services, old, each.folder)
            staged[each.format] = await storage.stage(record_id, each.format, each.folder)
        await _write(services, _with_generations(recording, staged), formats, before.edition, by)
    except (OSError, RecordingBusy, RecordingOvertaken):
        await _discard(services, record_id, staged)
        raise
    # Whether a transaction whose end was not heard of was committed, the sweep finds out; here it was.
    await _discard(
        services, record_id, {name: before.generations[name] for name in staged if name in before.generations}
    )


def _with_generations(recording: Recording, generations: Mapping[str, str]) -> Recording:
    formats = tuple(replace(each, generation=generations[each.format]) for each in recording.formats)
    return replace(recording, formats=formats)


async def _write(
    services: Services, recording: Recording, formats: Sequence[Unpacked], edition: int, by: Author | None
) -> None:
    """Place what is staged and write the row, in one transaction; what a person has us do is a revision in it."""
    storage, record_id = services.recordings, recording.record_id
    async with services.database.use(_LONGEST_PLACING_S) as connection, _transaction(connection, by):
        row = await imports.put_recording(connection, recording, edition)
        for each in formats:
            await storage.place(record_id, each.format, each.folder, published=row.published)
        await imports.put_details(connection, row.id, recording)
        await recording_ready(connection, row.tenant, recording.meeting_id, record_id)
        if by:
            await note_recordings(connection, by, {record_id: "update" if edition else "create"})


def _transaction(connection: Connection, by: Author | None) -> AbstractAsyncContextManager[object]:
    """Revisions are numbered under the lock of apply, which comes before the rows' locks, as everywhere."""
    return db.apply_lock(connection, LOCK_TIMEOUT_S) if by else connection.transaction()


async def _discard(services: Services, record_id: str, generations: Mapping[str, str]) -> None:
    """Remove generations that do not count; what cannot be removed is swept up later."""
    for format_name, generation in generations.items():
        try:
            await services.recordings.discard(record_id, format_name, generation)
        except OSError as error:
            log.warning("old files of recording %s are removed later: %s", record_id, error)
