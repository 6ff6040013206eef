"""A recording: what its metadata.xml says, and when it counts as published; knows no file, row or caller.

Archives come from outside, so nothing in them is believed: ids, formats and states are checked here.
What BigBlueButton writes is told in bigbluebutton.md, section 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit
from uuid import UUID

from lxml import etree

from scalelite.core.model import SENTINEL_TENANT
from scalelite.core.wire import only_for_servers
from scalelite.errors import RecordingInvalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

RECORD_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
MAX_METADATA_BYTES: Final = 4 << 20
# What the load balancer writes itself; clients may read it. The payload holds credentials and is never kept.
RESERVED_METADATA: Final = frozenset({"tenant-id", "tenant-name", "server-tag", "secret-lrs-payload"})
_NOT_METADATA: Final = frozenset({"meetingId", "meetingName", "isBreakout"})
_STATES: Final = frozenset({"processing", "processed", "published", "unpublished", "available", ""})
_LONGEST_INT: Final = 18
# What stands in an index must fit into it; BigBlueButton's own bound is 256 for both.
_LONGEST_ID: Final = 512
_LONGEST_KEY: Final = 256
# Far more than BigBlueButton writes; each of them goes into every answer.
_MOST_METADATA: Final = 1000
_MOST_IMAGES: Final = 1000
# The end of the year 9999.
_LATEST_MS: Final = 253_402_300_799_999


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A picture of a slide; `url` is a path."""

    url: str
    width: int | None = None
    height: int | None = None
    alt: str = ""


@dataclass(frozen=True, slots=True)
class PlaybackFormat:
    """One way to play a recording; `url` is a path, `length` whole minutes, `generation` that of its files."""

    format: str
    url: str
    length: int = 0
    processing_ms: int | None = None
    generation: str = ""
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording as it is listed; times are milliseconds since 1970."""

    record_id: str
    meeting_id: str
    name: str
    state: str
    published: bool
    start_ms: int
    end_ms: int
    participants: int | None = None
    protected: bool = False
    tenant: UUID = SENTINEL_TENANT
    metadata: Mapping[str, str] = field(default_factory=dict)
    formats: tuple[PlaybackFormat, ...] = ()


def folder_of(record_id: str, format_name: str, generation: str = "") -> str:
    """Return the name under which a storage has a format's files; no record id has a dot.

    Where files cannot be exchanged at once, each import brings a new generation, and the row says which one counts.
    """
    return f"{format_name}/{record_id}.{generation}" if generation else f"{format_name}/{record_id}"


def parse_metadata(xml: bytes, record_id: str, format_name: str, formats: Sequence[str]) -> Recording:
    """Read the metadata.xml of one format of a recording; raises RecordingInvalid.

    `record_id` and `format_name` are those of the folder it stood in: the file must agree with them.
    """
    root = _root(xml)
    if (said := _text(root, "id")) != record_id:
        raise RecordingInvalid(f"metadata.xml is of the recording {said[:140]!r}, and stands in {record_id}")
    if format_name not in formats:
        raise RecordingInvalid(f"the format {format_name!r} is none of RECORDING_PLAYBACK_FORMATS")
    if (playback := root.find("playback")) is None:
        raise RecordingInvalid("metadata.xml has no playback")
    if (named := _text(playback, "format")) != format_name:
        raise RecordingInvalid(f"metadata.xml is of the format {named[:80]!r}, and stands in {format_name}")
    published, state = _publish_rule(_text(root, "state"), _text(root, "published").lower())
    meta = root.find("meta")
    metadata = {} if meta is None else _metadata(meta)
    meeting_id = _text(root, "meta/meetingId") or _attribute(root, "externalId")
    if len(meeting_id) > _LONGEST_ID:
        raise RecordingInvalid("the meeting's id is too long")
    start_ms, end_ms = _whole(root, "start_time") or 0, _whole(root, "end_time") or 0
    if max(start_ms, end_ms) > _LATEST_MS:
        raise RecordingInvalid("the time of the meeting is impossible")
    return Recording(
        record_id=record_id,
        meeting_id=meeting_id,
        name=_text(root, "meta/meetingName") or _attribute(root, "name"),
        state=state,
        published=published,
        start_ms=start_ms,
        end_ms=end_ms,
        participants=_whole(root, "participants"),
        tenant=_tenant(metadata.get("tenant-id", "")),
        metadata=metadata,
        formats=(_format(playback, format_name),),
    )


def merged(one: Recording, other: Recording) -> Recording:
    """Two formats of one recording; one that is not published makes all so."""
    hidden = one if not one.published else other
    return replace(
        one,
        published=hidden.published,
        state=hidden.state,
        participants=other.participants if one.participants is None else one.participants,
        metadata={**other.metadata, **one.metadata},
        formats=(*one.formats, *other.formats),
    )


def _root(xml: bytes) -> etree._Element:
    if len(xml) > MAX_METADATA_BYTES:
        raise RecordingInvalid("metadata.xml is too large")
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(xml, parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise RecordingInvalid(f"metadata.xml cannot be read: {str(error)[:200]}") from None
    if root.getroottree().docinfo.doctype:
        raise RecordingInvalid("metadata.xml has a DTD")
    if root.tag != "recording":
        raise RecordingInvalid("metadata.xml is not of a recording")
    return root


def _publish_rule(state: str, published: str) -> tuple[bool, str]:
    """Return the published flag and the state; formats are sent once published, so silence means published.

    `available` is what the formats video and screenshare call it.
    """
    if state not in _STATES:
        raise RecordingInvalid(f"the state {state[:80]!r} is unknown")
    flag = published == "true" if published else state != "unpublished"
    return flag, state_of(state, published=flag)


def state_of(state: str, *, published: bool) -> str:
    """Return the state of a recording; one that is ready is as its published flag says."""
    if state in {"processing", "processed", "deleted"}:
        return state
    return "published" if published else "unpublished"


def _metadata(meta: etree._Element) -> dict[str, str]:
    """Return the metadata that front ends set; a key is an XML name without a namespace."""
    if len(meta) > _MOST_METADATA:
        raise RecordingInvalid(f"there are more than {_MOST_METADATA} metadata in it")
    found = {
        child.tag: (child.text or "").strip()
        for child in meta
        if isinstance(child.tag, str) and "{" not in child.tag and child.tag not in _NOT_METADATA
    }
    return kept_metadata(found)


def kept_metadata(found: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata that may be kept: no credentials, and no key that does not fit into an index."""
    return {key: value for key, value in found.items() if len(key) <= _LONGEST_KEY and not only_for_servers(key, value)}


