"""Replays the recorded management API, one record after another, as it was recorded: each starts from what the one
before it has left, but where the recording began anew (BEGINNINGS). Answers are compared by status and JSON.

Urls without /api, which are refused here, get one, so that what else such a record is about is compared.
"""

from __future__ import annotations

import json
import re
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import aiohttp
from yarl import URL

from scalelite.core.model import Declared, Key, Kind, LrsBasic, LrsSpec, Secret, ServerSpec, ServerStatus, TenantSpec
from scalelite.flows import reconcile
from scalelite.store import polls
from scalelite.store.db import connect
from scalelite.store.specs import Author
from tests.golden.replay import RECORDS, SECRET, differing, signed
from tests.golden.servers import SERVERS, stubs
from tests.web.conftest import serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from scalelite.core.model import AnySpec, State
    from scalelite.store.db import Connection
    from tests.golden.replay import Differences
    from tests.golden.servers import Stub

T1: Final = "11111111-1111-4111-8111-111111111111"
T2: Final = "22222222-2222-4222-8222-222222222222"
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_PORTS: Final = {"bbb1": 8811, "bbb2": 8812, "bbb3": 8813}


@dataclass(frozen=True)
class Beginning:
    """What the driver had set up before a record (driver/a_misc.py)."""

    servers: tuple[str, ...] = SERVERS
    tags: dict[str, str] = field(default_factory=dict)
    states: dict[str, State] = field(default_factory=dict)
    offline: frozenset[str] = frozenset()
    tenants: tuple[str, ...] = (T1, T2)
    lrs: bool = False


BEGINNINGS: Final = {
    1: Beginning(servers=()),
    2: Beginning(tags={"bbb2": "gpu"}, states={"bbb3": "cordoned"}, offline=frozenset({"bbb2"})),
    36: Beginning(),
    61: Beginning(),
    70: Beginning(),
    85: Beginning(),
    94: Beginning(tenants=()),
    95: Beginning(),
    97: Beginning(lrs=True),
    137: Beginning(),
    143: Beginning(servers=()),
}


def load() -> list[dict[str, Any]]:
    """Return the HTTP records, with their numbers."""
    text = (RECORDS / "10-management.jsonl").read_text()
    lines = re.sub(
        r"http://(new\d+|w)\.test/(?!bigbluebutton)(?=\W)", r"http://\1.test/bigbluebutton/api", text
    ).splitlines()
    records = [json.loads(line) for line in lines]
    return [{**record, "number": int(record["id"][-3:])} for record in records if "request" in record]


