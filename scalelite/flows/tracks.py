"""The calls about subtitles: from the recording's files and back into them; they answer JSON."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from scalelite.core import tracks
from scalelite.core.listing import Filter
from scalelite.core.recording import RECORD_ID, folder_of
from scalelite.core.tracks import KINDS, LARGEST, Track
from scalelite.edge.folders import write_file
from scalelite.errors import RecordingNotFound
from scalelite.flows.calls import Answer
from scalelite.store import recordings as store

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scalelite.edge.disk import Disk
    from scalelite.flows.calls import Caller
    from scalelite.flows.proxy import Proxy
    from scalelite.flows.services import Services

log = logging.getLogger(__name__)

JSON: Final = "application/json"
# The one format that subtitles belong to, where its player looks for their list.
FORMAT: Final = "presentation"
_LIST: Final = "captions.json"
_UPLOAD: Final = "upload"
# Of an upload into an object storage; every answer comes within 12 s.
_LONGEST_S: Final = 10.0


async def get_text_tracks(proxy: Proxy, caller: Caller) -> Answer:
    """List the subtitles of one recording, with where each is."""
    record_id = caller.params.get("recordID", "")
    if not record_id:
        return _failed("paramError", "Missing param recordID.")
    if (folder := await _folder(proxy, caller, record_id)) is None:
        return _unknown()
    try:
        found = await _tracks(proxy.services, folder)
    except OSError as error:
        return _away(record_id, error)
    if not found:
        return _failed("noCaptionsFound", f"No captions were found for {record_id}.")
    base = f"{caller.tenant.public_url or caller.origin}/{FORMAT}/{record_id}"
    return Answer(tracks.listed(found, {each.lang: f"{base}/{each.file}" for each in found}), content_type=JSON)


async def put_text_track(proxy: Proxy, caller: Caller) -> Answer:
    """Keep an uploaded subtitle file beside the recording's others, instead of one of its language."""
    params = caller.params
    for name in ("recordID", "kind", "lang", "label"):
        if not params.get(name):
            return _failed("paramError", f"Missing param {name}.")
    record_id, kind, lang = params["recordID"], params["kind"], params["lang"]
    if kind not in KINDS:
        return _failed("invalidKind", "The kind must be subtitles or captions.")
    if not tracks.is_language(lang):
        return _failed("invalidLang", "The lang must be a language tag.")
    if await _folder(proxy, caller, record_id) is None:
        return _unknown()
    content = await asyncio.to_thread(tracks.uploaded, caller.slides.content)
    if not content:
        return _failed(
            "empty_uploaded_text_track", "The file is missing, or is neither WebVTT nor SubRip in UTF-8 or UTF-16."
        )
    try:
        await store_track(proxy.services, record_id, Track(lang, params["label"], kind, _UPLOAD), content)
    except RecordingNotFound:
        return _unknown()
    except OSError as error:
        return _away(record_id, error)
    return Answer(tracks.stored(record_id), content_type=JSON)


async def store_track(services: Services, record_id: str, track: Track, content: str) -> None:
    """Write a track and the list of tracks; the row stays locked for it, so that of two at once none is lost.

    An import that has read the list before begins again. Raises RecordingNotFound.
    """
    storage = services.recordings
    async with services.database.use(_LONGEST_S) as connection, connection.transaction():
        folder = folder_of(record_id, FORMAT, await store.change_files(connection, record_id, FORMAT))
        others = [each for each in await _tracks(services, folder) if each.lang != track.lang]
        await storage.write(f"{folder}/{track.file}", content.encode())
        await storage.write(f"{folder}/{_LIST}", tracks.write_tracks([*others, track]))


async def keep_uploads(services: Services, folder: str, newer: Path) -> None:
    """Copy the tracks that people put beside a recording into a newer folder, before that takes the place of it."""
    uploads = [each for each in await _tracks(services, folder) if each.source == _UPLOAD]
    contents = {each: await _read(services, f"{folder}/{each.file}") for each in uploads}
    if uploads:
        await asyncio.to_thread(_add, newer, contents, services.disk)


def _add(folder: Path, uploads: Mapping[Track, bytes], disk: Disk) -> None:
    languages = {each.lang for each in uploads}
    listed = folder / _LIST
    others = tracks.read_tracks(listed.read_bytes()[:LARGEST]) if listed.is_file() else []
    kept = [each for each in others if each.lang not in languages]
    files = {listed: tracks.write_tracks([*kept, *uploads]), **{folder / each.file: uploads[each] for each in uploads}}
    for path, content in files.items():
        disk.remove(path)
        write_file(path, [content], disk)


async def _folder(proxy: Proxy, caller: Caller, record_id: str) -> str | None:
    """Return where the tracks of this very recording are, if it is the caller's and has the format they belong to."""
    if proxy.services.settings.recording_disabled or not RECORD_ID.fullmatch(record_id):
        return None
    owner = caller.tenant.id if caller.tenant.name else None
    async with proxy.services.database.use() as connection:
        found, _ = await store.find_recordings(connection, owner, Filter(prefixes=(record_id,)))
    generations = [
        playback.generation
        for each in found
        if each.record_id == record_id
        for playback in each.formats
        if playback.format == FORMAT
    ]
    return folder_of(record_id, FORMAT, generations[0]) if generations else None


async def _tracks(services: Services, folder: str) -> list[Track]:
    return tracks.read_tracks(await _read(services, f"{folder}/{_LIST}"))


async def _read(services: Services, name: str) -> bytes:
    return b"".join([chunk async for chunk in services.recordings.read(name, 0, LARGEST)])


def _away(record_id: str, error: OSError) -> Answer:
    log.warning("the text tracks of recording %s: %s", record_id, error)
    return _failed("internalError", "The files of the recording cannot be read or written now.")


def _unknown() -> Answer:
    return _failed("noRecordings", "No recording was found.")


def _failed(key: str, message: str) -> Answer:
    return Answer(tracks.failed(key, message), content_type=JSON)
