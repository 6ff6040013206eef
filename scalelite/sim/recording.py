"""What a server makes of a recorded meeting: the archive that its post-publish script sends.

Shapes of metadata.xml and of the folders: bigbluebutton.md, section 2. The media are short texts, not films.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scalelite.sim.meetings import Meeting

FORMATS: Final = ("presentation", "video", "screenshare", "podcast", "notes")
LINKS: Final = {
    "presentation": "/playback/presentation/2.3/{id}",
    "video": "/playback/video/{id}/",
    "screenshare": "/recording/screenshare/{id}/",
    "podcast": "/podcast/{id}/audio.ogg",
    "notes": "/notes/{id}/notes.pdf",
}
FILES: Final = {
    "presentation": (
        "shapes.svg", "slides_new.xml", "captions.json", "presentation_text.json", "video/webcams.webm",
        "presentation/deck/thumbnails/thumb-1.png", "presentation/deck/svgs/slide1.svg",
    ),
    "video": ("index.html", "video.xml", "video-0.m4v", "css/video.css"),
    "screenshare": ("index.html", "screenshare-0.webm"),
    "podcast": ("audio.ogg",),
    "notes": ("notes.pdf",),
}  # fmt: skip
_CONTENTS: Final = {"captions.json": b"[]"}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A meeting that was recorded; times are milliseconds since 1970, `host` is the server's public one."""

    record_id: str
    meeting_id: str
    name: str
    start_ms: int
    end_ms: int
    host: str = "bbb1.example.com"
    participants: int = 1
    state: str = "published"
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, meeting: Meeting, end_ms: int, host: str) -> Recorded:
        """Take over what a server knows of a meeting."""
        return cls(
            meeting.internal_id,
            meeting.id,
            meeting.name,
            meeting.created_ms,
            end_ms,
            host,
            max(1, len(meeting.users) + len(meeting.left)),
            metadata=meeting.metadata,
        )


def metadata_xml(recorded: Recorded, format_name: str) -> bytes:
    """Return a format's metadata.xml, as BigBlueButton's publish scripts write it."""
    meta = {
        "isBreakout": "false",
        "meetingId": recorded.meeting_id,
        "meetingName": recorded.name,
        **recorded.metadata,
    }
    states = {"video": "available", "screenshare": "available"} if recorded.state == "published" else {}
    meeting = (
        f'<meeting id="{recorded.record_id}" externalId={quoteattr(recorded.meeting_id)} '
        f'name={quoteattr(recorded.name)} breakout="false"/>'
    )
    participants = f"<participants>{recorded.participants}</participants>"
    text = f"""<?xml version="1.0"?>
<recording>
  <id>{recorded.record_id}</id>
  <state>{states.get(format_name, recorded.state)}</state>
  <published>{"true" if recorded.state == "published" else "false"}</published>
  <start_time>{recorded.start_ms}</start_time>
  <end_time>{recorded.end_ms}</end_time>
  {"" if format_name == "screenshare" else participants}
  {"" if format_name == "video" else meeting}
  <meta>{"".join(f"<{key}>{escape(value)}</{key}>" for key, value in meta.items())}</meta>
  <playback>
    <format>{format_name}</format>
    <link>https://{recorded.host}{LINKS[format_name].format(id=recorded.record_id)}</link>
    <processing_time>999</processing_time>
    <duration>{recorded.end_ms - recorded.start_ms}</duration>
    {_preview(recorded) if format_name == "presentation" else ""}
  </playback>
</recording>
"""
    return text.encode("ascii", "xmlcharrefreplace")


def _preview(recorded: Recorded) -> str:
    url = f"https://{recorded.host}/presentation/{recorded.record_id}/presentation/deck/thumbnails/thumb-1.png"
    image = f'<image width="176" height="136" alt="Slide 1">{url}</image>'
    return f"<extensions><preview><images>{image}</images></preview></extensions>"


def write_archive(
    recorded: Recorded,
    folder: Path,
    formats: Sequence[str] = ("presentation",),
    replaced: Mapping[str, bytes] | None = None,
) -> Path:
    """Write RECORD_ID.tar as rsync does: under a hidden name, then renamed; returns its path.

    `replaced` has other contents by path, FORMAT/RECORD_ID/PATH, for files that the formats have or lack.
    """
    files = {
        f"{name}/{recorded.record_id}/{path}": _CONTENTS.get(path, f"{name} {path}".encode())
        for name in formats
        for path in FILES[name]
    }
    files |= {f"{name}/{recorded.record_id}/metadata.xml": metadata_xml(recorded, name) for name in formats}
    files |= replaced or {}
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = folder / f".{recorded.record_id}.tar.part"
    with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as tar:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(path)
            member.size, member.mtime, member.mode = len(content), recorded.end_ms // 1000, 0o644
            tar.addfile(member, io.BytesIO(content))
    return unfinished.rename(folder / f"{recorded.record_id}.tar")
