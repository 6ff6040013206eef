"""What is watched of the cluster, from Postgres and the spool of recordings: asks no server (PO-5)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalelite.edge.spool import count_archives
from scalelite.flows.drift import find_drift
from scalelite.flows.status import server_rows
from scalelite.store import observed

if TYPE_CHECKING:
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.observed import PollRound, TenantCount

_READ_S: Final = 8.0


@dataclass(frozen=True, slots=True)
class Observed:
    """What metrics tell of the cluster; `drift` counts objects that were changed outside of the inventory."""

    servers: list[ServerRow]
    tenants: list[TenantCount]
    queues: dict[str, int]
    poll: PollRound | None
    drift: int


async def read_observed(services: Services) -> Observed:
    """Read it; raises DatabaseAway."""
    waiting, failed = await asyncio.to_thread(count_archives, services.settings.recording_spool_dir)
    async with services.database.use(timeout_s=_READ_S) as connection:
        queues = await observed.queues(connection)
        return Observed(
            await server_rows(connection),
            await observed.tenant_counts(connection),
            queues | {"archive waiting": waiting, "archive failed": failed},
            await observed.last_round(connection),
            len(await find_drift(connection, None)),
        )
