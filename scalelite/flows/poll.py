"""One round of polls: asks servers what runs on them, and writes health, load and the fate of meetings.

One getMeetings a server, all at once and each with its own time limit; what answered is written while the rest is still
waited for. A failed poll removes no meeting. Rules: spec/operations.md, requirements PO-*.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from scalelite.core.balance import (
    Condition,
    Counted,
    SeenMeeting,
    after_poll,
    poller_suspects_itself,
    state_of,
    verdict_on_missing,
)
from scalelite.core.model import Secret, ServerStatus
from scalelite.edge.bbb import CONNECTIONS_PER_SERVER
from scalelite.errors import UpstreamFailed
from scalelite.flows.cluster import cluster_view
from scalelite.flows.ending import stopped
from scalelite.store import leases, polls, runtime, specs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence

    from lxml import etree

    from scalelite.core.model import Health, ServerSpec, State
    from scalelite.flows.cluster import ClusterView
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection
    from scalelite.store.leases import Lease
    from scalelite.store.polls import PollMark

log = logging.getLogger(__name__)

_WRITE_EVERY_S: Final = 0.1
_DATABASE_S: Final = 30.0
# Slots bound the work of a moment, and one that hangs is none: 500 of them would take 200 slots for half a minute.
_SILENT_S: Final = 0.5
# A server that lists its meetings and hangs at their ends holds up no round for longer.
_ENDING_S: Final = 7.0
# More than any server has; what garbage says must fit Postgres's integers.
_MOST: Final = 1_000_000
_LONGEST_VERSION: Final = 100


@dataclass(frozen=True, slots=True)
class Polled:
    """What one server said; `meetings` is None when it did not answer, `version` when it was not asked for.

    `failure` is why one of them is missing.
    """

    server: ServerSpec
    meetings: tuple[SeenMeeting, ...] | None
    version: str | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of a round: statuses by server, and whether the poller suspects itself."""

    statuses: dict[str, ServerStatus]
    failed: tuple[str, ...]
    suspect: bool

    def with_health(self, health: Health) -> int:
        """Count the servers of one health."""
        return sum(status.health == health for status in self.statuses.values())


@dataclass(frozen=True, slots=True)
class Found:
    """What a poll finds when it begins: its number, the cluster's settings, the servers to poll and their statuses.

    `cordoned` are those of the servers that take no new meetings, and count as disabled once they are empty.
    """

    mark: PollMark
    cluster: ClusterView
    servers: tuple[ServerSpec, ...]
    before: Mapping[str, ServerStatus]
    cordoned: frozenset[str]

    def only(self, wanted: Callable[[ServerSpec, ServerStatus], bool]) -> Found:
        """Return it with those of the servers that are wanted."""
        return replace(self, servers=tuple(s for s in self.servers if wanted(s, self.status(s.id))))

    def status(self, server: str) -> ServerStatus:
        """Return what was known of a server."""
        return self.before.get(server) or ServerStatus(server)


def _nobody(_: Polled) -> None:
    """Whoever wants to hear of each server as it answers gives another."""


async def poll_round(services: Services, tell: Callable[[Polled], None] = _nobody) -> Round:
    """Poll every server that is not disabled, once, whoever else polls; asks for the versions too."""
    poll = Poll(services, tell=tell)
    return await poll.round(await poll.begin(), versions=True)


