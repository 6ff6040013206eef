"""The BigBlueButton wire format: raw queries, checksums, XML; knows no tenant, no server and no socket.

The rules are in spec/bbb-api.md (Checksum) and bigbluebutton.md 1.2. What is signed is the query as it came, byte for
byte: it is never decoded and encoded again before it is verified.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote_to_bytes
from xml.parsers import expat
from xml.sax.saxutils import escape

from lxml import etree

from scalelite.errors import ApiError, ChecksumError, InvalidParameter, MissingMeetingId, UselessAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Params = dict[str, str]

# Parameters that route or authorise: a call that repeats one of them is refused.
SINGLE: Final = frozenset({"meetingID", "password", "moderatorPW", "attendeePW", "role", "recordID"})
MAX_ANSWER_BYTES: Final = 8 << 20

# By the number of hex digits, which is how BigBlueButton tells them apart.
_HASHES: Final = {
    40: ("SHA1", hashlib.sha1),
    64: ("SHA256", hashlib.sha256),
    96: ("SHA384", hashlib.sha384),
    128: ("SHA512", hashlib.sha512),
}
_BY_NAME: Final = dict(_HASHES.values())
_UNRESERVED: Final = re.compile("[A-Za-z0-9._~-]*")
# What no server takes in an id (control characters), or could tell us again in XML.
_NOT_IN_IDS: Final = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff]")
_NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


# --- checksums -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SignedQuery:
    """A query string without its checksum, as it was signed, and the checksum."""

    rest: str
    checksum: str


def take_checksum(raw_query: str) -> SignedQuery:
    """Split off the one segment named `checksum`, with one `&`; raises ChecksumError for none or several."""
    segments = raw_query.split("&")
    places = [
        place for place, segment in enumerate(segments) if segment == "checksum" or segment.startswith("checksum=")
    ]
    if len(places) != 1:
        raise ChecksumError
    checksum = segments.pop(places[0]).partition("=")[2]
    return SignedQuery("&".join(segments), checksum)


def verify(call: str, query: SignedQuery, secrets: Sequence[str], algorithms: Sequence[str]) -> str:
    """Return the secret that the call is signed with; raises ChecksumError. Takes the same time for each secret."""
    name, function = _HASHES.get(len(query.checksum), ("", hashlib.sha256))
    if name not in algorithms:
        raise ChecksumError
    given = query.checksum.lower().encode("utf-8", "surrogateescape")
    signed = (call + query.rest).encode("utf-8", "surrogateescape")
    matching = [
        secret
        for secret in secrets
        if hmac.compare_digest(function(signed + secret.encode()).hexdigest().encode(), given)
    ]
    if not matching:
        raise ChecksumError
    return matching[0]


def sign(call: str, query: str, secret: str, algorithm: str) -> str:
    """Return the query with its checksum at the end."""
    checksum = _BY_NAME[algorithm]((call + query + secret).encode()).hexdigest()
    return f"{query}&checksum={checksum}" if query else f"checksum={checksum}"


# --- parameters ------------------------------------------------------------------------------------------------------


def decode(raw_query: str) -> Params:
    """Decode a query without its checksum; a repeated name keeps its last value, as in Rack, where that is harmless.

    Raises InvalidParameter for bytes that are not UTF-8 and for repeated names that route or authorise.
    """
    params: Params = {}
    for segment in raw_query.split("&"):
        if not segment:
            continue
        raw_name, _, raw_value = segment.partition("=")
        name = _text(raw_name)
        if name in params and name in SINGLE:
            raise InvalidParameter(f"The parameter {name} was given twice.")
        params[name] = _text(raw_value)
    return params


def _text(raw: str) -> str:
    if "%" not in raw and "+" not in raw and raw.isascii():
        return raw
    try:
        return unquote_to_bytes(raw.replace("+", " ").encode("utf-8", "surrogateescape")).decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidParameter("The parameters must be in UTF-8.") from None


def encode(params: Mapping[str, str]) -> str:
    """Encode parameters as RFC 3986 has them, so that a stock server takes them."""
    return "&".join([f"{_quoted(name)}={_quoted(value)}" for name, value in params.items()])


def _quoted(text: str) -> str:
    return text if _UNRESERVED.fullmatch(text) else quote(text, safe="")


def meeting_id(params: Mapping[str, str]) -> str:
    """Return the meeting's id; raises MissingMeetingId, or InvalidParameter where no meeting can have such an id."""
    value = params.get("meetingID", "")
    if not value.strip(" "):
        raise MissingMeetingId
    if len(value) > 256 or "," in value or _NOT_IN_IDS.search(value):
        raise InvalidParameter("The meeting ID must have 1 to 256 characters, without commas and control characters.")
    return value


