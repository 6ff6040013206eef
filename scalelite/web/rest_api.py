"""Routes of the management API: who calls, with what; JSON out. What calls do is in rest_calls.py."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import pydantic_core
from pydantic import ValidationError
from sanic import HTTPResponse, Request
from sanic.exceptions import SanicException

from scalelite.core import wire
from scalelite.core.commands import refusal
from scalelite.errors import (
    ApiError,
    NotDeclared,
    ScaleliteError,
    ServiceNotReady,
    SpecRefused,
    Unauthenticated,
)
from scalelite.flows import tokens
from scalelite.web.bbb_api import host_of
from scalelite.web.metrics import measured
from scalelite.web.openapi import document
from scalelite.web.rest_call import Call, Caller
from scalelite.web.rest_table import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sanic import Sanic

    from scalelite.flows.proxy import Proxy
    from scalelite.web.rest_call import Operation

log = logging.getLogger(__name__)

PREFIX: Final = "/scalelite/api"
_METHODS: Final = ("GET", "POST", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")
_LONGEST_BODY: Final = 1_000_000
# The words of Scalelite, which its clients may look for.
_WORDS: Final = {"server": "server", "tenant": "Tenant", "setting": "setting"}


class _Refused(ScaleliteError):
    """A request that is none: no such call, not with this method, not of this type."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers or {}


def add_routes(app: Sanic[Any, Any]) -> None:
    """Add the calls and their document."""
    app.add_route(openapi, f"{PREFIX}/openapi.json", methods=("GET", "HEAD"))
    app.add_route(call, f"{PREFIX}/<name:path>", methods=_METHODS, name="management")
    app.add_route(call, PREFIX, methods=_METHODS, name="management_root")


async def openapi(_request: Request) -> HTTPResponse:
    """Give the OpenAPI document; it needs no token and holds nothing of this cluster."""
    return _json(200, document(PREFIX))


async def call(request: Request, name: str = "") -> HTTPResponse:
    """Answer one call."""
    worker: Proxy = request.app.ctx.proxy
    if not worker.snapshot.declared.serves(host_of(request, worker.services.settings)):
        return HTTPResponse(status=403)
    name = name.strip("/").removesuffix(".json")
    with measured("management", name if name in OPERATIONS else "other"):
        return await _answer(request, worker, name)


async def _answer(request: Request, worker: Proxy, name: str) -> HTTPResponse:
    operation = _operation(request, name)
    body = _body(request)
    caller = await _caller(request, worker, name, body)
    caller.require(operation.scope)
    if operation.tenants and not worker.services.settings.multitenancy:
        return _json(412, {"message": "Multitenancy is disabled"})
    query = wire.decode(request.query_string)
    shows_secrets = _shows_secrets(query, caller)
    params = _params(operation, {**body, **query})
    status, answer = await operation.run(Call(worker.services, caller, params, shows_secrets))
    return _json(status, answer)


def _operation(request: Request, name: str) -> Operation:
    operation = OPERATIONS.get(name)
    if operation is None:
        raise _Refused(404, f"there is no call '{name}'" if name else "name a call, see openapi.json")
    method = "GET" if request.method == "HEAD" else request.method
    if method != operation.method:
        raise _Refused(405, f"{name} is called with {operation.method}", {"Allow": operation.method})
    return operation


def _body(request: Request) -> dict[str, Any]:
    """Return the JSON object that came along, by default an empty one; only strict JSON counts."""
    if request.method != "POST" or not request.body:
        return {}
    if len(request.body) > _LONGEST_BODY:
        raise _Refused(413, "the body is too long")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise _Refused(415, "the body must be of the type application/json")
    try:
        body = pydantic_core.from_json(request.body, allow_inf_nan=False)
    except ValueError:
        raise SpecRefused("the body is no JSON") from None
    if not isinstance(body, dict):
        raise SpecRefused("the body must be a JSON object")
    return body


async def _caller(request: Request, worker: Proxy, name: str, body: dict[str, Any]) -> Caller:
    """Find out who calls: by token, else by checksum over call and query, which may stand in the body as well."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        if scheme.lower() != "bearer":
            raise Unauthenticated("send the token as 'Authorization: Bearer TOKEN'")
        async with worker.services.database.use() as connection:
            found = await tokens.authenticate(connection, token.strip())
        return Caller(f"token {found.name}", found.scope)
    settings = worker.services.settings
    if not settings.management_checksum_auth:
        raise Unauthenticated("send a token as 'Authorization: Bearer TOKEN'")
    raw, in_body = request.query_string, body.get("checksum")
    signed = wire.SignedQuery(raw, in_body) if isinstance(in_body, str) else wire.take_checksum(raw)
    wire.verify(name, signed, settings.call_secrets, settings.accepted_algorithms)
    return Caller("management API", "admin", signed=True)


def _shows_secrets(query: dict[str, str], caller: Caller) -> bool:
    """Say whether secrets are shown: an admin asked for them, or the client is one of Scalelite's, which expects them.

    What was asked in the query is taken out of it: a tenant's secrets are called so too.
    """
    asked = query.pop("secrets", "false")
    if asked not in {"true", "false"}:
        raise SpecRefused("secrets: must be true or false")
    if asked == "true":
        caller.require("admin")
    return caller.signed or asked == "true"


def _params(operation: Operation, given: dict[str, Any]) -> Any:
    """Check the parameters; raises SpecRefused, which shows no value."""
    given.pop("checksum", None)
    try:
        return operation.takes.model_validate(given)
    except ValidationError as error:
        raise SpecRefused(refusal(error)) from None


def _json(status: int, answer: Any, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    plain = pydantic_core.to_jsonable_python(answer, exclude_none=not isinstance(answer, dict))
    content = pydantic_core.to_json(plain)
    return HTTPResponse(content, status, dict(headers or {}), content_type="application/json; charset=utf-8")


async def failed(request: Request, error: Exception) -> HTTPResponse:
    """Answer every error as JSON; what it was stands in the log alone."""
    match error:
        case _Refused():
            return _json(error.status, {"error": error.message}, error.headers)
        case NotDeclared() if error.kind in _WORDS:
            return _json(404, {"error": f"Couldn't find {_WORDS[error.kind]} with id={error.name}"})
        case Unauthenticated():
            return _json(401, {"error": error.message}, {"WWW-Authenticate": 'Bearer realm="scalelite"'})
        case ServiceNotReady():
            return _json(503, {"error": error.message}, {"Retry-After": "1"})
        case ApiError():
            status = 401 if error.message_key == "checksumError" else 400
            headers = {"WWW-Authenticate": 'Bearer realm="scalelite"'} if status == 401 else {}
            return _json(status, {"error": error.message}, headers)
        case ScaleliteError():
            log.log(logging.WARNING if error.http_status >= 500 else logging.INFO, "%s: %s", request.path, error)
            hint = {"hint": error.hint} if error.hint else {}
            return _json(error.http_status, {"error": error.message, **hint})
        case SanicException():
            allow = {"Allow": "GET, POST"} if error.status_code == 405 else {}
            return _json(error.status_code, {"error": "The request cannot be read."}, allow)
        case _:
            log.error("%s failed", request.path, exc_info=error)
            return _json(500, {"error": "An internal error occurred."})
