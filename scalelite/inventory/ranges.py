"""Ranges in server ids, `bbb[02:20].example.com`, as Ansible writes them: numbers, leading zeros, letters, steps."""

from __future__ import annotations

import re
from itertools import product
from math import prod
from string import ascii_letters
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

# As many servers as one range may make: a typing error is to be found, not obeyed.
MAX_IDS: Final = 100_000
_RANGE: Final = re.compile(r"\[([^\[\]:]*):([^\[\]:]*)(?::([^\[\]:]*))?\]")
_NUMBER: Final = re.compile(r"[0-9]{1,18}")


class BadRange(ValueError):
    """A range that makes no names; its text says why, and what to do."""


def is_range(name: str) -> bool:
    """Tell whether a name holds a range."""
    return "[" in name and _RANGE.search(name) is not None


def expand(name: str) -> list[str]:
    """Return the ids that a name with ranges stands for, in their order; raises BadRange."""
    fixed = _RANGE.sub("\0", name).split("\0")
    steps = [_steps(*match.groups()) for match in _RANGE.finditer(name)]
    if prod(len(numbers) for numbers, _ in steps) > MAX_IDS:
        raise BadRange(f"the range makes more than {MAX_IDS:,} servers. Correct its end.")
    words = [[write(number) for number in numbers] for numbers, write in steps]
    return [
        "".join(part for pair in zip(fixed, (*chosen, ""), strict=True) for part in pair) for chosen in product(*words)
    ]


def _steps(first: str, last: str, step: str | None) -> tuple[range, Callable[[int], str]]:
    """Return the numbers of one range, and how each is written."""
    if step is not None and not (_NUMBER.fullmatch(step) and int(step)):
        raise BadRange("the step of a range must be a number above 0, as in [1:9:2].")
    by = int(step or 1)
    if len(first) == len(last) == 1 and first in ascii_letters and last in ascii_letters:
        numbers, write = range(ascii_letters.index(first), ascii_letters.index(last) + 1, by), ascii_letters.__getitem__
    elif (not first or _NUMBER.fullmatch(first)) and _NUMBER.fullmatch(last):
        if len(first) > 1 and first.startswith("0") and len(first) != len(last):
            raise BadRange("the two ends of a range with leading zeros must be of one length, as in [01:20].")
        width = len(first) if first.startswith("0") else 0
        numbers, write = range(int(first or 0), int(last) + 1, by), lambda number: str(number).zfill(width)
    else:
        raise BadRange("the ends of a range must be two numbers or two letters, as in [01:20] or [a:f].")
    if not numbers:
        raise BadRange("the range ends before it begins. Correct its ends.")
    return numbers, write
