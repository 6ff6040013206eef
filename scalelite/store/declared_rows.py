"""The rows of declared objects: written from specs, secrets sealed, and taken away; a set of them a statement.

What belongs to such a change besides (its revision, versions, who is told) is done by `specs.write`, the only caller.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, assert_never
from uuid import UUID

from psycopg.types.json import Jsonb

from scalelite.core.model import Kind, Secret, url_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scalelite.core.plan import Create, Remove, Update
    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer


def tenant_identity(tenant: UUID | str) -> str:
    """Return what a tenant's secrets are bound to: its id, which a new name leaves as it is."""
    return f"tenant/{tenant}"


async def remove(connection: Connection, kind: Kind, changes: Sequence[Remove], revision: int) -> None:
    """Take the rows of objects of one kind away."""
    names = [change.key.name for change in changes]
    match kind:
        case Kind.SERVER:
            await connection.execute("DELETE FROM server WHERE id = ANY (%s)", (names,))
        case Kind.TENANT:
            await connection.execute("DELETE FROM tenant WHERE name = ANY (%s)", (names,))
        case Kind.SETTING:
            await connection.execute(
                """
                DELETE FROM setting USING tenant t, unnest(%s::text[], %s::text[]) AS old (tenant, param)
                 WHERE setting.tenant = t.id AND t.name = old.tenant AND setting.param = old.param
                """,
                (names, [change.key.param for change in changes]),
            )
        case Kind.LRS:
            await connection.execute(
                "UPDATE tenant SET lrs = NULL, lrs_rev = %s WHERE name = ANY (%s)", (revision, names)
            )
        case Kind.CLUSTER:
            await connection.execute("UPDATE cluster SET spec = '{}', from_rev = %s", (revision,))
        case _:
            assert_never(kind)


async def upsert(
    connection: Connection, kind: Kind, changes: Sequence[Create | Update], revision: int, new_id: Callable[[], UUID]
) -> None:
    """Write the rows of objects of one kind, as they are after their changes."""
    specs: list[Any] = [change.after for change in changes]
    names = [change.key.name for change in changes]
    addresses = [change.key.address for change in changes]
    seal = connection.sealer
    match kind:
        case Kind.SERVER:
            rows = [
                {**sealed(spec, seal, key), "url_key": url_key(spec.url), "from_rev": revision}
                for key, spec in zip(addresses, specs, strict=True)
            ]
            await connection.execute(_UPSERT_SERVER, (Jsonb(rows),))
        case Kind.TENANT:
            ids = [str(spec.id or new_id()) for spec in specs]
            rows = [
                {**sealed(spec, seal, tenant_identity(id_)), "id": id_, "from_rev": revision}
                for id_, spec in zip(ids, specs, strict=True)
            ]
            await _upsert_tenants(connection, rows)
        case Kind.SETTING:
            rows = [
                {**sealed(spec, seal, ""), "tenant": name, "from_rev": revision}
                for name, spec in zip(names, specs, strict=True)
            ]
            await connection.execute(_UPSERT_SETTING, (Jsonb(rows),))
        case Kind.LRS:
            tenants = await _tenant_ids(connection, names)
            rows = [
                {"name": name, "lrs": sealed(spec, seal, f"{tenant_identity(tenants[name])}/lrs")}
                for name, spec in zip(names, specs, strict=True)
            ]
            await connection.execute(_UPDATE_LRS, (revision, Jsonb(rows)))
        case Kind.CLUSTER:
            spec = sealed(specs[0], seal, "cluster")
            await connection.execute("UPDATE cluster SET spec = %s, from_rev = %s", (Jsonb(spec), revision))
        case _:
            assert_never(kind)


async def _tenant_ids(connection: Connection, names: list[str]) -> dict[str, UUID]:
    cursor = await connection.execute("SELECT name, id FROM tenant WHERE name = ANY (%s)", (names,), binary=True)
    return {row["name"]: row["id"] for row in await cursor.fetchall()}