def _tenant(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return SENTINEL_TENANT


def _format(playback: etree._Element, name: str) -> PlaybackFormat:
    duration_ms = _whole(playback, "duration") or 0
    images = playback.findall("extensions/preview/images/image")
    if len(images) > _MOST_IMAGES:
        raise RecordingInvalid(f"there are more than {_MOST_IMAGES} pictures in it")
    return PlaybackFormat(
        format=name,
        url=path_of(_text(playback, "link")),
        length=(duration_ms + 30_000) // 60_000,
        processing_ms=_whole(playback, "processing_time"),
        thumbnails=tuple(
            Thumbnail(
                path_of(image.text or ""), _int(image.get("width")), _int(image.get("height")), image.get("alt", "")
            )
            for image in images
        ),
    )


def path_of(link: str) -> str:
    """Return the path of a link: the host is that of the server that recorded, and links get the tenant's."""
    try:
        path = urlsplit(link.strip()).path
    except ValueError:
        path = ""
    if not path.startswith("/") or re.search(r"[\s\x00-\x1f\\]", path):
        raise RecordingInvalid(f"the link {link.strip()[:200]!r} is not a URL with a path")
    return path


def _text(node: etree._Element, path: str) -> str:
    return (node.findtext(path) or "").strip()


def _attribute(root: etree._Element, name: str) -> str:
    meeting = root.find("meeting")
    return "" if meeting is None else meeting.get(name, "")


def _whole(node: etree._Element, path: str) -> int | None:
    return _int(_text(node, path))


def _int(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]+", text) and len(text) <= _LONGEST_INT else None
