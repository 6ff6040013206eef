"""The JSON schema of inventories for editors: draft-07, generated from the entries; it allows a template anywhere."""

from __future__ import annotations

from typing import Any, Final

from scalelite.inventory.entries import InventoryFile

_ID: Final = "https://scalelite.invalid/schemas/inventory.schema.json"
_TEMPLATE: Final = {"type": "string", "pattern": "\\{[{%]"}
_ABOUT: Final = ("description", "examples", "default", "title")
# What makes a schema one that a template would fail.
_BOUNDED: Final = frozenset({"pattern", "enum", "const", "format"})


def inventory_schema() -> dict[str, Any]:
    """Return the schema of an inventory file."""
    schema = _without_null(InventoryFile.model_json_schema(ref_template="#/definitions/{model}"))
    definitions = schema.pop("$defs")
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": _ID,
        **draft7(schema),
        "definitions": {name: draft7(definition) for name, definition in sorted(definitions.items())},
    }


def _without_null(schema: Any) -> Any:
    """Leave null out of a schema: it stands for a key that is absent, and nobody may write it."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _without_null(part) for name, part in schema.items() if name != "default" or part is not None}
    kinds = [kind for kind in found.pop("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **found}
    return {**found, "anyOf": kinds} if kinds else found


def draft7(schema: Any) -> Any:
    """Turn a part of pydantic's schema into draft-07: nothing may stand beside `$ref`, no generated titles."""
    if isinstance(schema, list):
        return [draft7(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    about = {name: schema[name] for name in _ABOUT if name in schema and name != "title"}
    core = {name: part for name, part in schema.items() if name not in _ABOUT}
    if "properties" in core:
        core["properties"] = {name: draft7(part) for name, part in core["properties"].items()}
        core.pop("required", None)  # a file may hold a part of an entry, of which another file holds the rest
    for name in ("items", "additionalProperties", "anyOf"):
        if name in core:
            core[name] = draft7(core[name])
    if "patternProperties" in core:
        # pydantic lets keys of another form pass, with any value.
        [(pattern, values)] = core.pop("patternProperties").items()
        core["propertyNames"] = {**core.get("propertyNames", {}), "pattern": pattern}
        core["additionalProperties"] = draft7(values)
    if "$ref" in core and about:
        return {**about, "allOf": [core]}
    return {**about, **(_or_template(core) if _is_bounded_scalar(core) else core)}


def _is_bounded_scalar(core: dict[str, Any]) -> bool:
    kind = core.get("type")
    return kind in ("integer", "number", "boolean") or (kind == "string" and not _BOUNDED.isdisjoint(core))


def _or_template(core: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [core, dict(_TEMPLATE)]}
