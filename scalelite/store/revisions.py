"""Writes history: revisions, the old versions of rows, and what inventories applied; `specs.write` calls it.

Each runs in the transaction that changes the rows, before they are changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from psycopg.types.json import Jsonb

from scalelite.core.model import OF_TENANTS, Kind, Secret, TenantSpec, secrets_of
from scalelite.core.plan import Create, Remove, Update
from scalelite.store.seal import CLEAR

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scalelite.core.model import Key
    from scalelite.core.plan import Change, Hold
    from scalelite.store.db import Connection
    from scalelite.store.seal import Sealer
    from scalelite.store.specs import Author

# What somebody did to a recording.
Done: TypeAlias = Literal["create", "update", "remove"]
# For how many revisions the secrets of old versions are kept.
SECRETS_KEPT: Final = 50


async def new_revision(
    connection: Connection, changes: Sequence[Change], author: Author, holds: Sequence[Hold] = ()
) -> int:
    """Write what is done by whom, without values, and return its number."""
    old_names = renames(changes)
    log = [*(_logged(change, old_names) for change in changes), *(_logged_hold(hold) for hold in holds)]
    return await _new_revision(connection, author, log)


async def note_recordings(connection: Connection, author: Author, done: Mapping[str, Done]) -> None:
    """Write what somebody did to recordings, by their ids, as a revision; call it inside `db.apply_lock`.

    Recordings are no declared state: the cluster's serial stays, and nobody need read anything anew.
    """
    log = [{"address": f"recording/{record_id}", "action": action, "fields": []} for record_id, action in done.items()]
    await _new_revision(connection, author, log)


async def _new_revision(connection: Connection, author: Author, log: list[dict[str, Any]]) -> int:
    cursor = await connection.execute(
        """
        INSERT INTO revision (number, actor, message, source, changes)
        SELECT coalesce(max(number), 0) + 1, %s, %s, %s, %s FROM revision RETURNING number
        """,
        (author.actor, author.message, Jsonb(author.source or {}), Jsonb(log)),
    )
    row = await cursor.fetchone()
    return int((row or {})["number"])


def renames(changes: Iterable[Change]) -> dict[str, str]:
    """Return the old names of the tenants that are renamed or set aside, by the new ones."""
    return {
        change.key.name: change.before.name
        for change in changes
        if isinstance(change, Update | Remove)
        and isinstance(change.before, TenantSpec)
        and change.before.name != change.key.name
    }


def _logged(change: Change, old_names: dict[str, str]) -> dict[str, Any]:
    if isinstance(change, Remove):
        return {"address": old_key(change.key, old_names).address, "action": "remove", "fields": []}
    entry = {"address": change.key.address, "action": type(change).__name__.lower(), "fields": _fields(change)}
    if change.key.kind is Kind.TENANT and change.key.name in old_names:
        entry["was"] = old_key(change.key, old_names).address
    return entry


def _logged_hold(hold: Hold) -> dict[str, Any]:
    action = "hold" if hold.after else "release"
    states = {"before": hold.before, "after": hold.after, "why": hold.why}
    return {"address": hold.key.address, "action": action, "fields": [], **states}


def old_key(key: Key, old_names: dict[str, str]) -> Key:
    """Return the key that an object had before its tenant was renamed."""
    return key._replace(name=old_names.get(key.name, key.name)) if key.kind in OF_TENANTS else key


def _fields(change: Change) -> list[str]:
    return list(change.fields) if isinstance(change, Update) else []


async def keep_versions(connection: Connection, changes: Sequence[Change], revision: int) -> None:
    """Keep what the changed rows said: secrets masked, and sealed beside it where there is a key."""
    old_names = renames(changes)
    old = [
        _version(old_key(change.key, old_names), change, revision, connection.sealer)
        for change in changes
        if not isinstance(change, Create)
    ]
    await connection.execute(_INSERT_VERSIONS, (revision, Jsonb(old)))
    await connection.execute(
        "UPDATE version SET sealed = NULL WHERE sealed IS NOT NULL AND to_rev <= %s", (revision - SECRETS_KEPT,)
    )


def _version(key: Key, change: Update | Remove, revision: int, sealer: Sealer) -> dict[str, Any]:
    spec = change.before
    keeps = sealer.key_id != CLEAR and any(secrets_of(spec))
    return {
        **key._asdict(),
        "spec": spec.model_dump(mode="json"),
        "fields": list(type(spec).model_fields) if isinstance(change, Remove) else _fields(change),
        "sealed": sealer.seal(json.dumps(spec.model_dump(), default=_clear), version_identity(key, revision))
        if keeps
        else None,
    }


def version_identity(key: Key, to_rev: int) -> str:
    """Return what the secrets of a version are bound to."""
    return f"version/{to_rev}/{key.address}"


def _clear(value: object) -> str:
    """Say what JSON has no word for: secrets in clear, to be sealed, and ids."""
    return value.reveal() if isinstance(value, Secret) else str(value)


_INSERT_VERSIONS: Final = """
INSERT INTO version (kind, name, param, from_rev, to_rev, spec, fields, sealed)
SELECT kind, name, param, coalesce(
           CASE kind
           WHEN 'server' THEN (SELECT from_rev FROM server WHERE id = old.name)
           WHEN 'tenant' THEN (SELECT from_rev FROM tenant t WHERE t.name = old.name)
           WHEN 'lrs' THEN (SELECT lrs_rev FROM tenant t WHERE t.name = old.name)
           WHEN 'cluster' THEN (SELECT from_rev FROM cluster)
           ELSE (SELECT s.from_rev FROM setting s JOIN tenant t ON t.id = s.tenant
                  WHERE t.name = old.name AND s.param = old.param)
           END, 0), %s, spec, fields, sealed
  FROM jsonb_to_recordset(%s) AS old (kind text, name text, param text, spec jsonb, fields text[], sealed text)
