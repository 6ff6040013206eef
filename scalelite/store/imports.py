"""What imports write: rows of recordings, their formats, and which files of these count; what people edited stays.

An import reads the edition, brings its files, and writes the row if the edition is still that: whoever else changes
files (another import, an upload of subtitles, a deletion) counts it up. So no lock is held while files are brought.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from scalelite.core.model import SENTINEL_TENANT
from scalelite.errors import RecordingBusy, RecordingOvertaken

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from scalelite.core.recording import PlaybackFormat, Recording
    from scalelite.store.db import Connection

_WRITTEN: Final = (
    "record_id", "tenant", "meeting_id", "name", "state", "published", "protected", "start_ms", "end_ms",
    "participants",
)  # fmt: skip


class Files(NamedTuple):
    """What a row says of files: how often they were changed, the generation of each format that counts, its state.

    Without a row: the edition 0, no generations.
    """

    edition: int = 0
    generations: Mapping[str, str] = {}
    state: str = ""
    pending: str | None = None


async def files_of(connection: Connection, record_ids: Sequence[str]) -> dict[str, Files]:
    """Return what the rows of these recordings say of their files; those without a row are left out."""
    cursor = await connection.execute(
        """
        SELECT r.record_id, r.edition, r.state, r.pending,
               (SELECT jsonb_object_agg(f.format, f.generation)
                  FROM playback_format f WHERE f.recording = r.id) AS files
          FROM recording r WHERE r.record_id = ANY (%s)
        """,
        (list(record_ids),),
    )
    return {
        row["record_id"]: Files(row["edition"], row["files"] or {}, row["state"], row["pending"])
        for row in await cursor.fetchall()
    }


class Row(NamedTuple):
    """A recording's row, locked to the end of the transaction."""

    id: int
    tenant: UUID
    published: bool


async def put_recording(connection: Connection, recording: Recording, edition: int) -> Row:
    """Add a recording, or renew the one there is, and lock it.

    Raises RecordingBusy while it is being deleted, RecordingOvertaken if its files were changed since `edition`. What
    people decided stays: published, protected, whose it is. One that was deleted comes back.
    """
    cursor = await connection.execute(
        """
        INSERT INTO recording AS r
               (record_id, tenant, meeting_id, name, state, published, protected, start_ms, end_ms, participants,
                edition)
        VALUES (%(record_id)s, coalesce((SELECT id FROM tenant WHERE id = %(tenant)s), %(nobody)s), %(meeting_id)s,
                %(name)s, %(state)s, %(published)s, %(protected)s, %(start_ms)s, %(end_ms)s, %(participants)s, 1)
        ON CONFLICT (record_id) DO UPDATE SET
            tenant = CASE WHEN r.tenant = %(nobody)s THEN excluded.tenant ELSE r.tenant END,
            meeting_id = excluded.meeting_id,
            name = excluded.name,
            state = CASE WHEN NOT r.publish_edited THEN excluded.state
                         WHEN r.published THEN 'published' ELSE 'unpublished' END,
            published = CASE WHEN r.publish_edited THEN r.published ELSE excluded.published END,
            start_ms = excluded.start_ms,
            end_ms = excluded.end_ms,
            participants = coalesce(excluded.participants, r.participants),
            deleted_at = NULL,
            edition = r.edition + 1
        RETURNING r.id, r.tenant, r.published, r.pending, r.edition
        """,
        {
            **{name: getattr(recording, name) for name in _WRITTEN},
            "nobody": SENTINEL_TENANT,
        },
    )
    row = await cursor.fetchone() or {}
    if row["pending"] == "deleted":
        raise RecordingBusy(recording.record_id)
    if row["edition"] != edition + 1:
        raise RecordingOvertaken(recording.record_id)
    return Row(row["id"], row["tenant"], row["published"])


async def put_details(connection: Connection, row: int, recording: Recording) -> None:
    """Write metadata that no person has edited, and the formats, of a recording that is locked."""
    await connection.execute(
        """
        INSERT INTO recording_metadata AS m (recording, key, value)
        SELECT %(row)s, key, value
          FROM unnest(%(keys)s::text[], %(values)s::text[]) WITH ORDINALITY AS new (key, value, place) ORDER BY place
        ON CONFLICT (recording, key) DO UPDATE SET value = excluded.value WHERE NOT m.edited
        """,
        {"row": row, "keys": list(recording.metadata), "values": list(recording.metadata.values())},
    )
    formats = recording.formats
    await connection.execute(
        """
        INSERT INTO playback_format (recording, format, url, length, processing_ms, generation)
        SELECT %(row)s, new.* FROM unnest(%(formats)s::text[], %(urls)s::text[], %(lengths)s::bigint[],
                                          %(processing)s::bigint[], %(generations)s::text[]) AS new
        ON CONFLICT (recording, format) DO UPDATE
           SET url = excluded.url, length = excluded.length, processing_ms = excluded.processing_ms,
               generation = excluded.generation
        """,
        {
            "row": row,
            "formats": [each.format for each in formats],
            "urls": [each.url for each in formats],
            "lengths": [each.length for each in formats],
            "processing": [each.processing_ms for each in formats],
            "generations": [each.generation for each in formats],
        },
    )
    await _put_thumbnails(connection, row, formats)


async def _put_thumbnails(connection: Connection, row: int, formats: Sequence[PlaybackFormat]) -> None:
    images = [(each.format, place, image) for each in formats for place, image in enumerate(each.thumbnails)]
    await connection.execute(
        "DELETE FROM thumbnail WHERE recording = %s AND format = ANY (%s)", (row, [each.format for each in formats])
    )
    await connection.execute(
        """
        INSERT INTO thumbnail (recording, format, place, url, width, height, alt)
        SELECT %(row)s, new.* FROM unnest(%(formats)s::text[], %(places)s::integer[], %(urls)s::text[],
                                          %(widths)s::bigint[], %(heights)s::bigint[], %(alts)s::text[]) AS new
        """,
        {
            "row": row,
            "formats": [format_name for format_name, _, _ in images],
            "places": [place for _, place, _ in images],
            "urls": [image.url for _, _, image in images],
            "widths": [image.width for _, _, image in images],
            "heights": [image.height for _, _, image in images],
            "alts": [image.alt for _, _, image in images],
        },
    )