# --- XML -------------------------------------------------------------------------------------------------------------

_DECLARATION: Final = b'<?xml version="1.0"?>\n'


@dataclass(slots=True)
class Reply:
    """A server's answer that can be passed on: its bytes, and what they say."""

    body: bytes
    succeeded: bool
    message_key: str
    _root: etree._Element | None = None

    @property
    def root(self) -> etree._Element:
        """The answer as a tree, made when it is first asked for: most answers are only passed on."""
        if self._root is None:
            self._root = parse_xml(self.body)
        return self._root

    def text(self, name: str) -> str:
        """Return the text of a child of the answer's root, or ''."""
        return self.root.findtext(name) or ""


# In UTF-8. BigBlueButton escapes no more than five characters of names and metadata, which are the callers'.
_NOT_XML: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")


def parse_reply(body: bytes) -> Reply:
    """Read a server's answer; raises UselessAnswer for what is no BigBlueButton answer (HTML, cut off, with a DTD).

    Characters that XML cannot hold become U+FFFD: one name must not make all meetings of a server unreadable.
    """
    if (plain := _plain_reply(body)) is not None:
        return plain
    try:
        root = parse_xml(body)
    except UselessAnswer:
        if (cleaned := _NOT_XML.sub("\ufffd".encode(), body[: MAX_ANSWER_BYTES + 1])) == body:
            raise
        body, root = cleaned, parse_xml(cleaned)
    code = root.findtext("returncode")
    if root.tag != "response" or code not in {"SUCCESS", "FAILED"}:
        raise UselessAnswer
    return Reply(body, code == "SUCCESS", root.findtext("messageKey") or "", root)


# How answers begin. Nothing can be declared before that, so there is no DTD.
_BEGINNING: Final = re.compile(rb"<response>\s*<returncode>(SUCCESS|FAILED)</returncode>")
# A messageKey of theirs, behind nothing but elements of plain text.
_KEY: Final = re.compile(rb"(?:\s*<(?!messageKey>)([A-Za-z]+)>[^<]*</\1>)*+\s*<messageKey>([^<&\r]*)</messageKey>")
# In which expat, told to mind namespaces, may be more lenient than libxml2.
_NOT_PLAIN: Final = (b"<?", b"xmlns", b"xml:")
_LONGEST_PLAIN: Final = 64 << 10
_MOST_ELEMENTS: Final = 200  # and so no deeper, for which libxml2 has a limit


def _plain_reply(body: bytes) -> Reply | None:
    """Read an answer as most are; None if it may be another. Only expat's word that it is well-formed is needed then.

    That and a search take a third of the time of a tree, which getMeetingInfo's answers are not asked for.
    """
    beginning = _BEGINNING.match(body)
    if not beginning or len(body) > _LONGEST_PLAIN or body.count(b"</") > _MOST_ELEMENTS:
        return None
    for text in _NOT_PLAIN:
        if text in body:
            return None
    key = _KEY.match(body, beginning.end())
    if key is None and b"<messageKey" in body:
        return None
    try:
        expat.ParserCreate(namespace_separator=" ").Parse(body, True)
    except expat.ExpatError:
        return None
    return Reply(body, beginning[1] == b"SUCCESS", key[2].decode() if key else "")


# One for all: making it costs as much as a small answer takes to parse (12 µs). lxml serialises its use by threads.
_PARSER: Final = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)


def parse_xml(body: bytes) -> etree._Element:
    """Parse XML that nobody vouches for: no DTD, no entities, no network; raises UselessAnswer."""
    if len(body) > MAX_ANSWER_BYTES or b"<!DOCTYPE" in body:
        raise UselessAnswer
    try:
        root = etree.fromstring(body, _PARSER)
    except (etree.XMLSyntaxError, ValueError):
        raise UselessAnswer from None
    # In an encoding in which it does not look like one; as most answers begin, there is neither, and no need to look.
    if not body.startswith(b"<response>") and root.getroottree().docinfo.doctype:
        raise UselessAnswer
    return root


# Encodings in which a DTD looks as it does in ASCII; NUL bytes and EBCDIC's `<?xm` tell the others that parsers guess.
_LIKE_ASCII: Final = re.compile(rb"(utf-?8|us-ascii|ascii|latin-?1|iso-8859-\d+|windows-125\d)", re.IGNORECASE)
_DECLARED: Final = re.compile(rb"\s*<\?xml[^>]*?encoding\s*=\s*[\"']([^\"']*)")
_EBCDIC: Final = b"\x4c\x6f\xa7\x94"