@dataclass
class ManagementReplay:
    """Our services, of one and of many tenants and with the recorded variants, on one database."""

    connection: Connection
    servers: dict[str, Stub]
    ports: dict[str, int]
    session: aiohttp.ClientSession

    async def differences(self, record: dict[str, Any], instead: Mapping[str, str]) -> Differences:
        """Replay a record and return what is not as recorded; fields of answers may be what they are `instead`."""
        if beginning := BEGINNINGS.get(record["number"]):
            await self._begin(beginning)
        for stub in self.servers.values():
            stub.record = {"case": "", "response": {"body": _ENDED}, "upstream": ()}
            stub.asked = []
            if "BBB answers 500" in record["case"]:
                stub.record["case"] = "in mode 500"
        if record["case"].startswith("setup: create"):
            await self._meeting(record)
            return {}
        status, body = await self._send(record)
        theirs, ours = self._plain(record["response"].get("body", "")), self._plain(body)
        recorded = sorted((call["server"], sorted(parse_qsl(call["query"]))) for call in record["upstream"])
        asked = sorted((name, call["params"]) for name, stub in self.servers.items() for call in stub.asked)
        fields = {
            name: (pattern, ours.get(name))
            for name, pattern in instead.items()
            if not re.fullmatch(pattern, str(ours.get(name))) or ours.get(name) == theirs.get(name)
        }
        return differing(
            status=(record["response"]["status"], status),
            body=(_without(theirs, set(instead)), _without(ours, set(instead))),
            upstream=(recorded, asked),
            **fields,
        )

    def _plain(self, body: str) -> Any:
        """JSON with what differs from run to run taken out; else the text."""
        for name, stub in self.servers.items():
            body = body.replace(stub.url, f"http://{name}.test:{_PORTS[name]}/bigbluebutton/api")
        body = _UUID.sub(lambda found: found[0] if found[0] in {T1, T2} else "drawn", body)
        try:
            return json.loads(body)
        except ValueError:
            return body

    async def _begin(self, beginning: Beginning) -> None:
        for table in ("meeting", "hold", "tombstone"):
            await self.connection.execute(f"DELETE FROM {table}")
        objects: dict[Key, AnySpec] = {
            Key(Kind.SERVER, name): ServerSpec(
                id=name,
                url=self.servers[name].url,
                secret=Secret(f"stub-bbb-shared-secret{name[-1]}"),
                tag=beginning.tags.get(name, ""),
                state=beginning.states.get(name, "enabled"),
            )
            for name in beginning.servers
        }
        secrets = {T1: ("tenant1-secret",), T2: ("tenant2-secret-a", "tenant2-secret-b")}
        for tenant in beginning.tenants:
            name = f"tenant{tenant[0]}"
            spec = TenantSpec(id=uuid.UUID(tenant), name=name, secrets=tuple(map(Secret, secrets[tenant])))
            objects[Key(Kind.TENANT, name)] = spec
        if beginning.lrs:
            basic = LrsBasic(username="u", password=Secret("p"))
            objects[Key(Kind.LRS, "tenant2")] = LrsSpec(endpoint="http://lrs", basic=basic)
        wanted = Declared(objects, frozenset({"servers", "tenants"}))
        planned = await reconcile.plan(self.connection, wanted, "cordon")
        author = Author("replay")
        await reconcile.apply(self.connection, wanted, planned.plan, author, uuid.uuid4, lock_timeout_s=5)
        statuses = [
            ServerStatus(name, "offline" if name in beginning.offline else "online", bbb_version="3.0.4")
            for name in beginning.servers
        ]
        await polls.write_statuses(self.connection, await polls.begin_poll(self.connection), statuses)

    async def _meeting(self, record: dict[str, Any]) -> None:
        """Have the meeting where the recorded Scalelite placed it."""
        params = dict(parse_qsl(record["upstream"][0]["query"]))
        await self.connection.execute(
            """
            INSERT INTO meeting (tenant, meeting_id, server, phase, generation, moderator_pw, voice_bridge, reservation)
            VALUES (%s, %s, %s, 'running', nextval('claim_sequence'), %s, %s, 0)
            """,
            (
                uuid.UUID(int=0),
                params["meetingID"],
                record["upstream"][0]["server"],
                params["moderatorPW"],
                params["voiceBridge"],
            ),
        )

    async def _send(self, record: dict[str, Any]) -> tuple[int, str]:
        request = record["request"]
        target, body = signed(request)
        url = URL(f"http://127.0.0.1:{self.ports[record['instance']]}{target}", encoded=True)
        headers = {"Host": request["host"], **request.get("headers", {})}
        data = body.encode() if body is not None else None
        async with self.session.request(request["method"], url, headers=headers, data=data) as answer:
            return answer.status, (await answer.read()).decode()


_ENDED: Final = "<response><returncode>SUCCESS</returncode></response>"


def _without(value: Any, fields: set[str]) -> Any:
    """JSON without some fields, lists in the order of their ids."""
    if isinstance(value, list):
        return sorted((_without(item, fields) for item in value), key=lambda item: str(item.get("id", item)))
    if isinstance(value, dict):
        return {name: _without(item, fields) for name, item in value.items() if name not in fields}
    return value


@asynccontextmanager
async def replaying_management(conninfo: str) -> AsyncIterator[ManagementReplay]:
    """Run the recorded instances of the service in this process, in front of stubs."""
    plain = {"LOADBALANCER_SECRET": SECRET, "URL_HOST": "sl.localhost", "LOG_LEVEL": "error"}
    async with (
        stubs() as servers,
        connect(conninfo, "replay") as connection,
        serving(plain, conninfo) as single,
        serving({**plain, "MULTITENANCY_ENABLED": "true"}, conninfo) as multi,
        serving({**plain, "SERVER_ID_IS_HOSTNAME": "true"}, conninfo) as variant,
        aiohttp.ClientSession() as session,
    ):
        ports = {"single": single.port, "multi": multi.port, "variant": variant.port}
        yield ManagementReplay(connection, servers, ports, session)
