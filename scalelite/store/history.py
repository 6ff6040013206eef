"""Reads history: revisions, old versions, what became of objects since an inventory applied them; writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.drift import Past, Touch
from scalelite.core.model import (
    OF_TENANTS,
    ClusterSpec,
    Key,
    Kind,
    LrsSpec,
    ServerSpec,
    SettingSpec,
    TenantSpec,
    secrets_of,
)
from scalelite.core.revisions import Revision
from scalelite.core.rollback import Version
from scalelite.errors import SecretUnreadable
from scalelite.store.revisions import columns, version_identity
from scalelite.store.seal import UNSEALED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.core.model import AnySpec
    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer

MODELS: Final[Mapping[Kind, type[AnySpec]]] = {
    Kind.CLUSTER: ClusterSpec,
    Kind.SERVER: ServerSpec,
    Kind.TENANT: TenantSpec,
    Kind.SETTING: SettingSpec,
    Kind.LRS: LrsSpec,
}


def spec_of(kind: Kind, spec: Any) -> AnySpec:
    """Return a version's spec; its secrets are masked."""
    return MODELS[kind].model_validate_json(json.dumps(spec))


def _key(row: Mapping[str, Any]) -> Key:
    return Key(Kind(row["kind"]), row["name"], row["param"])


async def load_pasts(connection: Connection) -> dict[Key, Past]:
    """Read what became of the objects that were changed since an inventory applied them; empty where none was.

    Objects that no inventory ever applied count where inventories applied others of their section.
    """
    cursor = await connection.execute(
        """
        SELECT kind, name, param, coalesce(a.revision, 0) AS applied, r.number, r.actor, r.at
          FROM declared_object o
          FULL JOIN applied a USING (kind, name, param)
          LEFT JOIN revision r ON r.number = o.from_rev
         WHERE o.from_rev IS NULL
            OR o.from_rev > a.revision
            OR a.revision IS NULL AND EXISTS (
                   SELECT FROM applied other
                    WHERE other.kind = CASE WHEN o.kind IN ('setting', 'lrs') THEN 'tenant' ELSE o.kind END)
        """,
        binary=True,
    )
    touched = {_key(row): row for row in await cursor.fetchall()}
    if not touched:
        return {}
    pasts = {key: _unversioned(row) for key, row in touched.items() if row["number"] is not None}
    for row in await _versions_since(connection, {key: row["applied"] for key, row in touched.items()}):
        key, touch = _key(row), Touch(row["to_rev"], row["actor"], row["at"])
        past = pasts.get(key) or Past(None, touch)
        applied = spec_of(key.kind, row["spec"]) if row["from_rev"] <= row["applied"] else past.applied
        last = max(past.last, touch)
        pasts[key] = Past(applied, last, {**past.fields, **dict.fromkeys(row["fields"], touch)})
    return pasts


async def never_applied(connection: Connection) -> list[Key]:
    """Read which objects no inventory has ever applied."""
    cursor = await connection.execute(
        "SELECT kind, name, param FROM declared_object EXCEPT SELECT kind, name, param FROM applied",
        binary=True,
    )
    return [_key(row) for row in await cursor.fetchall()]


async def load_files(connection: Connection, keys: Iterable[Key]) -> dict[Key, str]:
    """Read which files of the inventory had these objects when they were applied."""
    cursor = await connection.execute(
        """
        SELECT a.kind, a.name, a.param, a.file FROM applied a
          JOIN unnest(%s::text[], %s::text[], %s::text[]) AS k (kind, name, param) USING (kind, name, param)
         WHERE a.file <> ''
        """,
        columns(keys),
        binary=True,
    )
    return {_key(row): row["file"] for row in await cursor.fetchall()}


async def applied_files(connection: Connection) -> set[str]:
    """Read which files of inventories had what was applied, as far as that is known."""
    cursor = await connection.execute("SELECT DISTINCT file FROM applied WHERE file <> ''")
    return {row["file"] for row in await cursor.fetchall()}


def _unversioned(row: Mapping[str, Any]) -> Past:
    return Past(None, Touch(row["number"], row["actor"], row["at"]))


async def _versions_since(connection: Connection, applied: Mapping[Key, int]) -> list[dict[str, Any]]:
    """Read the versions that ended after the revision that an inventory last applied, oldest first."""
    cursor = await connection.execute(
        """
        SELECT v.kind, v.name, v.param, v.from_rev, v.to_rev, v.spec, v.fields, k.applied, r.actor, r.at
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) AS k (kind, name, param, applied)
          JOIN version v ON v.kind = k.kind AND v.name = k.name AND v.param = k.param AND v.to_rev > k.applied
          JOIN revision r ON r.number = v.to_rev
         ORDER BY v.to_rev
        """,
        (*columns(applied), list(applied.values())),
    )
    return await cursor.fetchall()


# --- the way back ----------------------------------------------------------------------------------------------------


