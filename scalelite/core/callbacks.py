"""Callbacks: which parameters of a create are taken out or replaced, how deliveries are signed, when they are repeated.

Servers call us; clients are called by us, signed with the secret that authenticated the create (bigbluebutton.md 1.5).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import urlencode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scalelite.core.wire import Params

PATH: Final = "/bigbluebutton/api"
ANALYTICS: Final = "meta_analytics-callback-url"
ENDED: Final = "meetingEndedURL"
END_CALLBACK: Final = "meta_endcallbackurl"
RECORDING_READY: Final = frozenset(
    {"meta_bn-recording-ready-url", "meta_bbb-recording-ready-url", "meta_canvas-recording-ready-url"}
)
# The paths that servers call with a meeting's token when it has ended, by the parameter that each stands for.
END_PATHS: Final = {ENDED: "meeting_ended", END_CALLBACK: "end_callback"}
_HOOKS: Final = RECORDING_READY | {ANALYTICS} | END_PATHS.keys()

GIVE_UP_AFTER_S: Final = 24 * 3600.0
_FIRST_RETRY_S: Final = 5.0
_LONGEST_RETRY_S: Final = 3600.0
_ANALYTICS_TOKEN_S: Final = 24 * 3600

Algorithm = Literal["HS256", "HS512"]
_HASHES: Final = {"HS256": hashlib.sha256, "HS512": hashlib.sha512}


@dataclass(frozen=True, slots=True)
class Hook:
    """What a client wants to be called for; `name` is the parameter, metadata in lower case."""

    name: str
    url: str


# --- parameters of create --------------------------------------------------------------------------------------------


def base_url(tenant_name: str, url_host: str, asked: str) -> str:
    """Return where servers reach us for a tenant ('': no tenants); without URL_HOST, at the address that was asked."""
    if not url_host:
        return asked
    return f"https://{tenant_name}.{url_host}" if tenant_name else f"https://{url_host}"


def hooks_of(params: Mapping[str, str]) -> tuple[Hook, ...]:
    """Return what a create wants to be called for; an empty URL is none."""
    found = {
        key: Hook(key, url) for name, value in params.items() if (key := _hook_name(name)) and (url := value.strip())
    }
    return tuple(found.values())


def intercepted(params: Mapping[str, str], base: str, token: str) -> Params:
    """Return the parameters that the server gets: URLs taken out, or replaced by ours.

    `token` is the meeting's own and cannot be guessed.
    """
    passed: Params = {}
    for name, value in params.items():
        key = _hook_name(name)
        if not key:
            passed[name] = value
        elif key == ANALYTICS and value.strip():
            passed[name] = f"{base}{PATH}/analytics_callback"
        elif key in END_PATHS and value.strip():
            passed[name] = f"{base}{PATH}/{END_PATHS[key]}/{token}"
    return passed


def _hook_name(name: str) -> str:
    """Return the hook that a parameter names, or ''; metadata counts in any letter case, as in BigBlueButton."""
    key = name.lower() if name[:5].lower() == "meta_" else name
    return key if key in _HOOKS else ""


def end_url(hook: Hook, query: str) -> str:
    """Return the client's URL for the end of a meeting, with what BigBlueButton has added to ours."""
    if not query:
        return hook.url
    return f"{hook.url}{'&' if '?' in hook.url else '?'}{query}"


# --- signatures ------------------------------------------------------------------------------------------------------


def analytics_headers(secret: str, now_s: int) -> dict[str, str]:
    """Return the headers of forwarded analytics."""
    token = sign_jwt({"exp": now_s + _ANALYTICS_TOKEN_S}, secret, "HS512")
    return {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}


def recording_ready_body(meeting_id: str, record_id: str, secret: str, algorithms: Sequence[str]) -> str:
    """Return the form that says that a recording is ready; HS512 where SHA-256 is not among the checksums allowed."""
    algorithm: Algorithm = "HS256" if "SHA256" in algorithms else "HS512"
    jwt = sign_jwt({"meeting_id": meeting_id, "record_id": record_id}, secret, algorithm)
    return urlencode({"signed_parameters": jwt})


def sign_jwt(claims: Mapping[str, Any], secret: str, algorithm: Algorithm) -> str:
    """Return a JSON Web Token."""
    head = _encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    signed = f"{head}.{_encode(json.dumps(claims).encode())}"
    return f"{signed}.{_encode(_mac(signed, secret, algorithm))}"


def signers(token: str, secrets: Mapping[str, Sequence[str]], now_s: int) -> frozenset[str]:
    """Return the names (of servers) whose secrets have signed a token (HS512) that has not expired; none if nobody's.

    Takes the same time for each secret.
    """
    signed, _, mac = token.rpartition(".")
    try:
        head, claims = (json.loads(_decode(part)) for part in signed.split("."))
        given = _decode(mac)
        good = head["alg"] == "HS512" and now_s < float(claims["exp"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return frozenset()
    matching = [
        name
        for name, some in secrets.items()
        for secret in some
        if hmac.compare_digest(_mac(signed, secret, "HS512"), given)
    ]
    return frozenset(matching) if good else frozenset()


def _mac(signed: str, secret: str, algorithm: Algorithm) -> bytes:
    return hmac.new(secret.encode(), signed.encode(), _HASHES[algorithm]).digest()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def meeting_of(body: bytes) -> str:
    """Return the meeting id that analytics (JSON) are about, or ''."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    meeting_id = found.get("meeting_id") if isinstance(found, dict) else None
    return meeting_id if isinstance(meeting_id, str) and "\0" not in meeting_id else ""


# --- deliveries ------------------------------------------------------------------------------------------------------

Outcome = Literal["done", "refused", "again", "given up"]
_DONE: Final = range(200, 300)
_REFUSED: Final = frozenset({404, 410})


def judge(status: int, age_s: float, attempts: int) -> Outcome:
    """Say what becomes of a delivery after an answer (0: none); 404 and 410 are final, all else is tried for 24 h."""
    if status in _DONE:
        return "done"
    if status in _REFUSED:
        return "refused"
    return "again" if age_s + retry_in_s(attempts) <= GIVE_UP_AFTER_S else "given up"


def retry_in_s(attempts: int) -> float:
    """Return the seconds until the next attempt, after so many."""
    return min(_FIRST_RETRY_S * 2.0 ** (min(attempts, 20) - 1), _LONGEST_RETRY_S)
