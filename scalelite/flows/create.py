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

from prometheus_client import Counter

from scalelite.core import callbacks, lrs, wire
from scalelite.core.balance import TagRule, eligible, no_server
from scalelite.core.model import Secret
from scalelite.core.params import Placement, for_create, merged, voice_bridges
from scalelite.errors import (
    CreateFailed,
    DatabaseAway,
    ServerUnreachable,
    TenantFull,
    UpstreamFailed,
    UselessAnswer,
)
from scalelite.flows.calls import AFTER_RECALL_S, RECALLED_S, Answer, last_write
from scalelite.store import callbacks as rows
from scalelite.store import runtime

if TYPE_CHECKING:
    from scalelite.core.callbacks import Hook
    from scalelite.core.model import Meeting
    from scalelite.flows.calls import Caller
    from scalelite.flows.claims import Claims
    from scalelite.flows.cluster import Tenant
    from scalelite.flows.confirm import Confirmations
    from scalelite.flows.lrs import LrsPayloads
    from scalelite.flows.servers import Servers
    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)

_ALPHANUMERICS: Final = string.ascii_letters + string.digits
# How long a create waits for another's of the same id that was there first, and how often it looks.
_OTHERS_CREATE_S: Final = 8.5
_LOOK_EVERY_S: Final = 0.05
# No call takes longer, and one that ends takes its claim back.
_LONGEST_CREATE_S: Final = 12.0
_TOKEN_BYTES: Final = 20
# A server that has no unique number of its own for a meeting says so, in a shape without messageKey.
_BRIDGE_TAKEN: Final = "nonUniqueVoiceBridge"
_MOST_BRIDGES: Final = 3
_ID_TAKEN: Final = "idNotUnique"
_DUPLICATE: Final = "duplicateWarning"

