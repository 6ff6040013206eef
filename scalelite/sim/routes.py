"""Which HTTP answer a request to a simulated server gets: the API, its failures, the control route, two pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from scalelite.sim import control
from scalelite.sim.calls import ENDPOINTS, answer, index, index_fields, refused_checksum
from scalelite.sim.checksum import checksum_problem
from scalelite.sim.replies import as_answer, as_json, cut, garbage, hung_up, page
from scalelite.sim.requests import Asked, BadBody, line_problem, read

if TYPE_CHECKING:
    from scalelite.sim.faults import Fault
    from scalelite.sim.server import RunningServer

API: Final = "/bigbluebutton/api/"
ROOTS: Final = frozenset({"/bigbluebutton", "/bigbluebutton/", "/bigbluebutton/api", "/bigbluebutton/api/"})
PAGES: Final = {"/": "Logged out", "/html5client/": "BigBlueButton client (simulated)"}


async def respond(server: RunningServer, request: web.BaseRequest) -> web.StreamResponse:
    """Find out what a request is for; what nginx and Tomcat refuse comes first."""
    target = request.raw_path
    if status := line_problem(request.method, target):
        return page(status)
    path, _, query = target.partition("?")
    if call := call_of(path, request.method):
        return await called(server, request, call, query)
    if path == "/control" and request.method in ("GET", "POST"):
        return await controlled(server, request)
    return page(200, PAGES[path]) if path in PAGES else page(404)


def call_of(path: str, method: str) -> str:
    """The API call that a path means, `index` for the API's root; empty where it takes no such method, too."""
    if path in ROOTS:
        return "index"
    call = path.removeprefix(API)
    endpoint = ENDPOINTS.get(call) if path.startswith(API) else None
    return call if endpoint and method in endpoint.methods else ""


async def called(server: RunningServer, request: web.BaseRequest, call: str, query: str) -> web.StreamResponse:
    """Answer a call of the API, or fail as told."""
    try:
        asked = await read(request, call, query, server.origin)
    except web.HTTPRequestEntityTooLarge:
        return page(413)
    except BadBody:
        return page(400)
    problem = checksum_problem(call, query, asked.params.get("checksum", ""), server.secret)
    if fault := server.note(asked, checksum_ok=not problem):
        return await failing(server, request, asked, problem, fault)
    return healthy(server, request, asked, problem)


def healthy(server: RunningServer, request: web.BaseRequest, asked: Asked, problem: str) -> web.Response:
    """The answer of a server that works; the index looks at no checksum and knows JSON."""
    if asked.call != "index":
        return as_answer(answer(server.rooms, asked, problem))
    if request.content_type == "application/json":
        return as_json({"response": index_fields(server.origin)})
    return as_answer(index(server.origin))


async def failing(
    server: RunningServer, request: web.BaseRequest, asked: Asked, problem: str, fault: Fault
) -> web.StreamResponse:
    """Carry out a failure: Fault says what each one does."""
    await server.listener.pause(fault.seconds if fault.seconds or fault.mode == "hang" else 0)
    match fault.mode:
        case "status":
            return page(fault.status)
        case "garbage":
            return garbage()
        case "checksum_error":
            return as_answer(refused_checksum(server.rooms, asked))
        case "slow":
            return healthy(server, request, asked, problem)
        case "close" if fault.at == "middle":
            return await cut(request, healthy(server, request, asked, problem))
    return hung_up(request)


async def controlled(server: RunningServer, request: web.BaseRequest) -> web.Response:
    """Show the state, or change it."""
    if request.method == "GET":
        return as_json(control.state(server))
    try:
        control.execute(server, control.parse(await request.read()))
    except control.Refused as error:
        return as_json({"problems": error.problems}, status=error.status)
    return as_json({"ok": True})
