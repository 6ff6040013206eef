"""The parameters of create and join: defaults < call < overrides, what is left out, what only we may say.

Rules: spec/bbb-api.md, create 5 and join.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from uuid import UUID

    from scalelite.core.wire import Params

TAG: Final = "meta_server-tag"
SERVER_ID: Final = "meta_server-id"
# Metadata that only the load balancer may set, in any letter case: BigBlueButton lower-cases the keys.
OURS: Final = frozenset({"meta_tenant-id", "meta_tenant-name", "meta_secret-lrs-payload", TAG})
# That all candidates are taken: 1e-16 for 100,000 meetings with numbers of 9 digits, and for 10,000 with those of 5.
_CANDIDATES: Final = 4
_CANDIDATES_OF_FEW_DIGITS: Final = 16
_FEW_DIGITS: Final = 8
_UNJOINABLE_BRIDGE: Final = "99999"


@dataclass(frozen=True, slots=True)
class Layers:
    """What a kind of call gets beside its own parameters, from the cluster and from its tenant."""

    cluster_default: Mapping[str, str] = field(default_factory=dict)
    tenant_default: Mapping[str, str] = field(default_factory=dict)
    cluster_override: Mapping[str, str] = field(default_factory=dict)
    tenant_override: Mapping[str, str] = field(default_factory=dict)

    def merge(self, call: Mapping[str, str]) -> Params:
        """Return the call's parameters over the defaults and under the overrides; a tenant's win over the cluster's."""
        return {**self.cluster_default, **self.tenant_default, **call, **self.cluster_override, **self.tenant_override}

    def tag(self, call: Mapping[str, str]) -> str:
        """Return the first wanted server tag that is not empty, or ''."""
        order = (self.tenant_override, self.cluster_override, call, self.tenant_default, self.cluster_default)
        return next((tag for layer in order if (tag := layer.get(TAG, ""))), "")


@dataclass(frozen=True, slots=True)
class Placement:
    """What a create carries because of where its meeting was placed; a server's id only where it may be told."""

    server_tag: str
    voice_bridge: str
    moderator_pw: str
    new: bool
    server_id: str = ""


def merged(call: Mapping[str, str], layers: Layers, excluded: Iterable[str] = ()) -> Params:
    """Return a call's parameters with what its tenant and the cluster say, without those that are left out."""
    left_out = set(excluded)
    return {name: value for name, value in layers.merge(call).items() if name not in left_out}


def for_create(
    wanted: Mapping[str, str], placement: Placement, *, tenant: tuple[UUID, str] | None, max_duration: int = 0
) -> Params:
    """Return the parameters that the server gets, of merged ones; `tenant` is id and name, None without tenants."""
    params = {name: value for name, value in wanted.items() if name.lower() not in OURS}
    _set_password(params, placement)
    if max_duration:
        params["duration"] = capped_duration(params.get("duration", ""), max_duration)
    params["voiceBridge"] = placement.voice_bridge
    if placement.server_tag:
        params[TAG] = placement.server_tag
    if placement.server_id:
        params = {name: value for name, value in params.items() if name.lower() != SERVER_ID}
        params[SERVER_ID] = placement.server_id
    if tenant:
        params["meta_tenant-id"], params["meta_tenant-name"] = str(tenant[0]), tenant[1]
    return params


def _set_password(params: Params, placement: Placement) -> None:
    """BigBlueButton compares passwords only: a repeat must bring the ones that the first create brought, or none."""
    if params.get("moderatorPW"):
        return
    params.pop("moderatorPW", None)
    if placement.new or params.get("attendeePW"):
        params["moderatorPW"] = placement.moderator_pw


def capped_duration(asked: str, longest: int) -> str:
    """Return the duration in minutes; a missing one and 0, which means no end, count as too long."""
    minutes = int(asked) if asked.isascii() and asked.isdigit() else 0
    return str(minutes if 0 < minutes <= longest else longest)


def voice_bridges(meeting_id: str, digits: int, external: str = "") -> list[str]:
    """Return candidates for a meeting's dial-in number, the preferred first; the same for the same id.

    `external` is what the call asks for, where it may. The next is what Scalelite gives: Ruby's generator is Python's,
    seeded with the same 128 bits of the id's hash. The first digit is never 0, and 99999 makes a meeting unjoinable
    (bigbluebutton.md 1.4).
    """
    hashed = hashlib.sha256(meeting_id.encode()).digest()
    seed = int.from_bytes(hashed[0:8], "little") << 64 | int.from_bytes(hashed[8:16], "little")
    numbers = _numbers(random.Random(seed), digits)  # noqa: S311 - numbers that anybody may dial
    found: list[str] = [external] if _may_be_bridge(external) else []
    while len(found) < (_CANDIDATES_OF_FEW_DIGITS if digits <= _FEW_DIGITS else _CANDIDATES):
        number = next(numbers)
        if number not in found and number != _UNJOINABLE_BRIDGE:
            found.append(number)
    return found


def _may_be_bridge(number: str) -> bool:
    """Say whether a number can be a meeting's: digits that fit into a Java long, but not 99999."""
    return number.isascii() and number.isdigit() and 0 < int(number) < 1 << 63 and number != _UNJOINABLE_BRIDGE


# What the last four bits of a byte are as a digit, and the bytes where they are too large for one.
_DIGITS: Final = bytes(ord("0") + (byte & 15) for byte in range(256))
_NO_DIGITS: Final = bytes(byte for byte in range(256) if byte & 15 > 9)
_DRAWN_AT_ONCE: Final = 64


def _numbers(generator: random.Random, digits: int) -> Iterator[str]:
    """Yield numbers whose digits are drawn as Ruby's Random.rand(lowest..9) does it, many at once.

    A digit is the last four of 32 bits, drawn again while they are too large. The first begins at 1: one more than what
    is drawn, which must be under 9.
    """
    drawn = b""
    while True:
        while len(drawn) < digits:
            words = generator.getrandbits(32 * _DRAWN_AT_ONCE).to_bytes(4 * _DRAWN_AT_ONCE, "little")
            drawn = (drawn + words[::4].translate(_DIGITS, _NO_DIGITS)).lstrip(b"9")
        yield chr(drawn[0] + 1) + drawn[1:digits].decode()
        drawn = drawn[digits:].lstrip(b"9")
