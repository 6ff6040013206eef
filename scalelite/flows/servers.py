"""Asking the servers of the cluster: one, with the patience that its health allows, or all at once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from scalelite.core import wire
from scalelite.edge.bbb import NO_BODY, Body, signed_url
from scalelite.errors import ApiError, Overloaded, ServerUnavailable, UpstreamFailed
from scalelite.flows.shared import Shared

if TYPE_CHECKING:
    from scalelite.core.model import ServerSpec
    from scalelite.edge.bbb import BbbClient, Timeouts
    from scalelite.flows.snapshot import Snapshot

log = logging.getLogger(__name__)


class Servers:
    """The servers as this worker knows them, and the client that asks them."""

    def __init__(self, bbb: BbbClient, snapshot: Snapshot) -> None:
        self.bbb = bbb
        self.snapshot = snapshot
        self._lists: Shared[tuple[str, str, str], tuple[wire.Listed, ...] | ApiError] = Shared(self._ask_for_list)

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

    async def lists(self, call: str, path: str) -> list[tuple[str, wire.Listed]]:
        """Return (server, what it lists) of all servers that serve meetings, asked at once; `path` is where it stands.

        A server that fails, or has too many waiting, is left out. Raises Overloaded where that is so of each of them:
        that there are no meetings would not be true.
        """
        servers = [server for server in self.snapshot.declared.servers if not self.gone(server)]
        lists = await asyncio.gather(*(self._lists.get((server, call, path)) for server in servers))
        if servers and all(isinstance(listed, Overloaded) for listed in lists):
            raise Overloaded
        found = zip(servers, lists, strict=True)
        return [(server, each) for server, listed in found if not isinstance(listed, ApiError) for each in listed]

    async def _ask_for_list(self, question: tuple[str, str, str]) -> tuple[wire.Listed, ...] | ApiError:
        server, call, path = question
        try:
            return wire.listed(await self.ask(self.get(server), call, {}), path)
        except (UpstreamFailed, Overloaded, ServerUnavailable) as error:
            log.warning("server %s is left out of %s", server, call)
            return error
