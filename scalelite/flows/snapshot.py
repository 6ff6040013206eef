"""What a worker remembers of the cluster: declared state, statuses, and the meetings it has seen; reads, never writes.

Postgres's NOTIFY renews it by delta, so that a request needs no statement to find its tenant, its server and, once
seen, its meeting. Rules: spec/data.md.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from scalelite.core.balance import is_full, may_take_meetings, state_of
from scalelite.core.model import ServerStatus
from scalelite.errors import DatabaseAway, ServiceNotReady
from scalelite.flows.cluster import DeclaredView
from scalelite.store import runtime, specs
from scalelite.store.db import Connection, connect
from scalelite.store.seal import Sealer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from uuid import UUID

    from psycopg import Notify

    from scalelite.core.model import Health, Meeting, State
    from scalelite.settings import Settings

log = logging.getLogger(__name__)

REMEMBERED_MEETINGS: Final = 100_000
# A meeting that was read just before it went may come to be remembered just after that was told.
_REMEMBERED_ENDS: Final = 1_000
CHANNELS: Final = ("scalelite_declared", "scalelite_polled", "scalelite_held", "scalelite_meeting")
# Memory counts while the listener was heard from in the last 5 s: a heartbeat and its answer take less.
_COUNTS_S: Final = 5.0
_HEARTBEAT_S: Final = 2.0
_ANSWER_S: Final = 2.5
_FIRST_READ_S: Final = 30.0
_LONGEST_BACKOFF_S: Final = 2.0


@asynccontextmanager
async def _answering(within_s: float) -> AsyncIterator[None]:
    """Bound how long Postgres may take; raises DatabaseAway, so that a frozen one is left for a new connection."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except TimeoutError:
        raise DatabaseAway("Postgres did not answer in time") from None


