"""The poller as a process: of all on one database one acts, by a lease; at the interval, and at once on what is new.

It decides nothing about servers and meetings: that is a round's. Rules: spec/operations.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from scalelite.errors import DatabaseAway, LeaseLost
from scalelite.flows.ending import stopped, until_one_ends
from scalelite.flows.poll import Poll
from scalelite.store import leases

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from scalelite.core.model import ServerSpec, ServerStatus
    from scalelite.flows.poll import Found
    from scalelite.flows.services import Services
    from scalelite.store.leases import Lease

log = logging.getLogger(__name__)

LEASE: Final = "poller"
_RETRY_S: Final = 2.0
_GATHER_S: Final = 0.1
_VERSIONS_EVERY_S: Final = 3600.0
# Of the lease's time: it is renewed so often, and so often others try to take it over.
_RENEWALS: Final = 4


async def poll_forever(services: Services) -> None:
    """Wait for the lease, poll while it is had, and begin again; until cancelled."""
    holder = f"{socket.gethostname()}/{os.getpid()}/{services.new_id().hex[:8]}"
    while True:
        try:
            await _lead(services, await _taken(services, holder))
        except (DatabaseAway, LeaseLost) as error:
            log.warning("polling waits: %s", error)
        await asyncio.sleep(_RETRY_S)


def _lease_s(services: Services) -> float:
    """One interval, so that it is taken over within two; less where the interval is long."""
    return min(services.settings.poll_interval_s, leases.LONGEST_S)


async def _taken(services: Services, holder: str) -> Lease:
    lease_s = _lease_s(services)
    while True:
        async with services.database.use() as connection:
            lease = await leases.take(connection, LEASE, holder, lease_s)
        if lease:
            log.info("this poller acts from now on, epoch %d", lease.epoch)
            return lease
        await asyncio.sleep(lease_s / _RENEWALS)


async def _lead(services: Services, lease: Lease) -> None:
    """Poll until the lease is lost (raises LeaseLost) or Postgres is away (raises DatabaseAway)."""
    poller = Poller(services, lease)
    try:
        await until_one_ends(_renew(services, lease), poller.rounds(), poller.wakes())
    except asyncio.CancelledError:
        with suppress(DatabaseAway):
            async with services.database.use(timeout_s=1) as connection:
                await leases.give_up(connection, lease)
        raise


async def _renew(services: Services, lease: Lease) -> None:
    lease_s = _lease_s(services)
    while True:
        await asyncio.sleep(lease_s / _RENEWALS)
        async with services.database.use() as connection:
            await leases.renew(connection, lease, lease_s)


class Poller:
    """The work of the poller that acts: rounds of all servers, and polls of those that are new or were changed."""

    def __init__(self, services: Services, lease: Lease) -> None:
        self._services = services
        self._poll = Poll(services, lease)
        self._known: dict[str, ServerSpec] = {}
        self._suspect = False

    async def rounds(self) -> None:
        """Poll all servers, at the interval."""
        clock = asyncio.get_running_loop().time
        versions_at = clock()
        while True:
            started = clock()
            found = await self._poll.begin()
            self._known |= {server.id: server for server in found.servers}
            versions = started >= versions_at
            versions_at = started + _VERSIONS_EVERY_S if versions else versions_at
            outcome = await self._poll.round(found, versions=versions)
            self._suspect = outcome.suspect
            log.info("polled %d servers, %d failed", len(outcome.statuses), len(outcome.failed))
            await asyncio.sleep(max(started + self._services.settings.poll_interval_s - clock(), 0))

    async def wakes(self) -> None:
        """Poll at once what a change of declarations or holds made new; a round that hangs does not hold it up."""
        polls: set[asyncio.Task[None]] = set()
        try:
            async for _ in self._told():
                found = (await self._poll.begin()).only(self._is_new)
                self._known |= {server.id: server for server in found.servers}
                if found.servers:
                    polls.add(task := asyncio.create_task(self._poll_new(found)))
                    task.add_done_callback(polls.discard)
        finally:
            await stopped(*polls)

    async def _told(self) -> AsyncIterator[None]:
        """Yield when declarations or holds have changed."""
        async with self._services.database.dedicated() as connection:
            for channel in ("scalelite_declared", "scalelite_held"):
                await connection.execute(f"LISTEN {channel}")
            while True:
                async for _ in connection.notifies(timeout=_lease_s(self._services), stop_after=1):
                    await asyncio.sleep(_GATHER_S)
                    yield
                await connection.execute("SELECT 1")

    def _is_new(self, server: ServerSpec, status: ServerStatus) -> bool:
        return self._known.get(server.id) != server or status.health == "unknown"

    async def _poll_new(self, found: Found) -> None:
        try:
            outcome = await self._poll.round(found, suspected=self._suspect, whole=False)
        except (DatabaseAway, LeaseLost) as error:
            log.warning("servers that are new or were changed wait for the next round: %s", error)
        else:
            log.info("polled %d servers that are new or were changed", len(outcome.statuses))
