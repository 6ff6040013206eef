"""Imports archives: unpacked aside, put in place, then said in Postgres, and only then is the archive removed.

Whatever stops this between two steps, the archive is still there, nothing that is not whole is shown, and the next
round does it all again with the same outcome. Rules: spec/recordings.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from scalelite.core.recording import MAX_METADATA_BYTES, merged, parse_metadata
from scalelite.edge.archive import unpack
from scalelite.edge.spool import Spool
from scalelite.errors import ArchiveIncomplete, DatabaseAway, RecordingBusy, RecordingInvalid
from scalelite.flows import tracks
from scalelite.flows.callbacks import recording_ready
from scalelite.flows.recordings import repair
from scalelite.store import recordings as store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from scalelite.core.recording import Recording
    from scalelite.edge.archive import Unpacked
    from scalelite.flows.services import Services

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
    await tidy(services)
    while True:
        try:
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


async def import_waiting(services: Services, settled_s: float = SETTLED_S) -> list[Outcome]:
    """Import all archives that are complete, a few at a time; raises DatabaseAway."""
    now_s = services.now_ms() / 1000
    waiting = await asyncio.to_thread(spool_of(services).waiting, now_s - settled_s)
    outcomes: list[Outcome] = []

    async def work() -> None:
        while waiting:
            if outcome := await import_archive(services, waiting.pop(0)):
                outcomes.append(outcome)

    ends = await asyncio.gather(*(work() for _ in range(_AT_ONCE)), return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException):
            raise end
    return outcomes


async def import_archive(services: Services, archive: Path) -> Outcome | None:
    """Import one archive and remove it, or set it aside; None if another importer has it.

    What may go away by itself (a full disk, a recording that is being deleted) leaves the archive where it is; raises
    DatabaseAway.
    """
    spool = spool_of(services)
    with spool.claimed(archive) as file:
        if file is None:
            return None
        try:
            with spool.work_folder() as work:
                unpacked = await asyncio.to_thread(unpack, file, work / "archive", services.disk)
                outcome = await _import_unpacked(services, archive.name, unpacked)
        except RecordingInvalid as error:
            outcome = Outcome(archive.name, failed=(error.message,))
        except ArchiveIncomplete as error:
            if services.now_ms() / 1000 - os.fstat(file.fileno()).st_mtime < _ABANDONED_S:
                return _waiting(archive, error)
            outcome = Outcome(archive.name, failed=(error.message,))
        except (OSError, RecordingBusy) as error:
            return _waiting(archive, error)
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


async def _import_unpacked(services: Services, name: str, unpacked: Sequence[Unpacked]) -> Outcome:
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
        await _import_recording(services, formats)
    return Outcome(name, tuple(readable), tuple(failed))


def _read(unpacked: Unpacked, formats: Sequence[str]) -> Recording:
    path = unpacked.folder / "metadata.xml"
    try:
        with path.open("rb") as file:
            xml = file.read(MAX_METADATA_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise RecordingInvalid("there is no metadata.xml in it") from None
    return parse_metadata(xml, unpacked.record_id, unpacked.format, formats)


async def _import_recording(services: Services, formats: Sequence[tuple[Unpacked, Recording]]) -> None:
    """Put the formats of one recording in place and into its row: files first, so that no row is without them."""
    settings, storage = services.settings, services.recordings
    recording = reduce(merged, (each for _, each in formats))
    if settings.recording_import_unpublished and recording.published:
        recording = replace(recording, published=False, state="unpublished")
    recording = replace(recording, protected=settings.protected_recordings)
    for each, _ in formats:
        if each.format == tracks.FORMAT:
            await tracks.keep_uploads(services, each.record_id, each.folder)
        await storage.stage(each.record_id, each.format, each.folder)
    async with services.database.use(_LONGEST_PLACING_S) as connection, connection.transaction():
        row = await store.put_recording(connection, recording)
        for each, _ in formats:
            await storage.place(each.record_id, each.format, each.folder, published=row.published)
        await store.put_details(connection, row.id, recording)
        await recording_ready(connection, row.tenant, recording.meeting_id, recording.record_id)
