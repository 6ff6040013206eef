"""AWS Signature Version 4 for requests to S3-compatible storage; sends nothing."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from scalelite.core.model import Secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signs, and for which region; the session token goes with keys that are lent for a time."""

    access_key_id: str
    secret_access_key: Secret
    region: str
    session_token: Secret


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request: the path is encoded, the query is not; `body` is sent whole."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def raw_query(self) -> str:
        """The query as it is signed and sent."""
        return "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in sorted(self.query.items()))


def signed_headers(request: Unsigned, credentials: Credentials, now: datetime) -> dict[str, str]:
    """Return the headers to send, with the signature; what else is sent must not be added to them."""
    stamp, digest = f"{now:%Y%m%dT%H%M%SZ}", hashlib.sha256(request.body).hexdigest()
    headers = {**request.headers, "host": request.host, "x-amz-date": stamp, "x-amz-content-sha256": digest}
    if credentials.session_token:
        headers["x-amz-security-token"] = credentials.session_token.reveal()
    headers = {name.lower(): value.strip() for name, value in headers.items()}
    names = ";".join(sorted(headers))
    canonical = "\n".join(
        (
            request.method,
            request.path,
            request.raw_query,
            *(f"{name}:{headers[name]}" for name in sorted(headers)),
            "",
            names,
            digest,
        )
    )
    scope = f"{now:%Y%m%d}/{credentials.region}/s3/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    signature = hmac.digest(_key(credentials, now), to_sign.encode(), "sha256").hex()
    who = f"Credential={credentials.access_key_id}/{scope}"
    return {**headers, "authorization": f"AWS4-HMAC-SHA256 {who}, SignedHeaders={names}, Signature={signature}"}


def _key(credentials: Credentials, now: datetime) -> bytes:
    key = f"AWS4{credentials.secret_access_key.reveal()}".encode()
    for part in (f"{now:%Y%m%d}", credentials.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
