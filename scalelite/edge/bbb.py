"""The client of BigBlueButton servers: signs, asks, reads the answer; decides nothing and keeps nothing.

Texts of its errors name no host, secret or signed URL: they go back to callers. aiohttp's traps: findings.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from scalelite.core import wire
from scalelite.errors import Overloaded, ServerUnreachable, UpstreamFailed, UselessAnswer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.core.model import Secret, ServerSpec

log = logging.getLogger(__name__)

CONNECTIONS_PER_SERVER: Final = 32
# With those that wait for a connection: more would be answered too late, and hold up whoever asks in vain.
CALLS_PER_SERVER: Final = 256
LONGEST_LINE: Final = 8000  # nginx in front of a stock server refuses request lines over 8 KiB
_FORM: Final = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds for a connection, and for the whole call."""

    connect_s: float
    total_s: float

    def for_server_in_trouble(self) -> Timeouts:
        """Return a tenth of these, within what a server needs at least."""
        return Timeouts(max(self.connect_s / 10, 0.2), max(self.total_s / 10, 0.5))


@dataclass(frozen=True, slots=True)
class Body:
    """What a call sends along; by default nothing."""

    content: bytes = b""
    content_type: str = ""


NO_BODY: Final = Body()


def signed_url(server: ServerSpec, call: str, query: str, algorithm: str) -> str:
    """Return the URL of a call as text; `algorithm` is the cluster's, a server's own wins."""
    return _request(server, call, query, algorithm, server.secret, NO_BODY)[0]


class BbbClient:
    """Asks servers over one session; closed by its owner."""

    def __init__(self, session: aiohttp.ClientSession, timeouts: Timeouts) -> None:
        self._session = session
        self.timeouts = timeouts
        self._under_way: Counter[str] = Counter()

    @staticmethod
    def session() -> aiohttp.ClientSession:
        """Make a session in which one hung server cannot take the others' connections."""
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS_PER_SERVER, ttl_dns_cache=30)
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=["User-Agent"],
        )

    async def call(
        self,
        server: ServerSpec,
        call: str,
        params: Mapping[str, str],
        algorithm: str,
        *,
        body: Body = NO_BODY,
        timeouts: Timeouts | None = None,
    ) -> wire.Reply:
        """Return the server's answer, SUCCESS or FAILED; raises ServerUnreachable, UpstreamFailed, Overloaded.

        A server that answers checksumError is asked once more with its previous secret, if it has one.
        """
        if self._under_way[server.id] >= CALLS_PER_SERVER:
            raise Overloaded
        query = wire.encode(params)
        timeouts = timeouts or self.timeouts
        self._under_way[server.id] += 1
        try:
            reply = await self._ask(server.id, _request(server, call, query, algorithm, server.secret, body), timeouts)
            if reply.message_key == "checksumError" and (old := server.previous_secret):
                return await self._ask(server.id, _request(server, call, query, algorithm, old, body), timeouts)
            return reply
        finally:
            self._under_way[server.id] -= 1

    async def _ask(self, server: str, request: tuple[str, Body], timeouts: Timeouts) -> wire.Reply:
        try:
            async with asyncio.timeout(timeouts.total_s):
                return wire.parse_reply(await self._exchange(*request, timeouts))
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            log.warning("server %s was not reached: %s", server, type(error).__name__)
            raise ServerUnreachable(_reason(URL(request[0], encoded=True), error)) from None
        except (TimeoutError, aiohttp.ClientError, OSError, zlib.error) as error:
            log.warning("server %s did not answer: %s", server, type(error).__name__)
            raise UpstreamFailed from None

    async def _exchange(self, url: str, body: Body, timeouts: Timeouts) -> bytes:
        limits = aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s)
        headers = {"Content-Type": body.content_type} if body.content_type else {}
        async with self._session.request(
            "POST" if body.content else "GET",
            URL(url, encoded=True),
            data=body.content or None,
            headers=headers,
            timeout=limits,
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise UselessAnswer
            return await _read(response)


def _reason(url: URL, error: Exception) -> str:
    """Say why there is no connection, as Scalelite's commands have it."""
    number = getattr(error, "errno", None)
    why = os.strerror(number) if number else "no connection in time"
    return (
        f'Failed to open TCP connection to {url.host}:{url.port} ({why} - connect(2) for "{url.host}" port {url.port})'
    )


def _request(  # noqa: PLR0917 - one after the other, as they are signed
    server: ServerSpec, call: str, query: str, algorithm: str, secret: Secret, body: Body
) -> tuple[str, Body]:
    """Return URL and body; parameters that would outgrow the request line go as a form."""
    algorithm = server.checksum_algorithm or algorithm
    url = f"{server.url}/{call}?{wire.sign(call, query, secret.reveal(), algorithm)}"
    if body.content or len(url) <= LONGEST_LINE:
        return url, body
    return f"{server.url}/{call}?{wire.sign(call, '', secret.reveal(), algorithm)}", Body(query.encode(), _FORM)


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Read and unpack at most 8 MiB; a small gzip can hold gigabytes."""
    packed = response.headers.get("Content-Encoding", "").lower() in {"gzip", "deflate"}
    unpack = zlib.decompressobj(wbits=47) if packed else None
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_chunked(1 << 16):
        part = unpack.decompress(chunk, wire.MAX_ANSWER_BYTES + 1) if unpack else chunk
        parts.append(part)
        size += len(part)
        if size > wire.MAX_ANSWER_BYTES:
            raise UselessAnswer
    return b"".join(parts)
