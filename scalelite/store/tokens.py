"""Tokens of the management API in Postgres: their hashes, never the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import class_row

from scalelite.core.tokens import Token

if TYPE_CHECKING:
    from scalelite.core.tokens import Scope
    from scalelite.store.db import Connection

_TOKENS = """
SELECT name, scope, created_by, created_at, expires_at, coalesce(expires_at <= now(), false) AS expired FROM token
"""


async def add_token(
    connection: Connection, name: str, digest: bytes, scope: Scope, *, by: str, lifetime_s: float | None
) -> bool:
    """Keep a token; says whether the name was free."""
    cursor = await connection.execute(
        """
        INSERT INTO token (name, hash, scope, created_by, expires_at)
        VALUES (%s, %s, %s, %s, now() + make_interval(secs => %s)) ON CONFLICT (name) DO NOTHING
        """,
        (name, digest, scope, by, lifetime_s),
    )
    return cursor.rowcount == 1


async def load_tokens(connection: Connection) -> list[Token]:
    """Return all tokens, by name."""
    async with connection.cursor(row_factory=class_row(Token)) as cursor:
        await cursor.execute(_TOKENS + "ORDER BY name")
        return await cursor.fetchall()


async def find_token(connection: Connection, digest: bytes) -> Token | None:
    """Return the token of this hash, expired or not, or None."""
    async with connection.cursor(row_factory=class_row(Token)) as cursor:
        await cursor.execute(_TOKENS + "WHERE hash = %s", (digest,))
        return await cursor.fetchone()


async def remove_token(connection: Connection, name: str) -> bool:
    """Forget a token; says whether there was one."""
    cursor = await connection.execute("DELETE FROM token WHERE name = %s", (name,))
    return cursor.rowcount == 1
