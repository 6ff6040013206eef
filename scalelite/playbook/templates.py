"""Templates in playbooks: sandboxed as in inventories, over variables that are rendered when they are used."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from scalelite.errors import TaskFailed, VaultError
from scalelite.inventory.templates import TemplateProblem
from scalelite.inventory.tree import BROKEN, Hidden, Unsafe, Vaulted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scalelite.inventory.sandbox import Compiler, Extras
    from scalelite.inventory.templates import Lookups
    from scalelite.inventory.vault import Vaults

_MAX_ITEMS: Final = 100_000
_SEARCH_S: Final = 0.2


class Undefined(TaskFailed):
    """A template uses a variable that is not defined."""


class Environment(dict[str, str]):
    """The environment for lookups; `hide` is told each value whose name says that it is a secret."""

    def __init__(self, variables: Mapping[str, str], hide: Callable[[str], None]) -> None:
        super().__init__(variables)
        self._hide_value = hide

    def __getitem__(self, name: str) -> str:
        value = super().__getitem__(name)
        if SECRET_NAME.search(name):
            self._hide_value(value)
        return value


SECRET_NAME: Final = re.compile("SECRET|PASS|TOKEN|KEY|HOOK|CREDENTIAL", re.IGNORECASE)


class Layer:
    """Variables of one origin; `raw`: as they are written, with templates that are rendered when they are used."""

    __slots__ = ("folder", "raw", "values")

    def __init__(self, values: Mapping[str, Any], *, raw: bool, folder: Path | None = None) -> None:
        self.values, self.raw, self.folder = values, raw, folder


class Scope(Mapping[str, Any]):
    """The variables of one task on one target; a layer wins over those behind it."""

    __slots__ = ("_done", "_layers", "_open", "_templates")

    def __init__(self, templates: Templates, layers: Sequence[Layer]) -> None:
        self._templates = templates
        self._layers = layers
        self._done: dict[str, Any] = {}
        self._open: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        if name in self._done:
            return self._done[name]
        layer = next((layer for layer in self._layers if name in layer.values), None)
        if layer is None:
            raise KeyError(name)
        if not layer.raw:
            return layer.values[name]
        if name in self._open:
            raise TemplateProblem("SL131", "the variables use each other in a circle. Break it.")
        self._open.add(name)
        try:
            value = self._done[name] = self._templates.rendered(layer.values[name], self, layer.folder)
        finally:
            self._open.discard(name)
        return value

    def __contains__(self, name: object) -> bool:
        return any(name in layer.values for layer in self._layers)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for layer in self._layers for name in layer.values))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def with_layer(self, layer: Layer) -> Scope:
        """Return these variables with others in front."""
        return Scope(self._templates, (layer, *self._layers))


class Templates:
    """Renders values and evaluates conditions; `hide` is told each text that came out of a vault."""

    def __init__(self, lookups: Lookups, vaults: Vaults, hide: Callable[[str], None]) -> None:
        self._lookups = lookups
        self._vaults = vaults
        self._hide = hide
        self._compiler: Compiler | None = None

    @property
    def compiler(self) -> Compiler:
        """Jinja2, imported when the first template is met."""
        if self._compiler is None:
            from scalelite.inventory.sandbox import Compiler  # noqa: PLC0415

            self._compiler = Compiler(self._lookups, self._used, _extras())
        return self._compiler

    def _used(self, value: Any) -> Any:
        if isinstance(value, Hidden):
            self._hide(str(value))
        return value

    def hide(self, value: Any) -> None:
        """Show none of the texts in a value: it stood in a vaulted file."""
        if isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                self.hide(item)
        elif isinstance(value, str):
            self._hide(value)

    def renew(self) -> None:
        """Let the next task render as much as the first."""
        if self._compiler is not None:
            self._compiler.renew()

    def check(self, text: str) -> None:
        """Raise TemplateProblem for what is no template."""
        self.compiler.check(text)

    def check_expression(self, text: str) -> None:
        """Raise TemplateProblem for what is no expression."""
        self.compiler.check(_as_template(text))

    def value(self, value: Any, scope: Scope, folder: Path | None = None) -> Any:
        """Return a value with all templates in it rendered; raises TaskFailed, Undefined."""
        try:
            return self.rendered(value, scope, folder)
        except TemplateProblem as problem:
            raise _failed(problem) from None

    def rendered(self, value: Any, scope: Scope, folder: Path | None) -> Any:
        """As `value`; raises TemplateProblem."""
        if isinstance(value, Unsafe):
            return str(value)
        if isinstance(value, str):
            if "{{" in value or "{%" in value:
                return self._text(value, scope, folder)
            return value
        if isinstance(value, dict):
            return {key: self.rendered(item, scope, folder) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.rendered(item, scope, folder) for item in value]
        return self._opened(value) if isinstance(value, Vaulted) else value

    def _text(self, text: str, scope: Scope, folder: Path | None) -> Any:
        simple = self._lookups.simple(text)
        return self.compiler.render(text, {"vars": scope}, folder) if simple is None else simple

    def _opened(self, value: Vaulted) -> str:
        try:
            text = self._vaults.open(value.envelope).decode("utf-8")
        except (VaultError, UnicodeDecodeError):
            raise TemplateProblem("SL141", "a vault value cannot be opened. Give --vault-password-file.") from None
        self._hide(text)
        return text

    def expression(self, text: str, scope: Scope) -> Any:
        """Return the value of an expression; raises TaskFailed, Undefined."""
        return self.value(_as_template(text), scope)

    def condition(self, text: str | bool, scope: Scope) -> bool:
        """Evaluate a condition, which must give a boolean as in Ansible 2.19; raises TaskFailed, Undefined."""
        found = self.expression(text, scope) if isinstance(text, str) else text
        if not isinstance(found, bool):
            kind = type(found).__name__
            raise TaskFailed(f"the condition '{text}' gives a value of type {kind}, not true or false")
        return found


def _as_template(text: str) -> str:
    stripped = text.strip()
    return stripped if stripped.startswith("{{") and stripped.endswith("}}") else f"{{{{ {stripped} }}}}"


def _failed(problem: TemplateProblem) -> TaskFailed:
    kind = Undefined if problem.code == "SL131" else TaskFailed
    return kind(problem.message(secret=False))


def plain(value: Any) -> Any:
    """Return a value of a tree without its marks, what is broken as None."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return None if value is BROKEN else value


