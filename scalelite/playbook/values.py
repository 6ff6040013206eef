"""Kinds of values in playbooks: durations, shares, lists that may be one item; each with its form in the schema."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?) ?(ms|s|m|h|d|)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SHARE: Final = re.compile(r"(\d{1,9})( ?%)?")


class Args(BaseModel):
    """Base of what a task or a play may say: typed, no unknown keys, no values in errors (one may be a secret)."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)


def seconds(value: Any) -> float:
    """Return the seconds of `30`, `"30s"`, `"15m"`, `"2h"`; raises ValueError."""
    found = None if isinstance(value, bool) else _DURATION.fullmatch(str(value).strip())
    if not found:
        raise ValueError("must be a duration such as 30s, 15m or 2h")
    return float(found[1]) * _SECONDS[found[2]]


def share(value: Any) -> str:
    """Return a number of servers, or a percentage of them, as text; raises ValueError."""
    found = None if isinstance(value, bool) else _SHARE.fullmatch(str(value).strip())
    if not found:
        raise ValueError("must be a number of servers or a percentage, such as 3 or '50 %'")
    return f"{found[1]}%" if found[2] else found[1]


def of_share(text: str, whole: int, *, up: bool) -> int:
    """Return how many of `whole` a share is; a percentage is rounded `up` or down."""
    if not text.endswith("%"):
        return int(text)
    percent = int(text[:-1])
    return -(-whole * percent // 100) if up else whole * percent // 100


def listed(value: Any) -> Any:
    """Return a list as a tuple, and one item as a tuple of it."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_tuple(value: Any) -> Any:
    """Return a list as a tuple, which is what models keep."""
    return tuple(value) if isinstance(value, list) else value


def words(value: Any) -> Any:
    """Return names that are a list, or one text with commas, as a tuple."""
    found = value.split(",") if isinstance(value, str) else value
    return tuple(word.strip() if isinstance(word, str) else word for word in listed(found))


def texts(value: Any) -> Any:
    """Return scalars as texts, since parameters of calls are texts."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _list_schema(kind: Any) -> dict[str, Any]:
    item = {"type": kind}
    return {"anyOf": [item, {"type": "array", "items": item}]}


Many = BeforeValidator(as_tuple)
Template = Annotated[str, Field(pattern=r"\{\{|\{%")]
Duration = Annotated[
    float,
    BeforeValidator(seconds),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": r"^\d.*|\{\{"}]}),
]
_SHARE_SCHEMA: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\d+ ?%?$|\{\{"}]
}
Share = Annotated[
    str,
    BeforeValidator(share),
    WithJsonSchema(_SHARE_SCHEMA),
]
Shares = Annotated[
    tuple[Share, ...],
    BeforeValidator(listed),
    WithJsonSchema({"anyOf": [_SHARE_SCHEMA, {"type": "array", "items": _SHARE_SCHEMA}]}),
]
Words = Annotated[tuple[str, ...], BeforeValidator(words), WithJsonSchema(_list_schema("string"))]
Texts = Annotated[tuple[str, ...], BeforeValidator(listed), WithJsonSchema(_list_schema("string"))]
Condition = str | bool
Conditions = Annotated[
    tuple[Condition, ...], BeforeValidator(listed), WithJsonSchema(_list_schema(["string", "boolean"]))
]
ParamText = Annotated[str, BeforeValidator(texts), WithJsonSchema({"type": ["string", "number", "boolean"]})]
Switch = bool | Template
