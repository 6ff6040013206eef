"""The BigBlueButton API, one function a call: who asks, which server, what goes there, what comes back.

A call costs at most one database statement.
Rules: spec/bbb-api.md.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalelite.core import wire
from scalelite.core.params import merged
from scalelite.errors import (
    CreateFailed,
    DatabaseAway,
    MeetingNotFound,
    ServerUnavailable,
    UnsupportedRequest,
    UpstreamFailed,
)
from scalelite.flows import recordings, tracks
from scalelite.flows.calls import AFTER_RECALL_S, RECALLED_S, Answer, check_content_type, last_write, verified
from scalelite.flows.claims import Claims
from scalelite.flows.create import Creates
from scalelite.flows.lrs import LrsPayloads
from scalelite.flows.servers import Servers
from scalelite.flows.shared import Shared
from scalelite.store import runtime

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from uuid import UUID

    from scalelite.core.model import Meeting
    from scalelite.flows.calls import Caller, Request
    from scalelite.flows.confirm import Confirmations
    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)

# Whatever a call has to wait for, one thing after another: it is answered within 12 s (spec/bbb-api.md).
LONGEST_ANSWER_S: Final = 11.0


@dataclass(frozen=True, slots=True)
class Proxy:
    """What a worker answers calls with; `owned` is what runtime.meetings_of says of a tenant."""

    services: Services
    snapshot: Snapshot
    servers: Servers
    creates: Creates
    owned: Shared[UUID, tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]]

    @classmethod
    def of(cls, services: Services, snapshot: Snapshot, confirmations: Confirmations) -> Proxy:
        """Make a worker's proxy from what it has open."""
        servers = Servers(services.bbb, snapshot)
        claims = Claims(services.database)
        creates = Creates(services, snapshot, servers, claims, confirmations, LrsPayloads(services))

        async def owned(tenant: UUID) -> tuple[frozenset[tuple[str, str]], frozenset[tuple[str, str]]]:
            async with services.database.use() as connection:
                return await runtime.meetings_of(connection, tenant)

        return cls(services, snapshot, servers, creates, Shared(owned))

    async def answer(self, request: Request) -> Answer:
        """Answer a call; raises the ApiError that the caller is told."""
        methods, function = _CALLS.get(request.call, ((), None))
        if request.method not in methods:
            raise UnsupportedRequest
        check_content_type(request)
        if function is None:
            return self._index()
        caller = self._caller(request)
        if request.call == "join":  # waits for one statement at most, and that has a limit of its own
            return await self.join(caller)
        try:
            async with asyncio.timeout(LONGEST_ANSWER_S):
                return await function(self, caller)
        except TimeoutError:
            raise (CreateFailed if request.call == "create" else UpstreamFailed) from None

    def _index(self) -> Answer:
        """Say who we are; the one call that need not be signed."""
        build = self.services.settings.build_number
        return Answer(wire.success(version="2.0", **({"build": build} if build else {})))

    def _caller(self, request: Request) -> Caller:
        return verified(request, self.snapshot.declared, self.services.settings)

    async def create(self, caller: Caller) -> Answer:
        """Place the meeting, or find where it is, and have it created there."""
        return await self.creates.create(caller)

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
            reply = await self.servers.ask(self.servers.get(meeting.server), "end", params)
        except (UpstreamFailed, asyncio.CancelledError):  # the caller is gone, or has waited long enough
            await last_write(self._mark_ending(meeting))
            raise
        # One that is being created may just not be there yet.
        if reply.succeeded or (reply.message_key == "notFound" and meeting.phase != "creating"):
            await self._write(runtime.forget_meetings, [meeting.generation])
            self.snapshot.forget(meeting.generation)
        return Answer(reply.body)

    async def _mark_ending(self, meeting: Meeting) -> None:
        try:
            await self._write(runtime.mark_ending, meeting.generation)
        except DatabaseAway:
            log.warning("a meeting on server %s may have ended; a poll will tell", meeting.server)

    async def join(self, caller: Caller) -> Answer:
        """Send the user to the meeting's server, signed anew."""
        meeting = await self._meeting(caller)
        server = self.servers.get(meeting.server)
        if self.servers.gone(server.id):
            raise ServerUnavailable
        params = merged(caller.params, caller.tenant.join, self.services.settings.join_exclude_params)
        return Answer(location=self.servers.url(server, "join", wire.encode(params)))

    async def _meeting(self, caller: Caller) -> Meeting:
        """Return the caller's meeting from memory, else from Postgres; absence is never remembered."""
        meeting_id = wire.meeting_id(caller.params)
        if known := self.snapshot.remembered(caller.tenant.id, meeting_id):
            return known
        recalled = self.snapshot.recalled(caller.tenant.id, meeting_id)
        try:
            async with self.services.database.use(RECALLED_S if recalled else None) as connection:
                found = await runtime.find_meeting(connection, caller.tenant.id, meeting_id)
        except DatabaseAway:
            if recalled is None:
                raise
            return recalled
        if found is None:
            raise MeetingNotFound
        if found.phase == "running":
            self.snapshot.remember(found)
        return found

    async def _forward(self, call: str, caller: Caller, names: tuple[str, ...]) -> Answer:
        """Ask the meeting's server, with those of the call's parameters that belong to such a call."""
        meeting = await self._meeting(caller)
        params = {name: caller.params[name] for name in names}
        return Answer(
            wire.passed_on(await self.servers.ask(self.servers.get(meeting.server), call, params, caller.slides))
        )

    async def _write(self, statement: Callable[..., Awaitable[None]], *arguments: object) -> None:
        async with self.services.database.use(AFTER_RECALL_S) as connection:
            await statement(connection, *arguments)

    # --- calls about all servers -------------------------------------------------------------------------------------

    async def get_meetings(self, caller: Caller) -> Answer:
        """Return the caller's meetings on all servers."""
        if self.services.settings.get_meetings_disabled:
            return Answer(wire.meetings([]))
        owned, left = await self.owned.get(caller.tenant.id)
        tenant = str(caller.tenant.id) if caller.tenant.name else None
        shown = {meeting_id for _, meeting_id in owned}

        def is_callers(server: str, meeting: wire.Listed) -> bool:
            """One that was placed elsewhere since is shown from there alone, and none twice."""
            key = server, meeting.meeting_id
            if meeting.meeting_id in shown:
                return key in owned
            if tenant is None or meeting.tenant != tenant or key in left:
                return False
            shown.add(meeting.meeting_id)
            return True

        listed = await self.servers.lists("getMeetings", "meetings/meeting")
        return Answer(wire.meetings([each.xml for server, each in listed if is_callers(server, each)]))

    async def get_sessions(self, caller: Caller) -> Answer:
        """Return the sessions in the caller's meetings on all servers; these name meetings by their internal ids."""
        placed, _ = await self.owned.get(caller.tenant.id)
        owned = {(server, wire.internal_prefix(meeting_id)) for server, meeting_id in placed}
        listed = await self.servers.lists("getSessions", "sessions/meeting")
        return Answer(
            wire.sessions([each.xml for server, each in listed if (server, each.meeting_id.partition("-")[0]) in owned])
        )


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
    "getRecordings": (("GET", "POST"), recordings.get_recordings),
    "publishRecordings": (("GET",), recordings.publish_recordings),
    "updateRecordings": (("GET", "POST"), recordings.update_recordings),
    "deleteRecordings": (("GET",), recordings.delete_recordings),
    "getRecordingTextTracks": (("GET", "POST"), tracks.get_text_tracks),
    "putRecordingTextTrack": (("POST",), tracks.put_text_track),
}
CALLS: Final = frozenset(_CALLS)
