"""The poller: asks every server what runs on it, and writes health, load and the fate of meetings.

One getMeetings a server and round, all at once and each with its own time limit; what answered is written while the
rest is still waited for. A failed poll removes no meeting. Rules: spec/operations.md, requirements PO-*.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from scalelite.core.balance import (
    Condition,
    SeenMeeting,
    after_poll,
    effective_state,
    meeting_load,
    poller_suspects_itself,
    verdict_on_missing,
)
from scalelite.core.model import ServerStatus
from scalelite.errors import DatabaseAway, UpstreamFailed
from scalelite.flows.cluster import cluster_view
from scalelite.store import runtime, specs

if TYPE_CHECKING:
    from lxml import etree

    from scalelite.core.balance import Verdict
    from scalelite.core.model import Health, ServerSpec
    from scalelite.flows.cluster import ClusterView
    from scalelite.flows.services import Services
    from scalelite.store.runtime import Missing, PollMark

log = logging.getLogger(__name__)

_WRITE_EVERY_S: Final = 0.1
_RETRY_S: Final = 2.0
_DATABASE_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Polled:
    """What one server said; `meetings` is None when it did not answer."""

    server: ServerSpec
    meetings: tuple[SeenMeeting, ...] | None


@dataclass(frozen=True, slots=True)
class Round:
    """The outcome of a round: statuses by server, and whether the poller suspects itself."""

    statuses: dict[str, ServerStatus]
    failed: tuple[str, ...]
    suspect: bool

    def with_health(self, health: Health) -> int:
        """Count the servers of one health."""
        return sum(status.health == health for status in self.statuses.values())


async def poll_forever(services: Services) -> None:
    """Poll at the interval until cancelled; an apply brings the next round forward."""
    while True:
        try:
            await _poll_while_connected(services)
        except DatabaseAway as error:
            log.warning("polling waits: %s", error)
            await asyncio.sleep(_RETRY_S)


async def _poll_while_connected(services: Services) -> None:
    interval_s = services.settings.poll_interval_s
    async with services.database.dedicated() as connection:
        await connection.execute("LISTEN scalelite_declared")
        while True:
            outcome = await poll_round(services)
            log.info("polled %d servers, %d failed", len(outcome.statuses), len(outcome.failed))
            async for _ in connection.notifies(timeout=interval_s, stop_after=1):
                log.info("polling anew: the declared state has changed")


async def poll_round(services: Services) -> Round:
    """Poll every server that is not disabled, once."""
    started = asyncio.get_running_loop().time()
    poll = await _Poll.begin(services)
    slots = asyncio.Semaphore(services.settings.poller_concurrency)
    waiting = {asyncio.create_task(poll.ask(server, slots)) for server in poll.servers}
    failed: list[ServerSpec] = []
    statuses: dict[str, ServerStatus] = {}
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=_WRITE_EVERY_S)
            answers = [task.result() for task in done]
            failed += [answer.server for answer in answers if answer.meetings is None]
            good = {answer.server.id: answer.meetings for answer in answers if answer.meetings is not None}
            statuses |= await poll.write_good(good)
    finally:
        for task in waiting:
            task.cancel()
    suspect = poller_suspects_itself(len(poll.servers), len(failed), poll.cluster.thresholds.suspect_fraction)
    if suspect:
        log.error("%d of %d servers failed: the poller suspects its own network", len(failed), len(poll.servers))
    statuses |= await poll.write_failed(failed, suspect=suspect)
    outcome = Round(statuses, tuple(server.id for server in failed), suspect)
    await poll.write_round(outcome, asyncio.get_running_loop().time() - started)
    return outcome


@dataclass(frozen=True, slots=True)
class _Poll:
    """One round: what it found when it began, and its number."""

    services: Services
    mark: PollMark
    cluster: ClusterView
    servers: tuple[ServerSpec, ...]
    before: dict[str, ServerStatus]

    @classmethod
    async def begin(cls, services: Services) -> _Poll:
        async with services.database.use(timeout_s=_DATABASE_S) as connection:
            cluster = cluster_view(await specs.load_cluster(connection), services.settings)
            servers = await specs.load_servers(connection)
            holds = await runtime.load_holds(connection)
            _, statuses = await runtime.load_statuses(connection)
            mark = await runtime.begin_poll(connection)
        polled = tuple(
            server
            for server in servers
            if server.state != "not enabled" and effective_state(server.state, holds.get(server.id)) != "disabled"
        )
        return cls(services, mark, cluster, polled, {status.server: status for status in statuses})

    async def ask(self, server: ServerSpec, slots: asyncio.Semaphore) -> Polled:
        """Ask one server what runs on it."""
        try:
            async with slots, asyncio.timeout(self.services.settings.poller_timeout_s):
                reply = await self.services.bbb.call(server, "getMeetings", {}, self.cluster.algorithm)
        except (UpstreamFailed, TimeoutError):
            return Polled(server, None)
        if not reply.succeeded:
            log.warning("server %s refused the poll: %s", server.id, reply.message_key)
            return Polled(server, None)
        return Polled(server, tuple(_seen(meeting) for meeting in reply.root.iterfind("meetings/meeting")))

    async def write_good(self, answers: dict[str, tuple[SeenMeeting, ...]]) -> dict[str, ServerStatus]:
        """Write the statuses of servers that answered, and what becomes of their meetings; one transaction."""
        if not answers:
            return {}
        seen = [(server, meeting) for server, meetings in answers.items() for meeting in meetings]
        listed = [(server, meeting.meeting_id) for server, meeting in seen]
        statuses = {server: self._good_status(server, meetings) for server, meetings in answers.items()}
        async with self.services.database.use(timeout_s=_DATABASE_S) as connection, connection.transaction():
            await runtime.write_statuses(connection, self.mark, statuses.values())
            await runtime.count_meetings(
                connection, [(server, meeting.meeting_id, meeting.users) for server, meeting in seen]
            )
            missing = await runtime.missing_meetings(connection, self.mark, list(answers), listed)
            await runtime.count_missed(connection, [m.generation for m in missing if _verdict(m) == "count missed"])
            await runtime.forget_meetings(connection, [m.generation for m in missing if _verdict(m) == "remove"])
            tombstones = await runtime.tombstones_of(connection, list(answers))
            await runtime.bury(connection, tombstones.difference(listed))
            await runtime.tell_polled(connection, self.mark)
        await self._end_zombies(tombstones.intersection(listed))
        return statuses

    async def _end_zombies(self, meetings: frozenset[tuple[str, str]]) -> None:
        """End meetings that were placed anew while their server was away; one that fails is tried in the next round."""
        servers = {server.id: server for server in self.servers}
        ends = (
            self.services.bbb.call(
                servers[server], "end", {"meetingID": meeting_id, "password": ""}, self.cluster.algorithm
            )
            for server, meeting_id in meetings
        )
        for found in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(found, UpstreamFailed):
                log.warning("a meeting that was placed anew could not be ended: %s", found)
            elif isinstance(found, BaseException):
                raise found

    async def write_failed(self, servers: list[ServerSpec], *, suspect: bool) -> dict[str, ServerStatus]:
        """Write the health of servers that failed; their meetings stay."""
        statuses = {server.id: self._after(server.id, answered=False, suspect=suspect) for server in servers}
        if statuses:
            async with self.services.database.use(timeout_s=_DATABASE_S) as connection, connection.transaction():
                await runtime.write_statuses(connection, self.mark, statuses.values())
                await runtime.tell_polled(connection, self.mark)
        return statuses

    async def write_round(self, outcome: Round, duration_s: float) -> None:
        """Keep how the round went, for those who watch the poller."""
        async with self.services.database.use(timeout_s=_DATABASE_S) as connection:
            await runtime.write_round(
                connection,
                duration_s=duration_s,
                polled=len(outcome.statuses),
                failed=len(outcome.failed),
                suspect=outcome.suspect,
            )

    def _good_status(self, server: str, meetings: tuple[SeenMeeting, ...]) -> ServerStatus:
        now_ms = self.services.now_ms()
        return replace(
            self._after(server, answered=True),
            meetings=len(meetings),
            users=sum(meeting.users for meeting in meetings),
            largest_meeting=max((meeting.users for meeting in meetings), default=0),
            videos=sum(meeting.videos for meeting in meetings),
            load=sum(meeting_load(self.cluster.load, meeting, now_ms) for meeting in meetings),
            polled_at=datetime.fromtimestamp(now_ms / 1000, UTC),
        )

    def _after(self, server: str, *, answered: bool, suspect: bool = False) -> ServerStatus:
        status = self.before.get(server, ServerStatus(server))
        was = Condition(status.health, status.score, status.good_polls)
        condition = after_poll(was, answered=answered, thresholds=self.cluster.thresholds, suspect=suspect)
        if condition.health != status.health:
            log.warning("server %s: %s -> %s", server, status.health, condition.health)
        return replace(status, health=condition.health, score=condition.score, good_polls=condition.good_polls)


def _verdict(meeting: Missing) -> Verdict:
    return "remove" if meeting.phase == "ending" else verdict_on_missing(meeting.missed, meeting.age_s)


def _seen(meeting: etree._Element) -> SeenMeeting:
    """Read what a server lists; users are participants, moderators among them, counted once (LB-7)."""

    def number(name: str) -> int:
        text = meeting.findtext(name) or ""
        return int(text) if text.isascii() and text.isdigit() else 0

    return SeenMeeting(
        meeting_id=meeting.findtext("meetingID") or "",
        created_ms=number("createTime"),
        users=number("participantCount"),
        voice=number("voiceParticipantCount"),
        videos=number("videoCount"),
        breakout=meeting.findtext("isBreakout") == "true",
    )