async def load_unchanged(connection: Connection, revision: int) -> list[Key]:
    """Read which live objects no revision after this one wrote."""
    cursor = await connection.execute(
        "SELECT kind, name, param FROM declared_object WHERE from_rev <= %s", (revision,), binary=True
    )
    return [_key(row) for row in await cursor.fetchall()]


async def load_since(connection: Connection, revision: int) -> list[Version]:
    """Read the versions that a revision after this one ended, oldest first; whole where their secrets were kept."""
    cursor = await connection.execute(
        """
        SELECT kind, name, param, from_rev, to_rev, spec, fields, sealed
          FROM version WHERE to_rev > %s ORDER BY to_rev
        """,
        (revision,),
        binary=True,
    )
    return [_version(row, connection.sealer) for row in await cursor.fetchall()]


def _version(row: Mapping[str, Any], sealer: Sealer = UNSEALED) -> Version:
    key = _key(row)
    opened = _opened(row["sealed"], version_identity(key, row["to_rev"]), sealer)
    spec = spec_of(key.kind, row["spec"]) if opened is None else MODELS[key.kind].model_validate_json(opened)
    is_whole = opened is not None or not any(secrets_of(spec))
    return Version(key, row["from_rev"], row["to_rev"], spec, frozenset(row["fields"]), is_whole)


def _opened(sealed: str | None, identity: str, sealer: Sealer) -> str | None:
    """Return the sealed spec; None where it was not kept, or its key is gone: the rollback names its secrets then."""
    if sealed is None:
        return None
    try:
        return sealer.open(sealed, identity)
    except SecretUnreadable:
        return None


# --- revisions, for people -------------------------------------------------------------------------------------------


async def recent_revisions(connection: Connection, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Return revisions, newest first; `before`: only older ones. Their changes name fields, never values."""
    cursor = await connection.execute(
        """
        SELECT number, at, actor, message, source, changes FROM revision
         WHERE %(before)s::bigint IS NULL OR number < %(before)s ORDER BY number DESC LIMIT %(limit)s
        """,
        {"before": before, "limit": limit},
    )
    return await cursor.fetchall()


async def load_revisions(connection: Connection, limit: int, before: int | None = None) -> list[Revision]:
    """Read the newest revisions, newest first; `before`: only older ones."""
    return [Revision(**row) for row in await recent_revisions(connection, limit, before)]


async def load_revision(connection: Connection, number: int) -> Revision | None:
    """Read one revision."""
    found = await load_revisions(connection, 1, number + 1)
    return found[0] if found and found[0].number == number else None


async def load_sides(connection: Connection, number: int) -> tuple[dict[Key, Version], dict[Key, AnySpec]]:
    """Read what a revision ended, and what it began where a later one ended that; secrets are masked."""
    cursor = await connection.execute(
        """
        SELECT kind, name, param, from_rev, to_rev, spec, fields, NULL AS sealed
          FROM version WHERE to_rev = %(n)s OR from_rev = %(n)s
        """,
        {"n": number},
    )
    found = [_version(row) for row in await cursor.fetchall()]
    ended = {version.key: version for version in found if version.to_rev == number}
    return ended, {version.key: version.spec for version in found if version.from_rev == number}


async def load_versions(connection: Connection, key: Key) -> list[Version]:
    """Read all old versions of an object, oldest first; secrets are masked."""
    cursor = await connection.execute(
        """
        SELECT kind, name, param, from_rev, to_rev, spec, fields, NULL AS sealed
          FROM version WHERE kind = %s AND name = %s AND param = %s ORDER BY to_rev
        """,
        (str(key.kind), key.name, key.param),
    )
    return [_version(row) for row in await cursor.fetchall()]


async def load_from_rev(connection: Connection, key: Key) -> int | None:
    """Read which revision last wrote an object; None where there is none."""
    cursor = await connection.execute(
        "SELECT from_rev FROM declared_object WHERE kind = %s AND name = %s AND param = %s",
        (str(key.kind), key.name, key.param),
    )
    row = await cursor.fetchone()
    return int(row["from_rev"]) if row else None


async def load_beginnings(connection: Connection, key: Key, revisions: Iterable[int]) -> dict[int, Key | None]:
    """Read which of these revisions created the object of a key (None), or renamed its tenant to it (the old key)."""
    cursor = await connection.execute(
        """
        SELECT number, e->>'action' = 'create' AND e->>'address' = %(address)s AS created, e->>'was' AS was
          FROM revision CROSS JOIN jsonb_array_elements(changes) AS e
         WHERE number = ANY (%(numbers)s)
           AND (e->>'action' = 'create' AND e->>'address' = %(address)s OR e->>'address' = %(tenant)s AND e ? 'was')
         ORDER BY created DESC
        """,
        {
            "numbers": list(revisions),
            "address": key.address,
            "tenant": Key(Kind.TENANT, key.name).address if key.kind in OF_TENANTS else "",
        },
    )
    found: dict[int, Key | None] = {}
    for row in await cursor.fetchall():
        old = None if row["created"] else Key.of_address(row["was"] or "")
        found.setdefault(row["number"], old and key._replace(name=old.name))
    return found
