"""Drift, revisions and blame as text and JSON, for people and machines; secrets are masked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from scalelite.core.model import OF_TENANTS, Key, Kind, has_secret
from scalelite.core.show import CHANGED_SECRET, as_json, counted, difference, plain, table, touched

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from scalelite.core.drift import Drift, Touch
    from scalelite.core.model import AnySpec
    from scalelite.core.revisions import Blame, Revision, Step

_SYMBOLS: Final = {
    "made": "+", "removed": "-", "changed": "~",
    "create": "+", "remove": "-", "update": "~", "hold": "=", "release": "=",
}  # fmt: skip


# --- drift -----------------------------------------------------------------------------------------------------------


def drift_text(found: Sequence[Drift], now: datetime) -> str:
    """Return what was changed outside of the inventory, by whom and when."""
    if not found:
        return "No drift. Nothing was changed outside of the inventory since it was applied.\n"
    lines = [line for each in found for line in _drift_lines(each, now)]
    fields = sum(len(each.fields) for each in found)
    totals = f"{counted(len(found), 'object')} and {counted(fields, 'field')}"
    return "\n".join([*lines, "", f"Drift: {totals} of them changed outside of the inventory."]) + "\n"


def _drift_lines(each: Drift, now: datetime) -> Iterator[str]:
    yield _head(each.action, each.key.address, touched(each.last, now))
    for name, touch in each.fields.items():
        who = f"   # {touched(touch, now)}" if touch != each.last else ""
        yield _field(name, each.before, each.live) + who


def _head(action: str, address: str, detail: str) -> str:
    return f"  {_SYMBOLS[action]} {plain(address):<32}  {action:<8}  {detail}".rstrip()


def _field(name: str, before: AnySpec | None, after: AnySpec | None) -> str:
    return f"      {name:<17} {difference(getattr(before, name), getattr(after, name))}"


def drift_plain(found: Sequence[Drift]) -> dict[str, Any]:
    """Return the drift as JSON has it; values of secrets are null."""
    return {"format_version": "1.0", "drift": [_drift_entry(each) for each in found]}


def _drift_entry(each: Drift) -> dict[str, Any]:
    return {
        "address": each.key.address,
        "action": each.action,
        **_touch(each.last),
        "fields": [{**_values(name, each.before, each.live), **_touch(touch)} for name, touch in each.fields.items()],
    }


def _touch(touch: Touch) -> dict[str, Any]:
    return {"revision": touch.revision, "actor": touch.actor, "at": touch.at.isoformat()}


def _values(name: str, before: AnySpec | None, after: AnySpec | None) -> dict[str, Any]:
    old, new = getattr(before, name, None), getattr(after, name, None)
    return {
        "path": name,
        "before": as_json(old),
        "after": as_json(new),
        "sensitive": has_secret(old) or has_secret(new),
    }


# --- revisions -------------------------------------------------------------------------------------------------------


def _origin(source: Mapping[str, Any]) -> str:
    """Return what a revision came from, in a word or two."""
    if "inventory" in source:
        git = source.get("git") or {}
        commit = f" at {git['sha'][:10]}{' (changed)' if git.get('dirty') else ''}" if git.get("sha") else ""
        return f"inventory{commit}"
    if "rollback" in source:
        return f"rollback to {source['rollback']:,}"
    return next((f"{kind} {name}" for kind, name in source.items() if isinstance(name, str)), "")


def _tally(log: Iterable[Mapping[str, Any]]) -> str:
    symbols = [_SYMBOLS.get(entry["action"], "~") for entry in log]
    return " ".join(f"{symbol}{symbols.count(symbol):,}" for symbol in "+~-=" if symbol in symbols)


HISTORY_HEADS: Final = ("revision", "time", "actor", "changes", "from", "message")


def history_text(revisions: Iterable[Revision]) -> str:
    """Return revisions as a table."""
    rows = [
        (
            f"{revision.number:,}",
            f"{revision.at.astimezone():%Y-%m-%d %H:%M:%S}",
            revision.actor,
            _tally(revision.changes),
            _origin(revision.source),
            revision.message,
        )
        for revision in revisions
    ]
    return table(HISTORY_HEADS, rows) if rows else "No revisions: nothing was ever applied.\n"


def history_plain(revisions: Iterable[Revision]) -> list[dict[str, Any]]:
    """Return revisions as JSON has them."""
    return [_about(revision) for revision in revisions]


def _about(revision: Revision) -> dict[str, Any]:
    return {
        "revision": revision.number,
        "at": revision.at.isoformat(),
        "actor": revision.actor,
        "message": revision.message,
        "source": dict(revision.source),
        "changes": list(revision.changes),
    }


def revision_text(revision: Revision, steps: Iterable[Step]) -> str:
    """Return one revision with what it changed."""
    lines = [
        f"Revision {revision.number:,} by {plain(revision.actor)} at {revision.at.astimezone():%Y-%m-%d %H:%M:%S %z}",
        *([f"From     {plain(origin)}"] if (origin := _origin(revision.source)) else []),
        *([f"Message  {plain(revision.message)}"] if revision.message else []),
        "",
    ]
    for step in steps:
        lines.append(_head(step.action, step.address, plain(step.note)))
        if step.before is not None and step.after is not None:
            lines += [_step_field(name, step) for name in step.fields]
    return "\n".join(lines) + "\n"


def _step_field(name: str, step: Step) -> str:
    if has_secret(getattr(step.after, name)):
        return f"      {name:<17} {CHANGED_SECRET}"
    return _field(name, step.before, step.after)


def revision_plain(revision: Revision, steps: Iterable[Step]) -> dict[str, Any]:
    """Return one revision with what it changed as JSON has it; values of secrets are null."""
    changes = [
        {
            "address": step.address,
            "action": step.action,
            **({"note": step.note} if step.note else {}),
            "fields": [_values(name, step.before, step.after) for name in step.fields],
        }
        for step in steps
    ]
    return {**_about(revision), "changes": changes}


# --- blame -----------------------------------------------------------------------------------------------------------

BLAME_HEADS: Final = ("field", "value", "revision", "time", "actor", "message")


def blame_text(key: Key, blame: Blame, revisions: Mapping[int, Revision]) -> str:
    """Return who set which field, as a table."""
    rows = [
        (name, _shown(getattr(blame.spec, name)), *_cells(revisions[number])) for name, number in blame.fields.items()
    ]
    gone = ""
    if blame.removed is not None:
        revision = revisions[blame.removed]
        gone = f"{plain(key.address)} is gone; {_how(key, revision)} {' '.join(_cells(revision)[1:])}".rstrip() + "\n"
    return gone + table(BLAME_HEADS, rows)


def _how(key: Key, revision: Revision) -> str:
    """Say how an object came to be gone: it, or its tenant, may have another name since."""
    old = Key(Kind.TENANT, key.name).address if key.kind in OF_TENANTS else ""
    new = next((entry["address"] for entry in revision.changes if old and entry.get("was") == old), "")
    return f"with {old} renamed to {new}" if new and key.address != old else f"renamed to {new}" if new else "removed"


def _cells(revision: Revision) -> tuple[str, str, str, str]:
    return (
        f"{revision.number:,}",
        f"{revision.at.astimezone():%Y-%m-%d %H:%M:%S}",
        revision.actor,
        revision.message,
    )


def _shown(value: object) -> str:
    if has_secret(value):
        return "(sensitive)" if value else "''"
    found = as_json(value)
    return found if isinstance(found, str) and found else json.dumps(found, ensure_ascii=False)


def blame_plain(key: Key, blame: Blame, revisions: Mapping[int, Revision]) -> dict[str, Any]:
    """Return who set which field as JSON has it; values of secrets are null."""

    def who(number: int) -> dict[str, Any]:
        revision = revisions[number]
        return {
            "revision": number,
            "actor": revision.actor,
            "at": revision.at.isoformat(),
            "message": revision.message,
        }

    fields = [{"path": name, "value": as_json(getattr(blame.spec, name)), **who(n)} for name, n in blame.fields.items()]
    removed = None if blame.removed is None else who(blame.removed)
    return {"address": key.address, "fields": fields, "removed": removed}
