"""What `groups.*.servers` may name: an id, a range, a glob such as `bbb*`, or `~` and a regular expression."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import TYPE_CHECKING, Final

from scalelite.inventory.problems import nearest
from scalelite.inventory.ranges import BadRange, expand, is_range

if TYPE_CHECKING:
    from collections.abc import Collection

_LONGEST: Final = 255
# An expression that needs longer for an id of so many characters would need centuries for another.
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


def _is_quick(expression: str, ids: Collection[str]) -> bool:
    """Tell whether matching takes microseconds for any of the ids: to watch the time of each takes four times that.

    Without groups nothing is repeated within a repetition, and two repetitions try at most 255 x 255 ways.
    """
    repetitions = sum(expression.count(sign) for sign in "*+?{")
    return "(" not in expression and repetitions <= 2 and max(map(len, ids), default=0) <= _LONGEST


def _by_expression(expression: str, ids: Collection[str]) -> list[str]:
    """Match from the beginning of the id, as Ansible does."""
    import regex  # noqa: PLC0415 - it can be stopped, which re cannot

    try:
        fits = regex.compile(expression).match
        if _is_quick(expression, ids):
            return [name for name in ids if fits(name)]
        return [name for name in ids if fits(name, timeout=_TIMEOUT_S)]
    except regex.error as error:
        raise NoMatch(f"is no regular expression: {error}. Correct it.") from None
    except TimeoutError:
        raise NoMatch("the regular expression takes too long. Write it without nested repetitions.") from None
