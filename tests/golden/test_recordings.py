"""The recorded recordings calls, replayed, with the rows and the files that they left behind."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.golden.replay import RECORDS, differing, replaying
from tests.golden.rules import unexpected

if TYPE_CHECKING:
    from pathlib import Path

    from scalelite.store.db import Connection
    from tests.golden.replay import Differences, Replay

# No address is declared, so links go where the request came in, as Scalelite's do.
ENVIRONMENT: Final = {"URL_HOST": "", "TRUSTED_PROXIES": "127.0.0.1"}
# Before this one the driver removed the files.
WITHOUT_FILES: Final = {"07-recordings/078": "77cce03bdefefd0b6d05f6bc18571e9d6589a2c8-1700000300000"}
COLUMNS: Final = ("record_id", "meeting_id", "name", "published", "state", "protected", "participants")


async def set_rows(connection: Connection, rows: dict[str, Any]) -> None:
    """Make the database what was recorded."""
    await connection.execute("DELETE FROM recording")
    for row in rows["recordings"]:
        await connection.execute(
            """
            INSERT INTO recording (record_id, tenant, meeting_id, name, published, state, protected, participants,
                                   start_ms, end_ms, deleted_at)
            VALUES (%(record_id)s, %(tenant)s, %(meeting_id)s, %(name)s, %(published)s, %(state)s, %(protected)s,
                    %(participants)s, 1000 * extract(epoch FROM %(starttime)s::timestamp),
                    1000 * extract(epoch FROM %(endtime)s::timestamp), %(deleted_at)s)
            """,
            {**row, "tenant": "00000000-0000-0000-0000-000000000000"},
        )
    statements = {
        "metadata": """INSERT INTO recording_metadata (recording, key, value)
                       SELECT id, %s, %s FROM recording WHERE record_id = %s""",
        "playback_formats": """INSERT INTO playback_format (recording, format, url, length, processing_ms)
                               SELECT id, %s, %s, %s, %s FROM recording WHERE record_id = %s""",
    }
    for table, statement in statements.items():
        for record_id, *values in rows[table]:
            await connection.execute(statement, (*values, record_id))
    for format_name, place, width, height, alt, url in rows["thumbnails"]:
        await connection.execute(
            """
            INSERT INTO thumbnail (recording, format, place, width, height, alt, url)
            SELECT id, %s, %s, %s, %s, %s, %s FROM recording WHERE strpos(%s, record_id) > 0
            """,
            (format_name, place, width, height, alt, url, url),
        )


async def rows_now(connection: Connection) -> dict[str, Any]:
    """What is compared of our rows."""
    cursor = await connection.execute("SELECT * FROM recording ORDER BY record_id")
    recordings = [{name: row[name] for name in COLUMNS} for row in await cursor.fetchall()]
    cursor = await connection.execute(
        """SELECT record_id, key, value FROM recording_metadata m JOIN recording r ON r.id = m.recording
            WHERE value IS NOT NULL ORDER BY record_id, key COLLATE "C" """
    )
    metadata = [[row["record_id"], row["key"], row["value"]] for row in await cursor.fetchall()]
    return {"recordings": recordings, "metadata": metadata}


def comparable(rows: dict[str, Any]) -> dict[str, Any]:
    recordings = sorted(
        ({name: row[name] for name in COLUMNS} for row in rows["recordings"]), key=lambda r: r["record_id"]
    )
    return {"recordings": recordings, "metadata": sorted(rows["metadata"])}


def lines(rows: dict[str, Any]) -> set[str]:
    return {str(row) for table in rows.values() for row in table}


def set_files(folder: Path, names: list[str]) -> None:
    for root in ("published", "unpublished"):
        shutil.rmtree(folder / root, ignore_errors=True)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def files_now(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def differences(replay: Replay, record: dict[str, Any], folder: Path) -> Differences:
    """Replay a request, or compare what it left and go on from what Scalelite's left."""
    if "rows" in record:
        rows, files = lines(comparable(record["rows"])), set(record["files"])
        rows_left, files_left = lines(await rows_now(replay.connection)), set(files_now(folder))
        found = differing(
            rows=(sorted(rows - rows_left), sorted(rows_left - rows)),
            files=(sorted(files - files_left), sorted(files_left - files)),
        )
        await set_rows(replay.connection, record["rows"])
        set_files(folder, record["files"])
        return found
    if record_id := WITHOUT_FILES.get(record["id"]):
        set_files(folder, [name for name in files_now(folder) if record_id not in name])
    record["response"]["body"] = re.sub("token=[0-9a-f]{64}", "token=TOKEN", record["response"]["body"])
    return await replay.differences({**record, "state_before": {}})


@pytest.mark.shows("issue F: golden", "MT-4")
async def test_answers_rows_and_files_are_as_recorded(database: str, tmp_path: Path) -> None:
    folders = {f"RECORDING_{name}_DIR": str(tmp_path / f"{name.lower()}ed") for name in ("PUBLISH", "UNPUBLISH")}
    records = [json.loads(line) for line in (RECORDS / "07-recordings.jsonl").read_text().splitlines()]
    problems: list[str] = []
    async with replaying(database, {**ENVIRONMENT, **folders}) as replay:
        await set_rows(replay.connection, records[0]["rows"])
        set_files(tmp_path, records[0]["files"])
        for record in records:
            if "rake" not in record:
                problems += unexpected(record, await differences(replay, record, tmp_path))
    assert not problems, "\n".join(problems)
