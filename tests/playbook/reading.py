"""Reads a playbook as the command does, and gives it back or raises its problems."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scalelite.inventory.templates import Lookups
from scalelite.inventory.vault import Vaults
from scalelite.playbook.parse import load_playbook
from scalelite.playbook.registry import load_modules
from scalelite.playbook.templates import Templates

if TYPE_CHECKING:
    from pathlib import Path

    from scalelite.playbook.book import Playbook

VAULTS = Vaults(tuple)
MODULES = load_modules()


def templates() -> Templates:
    return Templates(Lookups({}, VAULTS), VAULTS, lambda _: None)


def read_playbook(*paths: Path) -> Playbook:
    return load_playbook(paths, MODULES, templates(), VAULTS)
