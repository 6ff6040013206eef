"""A call as front ends make it: what came, who asks and with which parameters; answers nothing.

Rules: spec/bbb-api.md, Checksum and Tenants.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from scalelite.core import wire
from scalelite.core.multipart import parts_of
from scalelite.edge.bbb import NO_BODY, Body
from scalelite.errors import ChecksumError, InvalidParameter, UnsupportedContentType

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from scalelite.flows.cluster import DeclaredView, Tenant
    from scalelite.settings import Settings

_FORM: Final = "application/x-www-form-urlencoded"
_MULTIPART: Final = "multipart/form-data"
_FORMS: Final = frozenset({_FORM, _MULTIPART})
_XML: Final = frozenset({"application/xml", "text/xml"})
_CONTENT_TYPES: Final = {"create": _FORMS | _XML, "insertDocument": _XML}


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came; the query is raw, the host without its port and in lower case; origin is http://HOST[:PORT]."""

    call: str
    method: str
    host: str
    query: str
    content_type: str = ""
    body: bytes = b""
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: XML unless said otherwise, or a place to go to."""

    body: bytes = b""
    location: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified call: its tenant, the secret that it is signed with, its parameters, and slides if it brings any.

    `origin` is the address that was asked.
    """

    tenant: Tenant
    secret: str
    params: wire.Params
    slides: Body = NO_BODY
    origin: str = ""


def verified(request: Request, declared: DeclaredView, settings: Settings) -> Caller:
    """Return who makes a call; raises ChecksumError, or InvalidParameter for what cannot be decoded."""
    tenant = declared.tenant_of(request.host)
    form = request.content_type in _FORMS and request.method == "POST" and settings.form_bodies
    query, params = _signed_params(request, form=form)
    secret = wire.verify(request.call, query, tenant.secrets, settings.accepted_algorithms)
    decoded = wire.decode(params)
    if "checksum" in decoded:  # behind an encoding; a server might take it for its own
        raise ChecksumError
    return Caller(tenant, secret, decoded, _slides(request), request.origin)


def _slides(request: Request) -> Body:
    """Return the XML that a POST brings, or the file of subtitles.

    As in Scalelite, that of a GET does not count, nor does a blank one.
    """
    taken = {_MULTIPART} if request.call == "putRecordingTextTrack" else _XML
    brought = request.method == "POST" and request.content_type in taken and request.body.strip()
    return Body(request.body, request.content_type) if brought else NO_BODY


def check_content_type(request: Request) -> None:
    """A POST with a body must bring a form, insertDocument XML, and create may bring either."""
    if request.method != "POST" or not request.body:
        return
    taken = _CONTENT_TYPES.get(request.call, _FORMS)
    if request.content_type not in taken:
        raise UnsupportedContentType


def _signed_params(request: Request, *, form: bool) -> tuple[wire.SignedQuery, str]:
    """Return what the checksum is over, and the raw parameters that count.

    A form's parameters count only when the query holds nothing but the checksum: it is over the call alone then, and
    the form cannot add to a signed query (spec/bbb-api.md, Checksum).
    """
    if not form or not request.body:
        query = wire.take_checksum(request.query)
        return query, query.rest
    if not request.query:
        query = wire.take_checksum(_form(request))
        return wire.SignedQuery("", query.checksum), query.rest
    query = wire.take_checksum(request.query)
    return query, query.rest or _form(request)


def _form(request: Request) -> str:
    """Return a form as a query; raises InvalidParameter for one that cannot be read."""
    if request.content_type == _FORM:
        return request.body.decode("ascii", "surrogateescape")
    try:
        fields = [(part.name, part.content.decode()) for part in parts_of(request.body) if not part.is_file]
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in fields)
    except ValueError:
        raise InvalidParameter("The form cannot be read.") from None


# How long Postgres may take before a meeting counts that a worker remembers, though it may be outdated; and then what
# is to be written of it. Together no more than 5 s, in which every call ends while Postgres is frozen.
RECALLED_S: Final = 1.0
AFTER_RECALL_S: Final = 3.5

# The longest that an answer waits for a write of what was cut off; that goes on after it.
_LAST_WRITE_S: Final = 0.9


async def last_write(writing: Coroutine[Any, Any, None]) -> None:
    """Write what must be noted of a call that is cut off: its caller waits a little, and the write ends in any case.

    `writing` handles the absence of Postgres itself.
    """
    await asyncio.wait([asyncio.create_task(writing)], timeout=_LAST_WRITE_S)
