"""Leases in Postgres: of many processes that could do a thing one does, and an old one is fenced out of its writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from scalelite.errors import LeaseLost

if TYPE_CHECKING:
    from scalelite.store.db import Connection

LONGEST_S: Final = 15.0
# A holder that is stopped in the middle of a transaction must not keep the row's lock for ever.
_LONGEST_PAUSE_MS: Final = 5000


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that was had; its epoch tells whether it still is."""

    name: str
    holder: str
    epoch: int


async def take(connection: Connection, name: str, holder: str, for_s: float) -> Lease | None:
    """Take a lease that nobody has, or whose holder let it expire; None if another has it.

    One that lasts longer than any could was written before the database's clock was set back.
    """
    cursor = await connection.execute(
        """
        INSERT INTO lease AS had (name, holder, epoch, expires_at)
        VALUES (%(name)s, %(holder)s, 1, clock_timestamp() + make_interval(secs => %(for_s)s))
            ON CONFLICT (name) DO UPDATE SET
               holder = EXCLUDED.holder, epoch = had.epoch + 1, expires_at = EXCLUDED.expires_at
         WHERE had.expires_at < clock_timestamp()
            OR had.expires_at > clock_timestamp() + make_interval(secs => 2 * %(longest_s)s)
        RETURNING epoch
        """,
        {"name": name, "holder": holder, "for_s": for_s, "longest_s": LONGEST_S},
    )
    row = await cursor.fetchone()
    return Lease(name, holder, row["epoch"]) if row else None


async def renew(connection: Connection, lease: Lease, for_s: float) -> None:
    """Have it for longer; raises LeaseLost."""
    cursor = await connection.execute(
        """
        UPDATE lease SET expires_at = clock_timestamp() + make_interval(secs => %s) WHERE name = %s AND epoch = %s
        """,
        (for_s, lease.name, lease.epoch),
    )
    if not cursor.rowcount:
        raise LeaseLost(lease.name)


async def fence(connection: Connection, lease: Lease) -> None:
    """Hold the lease until the end of this transaction, so that nobody takes it over in between; raises LeaseLost."""
    cursor = await connection.execute(
        """
        SELECT set_config('idle_in_transaction_session_timeout', %s, true) AS pause
          FROM lease WHERE name = %s AND epoch = %s FOR SHARE
        """,
        (str(_LONGEST_PAUSE_MS), lease.name, lease.epoch),
    )
    if await cursor.fetchone() is None:
        raise LeaseLost(lease.name)


async def give_up(connection: Connection, lease: Lease) -> None:
    """Let the next one have it at once."""
    await connection.execute(
        "UPDATE lease SET expires_at = '-infinity' WHERE name = %s AND epoch = %s", (lease.name, lease.epoch)
    )
