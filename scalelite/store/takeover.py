"""The two databases of a takeover: Scalelite's own tables, which are read, and ours, into which they go.

Of what is here already, nothing is changed: a second takeover adds what has come since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from psycopg.types.json import Jsonb

from scalelite.errors import SourceAway
from scalelite.store.runtime import meeting_identity

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from uuid import UUID

    from scalelite.core.model import Key
    from scalelite.core.recording import Recording
    from scalelite.core.takeover import KeptHook, KeptMeeting
    from scalelite.store.db import Connection

_BATCH: Final = 500
_TABLES: Final = ("recordings", "metadata", "playback_formats", "thumbnails", "callback_data")


# --- Scalelite's -----------------------------------------------------------------------------------------------------


async def check_tables(source: Connection) -> None:
    """Raise SourceAway for a database that is not a Scalelite's."""
    for table in _TABLES:
        cursor = await source.execute("SELECT to_regclass(%s) IS NULL AS missing", (table,))
        if (await cursor.fetchone() or {})["missing"]:
            raise SourceAway(f"what is to be taken over is no database of a Scalelite: it has no table {table}")


async def count_recordings(source: Connection) -> int:
    """Return how many recordings a Scalelite has."""
    cursor = await source.execute("SELECT count(*) AS recordings FROM recordings")
    return int((await cursor.fetchone() or {})["recordings"])


async def old_recordings(source: Connection) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield a Scalelite's recordings with their details, some hundred at a time; its older versions lack columns."""
    last = 0
    while True:
        cursor = await source.execute(
            """
            SELECT r.id, r.record_id, r.meeting_id, r.name, r.state, coalesce(r.published, false) AS published,
                   r.participants,
                   coalesce((to_jsonb(r) ->> 'protected')::boolean, false) AS protected,
                   coalesce((to_jsonb(r) ->> 'publish_updated')::boolean, false) AS publish_edited,
                   round(extract(epoch FROM r.starttime) * 1000)::bigint AS start_ms,
                   round(extract(epoch FROM r.endtime) * 1000)::bigint AS end_ms,
                   r.deleted_at AT TIME ZONE 'UTC' AS deleted_at,
                   (SELECT jsonb_agg(jsonb_build_array(m.key, m.value) ORDER BY m.id)
                      FROM metadata m WHERE m.recording_id = r.id) AS metadata,
                   (SELECT jsonb_agg(jsonb_build_array(f.format, f.url, f.length, f.processing_time,
                           (SELECT jsonb_agg(jsonb_build_array(t.url, t.width, t.height, t.alt) ORDER BY t.sequence)
                              FROM thumbnails t WHERE t.playback_format_id = f.id)) ORDER BY f.id)
                      FROM playback_formats f WHERE f.recording_id = r.id) AS formats
              FROM recordings r WHERE r.id > %s ORDER BY r.id LIMIT %s
            """,
            (last, _BATCH),
        )
        rows = await cursor.fetchall()
        if not rows:
            return
        last = rows[-1]["id"]
        yield rows


async def old_callbacks(source: Connection, days: int) -> list[dict[str, Any]]:
    """Return the callbacks of the last days: meeting, attributes (YAML), age, and the tenant of its recordings."""
    cursor = await source.execute(
        """
        SELECT c.meeting_id, c.callback_attributes AS attributes,
               extract(epoch FROM now() AT TIME ZONE 'UTC' - c.updated_at)::float8 AS age_s,
               (SELECT min(m.value) FROM recordings r JOIN metadata m ON m.recording_id = r.id
                 WHERE r.meeting_id = c.meeting_id AND m.key = 'tenant-id') AS tenant
          FROM callback_data c
         WHERE c.meeting_id IS NOT NULL AND c.callback_attributes IS NOT NULL
           AND c.updated_at > now() AT TIME ZONE 'UTC' - make_interval(days => %s)
         ORDER BY c.id
        """,
        (days,),
    )
    return await cursor.fetchall()


# --- ours ------------------------------------------------------------------------------------------------------------


async def keep_setting_ids(connection: Connection, ids: Mapping[Key, UUID]) -> None:
    """Give settings the ids that Scalelite's commands named them by; one that another has is left alone."""
    await connection.execute(
        """
        UPDATE setting s SET id = new.id
          FROM unnest(%s::text[], %s::text[], %s::uuid[]) AS new (tenant, param, id)
          JOIN tenant t ON t.name = new.tenant
         WHERE s.tenant = t.id AND s.param = new.param AND s.id <> new.id
           AND NOT EXISTS (SELECT FROM setting other WHERE other.id = new.id)
        """,
        ([key.name for key in ids], [key.param for key in ids], list(ids.values())),
    )


