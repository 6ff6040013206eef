"""The calls about subtitles: from the recording's files and back into them; they answer JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalelite.core import tracks
from scalelite.core.listing import Filter
from scalelite.core.recording import RECORD_ID
from scalelite.core.tracks import KINDS, LARGEST, Track
from scalelite.errors import NotStored
from scalelite.flows.calls import Answer
from scalelite.store import recordings as store

if TYPE_CHECKING:
    from scalelite.flows.calls import Caller
    from scalelite.flows.proxy import Proxy

JSON: Final = "application/json"
_FORMAT: Final = "presentation"


async def get_text_tracks(proxy: Proxy, caller: Caller) -> Answer:
    """List the subtitles of one recording, with where each is."""
    record_id = caller.params.get("recordID", "")
    if not record_id:
        return _failed("paramError", "Missing param recordID.")
    if not await _is_callers(proxy, caller, record_id):
        return _failed("noRecordings", f"No recording was found for {record_id}.")
    found = await _tracks(proxy, record_id)
    if not found:
        return _failed("noCaptionsFound", f"No captions were found for {record_id}.")
    base = f"{caller.tenant.public_url or caller.origin}/{_FORMAT}/{record_id}"
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
    if not await _is_callers(proxy, caller, record_id):
        return _failed("noRecordings", f"No recording was found for {record_id}.")
    content = tracks.uploaded(caller.slides.content)
    if not content:
        return _failed("empty_uploaded_text_track", "The file is missing, or is neither WebVTT nor SubRip.")
    track = Track(lang, params["label"], kind, "upload")
    others = [each for each in await _tracks(proxy, record_id) if each.lang != lang]
    storage, folder = proxy.services.recordings, f"{_FORMAT}/{record_id}"
    try:
        await storage.write(f"{folder}/{track.file}", content.encode())
        await storage.write(f"{folder}/captions.json", tracks.write_tracks([*others, track]))
    except OSError:
        raise NotStored from None
    return Answer(tracks.stored(record_id), content_type=JSON)


async def _is_callers(proxy: Proxy, caller: Caller, record_id: str) -> bool:
    """Whether this very recording is the caller's, and has the format that subtitles belong to."""
    if not RECORD_ID.fullmatch(record_id):
        return False
    owner = caller.tenant.id if caller.tenant.name else None
    async with proxy.services.database.use() as connection:
        found, _ = await store.find_recordings(connection, owner, Filter(prefixes=(record_id,)))
    return any(
        each.record_id == record_id and any(playback.format == _FORMAT for playback in each.formats) for each in found
    )


async def _tracks(proxy: Proxy, record_id: str) -> list[Track]:
    name = f"{_FORMAT}/{record_id}/captions.json"
    captions = b"".join([chunk async for chunk in proxy.services.recordings.read(name, 0, LARGEST)])
    return tracks.read_tracks(captions)


def _failed(key: str, message: str) -> Answer:
    return Answer(tracks.failed(key, message), content_type=JSON)
