"""Subtitles of recordings: captions.json of the format presentation, uploads as WebVTT, and the JSON that answers."""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.multipart import parts_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS: Final = ("subtitles", "captions")
LARGEST: Final = 10 << 20
_LANG: Final = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}")
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SRT_TIME: Final = re.compile(r"(\d\d:\d\d:\d\d),(\d{3})")


@dataclass(frozen=True, slots=True)
class Track:
    """One language of a recording's subtitles."""

    lang: str
    label: str
    kind: str = "captions"
    source: str = "live"

    @property
    def file(self) -> str:
        """The name of its file beside captions.json, as the player asks for it."""
        return f"caption_{self.lang}.vtt"


def read_tracks(captions: bytes) -> list[Track]:
    """Read captions.json, which comes from an archive; what is no track is passed over."""
    try:
        entries = json.loads(captions)
    except (ValueError, RecursionError):
        return []
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [
        Track(
            lang,
            _words(entry, "localeName", lang),
            _words(entry, "kind", "captions"),
            _words(entry, "source", "live"),
        )
        for entry in found
        if _LANG.fullmatch(lang := _words(entry, "locale", ""))
    ]


def _words(entry: Mapping[str, Any], name: str, default: str) -> str:
    value = entry.get(name, default)
    return value if isinstance(value, str) else default


def write_tracks(tracks: Sequence[Track]) -> bytes:
    """Return captions.json; BigBlueButton's player reads locale and localeName."""
    entries = [
        {"locale": each.lang, "localeName": each.label, "kind": each.kind, "source": each.source} for each in tracks
    ]
    return json.dumps(entries).encode()


def is_language(text: str) -> bool:
    """Say whether a text may be a language tag; it becomes a part of a file's name."""
    return bool(_LANG.fullmatch(text))


def uploaded(body: bytes) -> str:
    """Return the file of a multipart/form-data upload as WebVTT, or '' if there is none that can be read."""
    if len(body) > LARGEST:
        return ""
    try:
        files = [part.content for part in parts_of(body) if part.name == "file"]
    except ValueError:
        return ""
    return _web_vtt(files[0]) if files else ""


def _web_vtt(content: bytes) -> str:
    """SubRip differs from WebVTT in its first line and in the comma of its times; some programs write it in UTF-16."""
    try:
        text = content.decode("utf-16" if content[:2] in _UTF_16 else "utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError:
        return ""
    if re.match(r"WEBVTT(?![^ \t\r\n])", text):
        return text + "\n"
    with_points, times = _SRT_TIME.subn(r"\1.\2", text)
    return f"WEBVTT\n\n{with_points}\n" if times else ""


def failed(key: str, message: str) -> bytes:
    """Return the answer FAILED."""
    return _answer({"returncode": "FAILED", "messageKey": key, "message": message})


def listed(tracks: Sequence[Track], hrefs: Mapping[str, str]) -> bytes:
    """Return the answer of getRecordingTextTracks; `hrefs` by language."""
    entries = [
        {"href": hrefs[each.lang], "kind": each.kind, "label": each.label, "lang": each.lang, "source": each.source}
        for each in tracks
    ]
    return _answer({"returncode": "SUCCESS", "tracks": entries})


def stored(record_id: str) -> bytes:
    """Return the answer of putRecordingTextTrack."""
    key = "upload_text_track_success"
    return _answer(
        {
            "returncode": "SUCCESS",
            "messageKey": key,
            "message": "The text track was stored.",
            "recordId": record_id,
        }
    )


def _answer(response: dict[str, Any]) -> bytes:
    return json.dumps({"response": response}).encode()