async def add_meetings(connection: Connection, meetings: Sequence[KeptMeeting]) -> tuple[int, list[str]]:
    """Add meetings that run; returns how many are new, and the ids of those that another one here bars.

    They reserve no load: nothing is placed on their servers before a poll has counted them.
    """
    seal = connection.sealer.seal
    rows = []
    for meeting in meetings:
        identity = meeting_identity(meeting.tenant, meeting.meeting_id)
        rows.append({
            "tenant": str(meeting.tenant),
            "meeting_id": meeting.meeting_id,
            "server": meeting.server,
            "moderator_pw": seal(meeting.moderator_pw.reveal(), f"{identity}/moderator_pw"),
            "secret": seal(meeting.secret.reveal(), f"{identity}/secret"),
            "voice_bridge": meeting.voice_bridge,
        })  # fmt: skip
    cursor = await connection.execute(
        """
        WITH new AS MATERIALIZED (SELECT * FROM jsonb_populate_recordset(NULL::meeting, %s)),
        added AS (
            INSERT INTO meeting (tenant, meeting_id, server, phase, generation, moderator_pw, secret, voice_bridge,
                                 reservation, counted)
            SELECT tenant, meeting_id, server, 'running', nextval('claim_sequence'), moderator_pw, secret, voice_bridge,
                   0, true
              FROM new
            ON CONFLICT DO NOTHING
            RETURNING tenant, meeting_id
        )
        SELECT (SELECT count(*) FROM added) AS added,
               ARRAY (SELECT n.meeting_id FROM new n
                       WHERE (n.tenant, n.meeting_id) NOT IN (SELECT tenant, meeting_id FROM added)
                         AND NOT EXISTS (SELECT FROM meeting m
                                          WHERE m.tenant = n.tenant AND m.meeting_id = n.meeting_id)) AS barred
        """,
        (Jsonb(rows),),
    )
    row = await cursor.fetchone() or {}
    return row["added"], row["barred"]


async def add_hooks(connection: Connection, hooks: Sequence[KeptHook]) -> int:
    """Add what clients want to be called for, with their meetings if these run; returns how many are new."""
    seal = connection.sealer.seal
    cursor = await connection.execute(
        """
        INSERT INTO callback_hook (generation, name, tenant, meeting_id, server, url, secret, token, created_at)
        SELECT coalesce((SELECT m.generation FROM meeting m WHERE m.tenant = n.tenant AND m.meeting_id = n.meeting_id),
                        nextval('claim_sequence')),
               n.name, n.tenant, n.meeting_id, n.server, n.url, n.secret, '', now() - make_interval(secs => n.age_s)
          FROM jsonb_to_recordset(%s) AS n (tenant uuid, meeting_id text, server text, name text, url text, secret text,
                                            age_s double precision)
         WHERE NOT EXISTS (SELECT FROM callback_hook h
                            WHERE h.tenant = n.tenant AND h.meeting_id = n.meeting_id AND h.name = n.name)
        ON CONFLICT DO NOTHING
        """,
        (
            Jsonb([
                {
                    **{name: getattr(hook, name) for name in ("meeting_id", "server", "name", "url", "age_s")},
                    "tenant": str(hook.tenant),
                    "secret": seal(hook.secret.reveal(), f"{meeting_identity(hook.tenant, hook.meeting_id)}/secret"),
                }
                for hook in hooks
            ]),
        ),
    )  # fmt: skip
    return cursor.rowcount


async def add_recordings(
    connection: Connection, recordings: Sequence[Recording], rows: Sequence[Mapping[str, Any]]
) -> int:
    """Add those of these recordings that are not here, each with the row that it was made of; returns how many."""
    cursor = await connection.execute(
        """
        INSERT INTO recording (record_id, tenant, meeting_id, name, state, published, protected, start_ms, end_ms,
                               participants, publish_edited, deleted_at)
        SELECT record_id, tenant, meeting_id, name, state, published, protected, start_ms, end_ms,
               participants, publish_edited, deleted_at
          FROM jsonb_populate_recordset(NULL::recording, %s)
        ON CONFLICT (record_id) DO NOTHING
        RETURNING id, record_id
        """,
        (Jsonb([_recording_row(one, row) for one, row in zip(recordings, rows, strict=True)]),),
    )
    ids = {row["record_id"]: row["id"] for row in await cursor.fetchall()}
    new = [(ids[one.record_id], one) for one in recordings if one.record_id in ids]
    await _add_details(connection, new)
    return len(new)


_SAME: Final = (
    "record_id",
    "meeting_id",
    "name",
    "state",
    "published",
    "protected",
    "start_ms",
    "end_ms",
    "participants",
)


def _recording_row(recording: Recording, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **{name: getattr(recording, name) for name in _SAME},
        "tenant": str(recording.tenant),
        "publish_edited": row["publish_edited"],
        "deleted_at": row["deleted_at"].isoformat() if row["deleted_at"] else None,
    }


async def _add_details(connection: Connection, new: Sequence[tuple[int, Recording]]) -> None:
    metadata = [
        {"recording": row, "key": key, "value": value} for row, one in new for key, value in one.metadata.items()
    ]
    formats = [(row, each) for row, one in new for each in one.formats]
    images = [
        {
            "recording": row, "format": each.format, "place": place,
            "url": image.url, "width": image.width, "height": image.height, "alt": image.alt,
        }
        for row, each in formats
        for place, image in enumerate(each.thumbnails)
    ]  # fmt: skip
    await connection.execute(
        """
        INSERT INTO recording_metadata (recording, key, value)
        SELECT recording, key, value FROM jsonb_to_recordset(%s) AS new (recording bigint, key text, value text)
        """,
        (Jsonb(metadata),),
    )
    await connection.execute(
        """
        INSERT INTO playback_format (recording, format, url, length, processing_ms)
        SELECT recording, format, url, length, processing_ms FROM jsonb_populate_recordset(NULL::playback_format, %s)
        """,
        (
            Jsonb([
                {
                    "recording": row, "format": each.format, "url": each.url, "length": each.length,
                    "processing_ms": each.processing_ms,
                }
                for row, each in formats
            ]),
        ),
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO thumbnail SELECT * FROM jsonb_populate_recordset(NULL::thumbnail, %s)", (Jsonb(images),)
    )
