"""What plans rely on and leave behind in Postgres: facts, the rows they touch, the ids of those applied.

The declared rows themselves are read and written by specs.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scalelite.core.model import SENTINEL_TENANT, Key, Kind
from scalelite.core.plan import Held
from scalelite.store import specs
from scalelite.store.db import shipped_migrations
from scalelite.store.revisions import columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from typing import LiteralString

    from scalelite.core.plan import Facts
    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class Identity:
    """Which cluster this is: its id, the key of its fingerprints, and its schema."""

    uuid: str
    key: bytes
    schema_revision: int


@dataclass(frozen=True, slots=True)
class Trace:
    """Who made a revision, and when."""

    number: int
    actor: str
    at: datetime

    def __str__(self) -> str:
        return f"by {self.actor} at {self.at:%Y-%m-%d %H:%M:%S} (revision {self.number:,})"


async def _all(
    connection: Connection, query: LiteralString, parameters: Sequence[Any] | Mapping[str, Any] = ()
) -> list[dict[str, Any]]:
    cursor = await connection.execute(query, parameters, binary=True)
    return await cursor.fetchall()


async def identity(connection: Connection) -> Identity:
    """Read which cluster this is."""
    row = (await _all(connection, "SELECT uuid, fingerprint_key FROM cluster"))[0]
    return Identity(str(row["uuid"]), bytes(row["fingerprint_key"]), max(m.number for m in shipped_migrations()))


# --- facts -----------------------------------------------------------------------------------------------------------


async def load_facts(connection: Connection) -> Facts:
    """Read what plans rely on: meetings, people, recordings, holds, who is online."""
    facts = await specs.load_facts(connection)
    statuses = await _all(connection, "SELECT server, users, health FROM server_status")
    holds = await _all(
        connection, "SELECT server, state, by, why, since FROM hold WHERE until IS NULL OR until > now()"
    )
    return replace(
        facts,
        server_users={row["server"]: row["users"] for row in statuses if row["users"]},
        online=frozenset(row["server"] for row in statuses if row["health"] == "online"),
        holds={row.pop("server"): Held(**row) for row in holds},
        tenant_recordings=await _recordings(connection),
    )


async def _has_recordings(connection: Connection) -> bool:
    return bool((await _all(connection, "SELECT to_regclass('recording') IS NOT NULL AS there"))[0]["there"])


async def _recordings(connection: Connection) -> dict[str, int]:
    if not await _has_recordings(connection):
        return {}
    rows = await _all(
        connection,
        """
        SELECT t.name, r.recordings
          FROM (SELECT tenant, count(*) AS recordings FROM recording WHERE state <> 'deleted' GROUP BY tenant) r
          JOIN tenant t ON t.id = r.tenant
        """,
    )
    return {row["name"]: row["recordings"] for row in rows}


# --- rows that a plan touches ----------------------------------------------------------------------------------------


async def lock_rows(connection: Connection, keys: Sequence[Key]) -> None:
    """Lock these rows until the end of the transaction: no meeting can be claimed on a server that is about to go."""
    names = {kind: [key.name for key in keys if key.kind is kind] for kind in Kind}
    tenants = [*names[Kind.TENANT], *names[Kind.LRS]]
    await connection.execute("SELECT FROM server WHERE id = ANY (%s) ORDER BY id FOR UPDATE", (names[Kind.SERVER],))
    await connection.execute("SELECT FROM tenant WHERE name = ANY (%s) ORDER BY name FOR UPDATE", (tenants,))
    await connection.execute(
        """
        SELECT FROM setting s JOIN tenant t ON t.id = s.tenant
          JOIN unnest(%s::text[], %s::text[]) AS k (name, param) ON k.name = t.name AND k.param = s.param
         ORDER BY s.id FOR UPDATE OF s
        """,
        (names[Kind.SETTING], [key.param for key in keys if key.kind is Kind.SETTING]),
    )


async def revisions_of(connection: Connection, keys: Sequence[Key]) -> dict[Key, int]:
    """Return the revision that each of these rows is of; what is not there is left out."""
    rows = await _all(
        connection,
        """
        SELECT o.kind, o.name, o.param, o.from_rev FROM declared_object o
          JOIN unnest(%s::text[], %s::text[], %s::text[]) AS k (kind, name, param)
            ON k.kind = o.kind AND k.name = o.name AND k.param = o.param
        """,
        columns(keys),
    )
    return {Key(Kind(row["kind"]), row["name"], row["param"]): row["from_rev"] for row in rows}


async def last_change(connection: Connection, key: Key) -> Trace | None:
    """Return who changed or removed an object last."""
    rows = await _all(
        connection,
        """
        SELECT number, actor, at FROM revision WHERE number = greatest(
            (SELECT max(to_rev) FROM version WHERE kind = %(kind)s AND name = %(name)s AND param = %(param)s),
            (SELECT max(from_rev) FROM declared_object WHERE kind = %(kind)s AND name = %(name)s AND param = %(param)s))
        """,
        {"kind": str(key.kind), "name": key.name, "param": key.param},
    )
    return Trace(**rows[0]) if rows else None


async def applied_plan(connection: Connection, plan_id: str) -> Trace | None:
    """Return the revision that a saved plan was applied as, if it was."""
    rows = await _all(connection, "SELECT number, actor, at FROM revision WHERE source->>'plan' = %s", (plan_id,))
    return Trace(**rows[0]) if rows else None


async def live_revision(connection: Connection) -> int:
    """Return the number of the newest revision."""
    return int((await _all(connection, "SELECT serial FROM cluster"))[0]["serial"])


# --- writing ---------------------------------------------------------------------------------------------------------


async def may_write(connection: Connection) -> bool:
    """Say whether this connection could apply at all: a role for plans, or a standby, reads only."""
    rows = await _all(
        connection,
        """
        SELECT NOT pg_is_in_recovery() AND NOT current_setting('default_transaction_read_only')::boolean
               AND (has_table_privilege('server', 'INSERT') OR has_table_privilege('revision', 'INSERT')) AS may
        """,
    )
    return bool(rows[0]["may"])


async def check_constraints_now(connection: Connection) -> None:
    """Check what is otherwise checked at the commit."""
    await connection.execute("SET CONSTRAINTS ALL IMMEDIATE")


async def wait_at_most(connection: Connection, seconds: float) -> None:
    """Let this transaction wait so long for each lock."""
    await connection.execute("SELECT set_config('lock_timeout', %s, true)", (f"{round(seconds * 1000)}ms",))


async def hand_over_recordings(connection: Connection, tenants: Sequence[str], tenant_data: str) -> None:
    """Say whose the recordings of tenants are that are about to be removed: nobody's, or another tenant's.

    Those to be deleted are nobody's, and marked; the recordings' own repair removes their files and then the rows.
    """
    if not tenants or not await _has_recordings(connection):
        return
    target = tenant_data.partition(":")[2]
    await connection.execute(
        """
        UPDATE recording SET
               tenant = coalesce((SELECT id FROM tenant WHERE name = %(target)s AND state <> 'deleted'), %(nobody)s),
               pending = CASE WHEN %(delete)s AND state <> 'deleted' THEN 'deleted' ELSE pending END
         WHERE tenant IN (SELECT id FROM tenant WHERE name = ANY (%(tenants)s))
        """,
        {
            "target": target or None,
            "nobody": SENTINEL_TENANT,
            "delete": tenant_data == "delete",
            "tenants": list(tenants),
        },
    )
