"""Requests to places that are no BigBlueButton server: tokens from OpenID Connect providers, callbacks of clients.

Providers are declared by operators and may be anywhere. The addresses of callbacks come from callers: every address
is checked when a socket to it is made, that is after the name was resolved, so that no DNS answer gets around it.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from yarl import URL

from scalelite.errors import ScaleliteError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.core.model import LrsOidc

CALLBACK_S: Final = 10.0
_CONNECT_S: Final = 5.0
_LONGEST_TOKEN_ANSWER: Final = 1 << 20
_LIMITS: Final = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
_NAT64: Final = IPv6Network("64:ff9b::/96")


class OutboundFailed(ScaleliteError):
    """Nothing of use came back; says why without URL, secret or body."""


class AddressForbidden(OutboundFailed):
    """A callback's address is none that callers may have us ask."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token, and the seconds for which it is good."""

    text: str
    good_for_s: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request that carries a callback."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes


class Outbound:
    """Asks over two sessions, of which the callbacks' makes sockets to allowed addresses only; closed by its owner."""

    def __init__(self, *, allow_private: bool) -> None:
        self._providers = _session(aiohttp.TCPConnector(limit_per_host=16))
        factory = None if allow_private else _public_socket
        self._callbacks = _session(aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=factory))

    async def close(self) -> None:
        """Close both sessions."""
        await self._providers.close()
        await self._callbacks.close()

    async def fetch_token(self, oidc: LrsOidc, timeout_s: float) -> Token:
        """Fetch a token (grant type password) within so many seconds; raises OutboundFailed."""
        form = {
            "grant_type": "password",
            "client_id": oidc.client_id,
            "client_secret": oidc.client_secret.reveal(),
            "username": oidc.username,
            "password": oidc.password.reveal(),
        }
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._providers.post(oidc.token_url, data=form, timeout=_LIMITS, allow_redirects=False) as response,
            ):
                return _token(response.status, await response.content.read(_LONGEST_TOKEN_ANSWER))
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OutboundFailed(type(error).__name__) from None

    async def deliver(self, delivery: Delivery) -> int:
        """Send a callback and return the status; raises AddressForbidden, or OutboundFailed."""
        url = _callback_url(delivery.url)
        try:
            async with (
                asyncio.timeout(CALLBACK_S),
                self._callbacks.request(
                    delivery.method,
                    url,
                    data=delivery.body or None,
                    headers=delivery.headers,
                    timeout=_LIMITS,
                    allow_redirects=False,
                ) as response,
            ):
                return response.status
        except aiohttp.InvalidURL:
            raise AddressForbidden("no http or https URL") from None
        except aiohttp.ClientConnectorError as error:
            if error.os_error.errno == errno.EPERM:
                raise AddressForbidden("an address that callers may not have us ask") from None
            raise OutboundFailed(type(error).__name__) from None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as error:
            raise OutboundFailed(type(error).__name__) from None


def _callback_url(text: str) -> URL:
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or not url.port:
        raise AddressForbidden("no http or https URL")
    return url


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)


def _token(status: int, body: bytes) -> Token:
    """Read a provider's answer; raises OutboundFailed for a refusal, ValueError for what is no token."""
    if status != 200:
        raise OutboundFailed(f"HTTP {status}")
    answer: Any = json.loads(body)
    if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str) or not answer["access_token"]:
        raise OutboundFailed("the answer holds no access_token")
    good_for_s = answer.get("expires_in")
    return Token(answer["access_token"], float(good_for_s) if isinstance(good_for_s, int | float) else 0.0)


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make the socket for an address (as getaddrinfo has it) before it is connected; OSError if it may not be."""
    family, kind, protocol, _, place = address
    if not is_public(str(place[0])):
        raise PermissionError(errno.EPERM, "not a public address")
    return socket.socket(family, kind, protocol)


def is_public(text: str) -> bool:
    """Say whether an IP address is a unicast one of the Internet, also within addresses that carry an IPv4 one."""
    address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.is_site_local:  # deprecated, but routers may know such a network
            return False
        if address in _NAT64:
            address = IPv4Address(int(address) & 0xFFFFFFFF)
        else:
            address = address.ipv4_mapped or address.sixtofour or address
    return address.is_global and not address.is_multicast and not address.is_reserved
