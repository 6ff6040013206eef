"""What YAML becomes: plain dicts, lists and scalars, whose containers know where each of their values stands.

Scalars are str, int, float, bool and None. No repr shows a value: any of them may be a secret.
"""

from __future__ import annotations

from typing import Any, Final

from scalelite.core.model import MASK
from scalelite.inventory.source import Mark, Source


class Map(dict[str, Any]):
    """A mapping; `marks` has the mark of each key, `mark` that of the mapping."""

    __slots__ = ("mark", "marks")

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.marks: dict[str, Mark] = {}

    def put(self, key: str, value: Any, mark: Mark) -> None:
        """Set a key together with its mark."""
        self[key] = value
        self.marks[key] = mark

    def __repr__(self) -> str:
        return f"<mapping of {len(self)}>"


class Seq(list[Any]):
    """A list; `marks` has the mark of each item, `mark` that of the list."""

    __slots__ = ("mark", "marks")

    def __init__(self, mark: Mark) -> None:
        super().__init__()
        self.mark = mark
        self.marks: list[Mark] = []

    def __repr__(self) -> str:
        return f"<list of {len(self)}>"


class Unsafe(str):
    """A text with the tag `!unsafe`: never rendered as a template."""

    __slots__ = ()


class Vaulted:
    """A value with the tag `!vault`, as it is written; opened when it is rendered."""

    __slots__ = ("envelope",)

    def __init__(self, envelope: str) -> None:
        self.envelope = envelope


class Hidden(str):
    """A text that came out of a vault or a password file: it may stand only where secrets stand."""

    __slots__ = ()

    def __repr__(self) -> str:
        return MASK


class _Broken:
    def __repr__(self) -> str:
        return "<broken>"


# Stands for a value with a problem that was reported already, so that it is not reported again.
BROKEN: Final = _Broken()

# Stands for a section that is not there; nobody may add to it.
NOTHING: Final = Map(Mark(Source("", b"", ""), 0, 0, 0))
