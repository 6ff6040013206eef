"""doctor on servers behind TLS: real handshakes with certificates that are good, bad, or soon bad, and clocks."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from scalelite.edge.http import verifying

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from scalelite.sim import RunningServer
    from tests.plan.conftest import Here

DAY: Final = timedelta(days=1)
Signer = tuple[x509.Name, ec.EllipticCurvePrivateKey]


class Authority:
    """Makes certificates in a folder; its own is trusted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = self._signer("trusted root")
        self.unknown = self._signer("unknown root")
        (folder / "root.pem").write_bytes(self._certificate("trusted root", self.root, ca=True))

    @staticmethod
    def _signer(name: str) -> Signer:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ec.generate_private_key(ec.SECP256R1())

    def _certificate(
        self, host: str, by: Signer, *, own: Signer | None = None, days: tuple[int, int] = (-30, 90), ca: bool = False
    ) -> bytes:
        now = datetime.now(UTC)
        subject, key = own or by
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by[0])
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host.replace(" ", "-"))]), critical=False)
        )
        return builder.sign(by[1], hashes.SHA256()).public_bytes(Encoding.PEM)

    def context(self, host: str, by: Signer | None, days: tuple[int, int] = (-30, 90)) -> ssl.SSLContext:
        """Return what a server with a certificate for a host needs; without a signer it signs itself."""
        own = self._signer(host)
        path = self.folder / f"{host}.pem"
        secret = own[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        path.write_bytes(secret + self._certificate(host, by or own, own=own, days=days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


class Relays:
    """Proxies in front of a server, in a thread, each with a certificate and a clock of its own."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _stop(self) -> None:
        for server in self.servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def open(self, context: ssl.SSLContext, ahead: timedelta) -> int:
        """Return the port of a new one."""
        return asyncio.run_coroutine_threadsafe(self._open(context, ahead), self.loop).result(10)

    async def _open(self, context: ssl.SSLContext, ahead: timedelta) -> int:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError, EOFError), closing(writer):  # who refuses the certificate hangs up
                asked = await reader.readuntil(b"\r\n\r\n")
                inner, outer = await asyncio.open_connection("127.0.0.1", self.target)
                with closing(outer):
                    outer.write(asked.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                    answer = await inner.read()
                date = format_datetime(datetime.now(UTC) + ahead, usegmt=True).encode()
                writer.write(re.sub(rb"Date: [^\r]+", b"Date: " + date, answer))
                await writer.drain()

        self.servers.append(await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context))
        port: int = self.servers[-1].sockets[0].getsockname()[1]
        return port


@pytest.fixture
def declare(
    here: Here, servers: list[RunningServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., None]]:
    """Declare a server that is reached as https://NAME.test, with a certificate and a clock of its own."""
    real = socket.getaddrinfo

    def getaddrinfo(host: object, port: object, *arguments: object, **options: object) -> object:
        name = "127.0.0.1" if str(host).endswith(".test") else host
        return real(name, port, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("socket.getaddrinfo", getaddrinfo)
    here.environ("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    here.environ("URL_HOST", "localhost")
    here.environ("SERVER_SECRET", servers[0].secret)
    authority, plain = Authority(tmp_path), servers[0].listener.port
    verifying.cache_clear()
    with Relays(plain) as relays:

        def declare(
            name: str, *, host: str = "", by: str = "root", days: tuple[int, int] = (-30, 90), tls: bool = True,
            ahead: timedelta = timedelta(0),
        ) -> None:  # fmt: skip
            signer = {"root": authority.root, "unknown": authority.unknown, "itself": None}[by]
            port = relays.open(authority.context(host or f"{name}.test", signer, days), ahead) if tls else plain
            here("servers", "add", f"https://{name}.test:{port}/bigbluebutton/api", "env:SERVER_SECRET", "--id", name)
            here("servers", "enable", name)

        yield declare
    verifying.cache_clear()


@pytest.mark.shows("cli: doctor: certificates", "cli: doctor: clock against the servers", "operations: faults")
def test_certificates_and_clocks_are_judged(here: Here, declare: Callable[..., None]) -> None:
    declare("good")
    declare("soon", days=(-30, 5))
    declare("expired", days=(-90, -1))
    declare("early", days=(2, 90))
    declare("other", host="another.test")
    declare("itself", by="itself")
    declare("stranger", by="unknown")
    declare("plain", tls=False)
    declare("slow", ahead=timedelta(seconds=-90))
    declare("fast", ahead=timedelta(hours=1))
    found = here("doctor", "--format", "json", status=1).json
    verdicts = {one["subject"].removeprefix("server "): f"{one['level']}: {one['text']}" for one in found}
    refused = "fail: its certificate is refused: "
    expected = {
        "good": r"ok: answers, takes the secret, clock [-+]\d s, certificate good for (89|90) d",
        "soon": r"warn: answers, takes the secret, clock [-+]\d s, certificate good for [45] d",
        "expired": refused + "certificate has expired",
        "early": refused + "certificate is not yet valid",
        "other": refused + "Hostname mismatch, certificate is not valid for 'other.test'.",
        "itself": refused + "self-signed certificate",
        "stranger": refused + "unable to get local issuer certificate",
        "plain": "fail: does not speak TLS",
        "slow": r"warn: answers, takes the secret, clock -(89|90|91) s, certificate .*",
        "fast": r"fail: answers, takes the secret, clock \+(3599|3600|3601) s, certificate .*",
    }
    wrong = {name: verdicts[name] for name, text in expected.items() if not re.fullmatch(text, verdicts[name])}
    assert not wrong
