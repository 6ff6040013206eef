"""Reads sets and hashes of a Redis, for the takeover of a Scalelite; writes nothing, and knows no key.

A reader of 100 lines rather than a client library: two commands are needed, once in the life of a cluster. Errors hold
the first word of what Redis says and no more, since Redis repeats arguments, which may be a password.
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from scalelite.errors import SourceAway, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from scalelite.core.model import Secret

_ANSWER_S: Final = 30.0
_CONNECT_S: Final = 5.0
_LONGEST_TEXT: Final = 64 << 20
_MOST_ITEMS: Final = 10_000_000
# As many questions are sent before the first answer is read.
_AT_ONCE: Final = 1000

Answer = str | int | list["Answer"] | None


@dataclass(frozen=True, slots=True)
class Redis:
    """A connection; `name` is how messages call it: host, port and database, and no password."""

    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def members(self, key: str) -> frozenset[str]:
        """Return the members of a set; none if there is none."""
        (found,) = await self._ask([("SMEMBERS", key)])
        return frozenset(map(str, found)) if isinstance(found, list) else frozenset()

    async def hashes(self, keys: Sequence[str]) -> list[dict[str, str]]:
        """Return these hashes, in their order; one that is not there is empty."""
        return [
            dict(zip(map(str, found[::2]), map(str, found[1::2]), strict=True)) if isinstance(found, list) else {}
            for start in range(0, len(keys), _AT_ONCE)
            for found in await self._ask([("HGETALL", key) for key in keys[start : start + _AT_ONCE]])
        ]

    async def _ask(self, commands: Sequence[tuple[str, ...]]) -> list[Answer]:
        """Send commands and return their answers; raises SourceAway."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                self.writer.write(b"".join(map(_encoded, commands)))
                await self.writer.drain()
                return [await self._answer() for _ in commands]
        except TimeoutError:
            raise SourceAway(f"Redis {self.name} does not answer within {_ANSWER_S:g} s") from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as error:
            raise SourceAway(f"Redis {self.name} breaks off: {type(error).__name__}") from None

    async def _answer(self) -> Answer:
        line = await self.reader.readuntil(b"\r\n")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return _text(rest)
            case b"-":
                raise SourceAway(f"Redis {self.name} says {_text(rest).partition(' ')[0]}")
            case b":":
                return int(rest)
            case b"$":
                return await self._bulk(_bounded(rest, _LONGEST_TEXT))
            case b"*":
                return [await self._answer() for _ in range(_bounded(rest, _MOST_ITEMS))]
            case _:
                raise SourceAway(f"what answers at {self.name} is no Redis")

    async def _bulk(self, length: int) -> str | None:
        return _text((await self.reader.readexactly(length + 2))[:-2]) if length >= 0 else None


@asynccontextmanager
async def open_redis(address: Secret) -> AsyncIterator[Redis]:
    """Connect to redis://, rediss:// (TLS) or unix://, as REDIS_URL says it; raises UsageError, SourceAway."""
    parts = _parts(address)
    local = parts.scheme == "unix"
    database = "" if local else parts.path.strip("/")
    name = parts.path if local else f"{parts.hostname}:{parts.port or 6379}/{database or 0}"
    try:
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await _connected(parts)
    except OSError as error:
        raise SourceAway(f"Redis {name} cannot be reached: {error.strerror or type(error).__name__}") from None
    redis = Redis(name, reader, writer)
    try:
        if parts.password:
            who = [unquote(parts.username)] if parts.username else []
            await redis._ask([("AUTH", *who, unquote(parts.password))])  # noqa: SLF001 - its own maker
        if database:
            await redis._ask([("SELECT", database)])  # noqa: SLF001
        yield redis
    finally:
        writer.close()


async def _connected(parts: SplitResult) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if parts.scheme == "unix":
        return await asyncio.open_unix_connection(parts.path)
    secured = ssl.create_default_context() if parts.scheme == "rediss" else None
    return await asyncio.open_connection(parts.hostname, parts.port or 6379, ssl=secured)


def _parts(address: Secret) -> SplitResult:
    try:
        parts = urlsplit(address.reveal())
        goes = parts.path if parts.scheme == "unix" else parts.hostname and parts.port != 0
    except ValueError:
        parts, goes = urlsplit(""), None
    if not goes or parts.scheme not in {"redis", "rediss", "unix"}:
        raise UsageError("this is no address of a Redis", hint="such as redis://:password@host:6379/0, as in REDIS_URL")
    return parts


def _encoded(command: tuple[str, ...]) -> bytes:
    parts = [part.encode(errors="surrogateescape") for part in command]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def _text(raw: bytes) -> str:
    """Return bytes as text; what is no UTF-8 is kept so that it is seen, and refused by the models."""
    return raw.decode(errors="surrogateescape")


def _bounded(digits: bytes, most: int) -> int:
    number = int(digits)
    if number > most:
        raise ValueError
    return number
