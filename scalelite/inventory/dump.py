"""Specs to an inventory: stable YAML 1.2 that YAML 1.1 reads alike; what is a default is left out.

Two steps: a tree of plain values with the secrets in it, then, when each secret was given the form that it is written
in, its text. Keys are sorted, so that two dumps of one state are the same bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from pydantic import BaseModel

from scalelite.core.model import SENTINEL_TENANT, Key, Kind, Secret, Section
from scalelite.inventory.scalars import plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from scalelite.core.model import ClusterSpec, Declared, LrsSpec, ServerSpec, SettingSpec, TenantSpec
    from scalelite.inventory.problems import Path

Tree = dict[str, Any]


class Written(NamedTuple):
    """A value as it is written: YAML of its own, its further lines indented by whoever writes it."""

    yaml: str


class Commented(NamedTuple):
    """A mapping, and comments that stand above its key."""

    tree: Tree
    comments: tuple[str, ...]


class Placed(NamedTuple):
    """A secret of a tree, and where it stands."""

    path: Path
    secret: Secret


# --- specs to trees --------------------------------------------------------------------------------------------------


def trees(
    declared: Declared, sections: Iterable[Section], servers: Mapping[str, Tree | Commented] | None = None
) -> dict[Section, Tree]:
    """Return a tree a section; `servers` are those of `server_tree`, where they say more than what is declared.

    A cluster without settings of its own has no section: written empty, it would be managed.
    """
    made: dict[Section, Tree] = {}
    for section in sections:
        if section == "servers":
            found = servers or {key.name: server_tree(spec) for key, spec in declared.of_kind(Kind.SERVER)}
            made[section] = {"servers": dict(sorted(found.items()))}
        elif section == "tenants":
            made[section] = {"tenants": _tenants(declared)}
        elif (spec := declared.objects.get(Key(Kind.CLUSTER))) is not None:
            made[section] = {"cluster": _cluster(cast("ClusterSpec", spec))}
    return made


# What a reader looks for first; the other keys are in the order of the model.
_FIRST: Final = ("secret", "previous_secret", "url", "state")


def server_tree(spec: ServerSpec) -> Tree:
    """Return the entry of a server."""
    tree = _changed(spec, leave_out={"id"})
    if spec.url == f"https://{spec.id}/bigbluebutton/api":
        del tree["url"]
    first: Tree = {name: tree.pop(name) for name in _FIRST if name in tree}
    return first | tree


def _tenants(declared: Declared) -> Tree:
    found = {key.name: _tenant(spec) for key, spec in declared.of_kind(Kind.TENANT) if spec.id != SENTINEL_TENANT}
    for key, spec in sorted(declared.of_kind(Kind.SETTING)):
        if key.name in found:
            found[key.name].setdefault("settings", {})[key.param] = _setting(spec)
    for key, spec in declared.of_kind(Kind.LRS):
        if key.name in found:
            found[key.name]["lrs"] = _lrs(spec)
    return dict(sorted(found.items()))


def _tenant(spec: TenantSpec) -> Tree:
    tree = _changed(spec, leave_out={"name"})
    return {"id": str(tree.pop("id")), "secrets": list(spec.secrets), **tree}


def _setting(spec: SettingSpec) -> Any:
    tree = _changed(spec, leave_out={"param", "value"})
    value = param_value(spec.value)
    return {"value": value, **tree} if tree else value


def _lrs(spec: LrsSpec) -> Tree:
    way = spec.basic or spec.oidc
    tree = _changed(spec, leave_out={"basic", "oidc"})
    return {**tree, "basic" if spec.basic else "oidc": dict(way) if way else {}}


def _cluster(spec: ClusterSpec) -> Tree:
    tree = _changed(spec)
    for call in ("create", "join"):
        for mode, params in tree.get(call, {}).items():
            tree[call][mode] = {name: param_value(value) for name, value in sorted(params.items())}
    return tree


def _changed(spec: BaseModel, leave_out: Iterable[str] = ()) -> Tree:
    """Return the fields that are not as they are by default."""
    tree: Tree = {}
    for name, field in type(spec).model_fields.items():
        value = getattr(spec, name)
        if name in leave_out or value == field.default:
            continue
        if isinstance(value, BaseModel):
            tree[name] = _changed(value)
        else:
            tree[name] = list(value) if isinstance(value, tuple) else value
    return tree


_COUNT: Final = re.compile(r"-?[1-9][0-9]{0,14}|0")


def param_value(text: str) -> str | Written:
    """Return the value of a parameter: booleans and whole numbers without quotes, which load as the same text."""
    return Written(text) if text in {"true", "false"} or _COUNT.fullmatch(text) else text


# --- secrets ---------------------------------------------------------------------------------------------------------


def protect(tree: Tree, how: Callable[[Sequence[Placed]], Sequence[str | Written | None]]) -> None:
    """Put what is to be written in place of each secret of a tree."""
    found = list(_secrets(tree, ()))
    written = how([placed for placed, _ in found])
    for (placed, holder), form in zip(found, written, strict=True):
        holder[placed.path[-1]] = form
    for holder in {id(holder): holder for _, holder in found}.values():
        _leave_out(holder)


def _secrets(value: Any, path: Path) -> Iterator[tuple[Placed, Any]]:
    value = value.tree if isinstance(value, Commented) else value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in items:
        if isinstance(item, Secret):
            yield Placed((*path, name), item), value
        else:
            yield from _secrets(item, (*path, name))


def _leave_out(holder: Any) -> None:
    if isinstance(holder, list):
        holder[:] = [item for item in holder if item is not None]
    else:
        for name in [name for name, item in holder.items() if item is None]:
            del holder[name]


# --- trees to text ---------------------------------------------------------------------------------------------------

# Without quotes in YAML 1.2 and 1.1 alike: begins like a word, and holds nothing that could mean something.
_PLAIN: Final = re.compile(r"[A-Za-z/][A-Za-z0-9_./@+=-]*(?::[A-Za-z0-9_./@+=-]+)*")
_WORDS_OF_1_1: Final = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
_TEMPLATE: Final = re.compile(r"\{[{%#]")


def yaml(tree: Tree) -> str:
    """Return a tree as YAML in block style, with a newline at the end."""
    return "".join(f"{line}\n" for line in _lines(tree, ""))


def _lines(tree: Tree, indent: str) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Commented):
            yield from (f"{indent}# {comment(text)}" for text in value.comments)
            value = value.tree  # noqa: PLW2901
        key = f"{indent}{quoted(name)}:"
        if isinstance(value, dict) and value:
            yield key
            yield from _lines(value, indent + "  ")
        elif isinstance(value, list) and value:
            yield key
            yield from (line for item in value for line in _value(f"{indent}  -", item, indent + "    "))
        else:
            yield from _value(key, value, indent + "  ")


def _value(head: str, value: Any, indent: str) -> Iterator[str]:
    first, *others = form(value).split("\n")
    yield f"{head} {first}"
    yield from (indent + line for line in others)


def form(value: Any) -> str:
    """Return a scalar as YAML."""
    match value:
        case Written(text):
            return text
        case str():
            return scalar(value)
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case {} | []:
            return "{}" if isinstance(value, dict) else "[]"
    raise TypeError(f"no YAML for a {type(value).__name__}")


def is_template(text: str) -> bool:
    """Say whether a text would be rendered as a template."""
    return _TEMPLATE.search(text) is not None


def scalar(text: str) -> str:
    """Return a text as it is written: always read back as this text, and never as a template."""
    return f"!unsafe {quoted(text)}" if is_template(text) else quoted(text)


def quoted(text: str) -> str:
    """Return a text, or a key, in quotes where it needs them."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS_OF_1_1 and plain(text) is text:
        return text
    if text.isprintable():
        return '"' + text + '"' if "'" in text and not {'"', "\\"} & set(text) else "'" + text.replace("'", "''") + "'"
    return '"' + "".join(map(_escaped, text)) + '"'


_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", '"': '\\"', "\\": "\\\\"}


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    if letter.isprintable():
        return letter
    return f"\\u{ord(letter):04x}" if ord(letter) <= 0xFFFF else f"\\U{ord(letter):08x}"


def comment(text: str) -> str:
    """Return a text that stays in its comment: on one line."""
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)
