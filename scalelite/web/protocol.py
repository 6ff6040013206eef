"""HTTP as strict as a service behind a proxy needs it: where Sanic would guess, a 400 and a closed connection.

Two readers that frame a request differently can be made to see two different requests. And a client that sends a byte
now and then must not hold a connection for ever. Methods that Sanic rewrites at its start are called, never copied.
"""

from __future__ import annotations

import re
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from sanic.exceptions import BadRequest
from sanic.http import Http, Stage
from sanic.server.protocols.http_protocol import HttpProtocol

if TYPE_CHECKING:
    from sanic import Request

REQUEST_TIMEOUT_S: Final = 10.0
# Whoever sends more slowly than this runs into a time-out, however steadily.
SLOWEST_BYTES_PER_S: Final = 16 << 10
# At a stop, whoever connected or was answered so lately may be sending the next request just now.
_RECENTLY_S: Final = 1.0

# Request line and headers, without the empty line: no bare CR or LF, no NUL, no folded lines, no space before a colon,
# no fragment. The target is a path or a whole URL; group 1 is the URL's authority.
_HEAD: Final = re.compile(
    rb"(?:OPTIONS \*|[!-~]++ (?:/|(?i:https?)://([!\"$-.0->@-~]++))[!\"$-~]*+) HTTP/1\.[01]"
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[\t\x20-\x7e\x80-\xff]*+)*+"
)
# How long a body is must be said in the one way that everybody reads alike.
_UNCLEAR_LENGTH: Final = re.compile(
    rb"\r\n(?:transfer-encoding|content-length):(?![\t ]*(?:chunked|[0-9]{1,18})(?:\r\n|$))", re.IGNORECASE
)
_CHUNK_HEAD: Final = re.compile(rb"\r\n[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e]*+)?\r\n")
_LONGEST_CHUNK_HEAD: Final = 64
_HOST: Final = re.compile(r"[A-Za-z0-9._-]*(?::[0-9]*)?|\[[0-9A-Fa-f:.]+\](?::[0-9]*)?")


def check_head(request: Request) -> None:
    """Raise BadRequest for a head that another reader might read otherwise."""
    head, hosts = _HEAD.fullmatch(request.head), request.headers.getall("host", [])
    if (
        not head
        or _UNCLEAR_LENGTH.search(request.head)
        or len(hosts) > 1
        or (not hosts and request.version != "1.0")
        or not all(_HOST.fullmatch(host) for host in hosts)
        or (head[1] is not None and [head[1].decode().lower()] != [host.lower() for host in hosts])
        or ("transfer-encoding" in request.headers and request.version == "1.0")
    ):
        raise BadRequest("Bad Request")


class StrictHttp(Http):
    """One connection's requests."""

    async def http1_request_header(self) -> None:
        """Read a head, and refuse it if it is not plain; what follows it is not read then."""
        await super().http1_request_header()  # type: ignore[no-untyped-call]
        try:
            check_head(self.request)
        except BadRequest:
            self.request_body = None
            raise
        if self.protocol.app.ctx.stopping:
            self.keep_alive = False

    async def read(self) -> bytes | None:
        """Read some of the body; Sanic skips two bytes between chunks, and extensions, whatever they are."""
        buffer, kind = self.recv_buffer, cast("str | bytes | None", self.request_body)
        if self.request_bytes_left == 0 and kind == "chunked":
            while buffer.find(b"\r\n", 2) < 0 and len(buffer) <= _LONGEST_CHUNK_HEAD:
                await self._receive_more()
            if not _CHUNK_HEAD.match(buffer):
                self.keep_alive = False
                raise BadRequest("Bad chunked encoding")
        return await super().read()

    def create_empty_request(self) -> None:
        """Stand in for a request that could not be read; Sanic would try to read its target again, and log it."""
        self.url = None
        super().create_empty_request()


class StrictProtocol(HttpProtocol):
    """Gives a request its time as a whole, and more for a large body, instead of anew with each byte."""

    HTTP_CLASS = StrictHttp

    def data_received(self, data: bytes) -> None:
        """Take bytes; within a request they buy time at the slowest rate that is allowed."""
        http, began = self.http, self._time
        under_way = http is not None and http.stage in {Stage.REQUEST, Stage.HANDLER}
        super().data_received(data)
        if under_way:
            self._time = min(monotonic(), began + len(data) / SLOWEST_BYTES_PER_S)

    def check_timeouts(self) -> None:
        """Cut off what takes too long; Sanic would answer, and then wait for the rest of the body for ever."""
        http = self.http
        if http is not None and http.stage is Stage.HANDLER and monotonic() - self._time > self.response_timeout:
            http.request_body = None
        super().check_timeouts()  # type: ignore[no-untyped-call]

    def close_if_idle(self) -> bool:
        """Close at a stop, unless a request is under way or may be: one that meets a closed connection is lost."""
        if monotonic() - self._time < _RECENTLY_S:
            return False
        return super().close_if_idle()
