"""What changing modules share: what came of a wish, line by line, and wishes that may be fulfilled already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from scalelite.core.model import has_secret
from scalelite.core.plan import Create, Hold, Remove, Update
from scalelite.errors import NotDeclared
from scalelite.playbook.registry import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core import commands
    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change
    from scalelite.playbook.values import Args


Presence = Literal["present", "absent"]


def outcome(parts: Iterable[Change | Hold], **data: Any) -> Outcome:
    """Return what came of a wish, with a line a field for --diff; secrets print as stars."""
    parts = tuple(parts)
    return Outcome(bool(parts), data, diff=tuple(line for part in parts for line in _lines(part)))


def _lines(part: Change | Hold) -> Iterable[str]:
    address = part.key.address
    match part:
        case Hold():
            yield f"  {address}  held: {part.before or 'no'} -> {part.after or 'no'}"
        case Create():
            yield f"+ {address}"
        case Remove():
            yield f"- {address}"
        case Update():
            for name in part.fields:
                before, after = getattr(part.before, name), getattr(part.after, name)
                shown = "changed" if has_secret(before) or has_secret(after) else f"{_shown(before)} -> {_shown(after)}"
                yield f"~ {address}  {name}: {shown}"


def _shown(value: object) -> str:
    return "''" if value in {"", ()} else str(value)


def given(args: Args, *but: str) -> dict[str, Any]:
    """Return the arguments that a task gives."""
    return {name: getattr(args, name) for name in args.model_fields_set if name not in but}


def unless_gone(wish: Wish) -> Wish:
    """Wish for something to be gone; that it is not there is as good."""

    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        try:
            return tuple(wish(known))
        except NotDeclared:
            return ()

    return decide
