"""Subtitles of recordings: captions.json of the format presentation, uploads as WebVTT, and the JSON that answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email import message_from_bytes
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KINDS: Final = ("subtitles", "captions")
LARGEST: Final = 10 << 20
_LANG: Final = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,4}")
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
    """Read captions.json; what is no track is passed over."""
    try:
        entries = json.loads(captions)
    except ValueError:
        return []
    found = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [
        Track(
            lang,
            str(entry.get("localeName", lang)),
            str(entry.get("kind", "captions")),
            str(entry.get("source", "live")),
        )
        for entry in found
        if _LANG.fullmatch(lang := str(entry.get("locale", "")))
    ]


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
    """Return the file of a multipart upload as WebVTT, or '' if there is none that can be read."""
    boundary = body.partition(b"\r\n")[0].removeprefix(b"--")
    if len(body) > LARGEST or not boundary:
        return ""
    message = message_from_bytes(b'Content-Type: multipart/form-data; boundary="' + boundary + b'"\r\n\r\n' + body)
    for part in message.walk():
        if part.get_param("name", header="content-disposition") == "file":
            content = part.get_payload(decode=True)
            return _web_vtt(content) if isinstance(content, bytes) else ""
    return ""


def _web_vtt(content: bytes) -> str:
    """SubRip differs from WebVTT in its first line and in the comma of its times."""
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").strip()
    except UnicodeDecodeError:
        return ""
    if text.startswith("WEBVTT"):
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