@dataclass(frozen=True, slots=True)
class Poll:
    """Polls, with a lease that every write asks for; without one whoever else polls."""

    services: Services
    lease: Lease | None = None
    tell: Callable[[Polled], None] = _nobody

    async def begin(self, only: frozenset[str] | None = None) -> Found:
        """Read what is to be polled, and take a number; holds that have run out are lifted.

        All servers that are not disabled, or `only` these, whatever their state.
        """
        async with self._write() as connection:
            await runtime.lift_holds(connection)
            cluster = cluster_view(await specs.load_cluster(connection), self.services.settings)
            servers = await specs.load_servers(connection)
            holds = await runtime.load_holds(connection)
            before = {status.server: status for status in (await runtime.load_statuses(connection))[1]}
            mark = await polls.begin_poll(connection)
        states: dict[str, State] = {
            server.id: state_of(server, before.get(server.id) or ServerStatus(server.id), holds.get(server.id))
            for server in servers
        }
        polled = tuple(
            server for server in servers if (states[server.id] != "disabled" if only is None else server.id in only)
        )
        cordoned = frozenset(server.id for server in polled if states[server.id] == "cordoned")
        return Found(mark, cluster, polled, before, cordoned)

    async def round(
        self, found: Found, *, versions: bool = False, suspected: bool = False, whole: bool = True
    ) -> Round:
        """Poll the servers that were found.

        `suspected`: the poller suspects itself already. A round that is not `whole` is not told of to those who watch.
        """
        started = asyncio.get_running_loop().time()
        asking = _Asking(self.services, found, versions)
        failed: list[ServerSpec] = []
        statuses: dict[str, ServerStatus] = {}
        zombies: dict[tuple[str, str], SeenMeeting] = {}
        async with aclosing(asking.answers()) as coming:
            async for answers in coming:
                for answer in answers:
                    self.tell(answer)
                failed += [answer.server for answer in answers if answer.meetings is None]
                good = [answer for answer in answers if answer.meetings is not None]
                written, dead = await self._write_good(found, good)
                statuses |= written
                zombies |= dead
        suspect = suspected or poller_suspects_itself(
            len(found.servers), len(failed), found.cluster.thresholds.suspect_fraction
        )
        if suspect and failed:
            log.error("%d of %d servers failed: the poller suspects its own network", len(failed), len(found.servers))
        statuses |= await self._write_failed(found, failed, suspect=suspect)
        outcome = Round(statuses, tuple(server.id for server in failed), suspect)
        if whole:
            await self._write_round(outcome, asyncio.get_running_loop().time() - started)
        if not suspect:
            await self._end_zombies(found, zombies)
        return outcome

    @asynccontextmanager
    async def _write(self) -> AsyncIterator[Connection]:
        """Open a transaction that holds the lease; raises LeaseLost."""
        async with self.services.database.use(timeout_s=_DATABASE_S) as connection, connection.transaction():
            if self.lease:
                await leases.fence(connection, self.lease)
            yield connection

    async def _write_good(
        self, found: Found, answers: Sequence[Polled]
    ) -> tuple[dict[str, ServerStatus], dict[tuple[str, str], SeenMeeting]]:
        """Write the statuses of servers that answered, and what becomes of their meetings; one transaction.

        Returns the statuses, and the meetings that run there though they were placed anew.
        """
        if not answers:
            return {}, {}
        meetings = {answer.server.id: answer.meetings or () for answer in answers}
        servers = list(meetings)
        listed = {(server, meeting.meeting_id): meeting for server in servers for meeting in meetings[server]}
        statuses = {answer.server.id: self._good_status(found, answer) for answer in answers}
        async with self._write() as connection:
            await polls.write_statuses(connection, found.mark, statuses.values())
            await polls.count_meetings(connection, [(*key, seen.users) for key, seen in listed.items()])
            missing = await polls.missing_meetings(connection, found.mark, servers, list(listed))
            gone = [m.generation for m in missing if verdict_on_missing(m.phase, m.missed, m.age_s) == "remove"]
            await runtime.forget_meetings(connection, gone)
            await polls.count_missed(connection, [m.generation for m in missing])
            tombstones = await runtime.tombstones_of(connection, servers)
            await runtime.bury(connection, tombstones.difference(listed))
            await polls.write_unknown(
                connection, {server: [m.meeting_id for m in meetings[server] if not m.breakout] for server in servers}
            )
            if empty := [server for server in servers if server in found.cordoned and not meetings[server]]:
                drained = await polls.drain(connection, empty)
                statuses |= {server: replace(statuses[server], drained=True) for server in drained}
            await polls.tell_polled(connection, found.mark)
        return statuses, {key: seen for key, seen in listed.items() if key in tombstones}

    async def _end_zombies(self, found: Found, meetings: Mapping[tuple[str, str], SeenMeeting]) -> None:
        """End meetings that were placed anew while their server was away; one that fails is tried in the next round."""
        if not meetings:
            return
        async with self._write() as connection:
            still = await runtime.tombstones_of(connection, [server for server, _ in meetings])
        servers = {server.id: server for server in found.servers}
        slots = {server: asyncio.Semaphore(CONNECTIONS_PER_SERVER) for server in servers}
        ends = [
            self._end(servers[server], meetings[server, meeting_id], found.cluster.algorithm, slots[server])
            for server, meeting_id in still.intersection(meetings)
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDING_S):
                await asyncio.gather(*ends)

    async def _end(self, server: ServerSpec, meeting: SeenMeeting, algorithm: str, slots: asyncio.Semaphore) -> None:
        """End a meeting with the password that its server tells: older servers ask for it."""
        params = {"meetingID": meeting.meeting_id, "password": meeting.moderator_pw.reveal()}
        try:
            async with slots:
                await self.services.bbb.call(server, "end", params, algorithm)
        except UpstreamFailed as error:
            log.warning("a meeting that was placed anew could not be ended: %s", error)

    async def _write_failed(
        self, found: Found, servers: Sequence[ServerSpec], *, suspect: bool
    ) -> dict[str, ServerStatus]:
        """Write the health of servers that failed; their meetings stay."""
        statuses = {server.id: _after(found, server.id, answered=False, suspect=suspect) for server in servers}
        if statuses:
            async with self._write() as connection:
                await polls.write_statuses(connection, found.mark, statuses.values())
                await polls.tell_polled(connection, found.mark)
        return statuses

    async def _write_round(self, outcome: Round, duration_s: float) -> None:
        """Keep how the round went, for those who watch the poller."""
        async with self._write() as connection:
            await polls.write_round(
                connection,
                duration_s=duration_s,
                polled=len(outcome.statuses),
                failed=len(outcome.failed),
                suspect=outcome.suspect,
            )

    def _good_status(self, found: Found, answer: Polled) -> ServerStatus:
        now_ms, meetings, load = self.services.now_ms(), answer.meetings or (), found.cluster.load
        counted = Counted.of(load, meetings, now_ms)
        status = _after(found, answer.server.id, answered=True)
        return replace(
            status,
            meetings=counted.meetings,
            users=sum(meeting.users for meeting in meetings),
            counted_users=counted.users,
            largest_meeting=max((meeting.users for meeting in meetings), default=0),
            voice=counted.voice,
            videos=counted.videos,
            load=counted.load(load.weights),
            bbb_version=status.bbb_version if answer.version is None else answer.version,
            polled_at=datetime.fromtimestamp(now_ms / 1000, UTC),
            drained=False,
        )


