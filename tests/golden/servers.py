"""The recorded servers: each answers what came back to the client, or fails as it did, and keeps what it was asked."""

from __future__ import annotations

import re
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVERS: Final = ("bbb1", "bbb2", "bbb3")
# What Scalelite said by itself when no server had answered.
_NO_ANSWER: Final = (
    "Unable to access meeting on server.",
    "Unable to access server.",
    "Unable to create meeting on server.",
)
# What the recorded servers said in the modes that a record's case names (driver/stubbbb-scalelite.py); those of
# "hang" and "drop" said nothing.
_SAID: Final = {
    "500": "",
    "garbage": "this is not xml",
    "noreturncode": "<response><foo>bar</foo></response>",
    "checksumerror": "<response><returncode>FAILED</returncode><messageKey>checksumError</messageKey>"
    "<message>You did not pass the checksum security check</message></response>",
    "failednokey": "<response><returncode>FAILED</returncode></response>",
}
OTHERS: Final = "<meeting><meetingID>others</meetingID></meeting>"


@dataclass
class Stub:
    """A server that answers what it is told to, and keeps what it was asked."""

    name: str
    url: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        query = request.rel_url.raw_query_string
        call = request.rel_url.raw_path.rpartition("/")[2]
        body = (await request.read()).decode()
        self.asked.append(call_of(self.name, call, query, body))
        mode = mode_of(self.record, self.name)
        if mode in {"drop", "hang"} and request.transport:
            request.transport.abort()
        if mode in _SAID:
            return web.Response(status=500 if mode == "500" else 200, text=_SAID[mode])
        return self._recorded(call, query)

    def _recorded(self, call: str, query: str) -> web.Response:
        """What came back to the client; a real server would tell the password that it was given."""
        body = self.record["response"].get("body", "")
        if call == "getMeetings" and self.name != "bbb1":
            return web.Response(text="<response><returncode>SUCCESS</returncode><meetings/></response>")
        if call == "getMeetings" and "FAILED" in body:  # of another server, which this one has nothing to do with
            body = f"<response><returncode>SUCCESS</returncode><meetings>{OTHERS}</meetings></response>"
        given = dict(parse_qsl(query)).get("moderatorPW")
        if call == "create" and given:
            body = re.sub("<moderatorPW>.*?</moderatorPW>", f"<moderatorPW>{given}</moderatorPW>", body)
        return web.Response(body=body.encode(), content_type="text/xml")


def mode_of(record: dict[str, Any], server: str) -> str:
    """How a server behaved; 'refuse' is of one to which there was no connection."""
    if named := re.search(r"(?:with (bbb\d) )?in mode (\w+)", record["case"]):
        return named[2] if named[1] in {None, server} else ""
    said = re.search("<message>(.*?)</message>", record["response"].get("body", ""))
    if "refuses connections" not in record["case"] and (not said or said[1] not in _NO_ANSWER):
        return ""
    asked = server in {call["server"] for call in record["upstream"]}
    return "refuse" if not asked else "drop" if said and said[1] in _NO_ANSWER else ""


def call_of(server: str, call: str, query: str, body: str) -> dict[str, Any]:
    params = parse_qsl(query, keep_blank_values=True)
    checksum = next((value for name, value in params if name == "checksum"), "")
    return {
        "server": server,
        "call": call,
        "params": sorted((name, value) for name, value in params if name != "checksum"),
        "algorithm": {40: "SHA1", 64: "SHA256", 96: "SHA384", 128: "SHA512"}.get(len(checksum), ""),
        "body": body,
    }


@asynccontextmanager
async def stubs() -> AsyncIterator[dict[str, Stub]]:
    """Run the three servers."""
    found = {name: Stub(name) for name in SERVERS}
    runners = []
    for stub in found.values():
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", stub.answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener).start()
        stub.url = f"http://127.0.0.1:{listener.getsockname()[1]}/bigbluebutton/api"
        runners.append(runner)
    try:
        yield found
    finally:
        for runner in runners:
            await runner.cleanup()
