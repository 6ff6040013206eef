"""Reads history: what became of objects since an inventory applied them; writes nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.drift import Past, Touch
from scalelite.core.model import ClusterSpec, Key, Kind, LrsSpec, ServerSpec, SettingSpec, TenantSpec
from scalelite.store.revisions import columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.core.model import AnySpec
    from scalelite.store.db import Connection

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
