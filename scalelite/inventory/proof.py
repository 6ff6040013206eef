"""Proves edits of an inventory on the entries that they concern, without loading the others again; reads no file.

Where this says no, that is no answer: the whole must be loaded.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from scalelite.core.plan import diff, owner
from scalelite.errors import InventoryInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scalelite.core.model import Declared
    from scalelite.inventory.update import Update

    Load = Callable[[Mapping[str, str | None]], Declared]


def is_proved_by_parts(found: Update, whole: Declared, live: Declared, load: Load) -> bool:
    """Say whether a plan of the edited inventory is empty, of which `whole` is what was loaded before the edits.

    `load` loads a copy with some texts in place of the inventory's own. Before the edits, the entries alone must say
    what they say among the others: so what was left out changes nothing in them. After the edits, they and the others
    as they were loaded must leave nothing to plan. An anchor may be referred to by what was left out.
    """
    before = {path: texts[0] for path, texts in found.extracts.items()}
    after = {path: texts[1] for path, texts in found.extracts.items()}
    if not found.extracts or any("&" in text for text in (*before.values(), *after.values())):
        return False
    try:
        alone, edited = load(before).objects, load({**found.files, **after}).objects
    except InventoryInvalid:
        return False
    concerned = {key: spec for key, spec in whole.objects.items() if owner(key) in found.concerned}
    if not concerned.items() <= alone.items() <= whole.objects.items():
        return False
    others = {key: spec for key, spec in whole.objects.items() if key not in alone}
    return not diff(live, replace(whole, objects={**others, **edited})).changes
