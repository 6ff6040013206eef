"""Replays requests that were recorded from a real Scalelite v1.8.5 against our service, and says what differs.

Servers answer as recorded: what came back to the client is what the server had said, but for Scalelite's own errors.
The state before a request is what Scalelite's was after the one before, as far as it was recorded; where a request
reached a server, its meeting was there. Answers are compared by status, location and canonical XML; requests to servers
as sets of decoded parameters, servers up to renaming.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import uuid
from base64 import b64decode
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp
from lxml import etree
from pydantic import ValidationError
from sanic import Sanic
from yarl import URL

from scalelite.core.model import (
    Declared,
    Key,
    Kind,
    Secret,
    ServerSpec,
    ServerStatus,
    SettingSpec,
    TenantSpec,
)
from scalelite.core.params import voice_bridges
from scalelite.flows import reconcile
from scalelite.settings import read_settings
from scalelite.store import polls
from scalelite.store.db import connect
from scalelite.store.specs import Author
from scalelite.web import create_app
from scalelite.web.protocol import StrictProtocol
from tests.golden.servers import OTHERS, SERVERS, Stub, call_of, mode_of, stubs
from tests.golden.situations import TENANTS, Situation, begins_anew, situation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from scalelite.core.model import AnySpec
    from scalelite.store.db import Connection

# What differs, by part of an answer or of what it left: what was recorded, and what is.
Differences = dict[str, tuple[str, str]]

RECORDS: Final = Path(__file__).parent / "records"
SECRET: Final = "sl-loadbalancer-secret-0123456789abcdef"
_CLOSED: Final = "http://127.0.0.1:1/bigbluebutton/api"


def load(name: str) -> list[dict[str, Any]]:
    """Return the HTTP records of a file, each with the recorded state and the situation before it."""
    found: list[dict[str, Any]] = []
    before: dict[str, Any] = {}
    noted: list[dict[str, Any]] = []
    for line in (RECORDS / f"{name}.jsonl").read_text().splitlines():
        record = json.loads(line)
        before = {} if begins_anew(record) else before
        if "request" in record:
            found.append({**record, "state_before": before, "situation": situation(record, noted)})
        noted = record.get("settings_of_tenant1", noted)
        before = record.get("state_after", before)
    return found


class Replay:
    """Our service in front of the stubs; `differences` replays one record."""

    def __init__(self, connection: Connection, servers: dict[str, Stub], port: int, app: Any) -> None:
        self.connection = connection
        self.servers = servers
        self.port = port
        self.app = app
        self.session = aiohttp.ClientSession()

    async def differences(self, record: dict[str, Any]) -> Differences:
        """Return what is not as recorded."""
        await self._prepare(record)
        response = await self._send(record["request"])
        asked = [call for stub in self.servers.values() for call in stub.asked]
        theirs = record["response"]
        return differing(
            status=(theirs["status"], response["status"]),
            location=(_place(theirs["headers"].get("location", "")), _place(response["location"])),
            body=(canonical(theirs["body"], record), canonical(response["body"], record)),
            upstream=_upstream(record, asked),
        )

    # --- state before ------------------------------------------------------------------------------------------------

    async def _prepare(self, record: dict[str, Any]) -> None:
        for stub in self.servers.values():
            stub.record, stub.asked = record, []
        state = record["state_before"]
        servers = record.get("state_after", state).get("servers")
        await self.connection.execute("DELETE FROM meeting")
        servers = {name: {} for name in SERVERS} if servers is None else servers
        await self._declare(servers, record)
        for tenant, meeting_id, server in _meetings(record, state):
            if server not in servers:
                continue
            await self.connection.execute(
                """
                INSERT INTO meeting
                       (tenant, meeting_id, server, phase, generation, moderator_pw, voice_bridge, reservation)
                VALUES (%s, %s, %s, 'running', nextval('claim_sequence'), %s, %s, 1)
                """,
                (tenant, meeting_id, server, _moderator_pw(state, meeting_id), _voice_bridge(state, meeting_id)),
            )
        snapshot = self.app.ctx.proxy.snapshot
        snapshot._meetings.clear()
        async with connect(self.connection.info.dsn, "replay") as listener:
            await snapshot._renew_declared(listener)
            await snapshot._renew_statuses(listener)

    async def _declare(self, servers: dict[str, Any], record: dict[str, Any]) -> None:
        situation = record.get("situation", Situation({}))
        refusing = {name for name in servers if mode_of(record, name) == "refuse"}
        objects: dict[Key, AnySpec] = {
            Key(Kind.SERVER, name): ServerSpec(
                id=name,
                url=f"{_CLOSED}/{name}/api" if name in refusing else self.servers[name].url,
                secret=Secret(f"stub-bbb-shared-secret{name[-1]}"),
                load_multiplier=float(fields.get("load_multiplier", 1)),
                tag=fields.get("tag") or (situation.tags or {}).get(name, ""),
                state=fields.get("state", "enabled"),
            )
            for name, fields in servers.items()
            if name in self.servers
        }
        if situation.with_tenants:
            objects |= _tenants(situation)
        wanted = Declared(objects, frozenset({"servers", "tenants"}))
        planned = await reconcile.plan(self.connection, wanted, "cordon")
        author = Author("replay")
        await reconcile.apply(self.connection, wanted, planned.plan, author, uuid.uuid4, lock_timeout_s=5)
        mark = await polls.begin_poll(self.connection)
        asked = {call["server"] for call in record.get("upstream", ())}
        passed = set(servers) - asked if "marked offline" in record["case"] else set()
        statuses = [
            ServerStatus(name, "online" if fields.get("online", "true") == "true" and name not in passed else "offline")
            for name, fields in servers.items()
        ]
        await polls.write_statuses(self.connection, mark, statuses)

    # --- the request -------------------------------------------------------------------------------------------------

    async def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        target, body = signed(request)
        headers = {"Host": request["host"], **request.get("headers", {})}
        url = URL(f"http://127.0.0.1:{self.port}{target}", encoded=True)
        data: Any = body.encode() if body is not None else None
        if headers.pop("Transfer-Encoding", "") == "chunked":  # recorded as bytes, so in base64
            data = _chunks(re.findall(rb"[0-9a-f]+\r\n(.+?)\r\n", b64decode(data), re.DOTALL))
        skip = [] if "Content-Type" in headers else ["Content-Type"]
        async with self.session.request(
            request["method"], url, headers=headers, data=data, allow_redirects=False, skip_auto_headers=skip
        ) as answer:
            text = re.sub("token=[0-9a-f]{64}", "token=TOKEN", (await answer.read()).decode("utf-8", "replace"))
            return {"status": answer.status, "location": answer.headers.get("Location", ""), "body": text}


@asynccontextmanager
async def replaying(conninfo: str, environment: dict[str, str]) -> AsyncIterator[Replay]:
    """Run our service in this process, in front of stubs."""
    settings = read_settings(
        {"LOADBALANCER_SECRET": SECRET, "URL_HOST": "sl.localhost", "LOG_LEVEL": "error", **environment}
    )
    app = create_app(settings, conninfo, name=f"replay-{uuid.uuid4().hex}")
    listener = socket.create_server(("127.0.0.1", 0))
    app.config.TOUCHUP = False  # it rewrites its own functions, once a process
    server: Any = await app.create_server(sock=listener, protocol=StrictProtocol, return_asyncio_server=True)
    await server.startup()
    await server.before_start()
    try:
        async with stubs() as servers, connect(conninfo, "replay") as connection:
            replay = Replay(connection, servers, listener.getsockname()[1], app)
            try:
                yield replay
            finally:
                await replay.session.close()
    finally:
        await server.close()
        await server.after_stop()
        Sanic._app_registry.pop(app.name, None)


async def _chunks(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def signed(request: dict[str, Any]) -> tuple[str, str | None]:
    """Return target and body of a recorded request, signed as it was."""
    path, mark, query = request["target"].partition("?")
    body, checksum = request.get("body"), request.get("checksum")
    if not checksum:
        return path + mark + query, body
    if "value" in checksum:
        digest = checksum["value"]
    else:
        function = getattr(hashlib, checksum["algo"].lower())
        digest = function((checksum["action"] + query + checksum["secret"]).encode()).hexdigest()
    part = f"checksum={digest}"
    match checksum["position"]:
        case "front":
            query = f"{part}&{query}" if query else part
        case "middle":
            first, _, rest = query.partition("&")
            query = f"{first}&{part}&{rest}"
        case "body":
            return path + mark + query, body
        case _:
            query = f"{query}&{part}" if query else part
    return f"{path}?{query}", body


# --- comparing -------------------------------------------------------------------------------------------------------


def differing(**parts: tuple[Any, Any]) -> Differences:
    """Keep what differs, as text."""
    return {name: (str(was), str(now)) for name, (was, now) in parts.items() if was != now}


def canonical(body: str, record: dict[str, Any]) -> str:
    """Return XML without its layout, and without a password that was drawn at random."""
    if not body.lstrip().startswith("<") or "<html" in body.lower():
        return body.strip()[:200]
    body = re.sub(r"@(bbb\d\.test|127\.0\.0\.1)", "@SERVER", body)
    try:
        root = etree.fromstring(body.encode(), etree.XMLParser(remove_blank_text=True))
    except etree.XMLSyntaxError:
        return f"not XML: {body[:200]}"
    for node in root.iter():
        node.text = (node.text or "").strip() or None
        node.tail = None
    if _draws_password(record):
        for node in root.iter("moderatorPW"):
            node.text = "drawn"
    return etree.tostring(root, method="c14n").decode()


def _place(location: str) -> tuple[Any, ...]:
    if not location:
        return ()
    parts = urlsplit(location)
    params = sorted(
        (name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name != "checksum"
    )
    return parts.path, params


def _upstream(record: dict[str, Any], ours: list[dict[str, Any]]) -> tuple[Any, Any]:
    """What the servers were asked, then and now."""
    recorded = [
        call_of(call["server"], call["path"].rpartition("/")[2], call["query"], call["body"])
        for call in record["upstream"]
    ]
    for call, was in zip(recorded, record["upstream"], strict=True):
        call["algorithm"] = (was.get("checksum") or {}).get("algo", "")
    return _comparable(recorded, record), _comparable(ours, record)


def _comparable(calls: list[dict[str, Any]], record: dict[str, Any]) -> list[Any]:
    """Requests without the servers' names, which are drawn at random, and without drawn passwords."""
    drawn = {"moderatorPW"} if _draws_password(record) else set()
    one_of_several_tags = (
        "meta_server-tag" in (tags := dict(parse_qsl(_parameters(record)))) and ";" in tags["meta_server-tag"]
    )

    def params(call: dict[str, Any]) -> list[tuple[str, str]]:
        found = [(name, "drawn" if name in drawn else value) for name, value in call["params"]]
        return [(name, value) for name, value in found if not (one_of_several_tags and name == "meta_server-tag")]

    return sorted((call["call"], params(call), call["algorithm"], call["body"]) for call in calls)


