"""Who may play what: published recordings of the asked tenant, protected ones by a one-time token and then by cookie.

What may not be played is not there: unknown, foreign, unpublished, deleted and closed ones are the same.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from scalelite.core import playback
from scalelite.core.playback import COOKIE, Target
from scalelite.core.recording import folder_of
from scalelite.errors import ChecksumError, NotPlayable
from scalelite.store import playback as store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from scalelite.flows.services import Services
    from scalelite.flows.snapshot import Snapshot
    from scalelite.store.playback import Playable


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for something of a recording; the path is raw, `cookies` are the values that came for COOKIE."""

    host: str
    path: str
    token: str = ""
    cookies: Sequence[str] = ()
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Granted:
    """What may be delivered: `page` for a link of getRecordings, else the target itself; and cookies to set.

    `file` is its name in the storage.
    """

    target: Target
    file: str
    page: str = ""
    protected: bool = False
    cookies: tuple[str, ...] = ()


@dataclass(slots=True)
class Playback:
    """Answers requests for recordings in one worker."""

    services: Services
    snapshot: Snapshot
    _key: bytes = field(default=b"", repr=False)

    async def grant(self, asked: Asked) -> Granted:
        """Say what may be delivered; raises NotPlayable."""
        formats = self.services.settings.recording_formats
        target = playback.target_of(asked.path, formats)
        if target is None:
            raise NotPlayable
        owner = self._owner(asked.host)
        async with self.services.database.use() as connection:
            found = await store.find_playable(connection, owner, target.record_id, target.format)
        if found is None:
            raise NotPlayable
        page = playback.target_of(found.url, formats) if target.opens else target
        # The path of the page comes from the archive: it must not lead into another recording.
        if page is None or (page.record_id, page.format) != (target.record_id, target.format):
            raise NotPlayable
        cookies = await self._open(asked, target, found) if found.protected else ()
        file = f"{folder_of(page.record_id, page.format, found.generation)}/{page.file}"
        return Granted(page, file, found.url if target.opens else "", found.protected, cookies)

    def _owner(self, host: str) -> UUID | None:
        if not self.snapshot.declared.serves(host):
            raise NotPlayable
        try:
            tenant = self.snapshot.declared.tenant_of(host)
        except ChecksumError:
            raise NotPlayable from None
        return tenant.id if tenant.name else None

    async def _open(self, asked: Asked, target: Target, found: Playable) -> tuple[str, ...]:
        """Open a protected recording with a cookie, or with a token for which cookies are given."""
        key = await self._cookie_key()
        now_s = self.services.now_ms() // 1000
        if any(playback.opens(value, key, target, now_s) for value in asked.cookies):
            return ()
        if not target.opens or not asked.token or not await self._use_token(asked.token, target):
            raise NotPlayable
        age_s = self.services.settings.protected_cookie_minutes * 60
        value = playback.cookie_value(key, target, now_s + age_s)
        same_site = "; SameSite=None" if playback.takes_same_site_none(asked.user_agent) else ""
        return tuple(
            f"{COOKIE}={value}; Path={path}; Max-Age={age_s}; HttpOnly; Secure{same_site}"
            for path in playback.cookie_paths(target, found.url, self.services.settings.recording_formats)
        )

    async def _use_token(self, token: str, target: Target) -> bool:
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        async with self.services.database.use() as connection:
            return await store.use_token(connection, digest, target.record_id, target.format)

    async def _cookie_key(self) -> bytes:
        """Return the key of cookies: from SECRET_KEY_BASE, else the cluster's, which the first to ask makes."""
        if not self._key:
            if base := self.services.settings.secret_key_base:
                self._key = hashlib.sha256(f"scalelite playback {base}".encode()).digest()
            else:
                async with self.services.database.use() as connection:
                    self._key = await store.cookie_key(connection, secrets.token_bytes(32))
        return self._key
