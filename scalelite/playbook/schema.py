"""The JSON schema of playbooks for editors: draft-07, generated from keywords and modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scalelite.inventory.schema import draft7
from scalelite.playbook.book import SECTIONS, BlockWords, HandlerWords, PlayWords, TaskWords

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from scalelite.playbook.registry import Module

_ID: Final = "https://scalelite.invalid/schemas/playbook.schema.json"
_NOTHING: Final = {"type": "null"}
_TEXT: Final = {"type": "string"}
_ABOUT: Final = ("description", "examples", "default")
_STRUCTURES: Final = ("array", "object")
_TEMPLATE: Final = {"type": "string", "pattern": "\\{[{%]"}


def playbook_schema(modules: Mapping[str, Module]) -> dict[str, Any]:
    """Return the schema of a playbook, with these modules."""
    definitions: dict[str, Any] = {}
    for module in modules.values():
        arguments = _taken(module.args, definitions)
        arguments["properties"] = {name: _or_template(part) for name, part in arguments.get("properties", {}).items()}
        if module.args.model_config.get("extra") == "allow":
            arguments["additionalProperties"] = True
        forms = [arguments, _NOTHING] + ([_TEXT] if module.free else [])
        definitions[f"module_{module.name}"] = {"description": module.summary, "anyOf": forms}
    named = {name: {"$ref": f"#/definitions/module_{name}"} for name in modules}
    for name, words in (("task", TaskWords), ("handler", HandlerWords)):
        task = _taken(words, definitions)
        task["properties"] |= named
        task["oneOf"] = [{"required": [module]} for module in modules]
        definitions[name] = {"description": "One task: keywords, and exactly one module.", **task}
    items = {"type": "array", "items": {"anyOf": [{"$ref": "#/definitions/task"}, {"$ref": "#/definitions/block"}]}}
    block = _taken(BlockWords, definitions)
    block["properties"] |= dict.fromkeys(("block", "rescue", "always", "finally"), items)
    definitions["block"] = {"description": "Tasks that are done together.", **block, "required": ["block"]}
    play = _taken(PlayWords, definitions)
    play["properties"] |= dict.fromkeys(SECTIONS, items)
    play["properties"]["handlers"] = {"type": "array", "items": {"$ref": "#/definitions/handler"}}
    definitions["play"] = {"description": "One play.", **play}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$id": _ID,
        "description": "A playbook: a list of plays; or a file of tasks that a playbook includes.",
        "type": "array",
        "items": {"$ref": "#/definitions/play"},
        "definitions": dict(sorted(definitions.items())),
    }


def _or_template(part: dict[str, Any]) -> dict[str, Any]:
    """Let a template stand for a list or a mapping, which it may give."""
    about: dict[str, Any] = {name: value for name, value in part.items() if name in _ABOUT}
    core = {name: value for name, value in part.items() if name not in _ABOUT}
    forms: list[dict[str, Any]] = core["anyOf"] if core.keys() == {"anyOf"} else [core]
    if any(form.get("type") in _STRUCTURES or "$ref" in form or "allOf" in form for form in forms):
        return {**about, "anyOf": [*forms, _TEMPLATE]}
    return part


def _taken(model: type[BaseModel], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a model's schema; what it refers to goes to the definitions."""
    schema = model.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    for name, part in schema.pop("$defs", {}).items():
        definitions[name] = draft7(part)
    schema.pop("description", None)
    taken: dict[str, Any] = draft7(schema)
    return taken
