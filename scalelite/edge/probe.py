"""Looks at one server from outside, for `doctor`: its answer, its clock, its certificate; changes nothing."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from scalelite.core import wire
from scalelite.edge.bbb import signed_url
from scalelite.edge.http import verifying
from scalelite.errors import UselessAnswer

if TYPE_CHECKING:
    from scalelite.core.model import ServerSpec


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: `failure` is why there is no answer; the clock is the server's minus ours, in seconds.

    `key` is the messageKey of an answer that is not SUCCESS; `certificate_s` is for how long the certificate is good.
    """

    failure: str = ""
    key: str = ""
    clock_s: float | None = None
    certificate_s: float | None = None


def open_session() -> aiohttp.ClientSession:
    """Make the session that servers are looked at over."""
    connector = aiohttp.TCPConnector(ssl=verifying())
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers={"Accept-Encoding": "identity"}
    )


async def look_at(session: aiohttp.ClientSession, server: ServerSpec, algorithm: str, timeout_s: float) -> Look:
    """Ask a server what runs on it, within a time."""
    url = signed_url(server, "getMeetings", "", algorithm)
    try:
        async with asyncio.timeout(timeout_s), session.get(URL(url, encoded=True), allow_redirects=False) as response:
            clock_s = _clock(response.headers.get("Date", ""))
            if response.status != 200:
                return Look(f"answers HTTP {response.status}", clock_s=clock_s)
            reply = wire.parse_reply(await response.content.read(wire.MAX_ANSWER_BYTES + 1))
        certificate_s = await _certificate(server.url, timeout_s)
    except aiohttp.ClientConnectorCertificateError as error:
        return Look(f"its certificate is refused: {_verdict(error.certificate_error)}")
    except aiohttp.ClientConnectorSSLError:
        return Look("does not speak TLS")
    except aiohttp.ClientConnectorError as error:
        number = error.os_error.errno
        return Look(f"cannot be reached: {os.strerror(number).lower() if number and number > 0 else 'no such host'}")
    except UselessAnswer:
        return Look("answers, but not as BigBlueButton does")
    except TimeoutError:
        return Look(f"does not answer within {timeout_s:g} s")
    except (aiohttp.ClientError, OSError) as error:
        return Look(f"breaks off: {type(error).__name__}")
    return Look("", "" if reply.succeeded else reply.message_key, clock_s, certificate_s)


def _verdict(error: Exception) -> str:
    return error.verify_message if isinstance(error, ssl.SSLCertVerificationError) else type(error).__name__


def _clock(date: str) -> float | None:
    """Return how far a server's clock is ahead of ours; HTTP tells whole seconds, of which the middle is taken."""
    try:
        return parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
    except ValueError:
        return None


async def _certificate(url: str, timeout_s: float) -> float | None:
    """Return for how many seconds the certificate of an https server is still good."""
    parts = urlsplit(url)
    if parts.scheme.lower() != "https":
        return None
    async with asyncio.timeout(timeout_s):
        _, writer = await asyncio.open_connection(parts.hostname, parts.port or 443, ssl=verifying())
    try:
        return ssl.cert_time_to_seconds(writer.get_extra_info("peercert")["notAfter"]) - time.time()
    finally:
        writer.close()
