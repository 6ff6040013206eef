"""What differs on purpose from the recorded Scalelite: the rules of differences.yaml, each as narrow as it can be.

A rule names its records, why they differ, and by part of an answer (or of what it left) what is `ours` instead: a
pattern that must be found there. A part that differs and is not named, or is named and does not differ, is unexpected.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.golden.replay import Differences

RULES: Final[list[dict[str, Any]]] = YAML(typ="safe").load(Path(__file__).parent / "differences.yaml")


def rule_of(record: dict[str, Any]) -> dict[str, Any]:
    """The rule of a record, or an empty one."""
    name = f"{record['id']} {record['case']}"
    found = [
        rule
        for rule in RULES
        if record["id"] in rule.get("records", ()) or re.fullmatch(rule.get("pattern", "(?!)"), name)
    ]
    assert len(found) <= 1, f"{record['id']} has {len(found)} rules"
    return found[0] if found else {}


def unexpected(record: dict[str, Any], found: Differences) -> Iterator[str]:
    """Say what differs otherwise than on purpose."""
    name, ours = f"{record['id']} {record['case']}", rule_of(record).get("ours", {})
    for part in sorted(found.keys() | ours.keys()):
        if part not in ours:
            yield f"{name}: {part} {found[part][0]} is {found[part][1]}"
        elif part not in found:
            yield f"{name}: {part} is listed in differences.yaml, but does not differ"
        elif not re.search(str(ours[part]), found[part][1]):
            yield f"{name}: {part} is not {ours[part]}, but {found[part][1]}"
