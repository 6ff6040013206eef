"""Servers as lists of them show them, and as files for `servers sync` say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from scalelite.flows.status import ServerRow
    from scalelite.store.runtime import Held

HEADS: Final = ("id", "url", "state", "health", "load", "multiplier", "tag", "secret")


def plain(spec: Any, row: ServerRow, held: Held | None, *, show_secrets: bool) -> dict[str, Any]:
    """Return a server as JSON has it: documented, and only added to."""
    return {
        "id": spec.id,
        "url": spec.url,
        "secret": spec.secret.reveal() if show_secrets else str(spec.secret),
        "state": row.state,
        "declared_state": "disabled" if spec.state == "not enabled" else spec.state,
        "hold": held
        and {
            "state": held.state,
            "by": held.by,
            "why": held.why,
            "since": held.since.isoformat(),
            "until": held.until.isoformat() if held.until else None,
        },
        "health": row.health,
        "load": row.load,
        "load_multiplier": spec.load_multiplier,
        "tag": spec.tag,
        "meetings": row.meetings,
        "users": row.users,
        "largest_meeting": row.largest_meeting,
        "videos": row.videos,
        "max_meetings": spec.max_meetings,
        "max_users": spec.max_users,
        "bbb_version": row.bbb_version,
        "protect": spec.protect,
        "polled_at": row.polled_at,
    }


def cells(value: dict[str, Any]) -> tuple[str, ...]:
    """Return a server as its line of the table."""
    held = " (held)" if value["hold"] else ""
    load, multiplier = f"{value['load']:.1f}", f"{value['load_multiplier']:g}"
    head = (value["id"], value["url"], value["state"] + held, value["health"])
    return (*head, load, multiplier, value["tag"], value["secret"])


def as_sync_file(found: list[tuple[Any, ServerRow]], *, verbose: bool) -> dict[str, Any]:
    """Return servers as `servers sync` reads them."""
    listed = {}
    for spec, row in found:
        fields = {
            "url": spec.url,
            "secret": spec.secret.reveal(),
            "load_multiplier": spec.load_multiplier,
            "tag": spec.tag,
            "enabled": row.state == "enabled",
        }
        load = known_load(row)
        more = {
            "state": row.state,
            "load": -1.0 if load is None else load,
            "bbb_version": row.bbb_version,
            "online": seems_online(row),
        }
        listed[spec.id] = {**fields, **more} if verbose else fields
    return {"servers": listed}


def known_load(row: ServerRow) -> float | None:
    """Return a server's load as Scalelite had it: none where no poll may count on it now."""
    return row.load if row.state != "disabled" and row.health in {"online", "unhealthy"} else None


def seems_online(row: ServerRow) -> bool:
    """Say whether a server was there when it was last polled, as Scalelite did."""
    return row.health in {"online", "unhealthy"} or (row.health == "unknown" and row.polled_at is not None)
