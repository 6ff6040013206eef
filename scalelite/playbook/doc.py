"""The pages of modules, made of their arguments' models."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

    from scalelite.playbook.registry import Module


def module_list(modules: Mapping[str, Module]) -> str:
    """Return a line a module."""
    width = max(map(len, modules))
    return "".join(f"{name:<{width}}  {module.summary}\n" for name, module in sorted(modules.items()))


def module_page(module: Module) -> str:
    """Return what a module does, what it takes, and an example."""
    parts = [f"{module.name}: {module.summary}\n"]
    if module.targets == {"server"}:
        parts.append("It is about the play's server.\n")
    arguments = list(_arguments(module.args, module.args.model_json_schema(by_alias=True)))
    if module.args.model_config.get("extra") == "allow":
        arguments.append("  (any name)\n      Any value.\n")
    parts.append("Arguments:\n\n" + ("".join(arguments) or "  none\n"))
    if module.free:
        parts.append(f"A text in place of the mapping is `{module.free}`.\n")
    if module.example:
        parts.append("Example:\n\n" + textwrap.indent(module.example, "  ") + "\n")
    return "\n".join(parts)


def _arguments(model: type[BaseModel], schema: dict[str, Any]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        shown = field.alias or name
        kind = _kind(schema["properties"].get(shown, {}), schema.get("$defs", {}))
        needed = "required" if field.is_required() else _default(field)
        yield f"  {shown} ({kind}; {needed})\n      {field.description or ''}\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    plain = isinstance(value, str | int | float) and value != ""
    return f"default {str(value).lower() if isinstance(value, bool) else value}" if plain else "optional"


def _kind(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return the kind of value that a schema describes, in a word or as the choice that it is."""
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        fields = definitions[schema["$ref"].rpartition("/")[2]].get("properties", {})
        return f"mapping of {', '.join(fields)}"
    if "anyOf" in schema:
        kinds: list[str] = [_kind(part, definitions) for part in schema["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type", "any value")
    names = {"object": "mapping", "array": "list", "boolean": "true or false"}
    return " or ".join(str(names.get(part, part)) for part in (kind if isinstance(kind, list) else [kind]))
