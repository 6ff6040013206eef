"""The client of the hot path against servers that answer as no server should, byte by byte; on both event loops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from scalelite.edge.http import BrokenOff, HttpAnswer, HttpClient, HttpFailed, NotConnected, TooLarge, origin_of
from tests.e2e.chaos import certificate

if TYPE_CHECKING:
    from pathlib import Path

MOST = 100_000
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sized(body: bytes = b"<r/>", *headers: bytes) -> bytes:
    return OK + b"".join(header + b"\r\n" for header in headers) + b"Content-Length: %d\r\n\r\n" % len(body) + body


@dataclass
class Server:
    """Answers each request with the next part of its script; b'' closes the connection. It counts what it sees."""

    port: int = 0
    script: list[bytes] = field(default_factory=list)
    requests: list[bytes] = field(default_factory=list)
    open_: set[asyncio.StreamWriter] = field(default_factory=set)
    accepted: int = 0
    most_open: int = 0
    drip: bool = False
    wait: asyncio.Event | None = None

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open_.add(writer)
        self.most_open = max(self.most_open, len(self.open_))
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self.open_.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
        self.requests.append(head + await reader.readexactly(length))
        if self.wait:
            await self.wait.wait()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        for part in [answer[place : place + 1] for place in range(len(answer))] if self.drip else [answer]:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        return b"Connection: close" not in answer and bool(answer)


@dataclass
class Harness:
    server: Server
    client: HttpClient
    scheme: str = "http"

    async def get(self, total_s: float = 10, content: bytes = b"", content_type: str = "") -> HttpAnswer:
        origin, path = origin_of(f"{self.scheme}://127.0.0.1:{self.server.port}/bigbluebutton/api")
        return await self.client.exchange(origin, f"{path}/x?a=b", content, content_type, 5, total_s)


@asynccontextmanager
async def harness(*script: bytes, served: ssl.SSLContext | None = None, **how: Any) -> AsyncIterator[Harness]:
    server = Server(script=list(script))
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=served)
    server.port = listening.sockets[0].getsockname()[1]
    client = HttpClient(**{"connections_per_origin": 4, "most_bytes": MOST, **how})
    try:
        yield Harness(server, client, "https" if served else "http")
    finally:
        await client.close()
        listening.close()
        for writer in server.open_:
            writer.transport.abort()
        await eventually(lambda: not server.open_)


async def eventually(probe: Callable[[], bool], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    while not probe():
        assert time.monotonic() < deadline, f"not so within {within_s:g} s"
        await asyncio.sleep(0.005)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run a test on one of the loops that this client is used with: the poller's, the workers'."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def run_(test: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(test)

    return run_


Run = Callable[[Any], None]

# --- what an answer may look like ------------------------------------------------------------------------------------

# The answer, what is read of it, and whether the connection serves for another.
ANSWERS: dict[str, tuple[bytes, tuple[int, str, bytes], bool]] = {
    "with a length": (sized(), (200, "", b"<r/>"), True),
    "empty": (sized(b""), (200, "", b""), True),
    "of an error": (b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", (503, "", b"no"), True),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n", (302, "", b""), True),
    "packed": (sized(b"zzz", b"Content-Encoding: GZip"), (200, "gzip", b"zzz"), True),
    "in chunks": (CHUNKED + b"2\r\n<r\r\n2;a=b\r\n/>\r\n0\r\n\r\n", (200, "", b"<r/>"), True),
    "in chunks with trailers": (
        CHUNKED + b"4\r\n<r/>\r\n0\r\nContent-Encoding: gzip\r\nX: y\r\n\r\n", (200, "", b"<r/>"), True,
    ),
    "after interim ones": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nContent-Encoding: gzip\r\n\r\n" + sized(),
        (200, "", b"<r/>"), True,
    ),
    "without a body: 204": (b"HTTP/1.1 204 No Content\r\n\r\n", (204, "", b""), True),
    "without a body: 304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", (304, "", b""), True),
    "that closes": (sized(b"<r/>", b"Connection: close"), (200, "", b"<r/>"), False),
    "until the close": (OK + b"Connection: close\r\n\r\n<r/>", (200, "", b"<r/>"), False),
    "of HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\n<r/>", (200, "", b"<r/>"), False),
    "that changes the protocol": (
        b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", (101, "", b""), False,
    ),
    "with something behind it": (sized() + b"<r/>", (200, "", b"<r/>"), False),
    "with another behind it": (sized() + sized(b"<another/>"), (200, "", b"<r/>"), False),
}  # fmt: skip


@pytest.mark.shows("bbb-api: join, end and the others", "issue E: speed")
@pytest.mark.parametrize("drip", [False, True], ids=["at once", "byte by byte"])
def test_answers_of_all_kinds_are_read(run: Run, drip: bool) -> None:
    async def test() -> None:
        async with harness(b"") as each:
            each.server.drip = drip
            for name, (raw, expected, kept) in ANSWERS.items():
                each.server.script = [raw]
                accepted = each.server.accepted
                for _ in range(2):
                    answer = await each.get()
                    assert (answer.status, answer.encoding, answer.body) == expected, name
                    if drip and "behind it" in name:  # it is on its way still, and nobody waits for it
                        await eventually(lambda: not each.server.open_)
                if kept:
                    assert each.server.accepted - accepted <= 1, name
                else:
                    await eventually(lambda: not each.server.open_)

    run(test())


FAILURES: dict[str, tuple[bytes, type[HttpFailed]]] = {
    "nothing": (b"", BrokenOff),
    "half a head": (OK + b"Connection: close\r\nContent-Len", BrokenOff),
    "less than its length": (OK + b"Connection: close\r\nContent-Length: 9\r\n\r\n<r/>", BrokenOff),
    "chunks without an end": (OK + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<r/>\r\n", BrokenOff),
    "an interim one alone": (b"HTTP/1.1 100 Continue\r\nConnection: close\r\n\r\n", BrokenOff),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", BrokenOff),
    "another version": (b"HTTP/3.0 200 OK\r\nContent-Length: 0\r\n\r\n", BrokenOff),
    "two lengths": (sized(b"<r/>", b"Content-Length: 3"), BrokenOff),
    "a length and chunks": (sized(b"0\r\n\r\n", b"Transfer-Encoding: chunked"), BrokenOff),
    "a negative length": (OK + b"Content-Length: -1\r\n\r\n", BrokenOff),
    "a bad chunk": (CHUNKED + b"0x4\r\n<r/>\r\n0\r\n\r\n", BrokenOff),
    "a chunk longer than it says": (CHUNKED + b"2\r\n<r/>\r\n0\r\n\r\n", BrokenOff),
    "NUL in a header": (sized(b"<r/>", b"A: \0"), BrokenOff),
    "a folded header": (sized(b"<r/>", b"A: b", b" c"), BrokenOff),
    "a large body": (sized(b" " * (MOST + 1)), TooLarge),
    "a large body in chunks": (CHUNKED + b"400\r\n" + b" " * 1024 + b"\r\n" + b"1\r\n \r\n" * MOST, TooLarge),
    "a large body until the close": (OK + b"Connection: close\r\n\r\n" + b" " * (MOST + 1), TooLarge),
    "a large header": (OK + b"A: " + b"a" * 2_000_000, TooLarge),
    "many headers": (OK + b"A: b\r\n" * 400_000, TooLarge),
    "interim ones for ever": (b"HTTP/1.1 102 Processing\r\n\r\n" * 40_000, TooLarge),
    "a large chunk extension": (CHUNKED + b"1;" + b"a" * 2_000_000, TooLarge),
    "large trailers": (CHUNKED + b"1\r\n \r\n0\r\n" + b"A: b\r\n" * 400_000, TooLarge),
}


@pytest.mark.shows("operations: faults of servers", "bbb-api: join, end and the others")
def test_what_is_no_answer_fails_and_ends_its_connection(run: Run) -> None:
    async def test() -> None:
        async with harness(b"") as each:
            for name, (raw, expected) in FAILURES.items():
                each.server.script = [raw]
                with pytest.raises(HttpFailed) as failed:
                    await each.get()
                assert issubclass(failed.type, expected), name
                await eventually(lambda: not each.server.open_)
                each.server.script = [sized(b"<next/>")]
                assert (await each.get()).body == b"<next/>", name

    run(test())


# --- which connection ------------------------------------------------------------------------------------------------


@pytest.mark.shows("bbb-api: a reused connection never shows one call's bytes to another")
def test_an_answer_that_comes_too_late_or_unasked_is_nobodys(run: Run) -> None:
    async def test() -> None:
        async with harness(sized(b"<1/>"), sized(b"<late/>"), sized(b"<3/>")) as each:
            await each.get()
            each.server.wait = asyncio.Event()
            with pytest.raises(TimeoutError):
                await each.get(total_s=0.05)
            given_up = asyncio.create_task(each.get())
            await eventually(lambda: len(each.server.requests) == 3)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            each.server.wait.set()
            each.server.wait = None
            await eventually(lambda: not each.server.open_)
            each.server.script = [sized(b"<4/>")]
            assert (await each.get()).body == b"<4/>"
            (idle,) = each.server.open_
            idle.write(sized(b"<unasked/>"))
            await eventually(lambda: not each.server.open_)
            assert (await each.get()).body == b"<4/>"
            assert each.server.accepted == 4

    run(test())


@pytest.mark.shows("bbb-api: join, end and the others")
def test_a_get_on_a_connection_that_was_just_closed_is_sent_again_and_a_post_is_not(run: Run) -> None:
    async def test() -> None:
        async with harness(sized(), b"", sized(b"<2/>"), b"", sized()) as each:
            await each.get()
            assert (await each.get()).body == b"<2/>"
            assert (each.server.accepted, len(each.server.requests)) == (2, 3)
            with pytest.raises(BrokenOff):
                await each.get(content=b"a=b", content_type="text/xml")
            assert each.server.requests[-1].endswith(b"Content-Type: text/xml\r\nContent-Length: 3\r\n\r\na=b")
            assert len(each.server.requests) == 4
            each.server.script = [b""]
            with pytest.raises(BrokenOff):
                await each.get()
            assert len(each.server.requests) == 6, "twice, and no more"

    run(test())


@pytest.mark.shows("bbb-api: one hung server may hold at most 32 connections")
def test_connections_are_bounded_kept_and_closed_when_idle(run: Run) -> None:
    async def test() -> None:
        async with harness(sized(), idle_s=0.2) as each:
            each.server.wait = asyncio.Event()
            calls = [asyncio.create_task(each.get()) for _ in range(20)]
            await eventually(lambda: len(each.server.requests) == 4)
            calls.pop().cancel()  # one that waits for a connection
            calls.pop(0).cancel()  # one that has one
            with pytest.raises(TimeoutError):
                await each.get(total_s=0.05)
            each.server.wait.set()
            assert {answer.body for answer in await asyncio.gather(*calls)} == {b"<r/>"}
            assert each.server.most_open <= 5  # the server hears of a close somewhat later
            assert each.server.accepted <= 5
            await eventually(lambda: not each.server.open_)
            await eventually(lambda: not each.client._pools)
            assert (await each.get()).body == b"<r/>"

    run(test())


@pytest.mark.shows("operations: no leak of connections")
def test_closing_the_client_ends_calls_under_way_and_all_connections(run: Run) -> None:
    async def test() -> None:
        async with harness(sized()) as each:
            await each.get()
            each.server.wait = asyncio.Event()
            calls = [asyncio.create_task(each.get()) for _ in range(3)]
            await eventually(lambda: len(each.server.requests) == 4)
            await each.client.close()
            assert all(isinstance(end, HttpFailed) for end in await asyncio.gather(*calls, return_exceptions=True))
            each.server.wait.set()
            await eventually(lambda: not each.server.open_)
            with pytest.raises(NotConnected):
                await each.get()

    run(test())


@pytest.mark.shows("operations: faults of servers")
def test_where_there_is_no_connection_it_is_said_why(run: Run, tmp_path: Path) -> None:
    async def failure(url: str, connect_s: float = 5) -> str:
        client = HttpClient(connections_per_origin=4, most_bytes=MOST)
        origin, path = origin_of(url)
        with pytest.raises(NotConnected) as failed:
            await client.exchange(origin, f"{path}/x", b"", "", connect_s, 10)
        await client.close()
        return str(failed.value)

    async def test() -> None:
        async with harness(sized()) as plain, harness(sized(), served=certificate(tmp_path)) as tls:
            assert await failure("http://127.0.0.1:1/api") == "Connection refused"
            assert await failure("http://no-such-host.invalid/api")
            assert "certificate is refused" in await failure(f"https://127.0.0.1:{tls.server.port}/api")
            with socket.create_server(("127.0.0.1", 0)) as hung:  # the kernel connects, and nobody says hello
                port = hung.getsockname()[1]
                assert await failure(f"https://127.0.0.1:{port}/api", 0.1) == "no connection in time"
            assert await failure(f"https://127.0.0.1:{plain.server.port}/api", 1)

    run(test())


@pytest.mark.shows("operations: faults of servers")
def test_tls_connections_are_kept_and_closed_too(run: Run, tmp_path: Path) -> None:
    server_side = certificate(tmp_path)

    def trusting() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        context.check_hostname = False
        return context

    async def test() -> None:
        async with harness(sized(), served=server_side, tls=trusting) as each:
            for _ in range(3):
                assert (await each.get()).body == b"<r/>"
            assert each.server.accepted == 1
            (idle,) = each.server.open_
            idle.write(sized(b"<unasked/>"))
            await eventually(lambda: not each.server.open_)
            assert (await each.get()).body == b"<r/>"

    run(test())


@pytest.mark.shows("operations: faults of servers")
@pytest.mark.parametrize("target", ["/a b", "/a\r\nX: y", "/a\n", "a", "/é", "/a\0"])
def test_nothing_is_sent_that_would_be_more_than_one_request(run: Run, target: str) -> None:
    async def test() -> None:
        async with harness(sized()) as each:
            origin, _ = origin_of(f"http://127.0.0.1:{each.server.port}/api")
            for at, content_type in ((target, ""), ("/x", f"text/xml{target[2:]}\r\n")):
                with pytest.raises(ValueError, match="cannot stand in a request"):
                    await each.client.exchange(origin, at, b"a" if content_type else b"", content_type, 5, 5)
            assert not each.server.accepted

    run(test())


@pytest.mark.parametrize(
    ("url", "name", "host_header", "path"),
    [
        ("https://B.example.com/bbb/api", "https://b.example.com:443", "b.example.com", "/bbb/api"),
        ("http://bbb1:8080/api", "http://bbb1:8080", "bbb1:8080", "/api"),
        ("http://[2001:db8::1]:80/api/", "http://2001:db8::1:80", "[2001:db8::1]", "/api"),
        ("https://bücher.example/ä/api", "https://xn--bcher-kva.example:443", "xn--bcher-kva.example", "/%C3%A4/api"),
    ],
)  # fmt: skip
@pytest.mark.shows("bbb-api: checksum, what goes to a server")
def test_an_origin_is_what_a_url_says(url: str, name: str, host_header: str, path: str) -> None:
    origin, below = origin_of(url)
    assert (origin.name, origin.host_header, below) == (name, host_header, path)
