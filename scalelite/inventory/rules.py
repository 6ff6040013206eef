"""What is checked of every object of an inventory, key by key; it reports what is wrong, each with its place."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from scalelite.inventory.problems import MAX_PROBLEMS
from scalelite.inventory.tree import BROKEN, Map, Seq

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.render import Scope
    from scalelite.inventory.source import Mark

M = TypeVar("M", bound=BaseModel)

# What `servers yaml --verbose` adds; with any of them, `state` beside `enabled` is what was observed, too.
OBSERVED: Final = frozenset({"load", "online", "bbb_version"})
_NAME: Final = re.compile(r"[A-Za-z_]\w*")


class Where(NamedTuple):
    """A mapping of the file that an object is made of."""

    path: Path
    tree: Map
    mark: Mark


class Owner(NamedTuple):
    """Who has a value that nobody else may have."""

    name: str
    mark: Mark
    at_key: bool


class Taken(dict[Any, Owner]):
    """Values of one kind that objects must not share, each with its owner."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__()
        self.code = code
        self.what = what


class Rules:
    """The checks, and where what they find goes; `scopes` hold what the templates of the object at hand may use."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.scopes: Sequence[Scope] = ()

    def texts(self, value: Any, path: Path) -> Any:
        """Return a mapping of scalars as one of texts; what is no mapping as it is."""
        if not isinstance(value, Map):
            return value
        return {key: self.text(item, (*path, key), value.marks[key]) for key, item in value.items()}

    def text(self, value: Any, path: Path, mark: Mark) -> Any:
        """Return a scalar as text: numbers as they are typed, booleans as 'true' and 'false'."""
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value) if "{{" in mark.written else mark.written
        if isinstance(value, Map | Seq):
            self._report("SL114", path, "must be a text, a number or a boolean, not a list or mapping.", mark)
        elif value is None:
            self._report("SL114", path, "has no value. Write '' for the empty text, or remove it.", mark)
        return BROKEN

    def wrong(self, code: str, path: Path, what: str, mark: Mark, remedy: str = "") -> None:
        """Report a value, and show it where it may be shown."""
        from scalelite.inventory.excerpt import shown_value  # noqa: PLC0415

        message = f"{what}{shown_value(path, mark)}.{remedy}"
        self._report(code, path, message, mark, rendered_from=self.origin(mark))

    def is_map(self, value: Any, path: Path, mark: Mark) -> bool:
        """Tell whether a value is a mapping; reports one that is none."""
        if isinstance(value, Map):
            return True
        if value is not BROKEN:
            self._report("SL114", path, "must be a mapping. Write 'key: value' below it.", mark)
        return False

    def own_name(self, field: str, data: dict[str, Any], tree: Map, path: Path) -> None:
        """Refuse the field that the key above says already."""
        if field in tree and not (field == "id" and path[0] == "tenants"):
            message = f"unknown key. The {field} is the key above it. Remove this one."
            self._report("SL113", (*path, field), message, tree.marks[field], at_key=True)
            del data[field]

    def not_empty(self, field: str, tree: Map, path: Path) -> None:
        """Report a text that is empty."""
        if tree.get(field) == "":
            self._report("SL115", (*path, field), "is empty. Give it a value.", tree.marks[field])

    def unique(self, taken: Taken, value: Any, path: Path, owner: Owner) -> None:
        """Report a value that another object has, too."""
        first = taken.setdefault(value, owner)
        if first is not owner:
            place = first.mark.key_place if first.at_key else first.mark.place
            message = f"the same {taken.what} as {first.name} at {place}. Each needs its own."
            self._report(taken.code, path, message, owner.mark, at_key=owner.at_key)

    def checked(self, model: type[M], entry: type[BaseModel], data: dict[str, Any], where: Where) -> M | None:
        """Return the spec, or None where it has problems (reported)."""
        path, tree, mark = where
        self._nulls(tree, path)
        if len(data) > MAX_PROBLEMS:
            # pydantic would make an error, in memory, of each unknown key before the first is reported.
            known = (model.model_fields.keys() | entry.model_fields.keys()) & data.keys()
            data = {key: data[key] for key in (*islice(data, MAX_PROBLEMS + len(known)), *known)}
        try:
            return model.__pydantic_validator__.validate_python(data)  # type: ignore[no-any-return]
        except ValidationError as error:
            found = error.errors(include_url=False, include_input=False)
        from scalelite.inventory.wording import locate, words  # noqa: PLC0415

        for detail in found:
            if detail["loc"] == ("url",) and "url" not in tree:
                continue  # the default, made of an id that is wrong itself
            at = locate(detail, tree, path, mark)
            said = words(detail, at, _known(entry, at.path[len(path) : -1]))
            if said is not None:
                self._report(
                    said.code, at.path, said.message, at.mark, at_key=at.at_key, rendered_from=self.origin(at.mark)
                )
        return None

    def origin(self, mark: Mark) -> Mark | None:
        """Return where the variable stands that a template takes its value from."""
        if "{{" not in (written := mark.written):
            return None
        marks = (scope.mark_of(name) for name in _NAME.findall(written) for scope in self.scopes)
        return next((found for found in marks if found is not None and found != mark), None)

    def _nulls(self, tree: Map, path: Path) -> None:
        for key, value in tree.items():
            if value is None and not (key in OBSERVED and path[0] == "servers"):
                message = "has no value. Give it one, or remove the key ('' is the empty text)."
                self._report("SL114", (*path, key), message, tree.marks[key])
            elif isinstance(value, Map) and key != "settings":
                self._nulls(value, (*path, key))


def _known(entry: type[BaseModel], inner: Path) -> list[str]:
    """Return the keys that are known at a path below an entry."""
    for part in inner:
        field = entry.model_fields.get(str(part))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return []
        entry = field.annotation
    return list(entry.model_fields)
