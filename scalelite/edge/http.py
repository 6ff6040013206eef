"""A strict HTTP/1.1 client for what is asked on every call: a request, a whole answer; it follows and keeps nothing.

Written since asking a server was most of what a call cost: 54 µs of CPU with aiohttp, with this a fifth. A connection
is used again only after an answer that was whole, asked for, and in time: a late or unasked-for one is never another's.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from collections import deque
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, Final

import aiohappyeyeballs
import httptools
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Addresses = Sequence[tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]]

# How long a connection waits for its next request; nginx and Tomcat wait longer before they close it.
IDLE_S: Final = 15.0
_ADDRESSES_S: Final = 30.0
# The next address of a host is tried beside one that does not answer (RFC 8305).
_NEXT_ADDRESS_S: Final = 0.25
_CLOSE_S: Final = 1.0
# What may come around a body; a chunk of one byte has five around it.
_MOST_AROUND: Final = 64 << 10
_AROUND_A_BYTE: Final = 8
# Where an answer ends: headers that say so.
_ENDS: Final = frozenset({b"content-length", b"transfer-encoding"})
# 101 would make something else than HTTP of the connection, which nobody asked for.
_INTERIM: Final = frozenset({*range(100, 200)} - {101})
# Both stand in the request's head, where a line break would begin something else.
_TARGET: Final = re.compile(r"/[!-~]*")
_CONTENT_TYPE: Final = re.compile(r"[\x20-\x7e]*")


class HttpFailed(Exception):
    """There is no answer; the text says why and names no host."""


class NotConnected(HttpFailed):
    """There is no connection, so nothing was sent."""


class BrokenOff(HttpFailed):
    """The connection was closed before the answer was whole, or what came is no HTTP."""


class _Unanswered(BrokenOff):
    """The connection was closed before anything came: the server may have closed it as this request was on its way."""


class TooLarge(HttpFailed):
    """The answer is larger than the client takes."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer as it came: its body is still packed if `encoding` (in lower case) says so."""

    status: int
    encoding: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Origin:
    """Where requests go; `name` is http[s]://HOST:PORT, `host_header` what the Host header says."""

    name: str
    host: str
    port: int
    tls: bool
    host_header: str


@lru_cache(maxsize=10_000)
def origin_of(url: str) -> tuple[Origin, str]:
    """Return the origin of a URL, and the path below which it lies as it stands in a request."""
    parts = URL(url)
    host, port, tls = parts.raw_host or "", parts.port or 0, parts.scheme == "https"
    name = f"{parts.scheme}://{host}:{port}"
    return Origin(name, host, port, tls, parts.host_port_subcomponent or ""), parts.raw_path.rstrip("/")


