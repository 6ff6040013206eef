"""create: which server takes the meeting, what goes there, and the claim taken back if that fails.

Costs one database statement; a create that fails, or that waits for another's, may take more.
Rules: spec/bbb-api.md, create.
"""

from __future__ import annotations

import asyncio
import logging
import string
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from scalelite.core import wire
from scalelite.core.balance import TagRule, eligible, no_server
from scalelite.core.params import Placement, for_create, voice_bridges
from scalelite.edge.bbb import ServerUnreachable
from scalelite.errors import CreateFailed, DatabaseAway, UpstreamFailed, UselessAnswer
from scalelite.flows.calls import Answer
from scalelite.store import runtime

if TYPE_CHECKING:
    from scalelite.core.model import Meeting
    from scalelite.flows.calls import Caller
    from scalelite.flows.confirm import Confirmations
    from scalelite.flows.servers import Servers
    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)

_ALPHANUMERICS: Final = string.ascii_letters + string.digits
# How long a create waits for another's of the same id that was there first, and how often it looks.
_OTHERS_CREATE_S: Final = 8.5
_LOOK_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Creates:
    """What a worker answers create with."""

    services: Services
    snapshot: Snapshot
    servers: Servers
    confirmations: Confirmations

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
        if self.servers.gone(meeting.server):
            return False
        if self.snapshot.server_state(meeting.server) == "enabled":
            return True
        try:
            reply = await self.servers.ask(
                self.servers.get(meeting.server), "isMeetingRunning", {"meetingID": meeting.meeting_id}
            )
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
            return Answer(wire.passed_on(reply))
        self.confirmations.add(meeting.generation)
        self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(wire.passed_on(reply))

    async def _create_again(self, caller: Caller, meeting: Meeting) -> Answer:
        """Pass on a create of a meeting that there is: only its server can tell a duplicate from another's id."""
        try:
            reply = await self._ask_create(caller, meeting, new=False)
        except UselessAnswer:
            raise
        except UpstreamFailed:
            raise CreateFailed from None
        if reply.succeeded and meeting.phase == "creating":
            async with self.services.database.use() as connection:
                await runtime.confirm_meetings(connection, [meeting.generation])
        if reply.succeeded:
            self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(wire.passed_on(reply))

    async def _ask_create(self, caller: Caller, meeting: Meeting, *, new: bool) -> wire.Reply:
        tenant, settings, cluster = caller.tenant, self.services.settings, self.snapshot.declared.cluster
        server = self.servers.get(meeting.server)
        params = for_create(
            caller.params,
            tenant.create,
            Placement(server.tag, meeting.voice_bridge, meeting.moderator_pw.reveal(), new),
            tenant=(tenant.id, tenant.name) if tenant.name else None,
            excluded=settings.create_exclude_params,
            max_duration=cluster.max_meeting_duration,
        )
        return await self.servers.ask(server, "create", params, caller.slides)

    async def _release(self, meeting: Meeting) -> None:
        """Take a claim back; if Postgres is away, the poller will, when the meeting is not on its server."""
        try:
            async with self.services.database.use() as connection:
                await runtime.release_claim(connection, meeting.generation)
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