"""


async def mark_changed(connection: Connection, changes: Sequence[Change], revision: int) -> None:
    """Note that an inventory made these changes: the third side of drift."""
    old_names = renames(changes)
    gone = {change.key for change in changes if isinstance(change, Remove)}
    gone |= {old_key(change.key, old_names) for change in changes} - {change.key for change in changes}
    there = {c.key: c.place.file if c.place else "" for c in changes if not isinstance(c, Remove)}
    await mark_applied(connection, there, gone, revision)


async def mark_applied(connection: Connection, there: Mapping[Key, str], gone: Iterable[Key], revision: int) -> None:
    """Note that an inventory says of some objects what is live as of a revision, and of others that they are gone.

    `there` has the file of each, '' where that is not known.
    """
    await connection.execute(
        """
        DELETE FROM applied USING unnest(%s::text[], %s::text[], %s::text[]) AS gone (kind, name, param)
         WHERE applied.kind = gone.kind AND applied.name = gone.name AND applied.param = gone.param
        """,
        columns(gone),
    )
    await connection.execute(
        """
        INSERT INTO applied (kind, name, param, revision, file)
        SELECT kind, name, param, %s, file
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS new (kind, name, param, file)
            ON CONFLICT (kind, name, param) DO UPDATE SET
               revision = EXCLUDED.revision, file = coalesce(nullif(EXCLUDED.file, ''), applied.file)
        """,
        (revision, *columns(there), list(there.values())),
    )


async def mark_files(connection: Connection, files: Mapping[Key, str]) -> None:
    """Note in which file of the inventory objects stand that were applied before."""
    if not files:
        return
    await connection.execute(
        """
        UPDATE applied SET file = new.file
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS new (kind, name, param, file)
         WHERE applied.kind = new.kind AND applied.name = new.name AND applied.param = new.param
        """,
        (*columns(files), list(files.values())),
    )


def columns(keys: Iterable[Key]) -> tuple[list[str], list[str], list[str]]:
    """Return keys as the three columns that statements take them in."""
    listed = list(keys)
    return [str(key.kind) for key in listed], [key.name for key in listed], [key.param for key in listed]
