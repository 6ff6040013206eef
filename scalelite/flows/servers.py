"""Asking the servers of the cluster: one, with the patience that its health allows, or all at once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scalelite.edge.bbb import NO_BODY, Body, signed_url
from scalelite.errors import ApiError, Overloaded, ServerUnavailable, UpstreamFailed

if TYPE_CHECKING:
    from scalelite.core import wire
    from scalelite.core.model import ServerSpec
    from scalelite.edge.bbb import BbbClient, Timeouts
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers as this worker knows them, and the client that asks them."""

    bbb: BbbClient
    snapshot: Snapshot

    def get(self, server: str) -> ServerSpec:
        """Return a declared server; raises ServerUnavailable."""
        spec = self.snapshot.declared.servers.get(server)
        if spec is None:
            raise ServerUnavailable
        return spec

    def gone(self, server: str) -> bool:
        """Say whether a server no longer serves its meetings: disabled, removed or offline."""
        return self.snapshot.server_state(server) == "disabled" or self.snapshot.health(server) == "offline"

    def url(self, server: ServerSpec, call: str, query: str) -> str:
        """Return the URL of a call that somebody else makes."""
        return signed_url(server, call, query, self.snapshot.declared.cluster.algorithm)

    async def ask(self, server: ServerSpec, call: str, params: wire.Params, slides: Body = NO_BODY) -> wire.Reply:
        """Return a server's answer; raises UpstreamFailed."""
        algorithm = self.snapshot.declared.cluster.algorithm
        return await self.bbb.call(server, call, params, algorithm, body=slides, timeouts=self._timeouts(server.id))

    def _timeouts(self, server: str) -> Timeouts:
        in_trouble = self.snapshot.health(server) in {"unhealthy", "offline"}
        return self.bbb.timeouts.for_server_in_trouble() if in_trouble else self.bbb.timeouts

    async def ask_all(self, call: str) -> list[tuple[str, wire.Reply]]:
        """Ask all servers that serve meetings at once; one that fails, or has too many waiting, is left out.

        Raises Overloaded where that is so of each of them: that there are no meetings would not be true.
        """
        servers = [server for server in self.snapshot.declared.servers.values() if not self.gone(server.id)]
        replies = await asyncio.gather(*(self._ask_one_of_all(server, call) for server in servers))
        if servers and all(isinstance(reply, Overloaded) for reply in replies):
            raise Overloaded
        found = zip(servers, replies, strict=True)
        return [(server.id, reply) for server, reply in found if not isinstance(reply, ApiError)]

    async def _ask_one_of_all(self, server: ServerSpec, call: str) -> wire.Reply | ApiError:
        try:
            return await self.ask(server, call, {})
        except (UpstreamFailed, Overloaded) as error:
            log.warning("server %s is left out of %s", server.id, call)
            return error
