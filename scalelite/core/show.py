"""Plans and tables as text and JSON, for people and machines; secrets are masked, control characters escaped."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from scalelite.core.model import Kind, Secret, has_secret
from scalelite.core.plan import Create, Plan, Remove, Update

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from _typeshed import DataclassInstance

    from scalelite.core.drift import Touch
    from scalelite.core.model import AnySpec
    from scalelite.core.plan import Change

WIDTH: Final = 120
CHANGED_SECRET: Final = "(sensitive value changed)"  # noqa: S105 - what stands in its place
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NOUNS: Final = {Kind.SERVER: "server", Kind.TENANT: "tenant", Kind.SETTING: "setting"}


def plain(text: str) -> str:
    """Return text that a terminal takes as text: control characters are escaped."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def counted(count: int, noun: str) -> str:
    """Return `1 server`, `10,000 servers`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


# --- plans as text ---------------------------------------------------------------------------------------------------


def plan_text(plan: Plan) -> str:
    """Return the plan as people read it: removals first, only what differs, totals at the end."""
    if not plan.changes and not plan.keeps and not plan.blocked:
        parts = [counted(plan.unchanged.get(kind, 0), noun) for kind, noun in _NOUNS.items()]
        return f"No changes. {', '.join(parts)} match the cluster.\n"
    lines = [line for change in plan.changes for line in _change_lines(change)]
    lines += [_line("=", keep.key.address, "keep", keep.reason) for keep in plan.keeps]
    lines += [_line("!", stop.key.address, "blocked", f"{stop.reason}; {stop.remedy}") for stop in plan.blocked]
    lines += ["", summary(plan)]
    if removed := [change.key.address for change in plan.changes if isinstance(change, Remove)]:
        lines.append(f"Deletes: {', '.join(removed)}")
    return "\n".join(lines) + "\n"


def summary(plan: Plan) -> str:
    """Return the line of totals."""
    create, update, delete = plan.count(Create), plan.count(Update), plan.count(Remove)
    kept = f", {len(plan.keeps):,} kept" if plan.keeps else ""
    blocked = f", {len(plan.blocked):,} blocked" if plan.blocked else ""
    unchanged = sum(plan.unchanged.values())
    totals = f"{create:,} to create, {update:,} to update, {delete:,} to delete{kept}{blocked}"
    return f"Plan: {totals}. {unchanged:,} unchanged."


def _change_lines(change: Change) -> Iterator[str]:
    place = str(change.place) if not isinstance(change, Remove) and change.place else ""
    match change:
        case Create():
            yield _line("+", change.key.address, "create", place)
        case Remove():
            yield _line("-", change.key.address, "delete", change.reason)
        case Update():
            yield _line("~", change.key.address, "update", change.reason or place)
            for name in change.fields:
                yield f"      {name:<17} {difference(getattr(change.before, name), getattr(change.after, name))}"


def _line(symbol: str, address: str, action: str, detail: str) -> str:
    return f"  {symbol} {plain(address):<32}  {action:<8}  {plain(detail)}".rstrip()


def difference(before: object, after: object) -> str:
    """Return `before → after` of a field, or that a secret was changed."""
    if has_secret(before) or has_secret(after):
        return CHANGED_SECRET
    if isinstance(before, BaseModel | dict) or isinstance(after, BaseModel | dict):
        return _inner_difference(before, after)
    return f"{_value(before)} → {_value(after)}"


def _inner_difference(before: object, after: object) -> str:
    """What differs inside a nested value, with its path; DeepDiff costs, so only here."""
    from deepdiff import DeepDiff  # noqa: PLC0415 - 0.1 s to import

    found = DeepDiff(as_json(before), as_json(after), verbose_level=2).to_dict()
    parts = [_step(kind, path, item) for kind, items in found.items() for path, item in items.items()]
    return "; ".join(sorted(parts))


def _step(kind: str, path: str, item: Any) -> str:
    where = path.removeprefix("root")
    if kind in {"values_changed", "type_changes"}:
        return f"{where}: {_value(item['old_value'])} → {_value(item['new_value'])}"
    return f"{where}: {'added' if kind.endswith('_added') else 'removed'} {_value(item)}"


def _value(value: object) -> str:
    text = repr(value) if isinstance(value, str) and (not value or " " in value) else str(as_json(value))
    return plain(text if len(text) <= WIDTH // 2 else text[: WIDTH // 2 - 1] + "…")


# --- plans as JSON ---------------------------------------------------------------------------------------------------


def plan_json(plan: Plan, about: Mapping[str, Any]) -> str:
    """Return the plan in the shape of Terraform's `show -json`; `about` says what it was made of."""
    document = {
        "format_version": "1.0",
        **about,
        "applyable": not plan.blocked,
        "scope": {"mode": plan.mode},
        "summary": {
            "create": plan.count(Create),
            "update": plan.count(Update),
            "delete": plan.count(Remove),
            "keep": len(plan.keeps),
            "no_op": sum(plan.unchanged.values()),
        },
        "resource_changes": [_resource_change(change) for change in plan.changes],
        "kept": [{"address": keep.key.address, "reason": keep.reason} for keep in plan.keeps],
        "guards": [
            {"subject": stop.key.address, "status": "blocked", "reason": stop.reason, "remedy": stop.remedy}
            for stop in plan.blocked
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _resource_change(change: Change) -> dict[str, Any]:
    before = None if isinstance(change, Create) else change.before
    after = None if isinstance(change, Remove) else change.after
    action = {Create: "create", Update: "update", Remove: "delete"}[type(change)]
    place = None if isinstance(change, Remove) else change.place
    return {
        "address": change.key.address,
        "mode": "managed",
        "type": str(change.key.kind),
        "name": change.key.param or change.key.name,
        "provider_name": "scalelite",
        "source": place._asdict() if place else None,
        "change": {
            "actions": [action],
            "before": as_json(before),
            "after": as_json(after),
            "after_unknown": {},
            "before_sensitive": _sensitive(before),
            "after_sensitive": _sensitive(after),
            "fields": list(change.fields) if isinstance(change, Update) else [],
        },
    }


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


def _sensitive(spec: AnySpec | None) -> dict[str, bool]:
    return {} if spec is None else {name: True for name, item in spec if has_secret(item)}


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


def rows_json(rows: Iterable[DataclassInstance]) -> str:
    """Return rows of a listing as a JSON array."""
    return json.dumps([asdict(row) for row in rows], indent=2, ensure_ascii=False)
