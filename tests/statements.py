"""Which statement each test shows: the mark `shows`, and the report of requirements that no test shows yet.

`pytest --statements` lists them. The ids are those of requirements.md; spec statements are free text and not counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

COUNTS: Final = {
    "LB": 14, "PO": 17, "CR": 14, "DR": 8, "DE": 12, "MT": 9, "TS": 3, "SE": 5, "XA": 5, "RE": 9, "CB": 5, "DI": 5,
    "HA": 3, "MO": 4,
}  # fmt: skip
REQUIREMENTS: Final = tuple(f"{group}-{number}" for group, count in COUNTS.items() for number in range(1, count + 1))


def shown_by(items: Iterable[pytest.Item]) -> dict[str, list[str]]:
    """Return the names of the tests by the statement that they show."""
    shown: dict[str, list[str]] = {}
    for item in items:
        for mark in item.iter_markers("shows"):
            for statement in mark.args:
                shown.setdefault(statement, []).append(item.nodeid)
    return shown


def report(items: Iterable[pytest.Item]) -> str:
    """Return the requirements that no test shows, by group, and what is shown."""
    shown = shown_by(items)
    missing = [requirement for requirement in REQUIREMENTS if requirement not in shown]
    lines = [f"{len(REQUIREMENTS) - len(missing)} of {len(REQUIREMENTS)} requirements are shown; not yet:"]
    by_group = {group: [name for name in missing if name.startswith(f"{group}-")] for group in COUNTS}
    lines += ["  " + " ".join(names) for names in by_group.values() if names]
    lines.append("shown:")
    lines += [f"  {statement}: {', '.join(tests)}" for statement, tests in sorted(shown.items())]
    return "\n".join(lines)