@dataclass(frozen=True, slots=True)
class _Asking:
    """The asking of a round, which writes nothing."""

    services: Services
    found: Found
    versions: bool

    async def answers(self) -> AsyncGenerator[list[Polled], None]:
        """Ask all servers at once, as many as may be, and yield what has come in, again and again."""
        slots = asyncio.Semaphore(self.services.settings.poller_concurrency)
        well_first = sorted(self.found.servers, key=lambda server: self.found.status(server.id).health != "online")
        waiting = {asyncio.create_task(self._in_slot(server, slots)) for server in well_first}
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=_WRITE_EVERY_S)
                yield [task.result() for task in done]
        finally:
            await stopped(*waiting)

    async def _in_slot(self, server: ServerSpec, slots: asyncio.Semaphore) -> Polled:
        """Ask one server; one that is silent leaves its slot to the next, and is waited for none the less."""
        await slots.acquire()
        with ExitStack() as slot:
            slot.callback(slots.release)
            asyncio.get_running_loop().call_later(_SILENT_S, slot.close)  # closed twice, it releases once
            return await self._ask(server)

    async def _ask(self, server: ServerSpec) -> Polled:
        """Ask one server what runs on it."""
        reply, failure = await self._call(server, "getMeetings")
        if reply is None:
            return Polled(server, None, failure=failure)
        meetings = tuple(_seen(meeting) for meeting in reply.iterfind("meetings/meeting"))
        before = self.found.status(server.id)
        if self.versions or not before.bbb_version or before.health != "online":
            return Polled(server, meetings, *await self._version(server))
        return Polled(server, meetings)

    async def _version(self, server: ServerSpec) -> tuple[str | None, str]:
        """Ask for BigBlueButton's version, which a stock server tells of its API alone; else say why there is none."""
        reply, failure = await self._call(server, "")
        if reply is None:
            return None, failure
        version = reply.findtext("bbbVersion") or reply.findtext("version") or ""
        return version[:_LONGEST_VERSION], ""

    async def _call(self, server: ServerSpec, call: str) -> tuple[etree._Element | None, str]:
        """Return a server's answer, within the time of a poll, or why there is none."""
        limit_s = self.services.settings.poller_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                reply = await self.services.bbb.call(server, call, {}, self.found.cluster.algorithm)
        except UpstreamFailed as error:
            return None, error.cause
        except TimeoutError:
            return None, f"no answer within {limit_s:g} s"
        if not reply.succeeded:
            log.warning("server %s refused the poll: %s", server.id, reply.message_key)
            return None, f"{reply.message_key}: {reply.root.findtext('message') or ''}"
        return reply.root, ""


def _after(found: Found, server: str, *, answered: bool, suspect: bool = False) -> ServerStatus:
    status = found.status(server)
    was = Condition(status.health, status.score, status.good_polls)
    condition = after_poll(was, answered=answered, thresholds=found.cluster.thresholds, suspect=suspect)
    if condition.health != status.health:
        log.warning("server %s: %s -> %s", server, status.health, condition.health)
    return replace(status, health=condition.health, score=condition.score, good_polls=condition.good_polls)


def _seen(meeting: etree._Element) -> SeenMeeting:
    """Read what a server lists; users are participants, moderators among them, counted once (LB-7)."""

    def number(name: str) -> int:
        text = (meeting.findtext(name) or "").strip()
        return int(text[:18]) if text.isascii() and text.isdigit() else 0

    return SeenMeeting(
        meeting_id=meeting.findtext("meetingID") or "",
        created_ms=number("createTime"),
        users=min(number("participantCount"), _MOST),
        voice=min(number("voiceParticipantCount"), _MOST),
        videos=min(number("videoCount"), _MOST),
        breakout=meeting.findtext("isBreakout") == "true",
        moderator_pw=Secret(meeting.findtext("moderatorPW") or ""),
    )
