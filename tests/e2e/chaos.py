"""What comes between: a way to Postgres that can be shut, frozen or cut at a statement, and servers that misbehave."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

# --- between the service and Postgres --------------------------------------------------------------------------------

# A simple query, and the end of an extended one: with each a statement is sent off.
_STATEMENTS: Final = b"QS"
_ASKS_FOR_TLS: Final = tuple(number.to_bytes(4) for number in (80877103, 80877104))


class Gate:
    """A way to Postgres: shut, connections break and new ones are refused; frozen, nothing goes through either way.

    `cut_at(n)` breaks the connection of the n-th statement from now on: before Postgres sees it, or when it answers.
    """

    def __init__(self, conninfo: str) -> None:
        parts = conninfo_to_dict(conninfo)
        self._path = f"{parts['host']}/.s.PGSQL.{parts['port']}"
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port: int = probe.getsockname()[1]
        self.conninfo = make_conninfo(conninfo, host="127.0.0.1", port=self._port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()
        self._left = 0
        self._when: Literal["before", "after"] = "before"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)

    async def shut(self) -> None:
        if self._server:
            self._server.close()
        self._flows.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def freeze(self) -> None:
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def cut_at(self, statement: int, when: Literal["before", "after"]) -> None:
        self._left, self._when = statement, when

    def has_cut(self) -> bool:
        """Say whether the statement came; none is waited for from now on."""
        waits, self._left = self._left > 0, 0
        return not waits

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        inner, outer = await asyncio.open_unix_connection(self._path)
        try:
            with suppress(asyncio.CancelledError, ConnectionError, asyncio.IncompleteReadError):
                await asyncio.gather(self._ask(reader, outer), self._answer(inner, writer))
        finally:
            self._tasks.discard(task)
            outer.transport.abort()
            writer.transport.abort()

    async def _ask(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        """Pass on what the service says, message by message; until it has asked for TLS they have no type."""
        while await self._pass(source, target, b"") in _ASKS_FOR_TLS:
            pass
        while True:
            kind = await source.readexactly(1)
            cuts = kind in _STATEMENTS and self._left == 1
            self._left -= kind in _STATEMENTS and self._left > 0
            if cuts and self._when == "before":
                raise ConnectionResetError
            await self._pass(source, target, kind)
            if cuts:
                raise ConnectionResetError

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, kind: bytes) -> bytes:
        length = await source.readexactly(4)
        content = await source.readexactly(int.from_bytes(length) - 4)
        await self._flows.wait()
        target.write(kind + length + content)
        await target.drain()
        return content

    async def _answer(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while content := await source.read(65536):
            await self._flows.wait()
            target.write(content)
            await target.drain()
        raise ConnectionResetError


@asynccontextmanager
async def gate_to(conninfo: str) -> AsyncIterator[Gate]:
    gate = Gate(conninfo)
    await gate.open()
    try:
        yield gate
    finally:
        await gate.shut()


# --- servers that misbehave ------------------------------------------------------------------------------------------

OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\n"
Misbehaviour = Literal["hang", "drip", "500", "garbage", "html", "100 MB", "early close", "bad certificate", "no DNS"]


async def _hang(_: asyncio.StreamWriter) -> None:
    await asyncio.sleep(3600)


async def _drip(writer: asyncio.StreamWriter) -> None:
    for byte in OK * 100:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.2)


async def _huge(writer: asyncio.StreamWriter) -> None:
    writer.write(OK + b"Content-Length: 104857600\r\n\r\n<response>")
    for _ in range(1600):
        writer.write(b" " * 65536)
        await writer.drain()


def _says(content: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return say


_ANSWERS: Final[dict[str, Callable[[asyncio.StreamWriter], Awaitable[None]]]] = {
    "hang": _hang,
    "drip": _drip,
    "500": _says(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
    "garbage": _says(OK + b"Content-Length: 4\r\n\r\n\xff\x00<\xfe"),
    "html": _says(OK + b"Content-Length: 13\r\n\r\n<html></html>"),
    "100 MB": _huge,
    "early close": _says(OK + b"Content-Length: 500\r\n\r\n<response><return"),
    "bad certificate": _hang,
}


@asynccontextmanager
async def misbehaving(how: Misbehaviour, folder: Path) -> AsyncIterator[str]:
    """Run a server that misbehaves; yield its URL."""
    if how == "no DNS":
        yield "http://no-such-server.invalid/bigbluebutton/api"
        return

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await reader.readuntil(b"\r\n\r\n")
            await _ANSWERS[how](writer)
        writer.transport.abort() if how != "early close" else writer.close()

    tls = certificate(folder) if how == "bad certificate" else None
    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/bigbluebutton/api"
    finally:
        server.close()


def certificate(folder: Path) -> ssl.SSLContext:
    """A certificate that nobody trusts, of another host."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "another.example.com")])
    now = dt.datetime.now(dt.UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    signed = built.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1)).sign(key, hashes.SHA256())
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + signed.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
