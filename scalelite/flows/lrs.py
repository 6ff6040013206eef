"""The xAPI payload of a create: a token if the tenant's LRS wants one, then the encryption in a thread.

A token is fetched once and kept until shortly before it expires; creates that come together wait for one request, a
repeated create makes none, and a provider that failed is left alone for a while. Rules: spec/bbb-api.md, xAPI.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from scalelite.core import lrs
from scalelite.edge.outbound import OutboundFailed
from scalelite.errors import CreateFailed

if TYPE_CHECKING:
    from uuid import UUID

    from scalelite.core.model import LrsOidc, ServerSpec
    from scalelite.flows.cluster import Tenant
    from scalelite.flows.services import Services

log = logging.getLogger(__name__)

TOKEN_TIMEOUT_S: Final = 3.0
# A token that is about to expire is of no use to a meeting that begins now.
SKEW_S: Final = 30.0
LEAVE_ALONE_S: Final = 10.0

TOKEN_FAILURES: Final = Counter(
    "scalelite_lrs_token_failures", "Tokens for a tenant's LRS that could not be had.", ["tenant"]
)


@dataclass(frozen=True, slots=True)
class _Kept:
    """A token, or '' for a failure, and until when (milliseconds since 1970) it is not asked for again."""

    oidc: LrsOidc
    text: str
    until_ms: float


class LrsPayloads:
    """Makes payloads; keeps each tenant's token in the memory of this worker."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._kept: dict[UUID, _Kept] = {}
        self._fetching: dict[tuple[UUID, LrsOidc], asyncio.Task[str]] = {}

    async def for_create(self, tenant: Tenant, server: ServerSpec, *, new: bool) -> str:
        """Return the payload for a meeting on a server, or '' where there is none to send.

        Raises CreateFailed if a new meeting's token cannot be had and the LRS says `on_error: fail`.
        """
        spec = tenant.lrs
        if spec is None:
            return ""
        token = await self._token(tenant, spec.oidc, new=new) if spec.oidc else ""
        if spec.oidc and not token:
            if new and spec.on_error == "fail":
                raise CreateFailed
            return ""
        random = self._services.random
        prefix, salt = random.randbytes(lrs.PREFIX_BYTES), random.randbytes(lrs.SALT_BYTES)
        return await asyncio.to_thread(lrs.payload, spec, token, server.secret, prefix=prefix, salt=salt)

    async def _token(self, tenant: Tenant, oidc: LrsOidc, *, new: bool) -> str:
        """Return a token, or '' if none can be had; a repeated create gets one only if it is there already."""
        kept = self._kept.get(tenant.id)
        if kept and kept.oidc == oidc and self._services.now_ms() < kept.until_ms:
            if new and not kept.text:
                self._failed(tenant, "the provider has just failed")
            return kept.text
        if not new:
            return ""
        fetching = self._fetching.get((tenant.id, oidc))
        if fetching is None:
            fetching = asyncio.create_task(self._fetch(tenant, oidc))
            self._fetching[tenant.id, oidc] = fetching
            fetching.add_done_callback(lambda _: self._fetching.pop((tenant.id, oidc), None))
        return await asyncio.shield(fetching)

    async def _fetch(self, tenant: Tenant, oidc: LrsOidc) -> str:
        try:
            token = await self._services.outbound.fetch_token(oidc, TOKEN_TIMEOUT_S)
        except OutboundFailed as error:
            self._failed(tenant, str(error))
            self._keep(tenant, oidc, "", LEAVE_ALONE_S)
            return ""
        self._keep(tenant, oidc, token.text, token.good_for_s - min(SKEW_S, token.good_for_s / 2))
        return token.text

    def _keep(self, tenant: Tenant, oidc: LrsOidc, text: str, for_s: float) -> None:
        self._kept[tenant.id] = _Kept(oidc, text, self._services.now_ms() + for_s * 1000)

    def _failed(self, tenant: Tenant, why: str) -> None:
        TOKEN_FAILURES.labels(tenant.name).inc()
        log.warning("no token for the LRS of tenant %s: %s", tenant.name, why)