# --- filters and tests besides those of inventories ------------------------------------------------------------------


def _extras() -> Extras:
    from scalelite.inventory.sandbox import Extras  # noqa: PLC0415

    states = {
        ("failed", "failure"): lambda result: bool(result.get("failed")),
        ("succeeded", "success", "successful"): lambda result: not result.get("failed"),
        ("changed", "change"): lambda result: bool(result.get("changed")),
        ("skipped", "skip"): lambda result: bool(result.get("skipped")),
        ("unreachable",): lambda result: bool(result.get("unreachable")),
    }
    tests = {name: test for names, test in states.items() for name in names}
    return Extras(
        {"join": _join, "list": _items, "sort": _sort, "unique": _unique, "min": _least, "max": _most},
        {**tests, "match": _match, "search": _search},
    )


def _items(value: Any) -> list[Any]:
    """Return the items of a list, the keys of a mapping; a text is no list of characters here."""
    if not isinstance(value, list | tuple | dict) or len(value) > _MAX_ITEMS:
        raise TypeError
    return list(value)


def _join(value: Any, separator: str = "") -> str:
    return str(separator).join(str(item) for item in _items(value))


def _sort(value: Any) -> list[Any]:
    return sorted(_items(value))


def _unique(value: Any) -> list[Any]:
    return list(dict.fromkeys(_items(value)))


def _least(value: Any) -> Any:
    return min(_items(value))


def _most(value: Any) -> Any:
    return max(_items(value))


def _match(value: Any, pattern: str) -> bool:
    import regex  # noqa: PLC0415 - it can be stopped, which re cannot

    return regex.match(pattern, str(value), timeout=_SEARCH_S) is not None


def _search(value: Any, pattern: str) -> bool:
    import regex  # noqa: PLC0415

    return regex.search(pattern, str(value), timeout=_SEARCH_S) is not None