class Snapshot:
    """The memory of one worker; `follow()` fills and renews it until it is cancelled."""

    def __init__(self, settings: Settings, listen_conninfo: str) -> None:
        self._conninfo = listen_conninfo
        self._sealer = Sealer(settings.encryption_keys)
        self._revision = -1
        self._polled = -1
        self._ready = asyncio.Event()
        self._heard_at = float("-inf")
        self._declared = DeclaredView(settings)
        self._holds: Mapping[str, State] = {}
        self._meetings: OrderedDict[tuple[UUID, str], Meeting] = OrderedDict()
        self._by_generation: dict[int, tuple[UUID, str]] = {}
        self._gone: OrderedDict[int, None] = OrderedDict()
        self.statuses: dict[str, ServerStatus] = {}
        self.takers: Mapping[str, list[str]] = {}
        self.full: Mapping[str, list[str]] = {}
        self.capped: frozenset[str] = frozenset()

    # --- declared and observed ---------------------------------------------------------------------------------------

    async def ready(self, timeout_s: float) -> None:
        """Wait until the cluster was read once; raises ServiceNotReady."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError:
            raise ServiceNotReady from None

    @property
    def declared(self) -> DeclaredView:
        """What is declared; raises ServiceNotReady until it was read once."""
        if not self._ready.is_set():
            raise ServiceNotReady
        return self._declared

    def server_state(self, server: str) -> State:
        """Return the stricter of a server's declared and held state; one that is gone counts as disabled."""
        spec = self._declared.servers.get(server)
        return state_of(spec, self._status(server), self._holds.get(server)) if spec else "disabled"

    def health(self, server: str) -> Health:
        """Return what the poller last said of a server."""
        return self._status(server).health

    def _status(self, server: str) -> ServerStatus:
        return self.statuses.get(server) or ServerStatus(server)

    # --- meetings ----------------------------------------------------------------------------------------------------

    def remembered(self, tenant: UUID, meeting_id: str) -> Meeting | None:
        """Return a meeting that this worker has seen and would have been told of, had it moved or ended."""
        return self.recalled(tenant, meeting_id) if self.is_fresh() else None

    def recalled(self, tenant: UUID, meeting_id: str) -> Meeting | None:
        """Return a meeting that this worker has seen; if it may be outdated, ask Postgres first, if that answers."""
        return self._meetings.get((tenant, meeting_id))

    def is_fresh(self) -> bool:
        """Say whether the listener was heard from so lately that memory counts (spec/data.md)."""
        return asyncio.get_running_loop().time() - self._heard_at < _COUNTS_S

    def remember(self, meeting: Meeting) -> None:
        """Keep a meeting in memory; the ones least recently seen make room."""
        if meeting.generation in self._gone:
            return
        key = (meeting.tenant, meeting.meeting_id)
        if old := self._meetings.pop(key, None):
            self._by_generation.pop(old.generation, None)
        self._meetings[key] = meeting
        self._by_generation[meeting.generation] = key
        if len(self._meetings) > REMEMBERED_MEETINGS:
            _, oldest = self._meetings.popitem(last=False)
            self._by_generation.pop(oldest.generation, None)

    def forget(self, generation: int) -> None:
        """Drop a meeting that has ended or moved."""
        self._gone[generation] = None
        if len(self._gone) > _REMEMBERED_ENDS:
            self._gone.popitem(last=False)
        if key := self._by_generation.pop(generation, None):
            self._meetings.pop(key, None)

    # --- renewal -----------------------------------------------------------------------------------------------------

    async def follow(self) -> None:
        """Listen and renew until cancelled; while Postgres is away, memory stays as it was."""
        backoff_s = 0.05
        while True:
            try:
                async with connect(self._conninfo, "scalelite listener", self._sealer) as connection:
                    await self._listen(connection)
            except DatabaseAway as error:
                log.warning("not listening: %s", error)
            await asyncio.sleep(backoff_s * random.uniform(0.5, 1))  # noqa: S311 - jitter
            backoff_s = min(backoff_s * 2, _LONGEST_BACKOFF_S) if not self._ready.is_set() else 0.2

    async def _listen(self, connection: Connection) -> None:
        """LISTEN first, then read all: what changes in between is told."""
        async with _answering(_FIRST_READ_S):
            for channel in CHANNELS:
                await connection.execute(f"LISTEN {channel}")
            self._meetings.clear()
            self._by_generation.clear()
            await self._renew_declared(connection)
            await self._renew_statuses(connection)
        self._hear()
        self._ready.set()
        while True:
            notices = [notice async for notice in connection.notifies(timeout=_HEARTBEAT_S, stop_after=1)]
            async with _answering(_ANSWER_S):
                await self._renew(connection, notices)
            self._hear()

    def _hear(self) -> None:
        self._heard_at = asyncio.get_running_loop().time()

    async def _renew(self, connection: Connection, notices: list[Notify]) -> None:
        told = {notice.channel for notice in notices}
        for notice in notices:
            if notice.channel == "scalelite_meeting":
                self.forget(int(notice.payload))
        if "scalelite_declared" in told:
            await self._renew_declared(connection)
        if told & {"scalelite_polled", "scalelite_held"}:
            numbers = [int(n.payload) for n in notices if n.channel == "scalelite_polled" and n.payload]
            await self._renew_statuses(connection, min([self._polled, *numbers]))
        if not told:
            await connection.execute("SELECT 1")

    async def _renew_declared(self, connection: Connection) -> None:
        delta = await specs.load_delta(connection, self._revision)
        self._declared.renew(delta)
        self._revision = delta.revision
        self._choose_takers()

    async def _renew_statuses(self, connection: Connection, since: int = -1) -> None:
        """Read what polls from this number on wrote: an older poll may write after a newer one, and says so."""
        highest, changed = await runtime.load_statuses(connection, since)
        self._holds = await runtime.load_holds(connection)
        self._polled = max(self._polled, highest)
        self.statuses.update((status.server, status) for status in changed)
        self._choose_takers()

    def _choose_takers(self) -> None:
        takers: dict[str, list[str]] = {}
        full: dict[str, list[str]] = {}
        for server in self._declared.servers.values():
            status = self._status(server.id)
            if may_take_meetings(server, status, self._holds.get(server.id)):
                (full if is_full(server, status) else takers).setdefault(server.tag, []).append(server.id)
        self.takers, self.full = takers, full
        self.capped = frozenset(server.id for server in self._declared.servers.values() if server.max_meetings)
