"""Scalelite's own files of servers, for servers:sync and servers:addAll, as declared values; absent keys are defaults.

Errors also know the words that Scalelite v1.8.5 had for them, for scripts that look at these.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from scalelite.core.commands import refusal
from scalelite.core.model import Declared, Key, Kind, ServerSpec, url_key
from scalelite.errors import SyncFileInvalid

if TYPE_CHECKING:
    from collections.abc import Iterator

_FIELDS: Final = frozenset({"secret", "url", "enabled", "load_multiplier", "tag"})
# What servers:yaml[true] prints beside: no wish.
_IGNORED: Final = frozenset({"state", "load", "bbb_version", "online"})
_NO_URL: Final = re.compile(r"[A-Za-z0-9.-]+")


def wanted_servers(text: str) -> Declared:
    """Read `servers: {ID: {secret, url, enabled, load_multiplier, tag}}`; raises SyncFileInvalid."""
    document = _load(text)
    if not isinstance(document, dict):
        raise SyncFileInvalid("Invalid YAML document")
    listed = document.get("servers")
    if not isinstance(listed, dict):
        raise SyncFileInvalid("Servers parameter not a hash")
    specs = [_spec(server_id, fields) for server_id, fields in listed.items()]
    owners: dict[str, str] = {}
    for spec in specs:
        if (other := owners.setdefault(url_key(spec.url), spec.id)) != spec.id:
            raise SyncFileInvalid(f"Server id={spec.id} has the url of server id={other}")
    return Declared({Key(Kind.SERVER, spec.id): spec for spec in specs}, frozenset({"servers"}))


def _load(text: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except ConstructorError as error:
        tag = re.search(r"!ruby/object:(\w+)", error.problem or "")
        old = f"Tried to load unspecified class: {tag[1]}" if tag else ""
        raise SyncFileInvalid("the YAML holds a tag that is not plain YAML", old) from None
    except MarkedYAMLError as error:
        mark = error.context_mark or error.problem_mark
        place = f" at line {mark.line + 1} column {mark.column + 1}" if mark else ""
        reason = " ".join(filter(None, (error.problem, error.context)))
        raise SyncFileInvalid(f"(<unknown>): {reason}{place}") from None
    except YAMLError as error:
        raise SyncFileInvalid(f"invalid YAML: {type(error).__name__}") from None


def _spec(server_id: Any, fields: Any) -> ServerSpec:
    if not isinstance(server_id, str):
        raise SyncFileInvalid(
            f"Server id={server_id} is not a text", f"no implicit conversion of {_ruby_class(server_id)} into String"
        )
    if not isinstance(fields, dict):
        raise SyncFileInvalid(f"Server id={server_id} has no fields", "undefined method `[]' for nil")
    _check(server_id, fields)
    url = fields.get("url") or f"https://{server_id}/bigbluebutton/api"
    enabled = fields.get("enabled")
    try:
        return ServerSpec(
            id=server_id,
            url=url,
            secret=str(fields["secret"]),  # type: ignore[arg-type]  # validated into a Secret
            load_multiplier=_multiplier(server_id, fields.get("load_multiplier")),
            tag=str(fields.get("tag") or ""),
            state="enabled" if enabled is None or enabled is not False else "not enabled",
        )
    except ValidationError as error:
        if any(problem["loc"][:1] == ("url",) for problem in error.errors()):
            raise SyncFileInvalid(f"Server id={server_id} has invalid url={url}") from None
        raise SyncFileInvalid(f"Server id={server_id}: {refusal(error)}") from None


def _check(server_id: str, fields: dict[Any, Any]) -> None:
    """Refuse in the order in which Scalelite looked."""
    if fields.get("secret") in {None, ""}:
        raise SyncFileInvalid(f"Server id={server_id} has no secret")
    unknown = [str(name) for name in fields if name not in _FIELDS | _IGNORED]
    if unknown:
        raise SyncFileInvalid(f"Server id={server_id} has bad parameters: {json.dumps(unknown)}")
    if not re.search(r"^[A-Za-z0-9_.-]+$", server_id, re.MULTILINE):
        raise SyncFileInvalid(f"Server id={server_id} contains invalid characters")


def _multiplier(server_id: str, value: Any) -> float:
    if value is None:
        return 1.0
    try:
        factor = float(value)
    except (TypeError, ValueError):
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise SyncFileInvalid(f"Server id={server_id} has invalid load_multiplier={value}")
    return factor


def _ruby_class(value: object) -> str:
    return {int: "Integer", float: "Float", bool: "true", type(None): "nil"}.get(type(value), "Object")


def listed_servers(text: str) -> list[dict[str, Any]]:
    """Read `servers: [{url, secret}]`; a url that is a host name alone is completed; raises SyncFileInvalid."""
    document = _load(text)
    listed = document.get("servers") if isinstance(document, dict) else None
    if isinstance(listed, dict):
        raise SyncFileInvalid("servers is not a list", "no implicit conversion of String into Integer")
    if not isinstance(listed, list):
        raise SyncFileInvalid("the file lists no servers", "undefined method `each' for nil")
    return list(_fields(listed))


def _fields(listed: list[Any]) -> Iterator[dict[str, Any]]:
    for place, entry in enumerate(listed, start=1):
        if not isinstance(entry, dict) or not entry.get("url") or not entry.get("secret"):
            raise SyncFileInvalid(f"server {place} of the list needs a url and a secret")
        url = str(entry["url"])
        yield {
            "url": f"https://{url}/bigbluebutton/api" if _NO_URL.fullmatch(url) else url,
            "secret": str(entry["secret"]),
            "load_multiplier": _multiplier(url, entry.get("load_multiplier")),
            "tag": str(entry.get("tag") or ""),
        }
