"""A Scalelite's Redis (a real server, with what was recorded in it) and its Postgres, for takeovers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from valkey import Valkey

RECORDS: Final = Path(__file__).parent.parent / "golden" / "records"
SCHEMA: Final = Path(__file__).parent / "schema.sql"
T1: Final = "11111111-1111-4111-8111-111111111111"
T2: Final = "22222222-2222-4222-8222-222222222222"


def record(name: str) -> dict[str, Any]:
    """Return one recorded step."""
    lines = (RECORDS / f"{name.partition('/')[0]}.jsonl").read_text().splitlines()
    return next(found for line in lines if (found := json.loads(line))["id"] == name)


class Old:
    """What a Scalelite keeps; `redis` and `postgres` are the addresses that are given to the command."""

    def __init__(self, valkey: Valkey, redis: str, postgres: str) -> None:
        self.valkey = valkey
        self.redis = redis
        self.postgres = postgres

    def keys(self, dump: dict[str, Any]) -> None:
        """Write Redis keys as they were recorded."""
        for key, value in dump.items():
            if members := value.get("set"):
                self.valkey.sadd(key, *members)
            else:
                self.valkey.hset(key, mapping=value)

    def server(self, name: str, url: str, **fields: str) -> None:
        given = {
            "url": url, "secret": f"canary-of-{name}", "state": "enabled", "load_multiplier": "1.0", "online": "true",
            "meetings": "0", "users": "0", "largest_meeting": "0", "videos": "0", "bbb_version": "3.0.4", **fields,
        }  # fmt: skip
        self.keys({f"scalelite:server:{name}": given, "scalelite:servers": {"set": [name]}})

    def tenants(self) -> None:
        """Two tenants, and settings of the first."""
        self.keys(record("20-rake-tenants/044")["redis"])

    def meeting(self, meeting_id: str, server: str, **fields: str) -> None:
        given = {"server_id": server, "moderator_pw": "pw", "voice_bridge": "", "tenant_id": "", **fields}
        self.keys({f"scalelite:meeting:{meeting_id}": given, "scalelite:meetings": {"set": [meeting_id]}})

    def sql(self, statement: str, *parameters: object) -> None:
        with psycopg.connect(self.postgres, autocommit=True) as connection:
            connection.execute(statement.encode(), parameters)

    def rows(self, rows: dict[str, list[Any]]) -> None:
        """Write the recorded rows of recordings."""
        columns = ("record_id", "meeting_id", "name", "published", "state", "protected", "publish_updated",
                   "participants", "starttime", "endtime", "deleted_at")  # fmt: skip
        with psycopg.connect(self.postgres) as connection:
            places = ", ".join(f"%({name})s" for name in columns)
            insert = f"INSERT INTO recordings ({', '.join(columns)}) VALUES ({places})"
            connection.cursor().executemany(insert.encode(), rows["recordings"])
            for table, into in (
                ("metadata", "(recording_id, key, value) SELECT id, %s, %s"),
                ("playback_formats", "(recording_id, format, url, length, processing_time) SELECT id, %s, %s, %s, %s"),
            ):
                for name, *values in rows[table]:
                    statement = f"INSERT INTO {table} {into} FROM recordings WHERE record_id = %s"
                    connection.execute(statement.encode(), (*values, name))
            for values in rows["thumbnails"]:
                connection.execute(
                    "INSERT INTO thumbnails (playback_format_id, sequence, width, height, alt, url)"
                    " SELECT f.id, %s, %s, %s, %s, %s FROM playback_formats f JOIN recordings r ON r.id = recording_id"
                    " WHERE f.format = %s AND strpos(%s, r.record_id) > 0",
                    (*values[1:], values[0], values[-1]),
                )
