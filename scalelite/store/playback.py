"""What may be played, by the rows of recordings, and what opens protected ones: one-time tokens, the key of cookies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from scalelite.store.db import Connection


@dataclass(frozen=True, slots=True)
class Playable:
    """A format that is published; `url` is the path of its page, `generation` says which files count."""

    url: str
    protected: bool
    generation: str


async def find_playable(
    connection: Connection, tenant: UUID | None, record_id: str, format_name: str
) -> Playable | None:
    """Return a format of a recording, if it is published and stays so, and belongs to the tenant."""
    async with connection.cursor(row_factory=class_row(Playable)) as cursor:
        await cursor.execute(
            """
            SELECT f.url, r.protected, f.generation FROM recording r JOIN playback_format f ON f.recording = r.id
             WHERE r.record_id = %(record_id)s AND f.format = %(format)s
               AND r.published AND r.state <> 'deleted' AND coalesce(r.pending, 'published') = 'published'
               AND (%(tenant)s::uuid IS NULL OR r.tenant = %(tenant)s)
            """,
            {"record_id": record_id, "format": format_name, "tenant": tenant},
        )
        return await cursor.fetchone()


async def use_token(connection: Connection, digest: bytes, record_id: str, format_name: str) -> bool:
    """Use a token up; False if it is not there, has expired, or is of another recording or format."""
    cursor = await connection.execute(
        """
        DELETE FROM playback_token t USING recording r
         WHERE t.digest = %s AND r.id = t.recording AND r.record_id = %s AND t.format = %s AND t.expires_at > now()
        """,
        (digest, record_id, format_name),
    )
    return cursor.rowcount == 1


async def cookie_key(connection: Connection, new: bytes) -> bytes:
    """Return the cluster's key for cookies; the first to ask makes it."""
    cursor = await connection.execute(
        "UPDATE cluster SET cookie_key = coalesce(cookie_key, %s) RETURNING cookie_key", (new,)
    )
    return bytes((await cursor.fetchone() or {})["cookie_key"])


async def add_tokens(connection: Connection, tokens: Mapping[tuple[str, str], bytes], minutes: int) -> None:
    """Keep the digests of one-time tokens, by (record id, format), and drop those that have expired; one statement."""
    await connection.execute(
        """
        WITH expired AS (DELETE FROM playback_token WHERE expires_at < now())
        INSERT INTO playback_token (digest, recording, format, expires_at)
        SELECT new.digest, r.id, new.format, now() + %(minutes)s * interval '1 minute'
          FROM unnest(%(ids)s::text[], %(formats)s::text[], %(digests)s::bytea[]) AS new (record_id, format, digest)
          JOIN recording r USING (record_id)
        """,
        {
            "minutes": minutes,
            "ids": [record_id for record_id, _ in tokens],
            "formats": [format_name for _, format_name in tokens],
            "digests": list(tokens.values()),
        },
    )
