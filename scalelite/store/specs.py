"""Declared state in Postgres: read as the specs of core, written by changes, each with its revision and versions.

Every change of declared state, by whomever, goes through `write`, inside `db.apply_lock`; a set of rows a statement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.model import (
    NO_SECRET,
    ClusterSpec,
    Declared,
    Key,
    Kind,
    Limits,
    LrsSpec,
    Retention,
    Secret,
    ServerSpec,
    SettingSpec,
    TenantSpec,
)
from scalelite.core.plan import ORDER, Change, Facts, Hold, Remove, Update
from scalelite.store import declared_rows, runtime
from scalelite.store.revisions import keep_versions, mark_changed, new_revision, renames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
    from typing import LiteralString
    from uuid import UUID

    from scalelite.core.model import AnySpec, State
    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer


@dataclass(frozen=True, slots=True)
class Live:
    """The declared state of the cluster at one revision."""

    declared: Declared
    revision: int
    cluster_uuid: UUID

    @property
    def cluster_name(self) -> str:
        """The name that the cluster was given, or ''."""
        spec = self.declared.objects.get(Key(Kind.CLUSTER))
        return spec.name if isinstance(spec, ClusterSpec) else ""


async def ensure_cluster(connection: Connection, fingerprint_key: bytes) -> None:
    """Make the cluster's one row, if there is none."""
    await connection.execute(
        "INSERT INTO cluster (fingerprint_key) VALUES (%s) ON CONFLICT DO NOTHING", (fingerprint_key,)
    )


# --- reading ---------------------------------------------------------------------------------------------------------

_SERVERS = """
SELECT id, url, secret, previous_secret, load_multiplier, tag, state, max_meetings, max_users,
       checksum_algorithm, protect
  FROM server
"""
_TENANTS = """
SELECT t.id, t.name, t.enabled, coalesce(array_agg(h.host) FILTER (WHERE h.host IS NOT NULL), '{}') AS hosts,
       t.secrets, t.limits, t.recordings, t.public_url, t.external_voice_bridge, t.protect, t.lrs
  FROM tenant t LEFT JOIN tenant_host h ON h.tenant = t.id
"""
_SETTINGS = """
SELECT t.name AS tenant, s.param, s.value, s.override, s.calls FROM setting s JOIN tenant t ON t.id = s.tenant
"""


_OF_THESE_SETTINGS = """
  JOIN unnest(%s::text[], %s::text[]) AS k (name, param) ON k.name = t.name AND k.param = s.param
"""
# A row has all fields of a spec, in the same order; one set of their names serves all of them.
_SERVER_FIELDS: Final = set(ServerSpec.model_fields)
_TENANT_FIELDS: Final = set(TenantSpec.model_fields)
_SETTING_FIELDS: Final = set(SettingSpec.model_fields)
_LRS_SECRETS: Final = frozenset({"password", "client_secret"})


async def load_live(connection: Connection) -> Live:
    """Read the whole declared state; call it inside a transaction that sees one snapshot."""
    objects: dict[Key, AnySpec] = {}
    cursor = await connection.execute("SELECT uuid, spec, from_rev, serial FROM cluster")
    cluster = await cursor.fetchone()
    if cluster is None:
        raise LookupError("the cluster row is missing; run scalelite db migrate")
    if cluster["from_rev"]:
        objects[Key(Kind.CLUSTER)] = _cluster(cluster["spec"])
    objects.update(_servers(await _rows(connection, _SERVERS + "ORDER BY id"), connection.sealer))
    tenants = await _rows(connection, _TENANTS + "GROUP BY t.id ORDER BY t.name")
    objects.update(_tenants(tenants, connection.sealer))
    objects.update(_settings(await _rows(connection, _SETTINGS + "ORDER BY t.name, s.param")))
    return Live(Declared(objects), cluster["serial"], cluster["uuid"])


def _cluster(spec: dict[str, Any]) -> ClusterSpec:
    """Return the cluster's settings; without any, what validates them need not be built."""
    return ClusterSpec.model_validate_json(json.dumps(spec)) if spec else ClusterSpec.model_construct()


