"""A cluster for each test: simulated servers, a declared state, a poll, and the real service on a port of its own.

The client signs by itself, so that a mistake in our signing cannot agree with itself.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
import time
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import aiohttp
import pytest
from lxml import etree
from sanic import Sanic
from yarl import URL

from scalelite.core.model import ClusterSpec, Declared, Key, Kind, LrsSpec, Secret, ServerSpec, SettingSpec, TenantSpec
from scalelite.flows import poll, reconcile
from scalelite.flows.status import server_rows
from scalelite.settings import read_settings
from scalelite.sim import simulate
from scalelite.store.db import connect
from scalelite.store.specs import Author
from scalelite.web import create_app
from scalelite.web.protocol import StrictProtocol
from scalelite.wiring import open_services

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from scalelite.core.model import AnySpec
    from scalelite.flows.poll import Round
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.sim import RunningServer
    from scalelite.store.db import Connection

API: Final = "/bigbluebutton/api"
DOMAIN: Final = "sl.localhost"
XML: Final = "application/xml; charset=utf-8"
FORM: Final = {"Content-Type": "application/x-www-form-urlencoded"}
TENANTS: Final = {"tenant1": "tenant1-secret", "tenant2": "tenant2-secret"}
# A hung server costs a second, so that tests may wait for it.
QUICK: Final = {"CONNECT_TIMEOUT": "0.4", "RESPONSE_TIMEOUT": "0.6", "POLLER_WAIT_TIMEOUT": "1"}
ENVIRONMENT: Final = {"MULTITENANCY_ENABLED": "true", "URL_HOST": DOMAIN, "LOG_LEVEL": "error", "SCALELITE_ACTOR": "t"}


@dataclass(frozen=True)
class Answer:
    """What came back over HTTP, and after how many seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    @property
    def root(self) -> etree._Element:
        return etree.fromstring(self.body)

    def text(self, path: str) -> str:
        return self.root.findtext(path) or ""

    @property
    def key(self) -> str:
        return self.text("messageKey")

    @property
    def succeeded(self) -> bool:
        return self.is_xml and self.text("returncode") == "SUCCESS"

    @property
    def is_xml(self) -> bool:
        """Whether it is what BigBlueButton answers with, whatever it says."""
        return self.status == 200 and self.headers.get("Content-Type") == XML and self.root.tag == "response"

    @property
    def failure(self) -> tuple[bool, str, str, str]:
        """Compare it with `failed(key, message)`."""
        return self.is_xml, self.text("returncode"), self.key, self.text("message")

    @property
    def location(self) -> str:
        return self.headers.get("Location", "")

    @property
    def meeting_ids(self) -> list[str]:
        """Of getMeetings, sorted."""
        return sorted(self.root.xpath("meetings/meeting/meetingID/text()"))


def failed(key: str, message: str) -> tuple[bool, str, str, str]:
    """What `Answer.failure` is of a failure as BigBlueButton tells it: XML with status 200."""
    return True, "FAILED", key, message


NOT_FOUND: Final = failed(
    "notFound", "We could not find a meeting with that meeting ID - perhaps the meeting is not yet running?"
)
BAD_CHECKSUM: Final = failed("checksumError", "You did not pass the checksum security check")
UNSUPPORTED: Final = failed("unsupportedRequest", "This request is not supported.")
NO_SERVER: Final = failed("internalError", "Could not find any available servers.")
NOT_CREATED: Final = failed("internalError", "Unable to create meeting on server.")
NO_ACCESS: Final = failed("internalError", "Unable to access meeting on server.")


def checksum(call: str, rest: str, secret: str, algorithm: str = "sha256") -> str:
    """The checksum of a call over its raw query."""
    return hashlib.new(algorithm, (call + rest + secret).encode()).hexdigest()


def signed(call: str, params: Mapping[str, str], secret: str, algorithm: str = "sha256") -> str:
    """A signed query as front ends make it."""
    query = urlencode(params)
    last = f"checksum={checksum(call, query, secret, algorithm)}"
    return f"{query}&{last}" if query else last


