"""Whose hold it is: a playbook lifts those of playbooks by itself, an operator's only where it is told to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from scalelite.core.plan import Held

_PLAYBOOK: Final = "playbook "


def name_of_run(playbook: str, run: int) -> str:
    """Return the name of a playbook's run, which is why it holds servers; in check mode it has no number (0)."""
    return f"{_PLAYBOOK}{playbook} #{run}" if run else f"{_PLAYBOOK}{playbook}"


def is_of_playbook(held: Held) -> bool:
    """Say whether a playbook holds a server; it is held by its actor and its run's name. '' is one not yet written."""
    return not held.by or (held.why.startswith(_PLAYBOOK) and held.by.endswith(f" {held.why}"))


def is_taken_over(held: Held, why: str) -> bool:
    """Say whether somebody who wants what a playbook wants has to hold the server by himself: the run will end."""
    return is_of_playbook(held) and bool(held.by) and not why.startswith(_PLAYBOOK)