def check_document(body: bytes) -> None:
    """Refuse slides that are sent along and hold a DTD, in whatever encoding; what else is wrong, the server says."""
    if b"<!DOCTYPE" in body or b"<!ENTITY" in body:
        raise InvalidParameter("The document must not have a DTD.")
    declared = _DECLARED.match(body.removeprefix(b"\xef\xbb\xbf"))
    if b"\0" in body or body.startswith(_EBCDIC) or (declared and not _LIKE_ASCII.fullmatch(declared[1])):
        raise InvalidParameter("The document must be in UTF-8.")


def printable(text: str) -> str:
    """Return a text with U+FFFD for the characters that XML cannot hold."""
    return _NOT_IN_XML.sub(chr(0xFFFD), text)


def escaped(text: str) -> str:
    """Return a text as it stands in an XML element."""
    return escape(printable(text))


def element(name: str, text: str) -> str:
    """Return one XML element; characters that XML cannot hold become U+FFFD."""
    return f"<{name}>{escaped(text)}</{name}>"


def respond(*elements: str) -> bytes:
    """Return a whole answer made of elements."""
    return _DECLARATION + "\n".join(("<response>", *elements, "</response>\n")).encode()


def success(**texts: str) -> bytes:
    """Return an answer SUCCESS with elements in the order given."""
    return respond(element("returncode", "SUCCESS"), *(element(name, text) for name, text in texts.items()))


def failure(error: ApiError) -> bytes:
    """Return the answer FAILED for an error."""
    return respond(
        element("returncode", "FAILED"), element("messageKey", error.message_key), element("message", error.message)
    )


@dataclass(frozen=True, slots=True)
class Listed:
    """A meeting as a server lists it: its id, the id of its tenant (None: it has none), and its element."""

    meeting_id: str
    tenant: str | None
    xml: bytes


def listed(reply: Reply, path: str) -> tuple[Listed, ...]:
    """Return what a server lists at a path below the answer's root, without what only the server may see."""
    return tuple(
        Listed(
            child.findtext("meetingID") or "",
            child.findtext("metadata/tenant-id"),
            etree.tostring(child, encoding="utf-8", with_tail=False),
        )
        for child in without_ours(reply).iterfind(path)
    )


def meetings(found: Sequence[bytes]) -> bytes:
    """Return the answer of getMeetings with these meeting elements."""
    if not found:
        return _nothing("noMeetings", "no meetings were found on this server", "<meetings/>")
    return _listing("meetings", found)


def sessions(found: Sequence[bytes]) -> bytes:
    """Return the answer of getSessions with these meeting elements; the message is BigBlueButton's own."""
    if not found:
        return _nothing("noSessions", "no sessions were found on this serverr", "<sessions/>")
    return _listing("sessions", found)


def _nothing(key: str, message: str, empty: str) -> bytes:
    return respond(element("returncode", "SUCCESS"), element("messageKey", key), element("message", message), empty)


def _listing(name: str, found: Sequence[bytes]) -> bytes:
    head = f"<response>\n<returncode>SUCCESS</returncode>\n<{name}>\n".encode()
    return b"".join((_DECLARATION, head, b"\n".join(found), f"\n</{name}>\n</response>\n".encode()))


def internal_prefix(meeting_id: str) -> str:
    """Return what BigBlueButton's internal id of a meeting begins with: SHA-1 of the external one, in hex."""
    return hashlib.sha1(meeting_id.encode(), usedforsecurity=False).hexdigest()


# What only a server may see of a create, by how it is told from the rest of an answer: a payload by its name, and the
# URLs that stand in place of a client's (core/callbacks) by their paths.
_PAYLOAD: Final = "secret-lrs-payload"
_URLS: Final = ("/bigbluebutton/api/analytics_callback", "/bigbluebutton/api/end_callback/")
_OURS: Final = tuple(text.encode() for text in (_PAYLOAD, *_URLS))


def only_for_servers(name: str, text: str) -> bool:
    """Say whether metadata (a name without meta_) is what a create carries for its server alone."""
    return name == _PAYLOAD or any(url in text for url in _URLS)


def _holds_ours(body: bytes) -> bool:
    """Say whether there may be such metadata in an answer; a plain loop, since every answer is looked through."""
    for text in _OURS:  # noqa: SIM110
        if text in body:
            return True
    return False


def without_ours(reply: Reply) -> etree._Element:
    """Return the answer's root without the metadata that only the server may see, of all meetings below it."""
    if _holds_ours(reply.body):
        for metadata in reply.root.iter("metadata"):
            for child in list(metadata):
                if only_for_servers(str(child.tag), child.text or ""):
                    metadata.remove(child)
    return reply.root


def passed_on(reply: Reply) -> bytes:
    """Return a server's answer as it came, but for metadata that only the server may see."""
    if _holds_ours(reply.body):
        return etree.tostring(without_ours(reply), encoding="utf-8")
    return reply.body
