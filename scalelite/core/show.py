"""Values and tables as text and JSON, for people and machines; secrets are masked, control characters escaped."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from scalelite.core.model import Secret, has_secret

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from scalelite.core.drift import Touch

WIDTH: Final = 120
_STEPS: Final = re.compile(r"\['([\w.:-]*)'\]")
CHANGED_SECRET: Final = "(sensitive value changed)"  # noqa: S105 - what stands in its place
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
# Texts that would read as something else without quotes.
_LIKE_OTHERS: Final = re.compile(r"true|false|none|null|[-+.0-9]+", re.IGNORECASE)


def plain(text: str) -> str:
    """Return text that a terminal takes as text: control characters are escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def counted(count: int, noun: str) -> str:
    """Return `1 server`, `10,000 servers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- values ----------------------------------------------------------------------------------------------------------


def difference(before: object, after: object) -> str:
    """Return `before → after` of a field, or that a secret was changed."""
    if has_secret(before) or has_secret(after):
        return _sensitive_difference(before, after)
    if isinstance(before, BaseModel | dict) or isinstance(after, BaseModel | dict):
        return _inner_difference(before, after)
    return f"{_value(before)} → {_value(after)}"


def _sensitive_difference(before: object, after: object) -> str:
    """Of credentials also what else differs in them: who changes a user name has not changed the password."""
    if type(before) is not type(after) or not isinstance(before, BaseModel):
        return CHANGED_SECRET
    pairs = ((name, old, getattr(after, name)) for name, old in before)
    changed = {name: difference(old, new) for name, old, new in pairs if old != new}
    if set(changed.values()) <= {CHANGED_SECRET}:
        return CHANGED_SECRET
    return "; ".join(f"{name}: {change}" for name, change in changed.items())


def _inner_difference(before: object, after: object) -> str:
    """What differs inside a nested value, with its path; DeepDiff costs, so only here."""
    from deepdiff import DeepDiff  # noqa: PLC0415 - 0.1 s to import

    found = DeepDiff(as_json(before), as_json(after), verbose_level=2).to_dict()
    parts = [_step(kind, path, item) for kind, items in found.items() for path, item in items.items()]
    return "; ".join(sorted(parts))


def _step(kind: str, path: str, item: Any) -> str:
    where = _STEPS.sub(r".\1", path.removeprefix("root")).removeprefix(".")
    if kind in {"values_changed", "type_changes"}:
        return f"{where}: {_value(item['old_value'])} → {_value(item['new_value'])}"
    return f"{where}: {'added' if kind.endswith('_added') else 'removed'} {_value(item)}"


def _value(value: object) -> str:
    quoted = isinstance(value, str) and (not value or " " in value or _LIKE_OTHERS.fullmatch(value))
    text = repr(value) if quoted else str(as_json(value))
    return plain(text if len(text) <= WIDTH // 2 else text[: WIDTH // 2 - 1] + "…")


def as_json(value: object) -> Any:
    """Return a value as JSON has it; secrets become null."""
    match value:
        case Secret():
            return None
        case BaseModel():
            return {name: as_json(item) for name, item in value}
        case dict():
            return {name: as_json(item) for name, item in value.items()}
        case tuple() | list():
            return [as_json(item) for item in value]
        case None | bool() | int() | float() | str():
            return value
        case _:
            return str(value)


def ago(at: datetime, now: datetime) -> str:
    """Return `2 h ago`, in the largest unit that fits."""
    seconds = max(0, int((now - at).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:,} {unit} ago"
    return f"{seconds} s ago"


def touched(touch: Touch, now: datetime) -> str:
    """Return who changed something outside of the inventory, and when."""
    return f"by {plain(touch.actor)} {ago(touch.at, now)} (revision {touch.revision:,})"


# --- tables ----------------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in columns that fit, the heads in capitals, nothing drawn; as it prints in a pipe."""
    lines = [[head.upper() for head in heads], *([plain(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() + "\n" for line in lines
    )
