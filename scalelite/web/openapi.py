"""The OpenAPI 3.1 document of the management API, made from the table that routes it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from scalelite import __version__
from scalelite.web.rest_models import Error, Message, Stored
from scalelite.web.rest_table import OPERATIONS

if TYPE_CHECKING:
    from scalelite.web.rest_call import Operation

_REFERENCE: Final = "#/components/schemas/{model}"
_ERRORS: Final = {
    400: "What is asked for cannot be.",
    401: "No token, no valid checksum.",
    403: "The token's scope is too narrow.",
    404: "There is no such object.",
    409: "It is there already, or a guard or another change is in the way.",
    503: "Postgres does not answer; ask again.",
}
_SECRETS: Final = {
    "name": "secrets",
    "in": "query",
    "description": "Show secrets in the answer; needs the scope admin.",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}


@cache
def document(prefix: str) -> dict[str, Any]:
    """Return the document; the same object each time."""
    schemas: dict[str, Any] = {}
    paths = {f"{prefix}/{name}": _path(name, operation, schemas) for name, operation in OPERATIONS.items()}
    paths[f"{prefix}/recordings"] = {"post": _upload(schemas)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scalelite management API",
            "version": __version__,
            "description": "Servers, tenants and settings of the cluster. Each change is a revision with its actor.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{"token": []}, {"checksum": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Made by `scalelite tokens add NAME --scope read|operate|admin|import`.",
                },
                "checksum": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "checksum",
                    "description": "Hash of call + query + load balancer secret, as Scalelite's clients send it.",
                },
            },
        },
    }


def _upload(schemas: dict[str, Any]) -> dict[str, Any]:
    """Describe the one call that takes no JSON (web/uploads.py)."""
    binary = {"type": "string", "format": "binary"}
    stored = _schema(Stored, schemas, mode="serialization")
    errors = {status: _ERRORS[status] for status in (401, 403, 503)} | {
        507: "The archive could not be stored; send it again later."
    }
    return {
        "operationId": "importRecording",
        "summary": "Send an archive of a recording; it is imported within the next minutes.",
        "description": "Needs the scope import.",
        "security": [{"token": []}],
        "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": binary}}},
        "responses": {
            "202": {"description": "The archive is stored.", "content": {"application/json": {"schema": stored}}},
            **{
                str(status): {
                    "description": what,
                    "content": {"application/json": {"schema": _schema(Error, schemas, mode="serialization")}},
                }
                for status, what in errors.items()
            },
        },
    }


def _path(name: str, operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "description": f"Needs the scope {operation.scope}.",
        "responses": _responses(operation, schemas),
    }
    takes = _schema(operation.takes, schemas, mode="validation")
    described["parameters"] = [_SECRETS]
    if operation.method == "GET":
        described["parameters"] += _parameters(schemas.pop(operation.takes.__name__))
    else:
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": takes}}}
    return {operation.method.lower(): described}


def _parameters(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": name in schema.get("required", ()), "schema": part}
        for name, part in schema.get("properties", {}).items()
    ]


def _responses(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    gives: dict[int, Any] = dict.fromkeys(_ERRORS, Error) | ({412: Message} if operation.tenants else {})
    gives |= operation.gives
    return {
        str(status): {
            "description": _ERRORS.get(status, "Multitenancy is off." if status == 412 else operation.summary),
            "content": {"application/json": {"schema": _schema(model, schemas, mode="serialization")}},
        }
        for status, model in sorted(gives.items())
    }


def _schema(model: Any, schemas: dict[str, Any], *, mode: Any) -> dict[str, Any]:
    """Return the schema of a model, with those that it refers to added to the document's."""
    made = TypeAdapter(model).json_schema(ref_template=_REFERENCE, mode=mode, schema_generator=GenerateJsonSchema)
    schemas.update(made.pop("$defs", {}))
    if hasattr(model, "__name__") and made.get("type") == "object":
        schemas[model.__name__] = made
        return {"$ref": _REFERENCE.format(model=model.__name__)}
    return made