@dataclass(frozen=True)
class Service:
    """One instance of the service, and a client of it."""

    app: Any
    port: int
    session: aiohttp.ClientSession

    async def send(
        self,
        target: str,
        *,
        method: str = "GET",
        host: str = f"tenant1.{DOMAIN}",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send a request as it stands: nothing is encoded, signed or followed."""
        url = URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)
        all_headers = {"Host": host, **(headers or {})}
        skip = () if "Content-Type" in all_headers else ("Content-Type",)
        began = time.monotonic()
        async with self.session.request(
            method, url, headers=all_headers, data=body, allow_redirects=False, skip_auto_headers=skip
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read(), time.monotonic() - began)

    async def call(
        self,
        call: str,
        params: Mapping[str, str] | None = None,
        *,
        tenant: str = "tenant1",
        secret: str = "",
        **how: Any,
    ) -> Answer:
        """Make a signed call for a tenant."""
        query = signed(call, params or {}, secret or TENANTS[tenant])
        return await self.send(f"{API}/{call}?{query}", **{"host": f"{tenant}.{DOMAIN}", **how})

    async def create(self, meeting_id: str, *, tenant: str = "tenant1", **params: str) -> Answer:
        """Create a meeting that has a name, and no passwords unless given."""
        named = {"meetingID": meeting_id, "name": f"Room {meeting_id}", **params}
        return await self.call("create", named, tenant=tenant)

    async def about(self, call: str, meeting_id: str, *, tenant: str = "tenant1", **params: str) -> Answer:
        """Make a call about a meeting."""
        return await self.call(call, {"meetingID": meeting_id, **params}, tenant=tenant)

    async def join(self, meeting_id: str, *, tenant: str = "tenant1", **params: str) -> Answer:
        """Ask to join; the redirect is not followed."""
        return await self.about("join", meeting_id, tenant=tenant, **{"fullName": "Ada", **params})

    async def follow(self, location: str) -> int:
        """Open the place of a redirect as a browser would; returns the status."""
        async with self.session.get(URL(location, encoded=True), allow_redirects=False) as answer:
            return answer.status


async def eventually(probe: Callable[[], Awaitable[bool]], within_s: float = 1.0) -> None:
    """Wait until the probe says true; fails when it has not within the time."""
    deadline = time.monotonic() + within_s
    while not await probe():
        assert time.monotonic() < deadline, f"not so within {within_s:g} s"
        await asyncio.sleep(0.01)


@dataclass
class Cluster:
    """Simulated servers, a database and what is declared in it, and the services that run on it."""

    conninfo: str
    connection: Connection
    stack: AsyncExitStack
    servers: list[RunningServer] = field(default_factory=list)
    specs: dict[Key, AnySpec] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    services: list[Service] = field(default_factory=list)
    pollers: list[Services] = field(default_factory=list)

    async def start(self, count: int = 2, *, environment: Mapping[str, str] | None = None, **how: Any) -> Service:
        """Run so many servers, declare them and two tenants, poll them, and serve."""
        self.environment = {**ENVIRONMENT, **(environment or {})}
        self.servers += await self.stack.enter_async_context(simulate(count, **how))
        for place in range(count):
            self.server(place)
        for name, secret in TENANTS.items():
            self.tenant(name, secrets=(Secret(secret),))
        await self.apply()
        await self.poll()
        return await self.serve()

    # --- what is declared: changes count from `apply` on -------------------------------------------------------------

    def server(self, place: int, **changes: Any) -> None:
        """Declare one of the simulated servers, or change its declaration."""
        simulated = self.servers[place]
        plain = {"id": simulated.name, "url": simulated.url, "secret": Secret(simulated.secret)}
        self._put(Key(Kind.SERVER, simulated.name), ServerSpec, plain, changes)

    def tenant(self, name: str, **changes: Any) -> None:
        self._put(Key(Kind.TENANT, name), TenantSpec, {"name": name}, changes)

    def setting(self, tenant: str, param: str, **changes: Any) -> None:
        self._put(Key(Kind.SETTING, tenant, param), SettingSpec, {"param": param}, changes)

    def lrs(self, tenant: str, **changes: Any) -> None:
        """Declare where a tenant's xAPI statements go, whatever was declared before."""
        self.specs[Key(Kind.LRS, tenant)] = LrsSpec(**changes)

    def settings_of_all(self, **changes: Any) -> None:
        """Declare settings of the whole cluster."""
        self._put(Key(Kind.CLUSTER), ClusterSpec, {}, changes)

    def _put(self, key: Key, kind: type[AnySpec], plain: dict[str, Any], changes: dict[str, Any]) -> None:
        before = self.specs.get(key)
        known = {name: getattr(before, name) for name in before.model_fields_set} if before else {}
        self.specs[key] = kind(**{**plain, **known, **changes})

    async def apply(self, *, wait: bool = True) -> None:
        """Make the cluster what is declared; waits until all services know it, unless told otherwise."""
        wanted = Declared(dict(self.specs))
        planned = await reconcile.plan(self.connection, wanted, "force")
        applied = await reconcile.apply(
            self.connection, wanted, planned.plan, Author("tests"), uuid.uuid4, lock_timeout_s=5
        )

        async def known() -> bool:
            revisions = [service.app.ctx.proxy.snapshot._revision for service in self.services]
            return all(revision >= applied.revision for revision in revisions)

        if wait:
            await eventually(known, 2)

    # --- what is observed --------------------------------------------------------------------------------------------

    async def poller(self) -> Services:
        """What a poller has open; the first of them, or a new one."""
        if not self.pollers:
            settings = read_settings({**ENVIRONMENT, **self.environment})
            opened = open_services(settings, self.conninfo, name="tests poller")
            self.pollers.append(await self.stack.enter_async_context(opened))
        return self.pollers[0]

    async def poll(self, rounds: int = 1) -> Round:
        """Poll, and wait until all services know what came out."""
        for _ in range(rounds):
            outcome = await poll.poll_round(await self.poller())

        async def known() -> bool:
            statuses = [service.app.ctx.proxy.snapshot.statuses for service in self.services]
            return all(seen.get(server) == status for seen in statuses for server, status in outcome.statuses.items())

        await eventually(known, 2)
        return outcome

    async def rows(self) -> dict[str, ServerRow]:
        """What `scalelite status` shows, by server."""
        return {row.id: row for row in await server_rows(self.connection)}

    async def meetings(self) -> list[tuple[str, str, str]]:
        """(id, server, phase) of the meetings that Postgres has."""
        cursor = await self.connection.execute("SELECT meeting_id, server, phase FROM meeting ORDER BY 1, 2")
        return [(row["meeting_id"], row["server"], row["phase"]) for row in await cursor.fetchall()]

    async def make_old(self) -> None:
        """Let all meetings be older than the grace period in which polls remove none."""
        await self.connection.execute("UPDATE meeting SET claimed_at = claimed_at - interval '10 minutes'")

    def hosts_of(self, meeting_id: str) -> list[RunningServer]:
        """The servers on which a meeting of this id is."""
        return [server for server in self.servers if meeting_id in server.meetings]

    def asked(self, call: str) -> int:
        """How often all servers together were asked."""
        return sum(server.request_counts[call] for server in self.servers)

    def last_params(self, call: str) -> dict[str, str]:
        """The parameters of the last such call to any server; without its checksum, which must be right."""
        asked = [request for server in self.servers for request in server.requests if request.call == call]
        assert asked[-1].checksum_ok
        return {name: value for name, value in asked[-1].params.items() if name != "checksum"}

    # --- the service -------------------------------------------------------------------------------------------------

    async def serve(self, conninfo: str = "", **environment: str) -> Service:
        """Run one more instance of the service on this database."""
        settings = {**ENVIRONMENT, **self.environment, **environment}
        running = serving(settings, conninfo or self.conninfo)
        service = await self.stack.enter_async_context(running)
        self.services.append(service)
        return service


@asynccontextmanager
async def serving(environment: Mapping[str, str], conninfo: str) -> AsyncIterator[Service]:
    """Run the real service in this process on a free port."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    app = create_app(read_settings(environment), conninfo, name=f"tests-{uuid.uuid4().hex}")
    app.config.TOUCHUP = False  # it rewrites its own functions, once a process
    listener = socket.create_server(("127.0.0.1", 0))
    server: Any = await app.create_server(sock=listener, protocol=StrictProtocol, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    connector = aiohttp.TCPConnector(limit=0)
    session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20))
    try:
        yield Service(app, listener.getsockname()[1], session)
    finally:
        await session.close()
        await server.close()
        await server.after_stop()
        Sanic._app_registry.pop(app.name, None)
        root.handlers[:] = handlers
        root.setLevel(level)


def encoded(params: Mapping[str, str]) -> str:
    """A raw query, RFC 3986."""
    return urlencode(params, quote_via=quote)


@pytest.fixture
async def cluster(database: str) -> AsyncIterator[Cluster]:
    """A cluster of this test's own; `start` it."""
    async with connect(database, "tests") as connection, AsyncExitStack() as stack:
        yield Cluster(database, connection, stack)
