"""What `groups.*.servers` may name: an id, a range, a glob such as `bbb*`, or `~` and a regular expression."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from scalelite.inventory.problems import nearest
from scalelite.inventory.ranges import BadRange, expand, is_range

if TYPE_CHECKING:
    from collections.abc import Collection

# A server id has 255 characters: an expression that needs longer for one would need centuries for another.
_TIMEOUT_S: Final = 0.2
_GLOB: Final = re.compile(r"[*?\[]")


class NoMatch(ValueError):
    """A pattern that names servers that are not there, or cannot be read; its text says why, and what to do."""


def matching(pattern: str, ids: Collection[str]) -> list[str]:
    """Return the ids that a pattern names, maybe none; raises NoMatch for ids that are unknown."""
    if pattern.startswith("~"):
        return _by_expression(pattern[1:], ids)
    if is_range(pattern):
        try:
            return _known(expand(pattern), ids)
        except BadRange as error:
            raise NoMatch(str(error)) from None
    if _GLOB.search(pattern):
        fits = re.compile(translate(pattern)).match
        return [name for name in ids if fits(name)]
    return _known([pattern], ids)


def _known(names: list[str], ids: Collection[str]) -> list[str]:
    if missing := next((name for name in names if name not in ids), None):
        raise NoMatch(f"no server of the inventory is called '{missing}'.{nearest(missing, ids) or ' Remove it.'}")
    return names


def _by_expression(expression: str, ids: Collection[str]) -> list[str]:
    """Match from the beginning of the id, as Ansible does."""
    import regex  # noqa: PLC0415 - it can be stopped, which re cannot

    try:
        fits = regex.compile(expression).match
        return [name for name in ids if fits(name, timeout=_TIMEOUT_S)]
    except regex.error as error:
        raise NoMatch(f"is no regular expression: {error}. Correct it.") from None
    except TimeoutError:
        raise NoMatch("the regular expression takes too long. Write it without nested repetitions.") from None