def sealed(value: Any, sealer: Sealer, identity: str) -> Any:
    """Return the spec as JSON values for Postgres, each secret sealed for identity/FIELD."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Secret):
        return sealer.seal(value.reveal(), identity)
    if isinstance(value, UUID):
        return str(value)
    if hasattr(value, "model_fields_set"):
        return {name: sealed(item, sealer, f"{identity}/{name}") for name, item in value}
    if isinstance(value, dict):
        return {name: sealed(item, sealer, f"{identity}/{name}") for name, item in value.items()}
    if isinstance(value, tuple):
        return [sealed(item, sealer, identity) for item in value]
    return value


_UPSERT_SERVER = """
INSERT INTO server (id, url, url_key, secret, previous_secret, load_multiplier, tag, state, max_meetings, max_users,
                    checksum_algorithm, protect, from_rev)
SELECT id, url, url_key, secret, previous_secret, load_multiplier, tag, state, max_meetings, max_users,
       checksum_algorithm, protect, from_rev
  FROM jsonb_populate_recordset(NULL::server, %s)
ON CONFLICT (id) DO UPDATE SET
       url = EXCLUDED.url, url_key = EXCLUDED.url_key,
       secret = EXCLUDED.secret, previous_secret = EXCLUDED.previous_secret,
       load_multiplier = EXCLUDED.load_multiplier, tag = EXCLUDED.tag, state = EXCLUDED.state,
       max_meetings = EXCLUDED.max_meetings, max_users = EXCLUDED.max_users,
       checksum_algorithm = EXCLUDED.checksum_algorithm, protect = EXCLUDED.protect, from_rev = EXCLUDED.from_rev
"""

_UPSERT_TENANT = """
INSERT INTO tenant (id, name, enabled, secrets, limits, recordings, public_url, external_voice_bridge, protect,
                    from_rev)
SELECT id, name, enabled, secrets, limits, recordings, public_url, external_voice_bridge, protect, from_rev
  FROM jsonb_populate_recordset(NULL::tenant, %s)
ON CONFLICT (id) DO UPDATE SET
       name = EXCLUDED.name, enabled = EXCLUDED.enabled, secrets = EXCLUDED.secrets, limits = EXCLUDED.limits,
       recordings = EXCLUDED.recordings, public_url = EXCLUDED.public_url,
       external_voice_bridge = EXCLUDED.external_voice_bridge, protect = EXCLUDED.protect, from_rev = EXCLUDED.from_rev
"""

_UPSERT_SETTING = """
INSERT INTO setting (tenant, param, value, override, calls, from_rev)
SELECT t.id, new.param, new.value, new.override, new.calls, new.from_rev
  FROM jsonb_to_recordset(%s)
       AS new (tenant text, param text, value text, override boolean, calls text[], from_rev bigint)
  JOIN tenant t ON t.name = new.tenant
ON CONFLICT (tenant, param) DO UPDATE SET
       value = EXCLUDED.value, override = EXCLUDED.override, calls = EXCLUDED.calls, from_rev = EXCLUDED.from_rev
"""

_UPDATE_LRS = """
UPDATE tenant SET lrs = new.lrs, lrs_rev = %s
  FROM jsonb_to_recordset(%s) AS new (name text, lrs jsonb) WHERE tenant.name = new.name
"""


async def _upsert_tenants(connection: Connection, rows: list[dict[str, Any]]) -> None:
    """Hosts are taken from all of them before they are given, since two tenants may swap theirs."""
    await connection.execute(_UPSERT_TENANT, (Jsonb(rows),))
    await connection.execute("DELETE FROM tenant_host WHERE tenant = ANY (%s::uuid[])", ([row["id"] for row in rows],))
    hosts = [{"host": host, "tenant": row["id"]} for row in rows for host in row["hosts"]]
    await connection.execute(
        "INSERT INTO tenant_host SELECT * FROM jsonb_populate_recordset(NULL::tenant_host, %s)", (Jsonb(hosts),)
    )
