"""All secrets in Postgres opened and sealed anew, in one transaction: with a new key, from clear, or back to clear."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from scalelite.core.model import Key, Kind
from scalelite.store.db import apply_lock
from scalelite.store.declared_rows import tenant_identity
from scalelite.store.playbooks import given_identity, step_identity
from scalelite.store.revisions import version_identity
from scalelite.store.runtime import meeting_identity
from scalelite.store.seal import CLEAR, key_of
from scalelite.store.specs import map_lrs_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import LiteralString

    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer

    Reseal = Callable[[str, str], str]  # (stored text, identity) → what is stored instead


async def rotate(connection: Connection, target: Sealer, *, lock_timeout_s: float) -> int:
    """Seal every secret with the target's first key; returns how many. All or nothing; no revision: nothing changed.

    Raises LockTimeout, and SecretUnreadable if one does not open with the connection's keys.
    """
    count = 0

    def reseal(stored: str, identity: str) -> str:
        nonlocal count
        count += bool(stored)
        return target.seal(connection.sealer.open(stored, identity), identity)

    async with apply_lock(connection, lock_timeout_s):
        # Nobody claims a meeting with an old key meanwhile, and no poll locks its rows in another order than we do.
        await connection.execute(
            "LOCK TABLE meeting, callback_hook, callback, playbook_run, playbook_step IN SHARE ROW EXCLUSIVE MODE"
        )
        await _servers(connection, reseal)
        await _tenants(connection, reseal)
        await _meetings(connection, reseal)
        await _callbacks(connection, reseal)
        await _runs(connection, reseal)
        if target.key_id == CLEAR:
            await connection.execute("UPDATE version SET sealed = NULL WHERE sealed IS NOT NULL")
        else:
            await _versions(connection, reseal)
    return count


async def keys_in_use(connection: Connection) -> Counter[str]:
    """Count the stored secrets by the id of the key that they are sealed with (`clear`: with none)."""
    cursor = await connection.execute(
        """
        SELECT unnest(ARRAY[secret, previous_secret]) AS stored FROM server
        UNION ALL SELECT unnest(secrets) FROM tenant
        UNION ALL SELECT unnest(ARRAY[lrs #>> '{basic,password}', lrs #>> '{oidc,password}',
                                      lrs #>> '{oidc,client_secret}']) FROM tenant
        UNION ALL SELECT unnest(ARRAY[secret, moderator_pw]) FROM meeting
        UNION ALL SELECT sealed FROM version
        UNION ALL SELECT secret FROM callback_hook
        UNION ALL SELECT secret FROM callback
        UNION ALL SELECT result FROM playbook_step
        UNION ALL SELECT given FROM playbook_run
        """
    )
    return Counter(key_of(row["stored"]) for row in await cursor.fetchall() if row["stored"])


async def _servers(connection: Connection, reseal: Reseal) -> None:
    rows = await _all(connection, "SELECT id, secret, previous_secret FROM server")
    for row in rows:
        for column in ("secret", "previous_secret"):
            row[column] = reseal(row[column], f"server/{row['id']}/{column}")
    await connection.execute(
        """
        UPDATE server SET secret = n.secret, previous_secret = n.previous_secret
          FROM jsonb_to_recordset(%s) AS n (id text, secret text, previous_secret text) WHERE server.id = n.id
        """,
        (Jsonb(rows),),
    )


async def _tenants(connection: Connection, reseal: Reseal) -> None:
    rows = await _all(connection, "SELECT id::text, secrets, lrs FROM tenant")
    for row in rows:
        identity = tenant_identity(row["id"])
        row["secrets"] = [reseal(stored, f"{identity}/secrets") for stored in row["secrets"]]
        row["lrs"] = row["lrs"] and map_lrs_secrets(row["lrs"], reseal, identity)
    await connection.execute(
        """
        UPDATE tenant SET secrets = n.secrets, lrs = n.lrs
          FROM jsonb_populate_recordset(NULL::tenant, %s) AS n WHERE tenant.id = n.id
        """,
        (Jsonb(rows),),
    )


async def _meetings(connection: Connection, reseal: Reseal) -> None:
    rows = await _all(connection, "SELECT tenant::text, meeting_id, secret, moderator_pw FROM meeting")
    for row in rows:
        for column in ("secret", "moderator_pw"):
            row[column] = reseal(row[column], f"{meeting_identity(row['tenant'], row['meeting_id'])}/{column}")
    await connection.execute(
        """
        UPDATE meeting SET secret = n.secret, moderator_pw = n.moderator_pw
          FROM jsonb_to_recordset(%s) AS n (tenant uuid, meeting_id text, secret text, moderator_pw text)
         WHERE meeting.tenant = n.tenant AND meeting.meeting_id = n.meeting_id
        """,
        (Jsonb(rows),),
    )


async def _versions(connection: Connection, reseal: Reseal) -> None:
    """The secrets of old versions, each version's in one text."""
    rows = await _all(connection, "SELECT kind, name, param, to_rev, sealed FROM version WHERE sealed IS NOT NULL")
    for row in rows:
        key = Key(Kind(row["kind"]), row["name"], row["param"])
        row["sealed"] = reseal(row["sealed"], version_identity(key, row["to_rev"]))
    await connection.execute(
        """
        UPDATE version v SET sealed = n.sealed
          FROM jsonb_to_recordset(%s) AS n (kind text, name text, param text, to_rev bigint, sealed text)
         WHERE v.kind = n.kind AND v.name = n.name AND v.param = n.param AND v.to_rev = n.to_rev
        """,
        (Jsonb(rows),),
    )


async def _callbacks(connection: Connection, reseal: Reseal) -> None:
    """Hooks and deliveries hold the secret of their meeting's create, bound to the meeting."""
    hooks = await _all(connection, "SELECT generation, name, tenant::text, meeting_id, secret FROM callback_hook")
    deliveries = await _all(connection, "SELECT id, tenant::text, meeting_id, secret FROM callback")
    for row in (*hooks, *deliveries):
        row["secret"] = reseal(row["secret"], f"{meeting_identity(row['tenant'], row['meeting_id'])}/secret")
    await connection.execute(
        """
        UPDATE callback_hook h SET secret = n.secret
          FROM jsonb_to_recordset(%s) AS n (generation bigint, name text, secret text)
         WHERE h.generation = n.generation AND h.name = n.name
        """,
        (Jsonb(hooks),),
    )
    await connection.execute(
        """
        UPDATE callback c SET secret = n.secret
          FROM jsonb_to_recordset(%s) AS n (id bigint, secret text) WHERE c.id = n.id
        """,
        (Jsonb(deliveries),),
    )


async def _runs(connection: Connection, reseal: Reseal) -> None:
    """What playbooks that were interrupted or failed have to go on with; of those that ended well nothing is kept."""
    runs = await _all(connection, "SELECT id, given FROM playbook_run WHERE given <> ''")
    for row in runs:
        row["given"] = reseal(row["given"], given_identity(row["id"]))
    await connection.execute(
        """
        UPDATE playbook_run r SET given = n.given
          FROM jsonb_to_recordset(%s) AS n (id bigint, given text) WHERE r.id = n.id
        """,
        (Jsonb(runs),),
    )
    rows = await _all(connection, "SELECT run, step, target, result FROM playbook_step WHERE result <> ''")
    for row in rows:
        row["result"] = reseal(row["result"], step_identity(row["run"], row["step"], row["target"]))
    await connection.execute(
        """
        UPDATE playbook_step s SET result = n.result
          FROM jsonb_to_recordset(%s) AS n (run bigint, step text, target text, result text)
         WHERE s.run = n.run AND s.step = n.step AND s.target = n.target
        """,
        (Jsonb(rows),),
    )


async def _all(connection: Connection, query: LiteralString) -> list[dict[str, Any]]:
    cursor = await connection.execute(query)
    return await cursor.fetchall()
