"""The client of BigBlueButton servers: signs, asks, reads the answer; decides nothing and keeps nothing.

Texts of its errors name no host, secret or signed URL: they go back to callers.
"""

from __future__ import annotations

import logging
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from scalelite.core import wire
from scalelite.edge.http import HttpAnswer, HttpClient, HttpFailed, NotConnected, TooLarge, origin_of
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
    return server.url + _request(server, call, query, algorithm, server.secret, NO_BODY)[0]


class BbbClient:
    """Asks servers; an async context manager, which closes the connections."""

    def __init__(self, timeouts: Timeouts) -> None:
        self._http = HttpClient(connections_per_origin=CONNECTIONS_PER_SERVER, most_bytes=wire.MAX_ANSWER_BYTES)
        self.timeouts = timeouts
        self._under_way: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

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
            reply = await self._ask(server, _request(server, call, query, algorithm, server.secret, body), timeouts)
            if reply.message_key == "checksumError" and (old := server.previous_secret):
                return await self._ask(server, _request(server, call, query, algorithm, old, body), timeouts)
            return reply
        finally:
            self._under_way[server.id] -= 1

    async def _ask(self, server: ServerSpec, request: tuple[str, Body], timeouts: Timeouts) -> wire.Reply:
        origin, path = origin_of(server.url)
        target, body = request
        try:
            answer = await self._http.exchange(
                origin, path + target, body.content, body.content_type, timeouts.connect_s, timeouts.total_s
            )
        except NotConnected as error:
            log.warning("server %s was not reached: %s", server.id, error)
            raise ServerUnreachable(_reason(origin.host, origin.port, str(error))) from None
        except TooLarge:
            raise UselessAnswer from None
        except (TimeoutError, HttpFailed) as error:
            log.warning("server %s did not answer: %s", server.id, str(error) or "not in time")
            raise UpstreamFailed from None
        if answer.status != 200:
            raise UselessAnswer
        return wire.parse_reply(_unpacked(answer))


def _reason(host: str, port: int, why: str) -> str:
    """Say why there is no connection, as Scalelite's commands have it."""
    return f'Failed to open TCP connection to {host}:{port} ({why} - connect(2) for "{host}" port {port})'


def _request(  # noqa: PLR0917 - one after the other, as they are signed
    server: ServerSpec, call: str, query: str, algorithm: str, secret: Secret, body: Body
) -> tuple[str, Body]:
    """Return what follows the server's URL, and the body; parameters that would outgrow the line go as a form."""
    algorithm = server.checksum_algorithm or algorithm
    target = f"/{call}?{wire.sign(call, query, secret.reveal(), algorithm)}"
    if body.content or len(server.url) + len(target) <= LONGEST_LINE:
        return target, body
    return f"/{call}?{wire.sign(call, '', secret.reveal(), algorithm)}", Body(query.encode(), _FORM)


def _unpacked(answer: HttpAnswer) -> bytes:
    """Return at most 8 MiB; a small gzip can hold gigabytes."""
    if answer.encoding not in {"gzip", "deflate"}:
        return answer.body
    try:
        content = zlib.decompressobj(wbits=47).decompress(answer.body, wire.MAX_ANSWER_BYTES + 1)
    except zlib.error:
        raise UselessAnswer from None
    if len(content) > wire.MAX_ANSWER_BYTES:
        raise UselessAnswer
    return content
