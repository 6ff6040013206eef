"""The socket of one simulated server: it takes connections, refuses them, stops quickly; it knows no API."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from scalelite.sim.replies import page

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BACKLOG: Final = 1024
LONGEST_LINE_BYTES: Final = 65_536  # what aiohttp reads at all; nginx's own limit is in requests.py
LAST_CONNECTIONS_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; port 0 is any free one."""

    family: socket.AddressFamily
    ip: str
    port: int = 0


async def resolve(host: str) -> Address:
    """The first address of a host. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    family, _, _, _, sockaddr = found[0]
    return Address(family, str(sockaddr[0]))


def bind(address: Address) -> socket.socket:
    """A bound socket that does not listen: the port is kept, connections to it are refused. Raises OSError."""
    bound = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind((address.ip, address.port))
    except OSError:
        bound.close()
        raise
    return bound


class Connection(web.RequestHandler):
    """A connection that answers what is no HTTP with HTML, as Tomcat and nginx do, and does not log it."""

    __slots__ = ()

    def close(self) -> None:
        """Take no more requests; aiohttp's own leaves the socket of an idle connection open, and nobody answers."""
        idle = self._waiter is not None
        super().close()
        if idle:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer an error of the parser; other errors are bugs of ours and stay with aiohttp."""
        if not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        answer = page(414 if isinstance(exc, LineTooLong) else 400)
        answer.force_close()
        return answer


class Connections(web.Server):
    """All connections of one server."""

    def __call__(self) -> Connection:
        """Begin a connection: asyncio's protocol factory."""
        return Connection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class Listener:
    """One listening socket with its connections. Bound on creation, so that the port is known; `accept` opens it."""

    def __init__(self, address: Address, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        self.stopping = asyncio.Event()
        self.connections = Connections(handler, access_log=None, max_line_size=LONGEST_LINE_BYTES)
        self._socket = bind(address)
        self.port: int = self._socket.getsockname()[1]
        self._address = replace(address, port=self.port)
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.accepting = False

    def accept(self) -> None:
        """Take connections from now on (those that come before asyncio is ready wait in the socket)."""
        self._cancel_timer()
        if self.accepting or self.stopping.is_set():
            return
        self._socket.listen(BACKLOG)
        self.accepting = True
        self._opening = asyncio.get_running_loop().create_task(self._open(self._socket))

    async def _open(self, listening: socket.socket) -> None:
        """Serve on a socket, unless it has been replaced in the meantime."""
        if self._socket is not listening:
            return
        self._server = await asyncio.get_running_loop().create_server(
            self.connections, sock=listening, backlog=BACKLOG, start_serving=False
        )
        if self._socket is listening:
            await self._server.start_serving()

    def refuse(self, seconds: float | None = None) -> None:
        """Refuse connections, for a time or until `accept`; what is being answered is still answered."""
        self._cancel_timer()
        if self.accepting:
            self._close()
            self._socket = bind(self._address)
        if seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self.accept)

    async def stop(self) -> None:
        """Close the socket and every connection, the hanging ones too; leaves no task behind."""
        self.stopping.set()
        self._cancel_timer()
        self._close()
        if self._opening:
            await self._opening
        await asyncio.sleep(0)  # hanging requests wake up and end
        await self.connections.shutdown(LAST_CONNECTIONS_S)
        await asyncio.sleep(0)

    def _close(self) -> None:
        """Close the socket, and each connection as soon as it is idle."""
        self.accepting = False
        if self._server:
            self._server.close()
            self._server = None
        self._socket.close()
        self.connections.pre_shutdown()

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    async def pause(self, seconds: float | None) -> None:
        """Wait so long (None: for ever), but not beyond the stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
