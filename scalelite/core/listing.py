"""The recordings calls: what their parameters ask for, and the XML that answers; decides whom nothing belongs to.

Rules: spec/recordings.md; forms and oddities of the answers are those of golden/07 and of BigBlueButton.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import quoteattr

from scalelite.core import wire
from scalelite.core.recording import RESERVED_METADATA
from scalelite.errors import InvalidParameter, MissingPublish, MissingRecordId

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.recording import PlaybackFormat, Recording

DEFAULT_STATES: Final = ("published", "unpublished")
_LONGEST_PAGE: Final = 100
_LARGEST: Final = 10**9
_META: Final = "meta_"
_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
_FALSE: Final = frozenset({"false", "f", "0", "off"})


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class Filter:
    """What getRecordings asks for; None: any. `prefixes` are of record ids.

    All of the metadata must match, each with one of its values.
    """

    meeting_ids: tuple[str, ...] | None = None
    prefixes: tuple[str, ...] | None = None
    states: tuple[str, ...] | None = DEFAULT_STATES
    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    page: Page | None = None

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Filter:
        """Read a call's parameters; recordID wins over meetingID, as in BigBlueButton."""
        prefixes = _listed(params, "recordID")
        states = _listed(params, "state") or DEFAULT_STATES
        return cls(
            meeting_ids=_listed(params, "meetingID") if prefixes is None else None,
            prefixes=prefixes,
            states=None if "any" in states else states,
            metadata=tuple(
                (_part(name.removeprefix(_META)), tuple(_part(value) for value in text.split(",") if value))
                for name, text in params.items()
                if name.startswith(_META)
            ),
            page=_page(params),
        )


@dataclass(frozen=True, slots=True)
class Edit:
    """What updateRecordings asks for: metadata to set (an empty value removes), and protection; None leaves it."""

    metadata: Mapping[str, str]
    protect: bool | None

    def __bool__(self) -> bool:
        return bool(self.metadata) or self.protect is not None

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> Edit:
        """Read a call's parameters; what the load balancer writes itself is passed over."""
        metadata = {}
        for name, value in params.items():
            key = name.removeprefix(_META).lower()
            if not name.startswith(_META) or key in RESERVED_METADATA:
                continue
            if not _KEY.fullmatch(key) or key.startswith("xml") or len(key) > 256:
                raise InvalidParameter("A metadata name must be a letter and letters, digits, '.', '-' or '_'.")
            metadata[key] = wire.printable(value)
        protect = params.get("protect", "").strip().lower()
        return cls(metadata, protect not in _FALSE if protect else None)


def record_ids(params: Mapping[str, str]) -> tuple[str, ...]:
    """Return the ids that a changing call names, each once; raises MissingRecordId."""
    ids = _listed(params, "recordID")
    if not ids:
        raise MissingRecordId
    return tuple(dict.fromkeys(ids))


def publish_flag(params: Mapping[str, str]) -> bool:
    """Say whether publishRecordings publishes: only `true` does, in any letter case; raises MissingPublish."""
    text = params.get("publish", "").strip().lower()
    if not text:
        raise MissingPublish
    return text == "true"


def _listed(params: Mapping[str, str], name: str) -> tuple[str, ...] | None:
    """Split a list; what is missing or blank does not filter, and a list of nothing but commas matches nothing."""
    text = params.get(name, "")
    return tuple(_part(part) for part in text.split(",") if part) if text.strip() else None


def _part(text: str) -> str:
    if _CONTROL.search(text):
        raise InvalidParameter("Ids and values must not hold control characters.")
    return text


def _page(params: Mapping[str, str]) -> Page | None:
    """Return the page, if offset or limit is given; limits are 1 to 100, as in BigBlueButton."""
    offset, limit = _number(params, "offset"), _number(params, "limit")
    if offset is None and limit is None:
        return None
    return Page(max(offset or 0, 0), min(max(_LONGEST_PAGE if limit is None else limit, 1), _LONGEST_PAGE))


def _number(params: Mapping[str, str], name: str) -> int | None:
    text = params.get(name, "").strip()
    return max(min(int(text), _LARGEST), -1) if re.fullmatch(r"-?[0-9]{1,1000}", text) else None


# --- answers ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Links:
    """Where recordings are played: the tenant's public address, and a new token for each protected (id, format)."""

    base: str
    tokens: Mapping[tuple[str, str], str]
    show_protection: bool = False

    def to(self, recording: Recording, playback: PlaybackFormat) -> str:
        """Return the URL of one format."""
        if recording.protected:
            token = self.tokens[recording.record_id, playback.format]
            return f"{self.base}/recording/{recording.record_id}/{playback.format}?token={token}"
        return self.base + playback.url


def recordings(found: Sequence[Recording], links: Links, page: Page | None = None, total: int = 0) -> bytes:
    """Return the answer of getRecordings."""
    success = wire.element("returncode", "SUCCESS")
    listed = [f"<recordings>{''.join(_recording(each, links) for each in found)}</recordings>"]
    if page:
        listed.append(_pagination(page, total))
    if not found:
        listed.append(wire.element("messageKey", "noRecordings"))
        listed.append(wire.element("message", "There are not recordings for the meetings"))
    return wire.respond(success, *listed)


def _recording(recording: Recording, links: Links) -> str:
    participants = [] if recording.participants is None else [("participants", str(recording.participants))]
    protection = [("protected", _boolean(recording.protected))] if links.show_protection else []
    fields = [
        ("recordID", recording.record_id),
        ("meetingID", recording.meeting_id),
        ("internalMeetingID", recording.record_id),
        ("name", recording.name),
        ("published", _boolean(recording.published)),
        *protection,
        ("state", recording.state),
        ("startTime", str(recording.start_ms)),
        ("endTime", str(recording.end_ms)),
        *participants,
    ]
    metadata = "".join(wire.element(key, value) for key, value in recording.metadata.items())
    formats = "".join(_format(recording, playback, links) for playback in recording.formats)
    plain = "".join(wire.element(name, text) for name, text in fields)
    return f"<recording>{plain}<metadata>{metadata}</metadata><playback>{formats}</playback></recording>"


def _format(recording: Recording, playback: PlaybackFormat, links: Links) -> str:
    """Return one format; pictures of a protected recording need its cookie, so they are not shown."""
    parts = [
        wire.element("type", playback.format),
        wire.element("url", links.to(recording, playback)),
        wire.element("length", str(playback.length)),
    ]
    if playback.thumbnails and not recording.protected:
        images = "".join(
            f"<image{_attributes(alt=image.alt, width=image.width, height=image.height)}>"
            f"{wire.escaped(links.base + image.url)}</image>"
            for image in playback.thumbnails
        )
        parts.append(f"<preview><images>{images}</images></preview>")
    return f"<format>{''.join(parts)}</format>"


def _attributes(**values: str | int | None) -> str:
    return "".join(
        f" {name}={quoteattr(wire.printable(str(value)))}" for name, value in values.items() if value is not None
    )


def _pagination(page: Page, total: int) -> str:
    pageable = "".join(
        wire.element(name, text)
        for name, text in (
            ("offset", str(page.offset)), ("limit", str(page.limit)), ("paged", "true"), ("unpaged", "false"),
        )
    )  # fmt: skip
    counted = wire.element("totalElements", str(total)) + wire.element("empty", _boolean(total == 0))
    return f"<pagination><pageable>{pageable}</pageable>{counted}</pagination>"


def _boolean(value: bool) -> str:
    return "true" if value else "false"
