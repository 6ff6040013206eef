"""What is watched of the cluster, in one read of Postgres: asks no server (PO-5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

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
    async with services.database.use(timeout_s=_READ_S) as connection:
        return Observed(
            await server_rows(connection),
            await observed.tenant_counts(connection),
            await observed.queues(connection),
            await observed.last_round(connection),
            len(await find_drift(connection, None)),
        )
