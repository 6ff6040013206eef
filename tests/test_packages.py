"""What is installed: everything that setup.cfg asks for, and what that asks for, is pinned in constraints.txt."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONSTRAINTS = Path(__file__).parent.parent / "constraints.txt"


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> set[str]:
    """Names of the installed distributions that a distribution with these extras needs."""
    if (name, extras) in seen:
        return set()
    seen.add((name, extras))
    found: set[str] = set()
    for text in requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": e}) for e in extras or {""}):
            continue
        child = canonicalize_name(requirement.name)
        found |= {child} | needed(child, frozenset(requirement.extras), seen)
    return found


@pytest.mark.shows("issue A8: constraints")
def test_constraints_pin_everything_that_is_installed() -> None:
    """Else pip tries version after version of what is not: with Debian 12's it did not end."""
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if line and not line.startswith("#")]
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    try:
        names = needed("scalelite", frozenset({"", "embedded", "test"}), set())
    except PackageNotFoundError as error:
        pytest.fail(f"{error} is not installed: run the README's test command")
    assert len(names) > 40
    assert sorted(names - pinned) == []
