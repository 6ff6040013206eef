"""What pydantic found, in words for operators: code, what is wrong, what to do; never with the value of a secret."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from scalelite.inventory.excerpt import shown_value
from scalelite.inventory.problems import nearest
from scalelite.inventory.tree import BROKEN, Map, Seq

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic_core import ErrorDetails

    from scalelite.inventory.problems import Path
    from scalelite.inventory.source import Mark


class Found(NamedTuple):
    """Where in a tree an error is, and what stands there."""

    path: Path
    mark: Mark
    value: Any
    at_key: bool


class Words(NamedTuple):
    """What is said of an error."""

    code: str
    message: str


# By the name of the field: what to do, where the kind of error does not say it better.
_REMEDIES: Final = {
    "load_multiplier": "Use 1.0 for a normal server.",
    "secret": "Give the server's shared secret (bbb-conf --secret).",
    "secrets": "Give at least one secret.",
    "suspect_fraction": "Use 0.5 for one half.",
    "endpoint": "Give the URL of the LRS.",
    "value": "Give the parameter's value.",
}
_FORMS: Final = {
    r"^[A-Za-z0-9_.-]+$": "may have only letters, digits, '_', '.' and '-'. Use the server's host name.",
    r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$": "may have only lower case letters, digits and '-' inside. It is a subdomain.",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$": "must be a host name such as meet.example.com, without https://.",
    r"^[A-Za-z][A-Za-z0-9_.:-]*$": "is no parameter name: a letter, then letters, digits, '_', '.', ':' and '-'.",
    r"^[a-z][a-z0-9-]*$": "may have only lower case letters, digits and '-'. Leave out meta_.",
}
_BOUNDS: Final = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_TYPES: Final = {
    "bool_type": ("true or false", "Write true or false, without quotes", "bool"),
    "string_type": ("text", "Put it in quotes", "string"),
    "int_type": ("a whole number", "Write digits, without quotes", "int"),
    "int_from_float": ("a whole number", "Write it without a point", "int"),
    "float_type": ("a number", "Write it without quotes", "float"),
    "tuple_type": ("a list", "Write it as [a, b]", ""),
    "list_type": ("a list", "Write it as [a, b]", ""),
    "dict_type": ("a mapping", "Write 'key: value' below it", ""),
    "model_type": ("a mapping", "Write 'key: value' below it", ""),
}


def locate(error: ErrorDetails, tree: Map, path: Path, mark: Mark) -> Found:
    """Find the value that an error is about; the nearest one that is written, where a step is none of the file's."""
    value: Any = tree
    at_key = error["type"] == "extra_forbidden"
    loc = error["loc"]
    for at, part in enumerate(loc):
        if isinstance(value, Map) and part in value:
            key = str(part)
            value, mark, path = value[key], value.marks[key], (*path, key)
        elif isinstance(value, Seq) and isinstance(part, int):
            value, mark, path = value[part], value.marks[part], (*path, part)
        elif part == "[key]":
            at_key = True
        else:
            if error["type"] == "missing" and at == len(loc) - 1:
                path = (*path, part)
            at_key = at_key or error["type"] == "missing" or (value is tree and part != "value")
            break
    return Found(path, mark, value, at_key)


def words(error: ErrorDetails, found: Found, known: Iterable[str]) -> Words | None:
    """Return what to say of an error; None where it was said already, or says nothing of its own."""
    kind = error["type"]
    context = error.get("ctx", {})
    field = str(found.path[-1])
    got = "" if found.at_key else shown_value(found.path, found.mark)
    remedy = f" {_REMEDIES[field]}" if field in _REMEDIES else ""
    if kind == "missing":
        return Words("SL115", f"is required.{remedy or ' Add it.'}")
    if kind == "extra_forbidden":
        return unknown_key(field, known)
    if found.value is BROKEN or found.value is None or kind == "is_instance_of":
        return None
    if kind in _BOUNDS:
        name, how = _BOUNDS[kind]
        return Words("SL112", f"must be {how} {context[name]:,.12g}{got}.{remedy or ' Correct the number.'}")
    if kind == "finite_number":
        return Words("SL112", f"must be a finite number{got}.{remedy or ' Correct the number.'}")
    if kind in _TYPES:
        return _wrong_type(kind, found, got)
    return _wrong_form(kind, context, got)


def unknown_key(name: str, known: Iterable[str]) -> Words:
    """Say that a key is not known, with the nearest one that is."""
    return Words("SL113", f"unknown key.{nearest(name, known) or ' Remove it.'} Known: {', '.join(sorted(known))}.")


def _wrong_type(kind: str, found: Found, got: str) -> Words:
    expected, remedy, filter_name = _TYPES[kind]
    if isinstance(found.value, Map | Seq):
        what = "mapping" if isinstance(found.value, Map) else "list"
        return Words("SL114", f"must be {expected}, not a {what}.")
    if "{{" in found.mark.written and filter_name:
        return Words("SL114", f"must be {expected}. Make the template give it, with | {filter_name}.")
    return Words("SL114", f"must be {expected}{got}. {remedy}.")


def _wrong_form(kind: str, context: dict[str, Any], got: str) -> Words:
    match kind:
        case "literal_error":
            return Words("SL116", f"must be one of {context['expected']}{got}. Choose one of them.")
        case "string_pattern_mismatch":
            return Words("SL118", _FORMS.get(context["pattern"], f"is not of the form {context['pattern']}."))
        case "string_too_long":
            return Words("SL118", f"may have {context['max_length']} characters at most. Make it shorter.")
        case "value_error":
            return _said_by_model(str(context["error"]), got)
    return Words("SL114", f"is not valid ({kind}). Correct it.")


def _said_by_model(said: str, got: str) -> Words:
    if "cannot be a setting" in said:
        return Words("SL124", f"{said}. Remove it.")
    if "exactly one of" in said:
        return Words("SL119", f"{said}. Keep one of them.")
    if "URL" in said or "http" in said or "/api" in said or "query" in said:
        return Words("SL117", f"{said}{got}. Correct the URL.")
    if "%" in said:
        what, _, remedy = said.partition(". ")
        return Words("SL112", f"{what}{got}. {remedy}.")
    return Words("SL118", f"{said}. Correct it.")