async def _rows(connection: Connection, query: LiteralString, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
    cursor = await connection.execute(query, parameters, binary=True)
    return await cursor.fetchall()


def _servers(rows: Iterable[dict[str, Any]], sealer: Sealer) -> Iterable[tuple[Key, AnySpec]]:
    """Rows were validated when they were written, so the specs are made without validating them again."""
    for row in rows:
        for column in ("secret", "previous_secret"):
            text = row[column]
            row[column] = Secret(sealer.open(text, f"server/{row['id']}/{column}")) if text else NO_SECRET
        yield Key(Kind.SERVER, row["id"]), ServerSpec.of_row(row, _SERVER_FIELDS)


def _tenants(rows: Iterable[dict[str, Any]], sealer: Sealer) -> Iterable[tuple[Key, AnySpec]]:
    for row in rows:
        lrs = row.pop("lrs")
        identity = declared_rows.tenant_identity(row["id"])
        row["secrets"] = tuple(Secret(sealer.open(text, f"{identity}/secrets")) for text in row["secrets"])
        row["hosts"] = tuple(sorted(row["hosts"]))
        row["limits"] = Limits.model_construct(**row["limits"])
        row["recordings"] = Retention.model_construct(**row["recordings"])
        yield Key(Kind.TENANT, row["name"]), TenantSpec.of_row(row, _TENANT_FIELDS)
        if lrs is not None:
            lrs = map_lrs_secrets(lrs, sealer.open, identity)
            yield Key(Kind.LRS, row["name"]), LrsSpec.model_validate_json(json.dumps(lrs))


def map_lrs_secrets(lrs: dict[str, Any], do: Callable[[str, str], str], identity: str) -> dict[str, Any]:
    """Return the stored LRS of a tenant with do(text, identity) in place of each secret."""
    return {
        name: {
            field: do(text, f"{identity}/lrs/{name}/{field}") if field in _LRS_SECRETS else text
            for field, text in value.items()
        }
        if isinstance(value, dict)
        else value
        for name, value in lrs.items()
    }


def _settings(rows: Iterable[dict[str, Any]]) -> Iterable[tuple[Key, AnySpec]]:
    for row in rows:
        key = Key(Kind.SETTING, row.pop("tenant"), row["param"])
        row["calls"] = tuple(row["calls"])
        yield key, SettingSpec.of_row(row, _SETTING_FIELDS)


async def load_some(connection: Connection, keys: Collection[Key]) -> dict[Key, AnySpec]:
    """Read these objects alone; what is not there is left out."""
    names = {kind: [key.name for key in keys if key.kind is kind] for kind in Kind}
    settings = (names[Kind.SETTING], [key.param for key in keys if key.kind is Kind.SETTING])
    owners = sorted({*names[Kind.TENANT], *names[Kind.LRS]})
    found: dict[Key, AnySpec] = {}
    if names[Kind.CLUSTER] and (row := (await _rows(connection, "SELECT spec, from_rev FROM cluster"))[0])["from_rev"]:
        found[Key(Kind.CLUSTER)] = _cluster(row["spec"])
    servers = await _rows(connection, _SERVERS + "WHERE id = ANY (%s)", (names[Kind.SERVER],))
    found.update(_servers(servers, connection.sealer))
    tenants = await _rows(connection, _TENANTS + "WHERE t.name = ANY (%s) GROUP BY t.id", (owners,))
    found.update(_tenants(tenants, connection.sealer))
    found.update(_settings(await _rows(connection, _SETTINGS + _OF_THESE_SETTINGS, settings)))
    return {key: spec for key, spec in found.items() if key in keys}


async def load_servers(connection: Connection, server_id: str = "") -> list[ServerSpec]:
    """Read the servers alone, or the one of this id."""
    query = _SERVERS + ("WHERE id = %s" if server_id else "ORDER BY id")
    found = _servers(await _rows(connection, query, (server_id,) if server_id else ()), connection.sealer)
    return [spec for _, spec in found if isinstance(spec, ServerSpec)]


async def load_cluster(connection: Connection) -> ClusterSpec:
    """Read the cluster's settings alone."""
    rows = await _rows(connection, "SELECT spec FROM cluster")
    return _cluster(rows[0]["spec"])


async def load_facts(connection: Connection) -> Facts:
    """Count the meetings of servers and tenants."""
    servers = await _rows(connection, "SELECT server, count(*) AS meetings FROM meeting GROUP BY server")
    tenants = await _rows(
        connection,
        "SELECT t.name, count(*) AS meetings FROM meeting m JOIN tenant t ON t.id = m.tenant GROUP BY t.name",
    )
    return Facts({row["server"]: row["meetings"] for row in servers}, {row["name"]: row["meetings"] for row in tenants})


async def setting_ids(connection: Connection) -> dict[Key, UUID]:
    """Return the ids that Scalelite's own commands name settings by."""
    rows = await _rows(
        connection, "SELECT t.name AS tenant, s.param, s.id FROM setting s JOIN tenant t ON t.id = s.tenant"
    )
    return {Key(Kind.SETTING, row["tenant"], row["param"]): row["id"] for row in rows}


# --- changes since a revision, for workers that keep a snapshot -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delta:
    """What changed after a revision: the new specs, and the keys of what is gone (or has a new name)."""

    revision: int
    changed: dict[Key, AnySpec]
    gone: frozenset[Key]


async def load_delta(connection: Connection, seen: int) -> Delta:
    """Read what changed after revision `seen`; its size is that of the changes, not of the cluster."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cluster = (await _rows(connection, "SELECT spec, from_rev, serial FROM cluster"))[0]
        changed: dict[Key, AnySpec] = {}
        if cluster["from_rev"] > seen:
            changed[Key(Kind.CLUSTER)] = _cluster(cluster["spec"])
        servers = await _rows(connection, _SERVERS + "WHERE from_rev > %s", (seen,))
        changed.update(_servers(servers, connection.sealer))
        tenants = await _rows(
            connection, _TENANTS + "WHERE greatest(t.from_rev, t.lrs_rev) > %s GROUP BY t.id", (seen,)
        )
        changed.update(_tenants(tenants, connection.sealer))
        changed.update(_settings(await _rows(connection, _SETTINGS + "WHERE s.from_rev > %s", (seen,))))
        old = await _rows(connection, "SELECT DISTINCT kind, name, param FROM version WHERE to_rev > %s", (seen,))
    gone = {Key(Kind(row["kind"]), row["name"], row["param"]) for row in old}
    return Delta(cluster["serial"], changed, frozenset(gone - changed.keys()))


# --- writing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes declared state, why, and from what."""

    actor: str
    message: str = ""
    source: dict[str, Any] | None = None

    @property
    def inventory(self) -> bool:
        """Whether the change comes from an inventory, and not from outside of it, which is drift."""
        return "inventory" in (self.source or {})


async def write(
    connection: Connection,
    changes: Sequence[Change],
    author: Author,
    new_id: Callable[[], UUID],
    *,
    holds: Sequence[Hold] = (),
    before_removals: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Write the changes and holds as one revision and return its number; call it inside `db.apply_lock`.

    Removals come last, since those of a renamed tenant's settings go by its new name; the unique keys that a new
    object may take over from a removed one are checked at the end of the transaction.
    """
    revision = await new_revision(connection, changes, author, holds)
    changes = [*changes, *await _moved(connection, changes)]
    await keep_versions(connection, changes, revision)
    if author.inventory:
        await mark_changed(connection, changes, revision)
    await _set_aside(connection, changes)
    for kind in ORDER:
        if written := [change for change in changes if not isinstance(change, Remove) and change.key.kind is kind]:
            await declared_rows.upsert(connection, kind, written, revision, new_id)
    if before_removals is not None:
        await before_removals()
    for kind in reversed(ORDER):
        if removed := [change for change in changes if isinstance(change, Remove) and change.key.kind is kind]:
            await declared_rows.remove(connection, kind, removed, revision)
    await runtime.write_holds(connection, holds, author.actor)
    opened, loosened = (_loosened(state, changes, holds) for state in ("disabled", "cordoned"))
    await runtime.forget_health(connection, opened, if_drained=loosened)
    await connection.execute("UPDATE cluster SET serial = %s", (revision,))
    await connection.execute("SELECT pg_notify('scalelite_declared', %s)", (str(revision),))
    return revision


async def _set_aside(connection: Connection, changes: Sequence[Change]) -> None:
    """Take their names from the tenants that are about to go and whose name another takes: rows are told by names."""
    losing = [
        (change.before.id, change.key.name)
        for change in changes
        if isinstance(change, Remove)
        and isinstance(change.before, TenantSpec)
        and change.before.name != change.key.name
    ]
    for tenant, name in losing:
        await connection.execute("UPDATE tenant SET name = %s WHERE id = %s", (name, tenant))


async def _moved(connection: Connection, changes: Sequence[Change]) -> list[Change]:
    """Return the settings and LRS that go along with renamed tenants: their keys change, though their rows do not."""
    old_names = renames(changes)
    if not old_names:
        return []
    new_names = {old: new for new, old in old_names.items()}
    names = (list(new_names),)
    rows = await _rows(connection, _TENANTS + "WHERE t.name = ANY (%s) GROUP BY t.id", names)
    found = [(key, spec) for key, spec in _tenants(rows, connection.sealer) if key.kind is Kind.LRS]
    found += _settings(await _rows(connection, _SETTINGS + "WHERE t.name = ANY (%s)", names))
    changed = {change.key for change in changes}
    moved = [(key._replace(name=new_names[key.name]), spec) for key, spec in found]
    return [Update(key, spec, spec) for key, spec in moved if key not in changed]


def _loosened(state: State, changes: Sequence[Change], holds: Sequence[Hold]) -> list[str]:
    """Servers that may leave a state: while they counted as disabled nobody polled them, what was seen is old."""
    declared = {
        change.key.name
        for change in changes
        if isinstance(change, Update)
        and isinstance(change.before, ServerSpec)
        and isinstance(change.after, ServerSpec)
        and change.before.state == state != change.after.state
    }
    return sorted(declared | {hold.key.name for hold in holds if hold.before == state != hold.after})
