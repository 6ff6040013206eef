"""Templates on the scalar leaves of a tree; a rendered value is a scalar and can never become structure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalelite.inventory.problems import is_secret
from scalelite.inventory.templates import MAX_TEXT, Lookups, TemplateProblem
from scalelite.inventory.tree import BROKEN, Map, Seq, Unsafe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.sandbox import Compiler
    from scalelite.inventory.source import Mark


class _AlreadyReported(TemplateProblem):
    """The template uses a variable that has a problem itself."""

    def __init__(self) -> None:
        super().__init__("", "")


class _Keys(dict[str, Any]):
    """A mapping as templates see it; a broken value in it breaks what uses it."""

    def __getitem__(self, key: str) -> Any:
        if (value := super().__getitem__(key)) is BROKEN:
            raise _AlreadyReported
        return value


class Variables(_Keys):
    """The free variables, rendered when they are first used, so that they may use each other in any order."""

    def __init__(self, written: Map | None, renderer: Renderer) -> None:
        super().__init__(written or {})
        self._written = written
        self._renderer = renderer
        self._open: set[str] = set()
        self._done: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key in self._open:
            raise TemplateProblem("SL131", "the variables under vars: use each other in a circle. Break it.")
        if key in self and key not in self._done and self._written is not None:
            self._open.add(key)
            mark = self._written.marks[key]
            self[key] = _seen(self._renderer.value(self._written[key], ("vars", key), mark, {"vars": self}))
            self._open.discard(key)
            self._done.add(key)
        return super().__getitem__(key)

    def render_all(self) -> None:
        """Render what nothing has used, so that its problems are reported."""
        for key in self:
            if super().get(key) is not BROKEN:
                try:
                    self[key]
                except TemplateProblem:
                    continue

    def place_of(self, names: Iterable[str]) -> Mark | None:
        """Return the mark of the first of some names that is a variable."""
        return next((self._written.marks[name] for name in names if self._written and name in self._written), None)


def _seen(value: Any) -> Any:
    return _Keys({key: _seen(item) for key, item in value.items()}) if isinstance(value, Map) else value


class Renderer:
    """Renders values with an environment; reports what fails and puts BROKEN in its place."""

    def __init__(self, environment: Mapping[str, str], report: Report) -> None:
        self._lookups = Lookups(environment)
        self._report = report
        self._compiler: Compiler | None = None

    def value(self, value: Any, path: Path, mark: Mark, names: Mapping[str, Any]) -> Any:
        """Return a value with its templates rendered: itself, where it has none."""
        if type(value) is str:
            return self._text(value, path, mark, names) if "{{" in value or "{%" in value else value
        if isinstance(value, Map):
            return self._map(value, path, names)
        if isinstance(value, Seq):
            return self._seq(value, path, names)
        return str(value) if isinstance(value, Unsafe) else value

    def _map(self, tree: Map, path: Path, names: Mapping[str, Any]) -> Map:
        result: Map | None = None
        for key, value in tree.items():
            kind = type(value)
            if kind is bool or kind is float or kind is int or (kind is str and "{" not in value):
                continue
            rendered = self.value(value, (*path, key), tree.marks[key], names)
            if rendered is not value:
                if result is None:
                    result = Map(tree.mark)
                    result.update(tree)
                    result.marks = tree.marks
                result[key] = rendered
        return tree if result is None else result

    def _seq(self, tree: Seq, path: Path, names: Mapping[str, Any]) -> Seq:
        items = [self.value(item, (*path, at), tree.marks[at], names) for at, item in enumerate(tree)]
        if all(new is old for new, old in zip(items, tree, strict=True)):
            return tree
        result = Seq(tree.mark)
        result.extend(items)
        result.marks = tree.marks
        return result

    def _text(self, text: str, path: Path, mark: Mark, names: Mapping[str, Any]) -> Any:
        value: Any
        try:
            value = self._lookups.simple(text)
            if value is None:
                value = self._compile().render(text, names)
        except _AlreadyReported:
            return BROKEN
        except TemplateProblem as problem:
            self._report(problem.code, path, problem.message(secret=is_secret(path)), mark)
            return BROKEN
        if isinstance(value, str | int | float) and not (isinstance(value, str) and len(value) > MAX_TEXT):
            return value
        message = "the template must give one text, number or boolean of moderate size. Change the expression."
        self._report("SL134", path, message, mark)
        return BROKEN

    def _compile(self) -> Compiler:
        if self._compiler is None:
            from scalelite.inventory.sandbox import Compiler  # noqa: PLC0415

            self._compiler = Compiler(self._lookups)
        return self._compiler