@cache
def verifying() -> ssl.SSLContext:
    """Return what trusts whom the system trusts; made at the first connection that needs it (20 ms)."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


@dataclass(slots=True)
class _Pool:
    """The connections to one origin: `open_` are all of them, `idle` those that wait, the last used last."""

    slots: asyncio.Semaphore
    open_: set[_Connection] = field(default_factory=set)
    idle: deque[_Connection] = field(default_factory=deque)
    requests: int = 0

    def waiting(self) -> _Connection | None:
        """Take the connection that was used last, if one waits."""
        while self.idle:
            if (connection := self.idle.pop()).is_open:
                return connection
        return None


class HttpClient:
    """Connections that are kept and used again, so many at once an origin; closed by its owner."""

    def __init__(
        self,
        *,
        connections_per_origin: int,
        most_bytes: int,
        idle_s: float = IDLE_S,
        tls: Callable[[], ssl.SSLContext] = verifying,
    ) -> None:
        """`most_bytes` bounds the body of an answer; `idle_s` is how long a connection waits for its next request."""
        self._idle_s = idle_s
        self._tls = tls
        self._connections_per_origin = connections_per_origin
        self._most_bytes = most_bytes
        self._pools: dict[str, _Pool] = {}
        self._addresses = _Addresses()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def exchange(  # noqa: PLR0917 - the request, then its limits
        self, origin: Origin, target: str, content: bytes, content_type: str, connect_s: float, total_s: float
    ) -> HttpAnswer:
        """GET a target (a path with its query), or POST content there; raises HttpFailed, TimeoutError.

        `connect_s` bounds the making of a connection, `total_s` all: the wait for a connection too. A GET that gets not
        one byte before the connection closes is sent once more.
        """
        parts = _request(origin, target, content, content_type)
        pool = self._pool(origin)
        pool.requests += 1
        try:
            async with asyncio.timeout(total_s), pool.slots:
                connection = pool.waiting() or await self._connect(origin, pool, connect_s)
                try:
                    answer = await connection.ask(parts, self._most_bytes)
                except _Unanswered:
                    if content:
                        raise
                    connection = await self._connect(origin, pool, connect_s)
                    answer = await connection.ask(parts, self._most_bytes)
                if connection.is_reusable:
                    self._keep(pool, connection)
                return answer
        finally:
            pool.requests -= 1

    async def close(self) -> None:
        """Close all connections; requests under way fail."""
        self._closed = True
        if self._sweeping:
            self._sweeping.cancel()
        self._addresses.close()
        connections = [connection for pool in self._pools.values() for connection in pool.open_]
        for connection in connections:
            connection.abort()
        if connections:
            await asyncio.wait([connection.closed for connection in connections], timeout=_CLOSE_S)

    # --- connections -------------------------------------------------------------------------------------------------

    def _pool(self, origin: Origin) -> _Pool:
        pool = self._pools.get(origin.name)
        if pool is None:
            pool = self._pools[origin.name] = _Pool(asyncio.Semaphore(self._connections_per_origin))
            self._sweeping = self._sweeping or asyncio.get_running_loop().call_later(self._idle_s, self._sweep)
        return pool

    async def _connect(self, origin: Origin, pool: _Pool, within_s: float) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._closed:
            raise NotConnected("the client is closed")
        try:
            async with asyncio.timeout(within_s):
                sock = await aiohappyeyeballs.start_connection(
                    await self._addresses.of(origin), happy_eyeballs_delay=_NEXT_ADDRESS_S, interleave=1
                )
                _, connection = await loop.create_connection(
                    lambda: _Connection(pool.open_),
                    sock=sock,
                    ssl=self._tls() if origin.tls else None,
                    server_hostname=origin.host.rstrip(".") if origin.tls else None,
                )
        except TimeoutError:
            raise NotConnected("no connection in time") from None
        except OSError as error:
            raise NotConnected(_why(error)) from None
        return connection

    def _keep(self, pool: _Pool, connection: _Connection) -> None:
        connection.idle_since = asyncio.get_running_loop().time()
        pool.idle.append(connection)

    def _sweep(self) -> None:
        """Close connections that have waited too long, and forget origins that nobody asks any more."""
        loop = asyncio.get_running_loop()
        for name, pool in [*self._pools.items()]:
            while pool.idle and pool.idle[0].idle_since <= loop.time() - self._idle_s:
                pool.idle.popleft().abort()
            if not (pool.open_ or pool.requests):
                del self._pools[name]
        self._sweeping = loop.call_later(self._idle_s, self._sweep) if self._pools else None


def _why(error: OSError) -> str:
    """Say why there is no connection; asyncio's own words name the address."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason}"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if error.errno else type(error).__name__


def _request(origin: Origin, target: str, content: bytes, content_type: str) -> Sequence[bytes]:
    """Return a request; raises ValueError for what would begin another line."""
    if not _TARGET.fullmatch(target) or not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError("a target or content type that cannot stand in a request")
    line = f"{'POST' if content else 'GET'} {target} HTTP/1.1\r\nHost: {origin.host_header}\r\n"
    accepted = "Accept: */*\r\nAccept-Encoding: gzip, deflate\r\n"
    if not content:
        return (f"{line}{accepted}\r\n".encode(),)
    head = f"{line}{accepted}Content-Type: {content_type}\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode(), content


