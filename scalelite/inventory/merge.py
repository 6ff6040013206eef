"""Several documents to one tree: files of one inventory are joined, a later inventory is laid over an earlier one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scalelite.inventory.tree import BROKEN, Map

if TYPE_CHECKING:
    from scalelite.inventory.problems import Path, Report

# Keys of which a later one takes the place of the other, too.
_ALTERNATIVES: Final = {"enabled": "state", "state": "enabled", "basic": "oidc", "oidc": "basic"}
_OBJECTS: Final = {"servers": "server", "tenants": "tenant"}
# How deep the files of one inventory may add to each other: a group's variables, but not one variable.
_DEPTHS: Final = {"servers": 1, "tenants": 1, "group_vars": 2, "host_vars": 2}


def join(documents: list[Map], report: Report) -> Map:
    """Return one tree of the files of one inventory, none of which may say what another one says."""
    joined = Map(documents[0].mark)
    for document in documents:
        _add(joined, document, (), report)
    return joined


def _add(into: Map, other: Map, path: Path, report: Report) -> None:
    for key, value in other.items():
        mark = other.marks[key]
        if key not in into:
            into.put(key, copied(value), mark)
            continue
        before = into[key]
        if isinstance(before, Map) and isinstance(value, Map) and _may_add(path):
            into[key] = copied(before)
            _add(into[key], value, (*path, key), report)
        elif before is not BROKEN and value is not BROKEN:
            what = _OBJECTS.get(str(path[0]), "key") if len(path) == 1 else "key"
            message = f"this {what} is declared in {into.marks[key].key_place}, too. Keep it in one file of the folder."
            report("SL121", (*path, key), message, mark, at_key=True)


def _may_add(path: Path) -> bool:
    return not path or len(path) < _DEPTHS.get(str(path[0]), len(path) + 1)


def copied(value: Any) -> Any:
    """Return a mapping that can be added to, since others may share it; objects below are never added to."""
    if not isinstance(value, Map):
        return value
    copy = Map(value.mark)
    copy.update(value)
    copy.marks.update(value.marks)
    return copy


def overlay(base: Map, later: Map) -> Map:
    """Return the two as one; the later wins key by key, lists and settings are replaced."""
    return _over(base, later, ())


def _chooses(path: Path) -> bool:
    """Tell whether the keys of a mapping may be alternatives: those of a server and of an lrs."""
    if len(path) == 3:
        return path[2] == "lrs" or (path[0] == "groups" and path[2] == "vars")
    return len(path) == 2 and path[0] in {"servers", "group_vars", "host_vars"}


def lay_over(base: Map, later: Map) -> None:
    """Let the keys of a server that a later level of its variables says win over what `base` says; it is changed."""
    for key, value in later.items():
        if (other := _ALTERNATIVES.get(key)) and other not in later and other in base:
            del base[other]
            del base.marks[other]
        base[key] = value
    base.marks.update(later.marks)


def _over(base: Map, later: Map, path: Path) -> Map:
    merged = copied(base)
    for key, value in later.items():
        if _chooses(path) and (other := _ALTERNATIVES.get(key)) and other not in later:
            merged.pop(other, None)
            merged.marks.pop(other, None)
        before = merged.get(key)
        is_setting = len(path) == 3 and path[0] == "tenants" and path[2] == "settings"
        if isinstance(before, Map) and isinstance(value, Map) and not is_setting:
            merged[key] = _over(before, value, (*path, key))
        else:
            merged.put(key, value, later.marks[key])
    result: Map = merged
    return result