# --- state before ----------------------------------------------------------------------------------------------------


def _tenants(situation: Situation) -> dict[Key, AnySpec]:
    """The tenants and tenant1's settings; those that cannot be declared are left out (TS-2)."""
    objects: dict[Key, AnySpec] = {
        Key(Kind.TENANT, name): TenantSpec(id=identity, name=name, secrets=tuple(map(Secret, secrets)))
        for name, (identity, secrets) in TENANTS.items()
    }
    for param, value, override in situation.settings:
        with suppress(ValidationError):
            spec = SettingSpec(param=param, value=value, override=override)
            objects[Key(Kind.SETTING, "tenant1", param)] = spec
    return objects


def _meetings(record: dict[str, Any], state: dict[str, Any]) -> Iterator[tuple[uuid.UUID, str, str]]:
    """Yield (tenant, id, server) of the meetings that there were."""
    known = {
        meeting_id: fields.get("server_id", "bbb1") for meeting_id, fields in (state.get("meetings") or {}).items()
    }
    call = record["request"]["target"].partition("?")[0].rpartition("/")[2]
    asked = dict(parse_qsl(_parameters(record), keep_blank_values=True)).get("meetingID", "")
    if call in {"isMeetingRunning", "getMeetingInfo", "end", "insertDocument"} and record["upstream"] and asked:
        known[asked] = record["upstream"][0]["server"]
    if found := re.match(r"http://(bbb\d)", record["response"].get("headers", {}).get("location", "")):
        known[asked] = found[1]
    if call == "join" and "serverUnavailable" in record["response"].get("body", ""):
        known.setdefault(asked, "bbb1")
    if call == "create" and "duplicateWarning" in record["response"].get("body", ""):
        known[asked] = record["upstream"][0]["server"]
    if call == "getMeetings":
        listed = re.findall("<meetingID>(.*?)</meetingID>", record["response"].get("body", "") + OTHERS)
        known |= dict.fromkeys(listed, "bbb1")
    name = record["request"]["host"].partition(".")[0]
    tenant = TENANTS[name][0] if record.get("multitenancy") else uuid.UUID(int=0)
    return ((tenant, meeting_id, server) for meeting_id, server in known.items())


def _parameters(record: dict[str, Any]) -> str:
    """The raw query, and the body where it is a form."""
    request = record["request"]
    form = "form" in request.get("headers", {}).get("Content-Type", "")
    return "&".join([request["target"].partition("?")[2], request.get("body", "") if form else ""])


def _draws_password(record: dict[str, Any]) -> bool:
    return not dict(parse_qsl(_parameters(record))).get("moderatorPW")


def _moderator_pw(state: dict[str, Any], meeting_id: str) -> str:
    return str((state.get("meetings") or {}).get(meeting_id, {}).get("moderator_pw") or "")


def _voice_bridge(state: dict[str, Any], meeting_id: str) -> str:
    """The recorded one; it is a function of the id."""
    return str((state.get("meetings") or {}).get(meeting_id, {}).get("voice_bridge") or voice_bridges(meeting_id, 9)[0])
