"""The BigBlueButton API, one function a call: who asks, which server, what goes there, what comes back.

A call costs at most one database statement; a create that fails, or that waits for another's, may take more.
Rules: spec/bbb-api.md.
"""

from __future__ import annotations

import asyncio
import logging
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scalelite.core import wire
from scalelite.core.balance import TagRule, eligible, no_server
from scalelite.core.params import Placement, for_create, for_join, voice_bridges
from scalelite.edge.bbb import NO_BODY, Body, ServerUnreachable, signed_url
from scalelite.errors import (
    CreateFailed,
    DatabaseAway,
    MeetingNotFound,
    ServerUnavailable,
    UnsupportedContentType,
    UnsupportedRequest,
    UpstreamFailed,
    UselessAnswer,
)
from scalelite.store import runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lxml import etree

    from scalelite.core.model import Meeting, ServerSpec
    from scalelite.edge.bbb import Timeouts
    from scalelite.flows.cluster import Tenant
    from scalelite.flows.confirm import Confirmations
    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)

_FORM: Final = "application/x-www-form-urlencoded"
_FORMS: Final = frozenset({_FORM, "multipart/form-data"})
_ALPHANUMERICS: Final = string.ascii_letters + string.digits
_XML: Final = frozenset({"application/xml", "text/xml"})
_CONTENT_TYPES: Final = {"create": _FORMS | _XML, "insertDocument": _XML}
# How long a create waits for another's of the same id that was there first, and how often it looks.
_OTHERS_CREATE_S: Final = 8.5
_LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """A call as it came; the query is raw, the host without its port and in lower case."""

    call: str
    method: str
    host: str
    query: str
    content_type: str = ""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back: XML, or a place to go to."""

    body: bytes = b""
    location: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified call: its tenant, the secret that it is signed with, its parameters, and slides if it brings any."""

    tenant: Tenant
    secret: str
    params: wire.Params
    slides: Body = NO_BODY


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a worker answers calls with."""

    services: Services
    snapshot: Snapshot
    confirmations: Confirmations

    async def answer(self, request: Request) -> Answer:
        """Answer a call; raises the ApiError that the caller is told."""
        methods, function = _CALLS.get(request.call, ((), None))
        if request.method not in methods:
            raise UnsupportedRequest
        _check_content_type(request)
        return self._index() if function is None else await function(self, self._verified(request))

    def _index(self) -> Answer:
        """Say who we are; the one call that need not be signed."""
        build = self.services.settings.build_number
        return Answer(wire.success(version="2.0", **({"build": build} if build else {})))

    def _verified(self, request: Request) -> Caller:
        settings = self.services.settings
        tenant = self.snapshot.declared.tenant_of(request.host)
        form = request.content_type == _FORM and request.method == "POST" and settings.form_bodies
        query, params = _signed_params(request, form=form)
        secret = wire.verify(request.call, query, tenant.secrets, settings.accepted_algorithms)
        return Caller(tenant, secret, wire.decode(params), _slides(request))

    # --- calls about one meeting -------------------------------------------------------------------------------------

    async def is_meeting_running(self, caller: Caller) -> Answer:
        """Ask the meeting's server; of an unknown meeting it is known that it does not run."""
        try:
            return await self._forward("isMeetingRunning", caller, ("meetingID",))
        except MeetingNotFound:
            return Answer(wire.success(running="false"))

    async def get_meeting_info(self, caller: Caller) -> Answer:
        """Ask the meeting's server."""
        return await self._forward("getMeetingInfo", caller, ("meetingID",))

    async def insert_document(self, caller: Caller) -> Answer:
        """Send slides to the meeting's server."""
        wire.check_document(caller.slides.content)
        return await self._forward("insertDocument", caller, ("meetingID",))

    async def send_chat_message(self, caller: Caller) -> Answer:
        """Have the meeting's server show a message; a call of BigBlueButton 3.0."""
        return await self._forward("sendChatMessage", caller, tuple(caller.params))

    async def end(self, caller: Caller) -> Answer:
        """Ask the server first: a meeting is forgotten when it says so, and kept as ending when it does not answer."""
        meeting = await self._meeting(caller)
        try:
            params = {"meetingID": meeting.meeting_id, "password": caller.params.get("password", "")}
            reply = await self._ask(self._server(meeting.server), "end", params)
        except UpstreamFailed:
            await self._write(runtime.mark_ending, meeting.generation)
            raise
        if reply.succeeded or reply.message_key == "notFound":
            await self._write(runtime.forget_meetings, [meeting.generation])
            self.snapshot.forget(meeting.generation)
        return Answer(reply.body)

    async def join(self, caller: Caller) -> Answer:
        """Send the user to the meeting's server, signed anew."""
        meeting = await self._meeting(caller)
        server = self._server(meeting.server)
        if self.snapshot.server_state(server.id) == "disabled" or self.snapshot.health(server.id) == "offline":
            raise ServerUnavailable
        params = for_join(caller.params, caller.tenant.join, self.services.settings.join_exclude_params)
        algorithm = self.snapshot.declared.cluster.algorithm
        return Answer(location=signed_url(server, "join", wire.encode(params), algorithm))

    async def _meeting(self, caller: Caller) -> Meeting:
        """Return the caller's meeting from memory, else from Postgres; absence is never remembered."""
        meeting_id = wire.meeting_id(caller.params)
        if known := self.snapshot.remembered(caller.tenant.id, meeting_id):
            return known
        async with self.services.database.use() as connection:
            found = await runtime.find_meeting(connection, caller.tenant.id, meeting_id)
        if found is None:
            raise MeetingNotFound
        if found.phase == "running":
            self.snapshot.remember(found)
        return found

    def _server(self, server: str) -> ServerSpec:
        spec = self.snapshot.declared.servers.get(server)
        if spec is None:
            raise ServerUnavailable
        return spec

    async def _forward(self, call: str, caller: Caller, names: tuple[str, ...]) -> Answer:
        """Ask the meeting's server, with those of the call's parameters that belong to such a call."""
        meeting = await self._meeting(caller)
        params = {name: caller.params[name] for name in names}
        return Answer(_passed_on(await self._ask(self._server(meeting.server), call, params, caller.slides)))

    async def _ask(self, server: ServerSpec, call: str, params: wire.Params, slides: Body = NO_BODY) -> wire.Reply:
        algorithm = self.snapshot.declared.cluster.algorithm
        timeouts = self._timeouts(server.id)
        return await self.services.bbb.call(server, call, params, algorithm, body=slides, timeouts=timeouts)

    def _timeouts(self, server: str) -> Timeouts:
        timeouts = self.services.bbb.timeouts
        return (
            timeouts.for_server_in_trouble() if self.snapshot.health(server) in {"unhealthy", "offline"} else timeouts
        )

    async def _write(self, statement: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async with self.services.database.use() as connection:
            await statement(connection, *arguments)

    # --- calls about all servers -------------------------------------------------------------------------------------

    async def get_meetings(self, caller: Caller) -> Answer:
        """Return the caller's meetings on all servers."""
        if self.services.settings.get_meetings_disabled:
            return Answer(wire.meetings([]))
        owned = await self._owned(caller)
        tenant = str(caller.tenant.id) if caller.tenant.name else None
        placed = {meeting_id for _, meeting_id in owned}

        def is_callers(server: str, meeting: etree._Element) -> bool:
            """One that was placed elsewhere since is shown from there alone."""
            meeting_id = meeting.findtext("meetingID") or ""
            if meeting_id in placed:
                return (server, meeting_id) in owned
            return tenant is not None and meeting.findtext("metadata/tenant-id") == tenant

        replies = await self._ask_all("getMeetings")
        for _, reply in replies:
            wire.without_secrets(reply.root)
        return Answer(wire.meetings(_children(replies, "meetings/meeting", is_callers)))

    async def get_sessions(self, caller: Caller) -> Answer:
        """Return the sessions in the caller's meetings on all servers; these name meetings by their internal ids."""
        owned = {(server, wire.internal_prefix(meeting_id)) for server, meeting_id in await self._owned(caller)}

        def is_callers(server: str, session: etree._Element) -> bool:
            return (server, (session.findtext("meetingID") or "").partition("-")[0]) in owned

        return Answer(wire.sessions(_children(await self._ask_all("getSessions"), "sessions/meeting", is_callers)))

    async def _owned(self, caller: Caller) -> frozenset[tuple[str, str]]:
        async with self.services.database.use() as connection:
            return await runtime.meetings_of(connection, caller.tenant.id)

    async def _ask_all(self, call: str) -> list[tuple[str, wire.Reply]]:
        """Ask all servers that serve meetings at once; one that fails is left out."""
        servers = [
            server
            for server in self.snapshot.declared.servers.values()
            if self.snapshot.server_state(server.id) != "disabled" and self.snapshot.health(server.id) != "offline"
        ]
        replies = await asyncio.gather(*(self._ask_one_of_all(server, call) for server in servers))
        return [(server.id, reply) for server, reply in zip(servers, replies, strict=True) if reply is not None]

    async def _ask_one_of_all(self, server: ServerSpec, call: str) -> wire.Reply | None:
        try:
            return await self._ask(server, call, {})
        except UpstreamFailed:
            log.warning("server %s is left out of %s", server.id, call)
            return None

    # --- create ------------------------------------------------------------------------------------------------------

    async def create(self, caller: Caller) -> Answer:
        """Place the meeting, or find where it is; pass the call on; take the claim back if that fails."""
        meeting_id = wire.meeting_id(caller.params)
        if caller.slides.content:
            wire.check_document(caller.slides.content)
        unreachable: frozenset[str] = frozenset()
        while True:
            claimed, meeting = await self._placed(caller, meeting_id, unreachable)
            if not claimed:
                if (settled := await self._settled(caller, meeting)) is None:
                    continue
                return await self._create_again(caller, settled)
            try:
                return await self._create_new(caller, meeting)
            except ServerUnreachable:
                if unreachable:
                    raise CreateFailed from None
                unreachable = frozenset({meeting.server})
            except UselessAnswer:
                raise
            except UpstreamFailed:
                raise CreateFailed from None

    async def _placed(self, caller: Caller, meeting_id: str, unreachable: frozenset[str]) -> tuple[bool, Meeting]:
        """Return the meeting's row and whether it is this call's own claim; one that cannot stay is placed anew."""
        known = self.snapshot.remembered(caller.tenant.id, meeting_id)
        claimed, meeting = (False, known) if known else await self._claim(caller, meeting_id, unreachable)
        if not claimed and not await self._can_stay(meeting):
            self.snapshot.forget(meeting.generation)
            return await self._claim(caller, meeting_id, unreachable, instead_of=meeting)
        return claimed, meeting

    async def _can_stay(self, meeting: Meeting) -> bool:
        """Say whether a meeting's server still serves it; a cordoned one is asked, and counts while it is silent."""
        state = self.snapshot.server_state(meeting.server)
        if state == "disabled" or self.snapshot.health(meeting.server) == "offline":
            return False
        if state == "enabled":
            return True
        try:
            reply = await self._ask(self._server(meeting.server), "isMeetingRunning", {"meetingID": meeting.meeting_id})
        except UpstreamFailed:
            return True
        return not reply.succeeded or reply.text("running") == "true"

    async def _claim(
        self, caller: Caller, meeting_id: str, unreachable: frozenset[str], instead_of: Meeting | None = None
    ) -> tuple[bool, Meeting]:
        """Claim the meeting on one of the servers that may take it, or get the claim there is; one statement."""
        tenant, cluster = caller.tenant, self.snapshot.declared.cluster
        rule = TagRule.parse(tenant.create.tag(caller.params))
        claim = runtime.Claim(
            tenant=tenant.id,
            meeting_id=meeting_id,
            servers=[server for server in eligible(self.snapshot.takers, rule) if server not in unreachable],
            reservation=cluster.reservation,
            moderator_pw="".join(self.services.random.choices(_ALPHANUMERICS, k=8)),
            secret=caller.secret,
            voice_bridges=voice_bridges(meeting_id, self.services.settings.voice_bridge_len),
        )
        async with self.services.database.use() as connection:
            if instead_of:
                found = await runtime.place_anew(connection, claim, instead_of.generation)
            else:
                found = await runtime.claim_meeting(connection, claim)
        if found is None:
            raise CreateFailed if unreachable else no_server(rule)
        return found

    async def _create_new(self, caller: Caller, meeting: Meeting) -> Answer:
        """Create a claimed meeting on its server; whatever goes wrong, the claim is taken back."""
        try:
            reply = await self._ask_create(caller, meeting, new=True)
        except BaseException:
            await asyncio.shield(self._release(meeting))
            raise
        if not reply.succeeded:
            await self._release(meeting)
            return Answer(_passed_on(reply))
        self.confirmations.add(meeting.generation)
        self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(_passed_on(reply))

    async def _create_again(self, caller: Caller, meeting: Meeting) -> Answer:
        """Pass on a create of a meeting that there is: only its server can tell a duplicate from another's id."""
        try:
            reply = await self._ask_create(caller, meeting, new=False)
        except UselessAnswer:
            raise
        except UpstreamFailed:
            raise CreateFailed from None
        if reply.succeeded and meeting.phase == "creating":
            await self._write(runtime.confirm_meetings, [meeting.generation])
        if reply.succeeded:
            self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(_passed_on(reply))

    async def _ask_create(self, caller: Caller, meeting: Meeting, *, new: bool) -> wire.Reply:
        tenant, settings, cluster = caller.tenant, self.services.settings, self.snapshot.declared.cluster
        server = self._server(meeting.server)
        params = for_create(
            caller.params,
            tenant.create,
            Placement(server.tag, meeting.voice_bridge, meeting.moderator_pw.reveal(), new),
            tenant=(tenant.id, tenant.name) if tenant.name else None,
            excluded=settings.create_exclude_params,
            max_duration=cluster.max_meeting_duration,
        )
        return await self._ask(server, "create", params, caller.slides)

    async def _release(self, meeting: Meeting) -> None:
        """Take a claim back; if Postgres is away, the poller will, when the meeting is not on its server."""
        try:
            await self._write(runtime.release_claim, meeting.generation)
        except DatabaseAway:
            log.warning("a claim on server %s is left to the poller", meeting.server)

    async def _settled(self, caller: Caller, meeting: Meeting) -> Meeting | None:
        """Wait for another call's create of this id where the order matters; None if it was given up.

        A create without passwords must reach the server after the first one: that brings a generated password, and
        BigBlueButton refuses it for a meeting that a call without any has already created.
        """
        merged = caller.tenant.create.merge(caller.params)
        if meeting.phase != "creating" or merged.get("attendeePW") or merged.get("moderatorPW"):
            return meeting
        deadline = asyncio.get_running_loop().time() + _OTHERS_CREATE_S
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
            if known := self.snapshot.remembered(meeting.tenant, meeting.meeting_id):
                return known
            async with self.services.database.use() as connection:
                found = await runtime.find_meeting(connection, meeting.tenant, meeting.meeting_id)
            if found is None or found.phase != "creating":
                return found
        raise CreateFailed


def _children(
    replies: list[tuple[str, wire.Reply]], path: str, is_callers: Callable[[str, etree._Element], bool]
) -> list[etree._Element]:
    return [child for server, reply in replies for child in reply.root.iterfind(path) if is_callers(server, child)]


def _passed_on(reply: wire.Reply) -> bytes:
    """Return the server's answer as it came, but for a tenant's xAPI payload."""
    return wire.without_payload(reply) if b"secret-lrs-payload" in reply.body else reply.body


def _slides(request: Request) -> Body:
    """Return the XML that a POST brings; as in Scalelite, that of a GET does not count, nor does a blank one."""
    brought = request.method == "POST" and request.content_type in _XML and request.body.strip()
    return Body(request.body, request.content_type) if brought else NO_BODY


def _check_content_type(request: Request) -> None:
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
    body = request.body.decode("ascii", "surrogateescape")
    if not request.query:
        query = wire.take_checksum(body)
        return wire.SignedQuery("", query.checksum), query.rest
    query = wire.take_checksum(request.query)
    return query, query.rest or body


_CALLS: Final[dict[str, tuple[tuple[str, ...], Callable[[Proxy, Caller], Awaitable[Answer]] | None]]] = {
    "": (("GET", "POST"), None),  # the index
    "create": (("GET", "POST"), Proxy.create),
    "join": (("GET",), Proxy.join),
    "isMeetingRunning": (("GET", "POST"), Proxy.is_meeting_running),
    "getMeetingInfo": (("GET", "POST"), Proxy.get_meeting_info),
    "getMeetings": (("GET", "POST"), Proxy.get_meetings),
    "getSessions": (("GET", "POST"), Proxy.get_sessions),
    "end": (("GET", "POST"), Proxy.end),
    "insertDocument": (("POST",), Proxy.insert_document),
    "sendChatMessage": (("GET",), Proxy.send_chat_message),
}