class _Addresses:
    """The addresses of hosts, for 30 s; many who ask for the same at once wait for one answer."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[float, asyncio.Task[Addresses]]] = {}

    async def of(self, origin: Origin) -> Addresses:
        """Return what getaddrinfo says; raises OSError."""
        now = asyncio.get_running_loop().time()
        until, looking = self._known.get(origin.name, (0.0, None))
        if looking is None or until < now:
            self._known = {name: known for name, known in self._known.items() if known[0] >= now}
            looking = asyncio.create_task(self._look(origin))
            self._known[origin.name] = now + _ADDRESSES_S, looking
        return await asyncio.shield(looking)

    async def _look(self, origin: Origin) -> Addresses:
        try:
            return await asyncio.get_running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        except BaseException:
            self._known.pop(origin.name, None)
            raise

    def close(self) -> None:
        """Wait for no address any more."""
        for _, looking in self._known.values():
            looking.cancel()


# --- one connection --------------------------------------------------------------------------------------------------


class _Connection(asyncio.Protocol):
    """A connection, and at most one request on it; what comes while there is none closes it."""

    def __init__(self, open_: set[_Connection]) -> None:
        self.idle_since = 0.0
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._open = open_
        self._transport: Any = None
        self._reading: _Reading | None = None
        self._reusable = False

    async def ask(self, request: Sequence[bytes], most_bytes: int) -> HttpAnswer:
        """Send a request and wait for its answer; closed, where another must not follow: failed, too late, given up."""
        if not self.is_open:
            raise _Unanswered("closed")
        self._reusable = False
        self._reading = reading = _Reading(most_bytes)
        try:
            for part in request:
                self._transport.write(part)
            answer = await reading.answer
        except BaseException:
            self.abort()
            raise
        finally:
            self._reading = None
            reading.end()
        if not self.is_reusable:
            self.abort()
        return answer

    @property
    def is_open(self) -> bool:
        """Say whether neither side has begun to close it."""
        return not self.closed.done() and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        """Say whether another request may follow: the answer was whole, nothing came after it, all was sent."""
        return self._reusable and self.is_open and not self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """Close at once."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._open.add(self)

    def data_received(self, data: bytes) -> None:
        """Take what the server sends."""
        if self._reading is None or self._reading.answer.done():
            self.abort()
        else:
            self._reusable = self._reading.take(data)

    def connection_lost(self, error: Exception | None) -> None:
        """End, and with it an answer that did not say how long it is."""
        self._open.discard(self)
        self.closed.set_result(None)
        if self._reading:
            self._reading.cut(clean=error is None)


class _Reading:
    """One answer as it comes; llhttp, which Sanic brings, calls the methods `on_…`."""

    def __init__(self, most_bytes: int) -> None:
        self.answer: asyncio.Future[HttpAnswer] = asyncio.get_running_loop().create_future()
        self._most_bytes = most_bytes
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._encoding = b""
        self._in_head = True
        self._says_its_end = False
        self._size = self._received = 0
        self._another_may_follow = False

    def take(self, data: bytes) -> bool:
        """Read on; returns whether the answer is whole, and the connection good for another."""
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(BrokenOff("no HTTP"))
            return False
        if self._size > self._most_bytes:
            self._fail(TooLarge("a larger answer than is taken"))
        elif self._received - self._size > _MOST_AROUND + _AROUND_A_BYTE * self._size:
            self._fail(TooLarge("more around the answer than is taken"))
        return self._another_may_follow

    def cut(self, *, clean: bool) -> None:
        """End with the connection, as an answer does that does not say where it ends."""
        if clean and not (self._in_head or self._says_its_end):
            self._complete()
        self._fail(BrokenOff("cut off") if self._received else _Unanswered("closed"))

    def end(self) -> None:
        """Let go of the parser, which refers back to this."""
        self._parser = None

    def _fail(self, error: HttpFailed) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _complete(self) -> None:
        if not self.answer.done() and self._size <= self._most_bytes:
            encoding = self._encoding.decode("latin-1").strip().lower()
            self.answer.set_result(HttpAnswer(self._parser.get_status_code(), encoding, b"".join(self._parts)))

    # --- what llhttp calls -------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin an answer, or what follows it though nobody asked."""
        self._another_may_follow = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; one after the body counts for nothing."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"content-encoding":
            self._encoding = value
        elif name in _ENDS:
            self._says_its_end = True

    def on_headers_complete(self) -> None:
        """End the head."""
        self._in_head = False

    def on_body(self, part: bytes) -> None:
        """Take a part of the body."""
        self._size += len(part)
        self._parts.append(part)

    def on_message_complete(self) -> None:
        """End the answer; an interim one (1xx) says that it is still to come."""
        if self._parser.get_status_code() in _INTERIM:
            self._in_head, self._encoding = True, b""
        elif not self.answer.done():
            self._another_may_follow = self._parser.should_keep_alive()
            self._complete()