OVER_LIMIT: Final = Counter(
    "scalelite_tenant_over_limit", "New meetings that a limit of their tenant stopped.", ["tenant"]
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a create asks for: its id, its merged parameters, and what its client wants to be called for."""

    caller: Caller
    meeting_id: str
    params: wire.Params
    hooks: tuple[Hook, ...]


@dataclass(frozen=True, slots=True)
class Creates:
    """What a worker answers create with."""

    services: Services
    snapshot: Snapshot
    servers: Servers
    claims: Claims
    confirmations: Confirmations
    payloads: LrsPayloads

    async def create(self, caller: Caller) -> Answer:
        """Place the meeting, or find where it is; pass the call on; take the claim back if that fails."""
        wanted = self._wanted(caller)
        unreachable: frozenset[str] = frozenset()
        while True:
            claimed, meeting = await self._placed(wanted, unreachable)
            if not claimed:
                if (settled := await self._settled(wanted, meeting)) is None:
                    continue
                claimed, meeting = settled
            if not claimed:
                return await self._create_again(wanted, meeting)
            try:
                return await self._create_new(wanted, meeting)
            except ServerUnreachable:
                if unreachable:
                    raise CreateFailed from None
                unreachable = frozenset({meeting.server})
            except UselessAnswer:
                raise
            except UpstreamFailed:
                raise CreateFailed from None

    def _wanted(self, caller: Caller) -> Wanted:
        meeting_id = wire.meeting_id(caller.params)
        if caller.slides.content:
            wire.check_document(caller.slides.content)
        params = merged(caller.params, caller.tenant.create, self.services.settings.create_exclude_params)
        return Wanted(caller, meeting_id, params, callbacks.hooks_of(params))

    # --- placing -----------------------------------------------------------------------------------------------------

    async def _placed(self, wanted: Wanted, unreachable: frozenset[str]) -> tuple[bool, Meeting]:
        """Return the meeting's row and whether it is this call's own claim; one that cannot stay is placed anew."""
        known = self.snapshot.remembered(wanted.caller.tenant.id, wanted.meeting_id)
        claimed, meeting = (False, known) if known else await self._claimed(wanted, unreachable)
        if not claimed and not await self._can_stay(meeting):
            self.snapshot.forget(meeting.generation)
            return await self._claim(wanted, unreachable, instead_of=meeting)
        return claimed, meeting

    async def _claimed(self, wanted: Wanted, unreachable: frozenset[str]) -> tuple[bool, Meeting]:
        """Claim the meeting; while Postgres is away, one that this worker has seen counts."""
        recalled = self.snapshot.recalled(wanted.caller.tenant.id, wanted.meeting_id)
        try:
            return await self._claim(wanted, unreachable, within_s=RECALLED_S if recalled else None)
        except DatabaseAway:
            if recalled is None:
                raise
            return False, recalled

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
        self,
        wanted: Wanted,
        unreachable: frozenset[str],
        instead_of: Meeting | None = None,
        within_s: float | None = None,
    ) -> tuple[bool, Meeting]:
        """Claim the meeting on one of the servers that may take it, or get the claim there is; one statement."""
        tenant = wanted.caller.tenant
        rule = TagRule.parse(tenant.create.tag(wanted.caller.params))
        servers = [server for server in eligible(self.snapshot.takers, rule) if server not in unreachable]
        claim = self._claim_of(wanted, servers)
        if instead_of:
            async with self.services.database.use() as connection:
                found = await runtime.place_anew(connection, claim, instead_of.generation)
        else:
            found = await self.claims.claim(claim, within_s)
        if found is None:
            if claim.bounds and not instead_of:
                await self._stop_at_bound(tenant)
            full = eligible(self.snapshot.full, rule) or (servers and self.snapshot.capped.issuperset(servers))
            raise CreateFailed if unreachable else no_server(rule, full=bool(full))
        return found

    async def _stop_at_bound(self, tenant: Tenant) -> None:
        """Raise TenantFull if the tenant has reached a bound."""
        async with self.services.database.use() as connection:
            has = await runtime.usage(connection, tenant.id)
        if bound := tenant.limits.reached(*has):
            OVER_LIMIT.labels(tenant.name).inc()
            raise TenantFull(bound)

    def _claim_of(self, wanted: Wanted, servers: list[str]) -> runtime.Claim:
        tenant, cluster = wanted.caller.tenant, self.snapshot.declared.cluster
        limits = tenant.limits
        bounded = limits.max_meetings or limits.max_users or not self.snapshot.capped.isdisjoint(servers)
        return runtime.Claim(
            tenant=tenant.id,
            meeting_id=wanted.meeting_id,
            servers=servers,
            reservation=cluster.reservation(wanted.params),
            moderator_pw="".join(self.services.random.choices(_ALPHANUMERICS, k=8)),
            secret=wanted.caller.secret,
            voice_bridges=self._voice_bridges(wanted),
            hooks=wanted.hooks,
            hook_token=self._new_token() if wanted.hooks else "",
            bounds=runtime.Bounds(limits.max_meetings, limits.max_users) if bounded else None,
        )

    def _voice_bridges(self, wanted: Wanted) -> list[str]:
        external = wanted.params.get("voiceBridge", "") if wanted.caller.tenant.external_voice_bridge else ""
        return voice_bridges(wanted.meeting_id, self.services.settings.voice_bridge_len, external)

    def _new_token(self) -> str:
        return self.services.random.randbytes(_TOKEN_BYTES).hex()

    # --- creating ----------------------------------------------------------------------------------------------------

    async def _create_new(self, wanted: Wanted, meeting: Meeting) -> Answer:
        """Create a claimed meeting on its server; whatever goes wrong, the claim is taken back."""
        try:
            reply, meeting = await self._ask_create(wanted, meeting, new=True)
            if reply.message_key == _ID_TAKEN and not wanted.params.get("moderatorPW"):
                reply, meeting = await self._ask_late(wanted, meeting, reply)
        except BaseException:
            await last_write(self._release(meeting))
            raise
        if not reply.succeeded:
            await self._release(meeting)
            return Answer(wire.passed_on(reply))
        self.confirmations.add(meeting.generation)
        self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(wire.passed_on(reply))

    async def _ask_late(self, wanted: Wanted, meeting: Meeting, refusal: wire.Reply) -> tuple[wire.Reply, Meeting]:
        """Take up what the server has under this id, once it has refused the password that we drew for it.

        An earlier create drew another, and gave up before the server was done. To a caller who brings none it is the
        same meeting, as with one BigBlueButton; another tenant's is not.
        """
        server, tenant = self.servers.get(meeting.server), wanted.caller.tenant
        found = await self.servers.ask(server, "getMeetingInfo", {"meetingID": meeting.meeting_id})
        owner = str(tenant.id) if tenant.name else ""
        if not found.succeeded or found.text("metadata/tenant-id") != owner:
            return refusal, meeting
        meeting = replace(meeting, moderator_pw=Secret(found.text("moderatorPW")))
        async with self.services.database.use() as connection:
            await runtime.keep_password(connection, meeting)
        return await self._ask_create(wanted, meeting, new=False)

    async def _create_again(self, wanted: Wanted, meeting: Meeting) -> Answer:
        """Pass on a create of a meeting that there is: only its server can tell a duplicate from another's id."""
        meeting = await self._with_hooks(wanted, meeting)
        try:
            reply, meeting = await self._ask_create(wanted, meeting, new=False)
        except UselessAnswer:
            raise
        except UpstreamFailed:
            raise CreateFailed from None
        if reply.succeeded and reply.message_key != _DUPLICATE and meeting.phase != "creating":
            meeting = await self._begun_anew(wanted, meeting)
        elif reply.succeeded and meeting.phase == "creating":
            async with self.services.database.use(AFTER_RECALL_S) as connection:
                await runtime.confirm_meetings(connection, [meeting.generation])
        if reply.succeeded:
            self.snapshot.remember(replace(meeting, phase="running"))
        return Answer(wire.passed_on(reply))

    async def _begun_anew(self, wanted: Wanted, meeting: Meeting) -> Meeting:
        """Keep what the server has created, not having it any more: the end of the one before may be under way.

        Where that has come, it is claimed again; one that another create has placed elsewhere is to be ended here.
        """
        try:
            async with self.services.database.use(AFTER_RECALL_S) as connection:
                generation = await runtime.renew_meeting(connection, meeting.generation)
            self.snapshot.forget(meeting.generation)
            if generation:
                return replace(meeting, generation=generation)
            found = await self.claims.claim(self._claim_of(wanted, [meeting.server]), AFTER_RECALL_S)
            if found and found[1].server == meeting.server:
                self.confirmations.add(found[1].generation)
                return found[1]
            async with self.services.database.use(AFTER_RECALL_S) as connection:
                await runtime.raise_tombstones(connection, [meeting])
            return found[1] if found else meeting
        except DatabaseAway:
            log.warning("a meeting that server %s has created anew is as it was", meeting.server)
            return meeting

    async def _with_hooks(self, wanted: Wanted, meeting: Meeting) -> Meeting:
        """Keep the hooks of a repeated create, unless this worker knows that they are kept; none takes none away."""
        if set(wanted.hooks) <= set(meeting.hooks):
            return meeting
        secret, token = wanted.caller.secret, self._new_token()
        async with self.services.database.use(AFTER_RECALL_S) as connection:
            token = await rows.keep_hooks(connection, meeting, wanted.hooks, secret, token)
        return replace(meeting, hooks=wanted.hooks, hook_token=token)

    async def _ask_create(self, wanted: Wanted, meeting: Meeting, *, new: bool) -> tuple[wire.Reply, Meeting]:
        """Ask the meeting's server; where its voice bridge is taken there, again with the next, a few times.

        A server knows numbers of meetings that were not created through us. Returns the meeting with its last number.
        """
        reply, tried = await self._ask_once(wanted, meeting, new=new), [meeting.voice_bridge]
        while not reply.succeeded and reply.text("errors/error/key") == _BRIDGE_TAKEN and len(tried) < _MOST_BRIDGES:
            others = [number for number in self._voice_bridges(wanted) if number not in tried]
            async with self.services.database.use() as connection:
                number = await runtime.renumber(connection, meeting, others)
            if not number:
                break
            meeting = replace(meeting, voice_bridge=number)
            tried.append(number)
            reply = await self._ask_once(wanted, meeting, new=new)
        return reply, meeting

    async def _ask_once(self, wanted: Wanted, meeting: Meeting, *, new: bool) -> wire.Reply:
        tenant, server = wanted.caller.tenant, self.servers.get(meeting.server)
        params = for_create(
            wanted.params,
            Placement(
                server.tag,
                meeting.voice_bridge,
                meeting.moderator_pw.reveal(),
                new,
                server.id if self.services.settings.server_id_metadata else "",
            ),
            tenant=(tenant.id, tenant.name) if tenant.name else None,
            max_duration=self.snapshot.declared.cluster.max_meeting_duration,
        )
        if wanted.hooks:
            base = callbacks.base_url(tenant.name, self.services.settings.url_host, wanted.caller.origin)
            params = callbacks.intercepted(params, base, meeting.hook_token)
        if payload := await self.payloads.for_create(tenant, server, new=new):
            params[lrs.PARAM] = payload
        return await self.servers.ask(server, "create", params, wanted.caller.slides)

    async def _release(self, meeting: Meeting) -> None:
        """Take a claim back; if Postgres is away, the poller will, when the meeting is not on its server."""
        try:
            async with self.services.database.use() as connection:
                await runtime.release_claim(connection, meeting.generation)
        except DatabaseAway:
            log.warning("a claim on server %s is left to the poller", meeting.server)

    async def _settled(self, wanted: Wanted, meeting: Meeting) -> tuple[bool, Meeting] | None:
        """Wait for another call's create of this id where the order matters; None if it was given up.

        A create without passwords must reach the server after the first one: that brings a generated password, and
        BigBlueButton refuses it for a meeting that a call without any has already created. A claim that is older than
        any create takes was lost with who made it, and is this call's own from now on.
        """
        if meeting.phase != "creating" or wanted.params.get("attendeePW") or wanted.params.get("moderatorPW"):
            return False, meeting
        deadline = asyncio.get_running_loop().time() + _OTHERS_CREATE_S
        while asyncio.get_running_loop().time() < deadline:
            await asyncio.sleep(_LOOK_EVERY_S)
            if known := self.snapshot.remembered(meeting.tenant, meeting.meeting_id):
                return False, known
            async with self.services.database.use() as connection:
                found = await runtime.find_meeting(connection, meeting.tenant, meeting.meeting_id)
                if found is None or found.phase != "creating":
                    return (False, found) if found else None
                if await runtime.adopt_claim(connection, found.generation, _LONGEST_CREATE_S):
                    return True, found
        raise CreateFailed
