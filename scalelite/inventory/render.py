"""Templates on the scalar leaves of a tree; a rendered value is a scalar and can never become structure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from scalelite.errors import VaultError
from scalelite.inventory.problems import SECRET_KEYS, is_free, is_secret
from scalelite.inventory.templates import MAX_TEXT, TemplateProblem
from scalelite.inventory.tree import BROKEN, Hidden, Map, Seq, Unsafe, Vaulted

if TYPE_CHECKING:
    from scalelite.inventory.problems import Path, Report
    from scalelite.inventory.sandbox import Compiler
    from scalelite.inventory.source import Mark
    from scalelite.inventory.templates import Lookups
    from scalelite.inventory.vault import Vaults


_NO_NAMES: Final[Mapping[str, Any]] = {}


class _AlreadyReported(TemplateProblem):
    """The template uses a variable that has a problem itself."""

    def __init__(self) -> None:
        super().__init__("", "")


class _Keys(dict[str, Any]):
    """A mapping as templates see it: a broken value in it breaks what uses it, a hidden one hides it."""

    def __init__(self, values: Mapping[str, Any], renderer: Renderer) -> None:
        super().__init__(values)
        self._renderer = renderer

    def __getitem__(self, key: str) -> Any:
        return self._renderer.used(super().__getitem__(key))


class _HiddenItems(list[Any]):
    """A list that holds something hidden."""


class Scope(Mapping[str, Any]):
    """Values that templates use, rendered when they are first used, so that they may use each other in any order.

    `keys` are an object's own, at `path`; `free` are variables, `fixed` is there without being written. Templates of
    the object may use `names`, and these values as `called`.
    """

    __slots__ = ("_done", "_fixed", "_free", "_keys", "_open", "_path", "_renderer", "names")

    def __init__(
        self,
        renderer: Renderer,
        path: Path,
        keys: Map,
        free: Map,
        *,
        fixed: Mapping[str, Any] = _NO_NAMES,
        names: Mapping[str, Any] = _NO_NAMES,
        called: str = "own",
    ) -> None:
        self._renderer = renderer
        self._path = path
        self._keys = keys
        self._free = free
        self._fixed = fixed
        self.names: Mapping[str, Any] = {**names, "own": self, called: self}
        self._done: dict[str, Any] = {}
        self._open: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        if key in self._fixed:
            return self._fixed[key]
        if key in self._open:
            raise TemplateProblem("SL131", "the values use each other in a circle. Break it.")
        if key not in self._done:
            self._open.add(key)
            try:
                self._done[key] = self._rendered(key)
            finally:
                self._open.discard(key)
        return self._renderer.used(self._done[key])

    def _rendered(self, key: str) -> Any:
        free = key not in self._keys
        tree = self._free if free else self._keys
        value, mark, path = tree[key], tree.marks[key], (*self._path, key)
        if free:
            path = self._renderer.paths.get(mark, path)
        value = self._renderer.value(value, path, mark, self.names)
        return self._seen(value, path, hide=free and mark.source.vaulted)

    def _seen(self, value: Any, path: Path, *, hide: bool) -> Any:
        """Return a value as templates see it; hidden are its texts that are secrets, or stood in a vaulted file."""
        hide = hide or _is_secret_key(path)
        if isinstance(value, Map):
            seen = {key: self._seen(item, (*path, key), hide=hide) for key, item in value.items()}
            return _Keys(seen, self._renderer)
        if isinstance(value, Seq):
            items = [self._seen(item, path, hide=hide) for item in value]
            return _HiddenItems(items) if any(isinstance(item, _HIDDEN) for item in items) else items
        return Hidden(value) if hide and isinstance(value, str) else value

    def __contains__(self, key: object) -> bool:
        return key in self._keys or key in self._free or key in self._fixed

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._fixed, *self._keys, *self._free]))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def render_all(self) -> None:
        """Render what nothing has used, so that its problems are reported."""
        for key in self:
            try:
                self[key]
            except TemplateProblem:
                continue

    def mark_of(self, name: str) -> Mark | None:
        """Return the mark of a value, if it is one of these."""
        return self._keys.marks.get(name) or self._free.marks.get(name)


def is_template(value: Any) -> bool:
    """Tell whether a value is a text that is rendered."""
    return type(value) is str and ("{{" in value or "{%" in value)


def _is_secret_key(path: Path) -> bool:
    """Tell whether a value of an object becomes a secret: a setting never does, whatever its name."""
    is_setting = path[0] == "cluster" or path[2:3] == ("settings",)
    return not is_setting and not SECRET_KEYS.isdisjoint(path[2:])


def _stays_secret(path: Path) -> bool:
    """Tell whether a value becomes a secret, or a variable: nothing else is hidden in plans and listings."""
    return is_free(path) or _is_secret_key(path)


_HIDDEN: Final = (Hidden, _HiddenItems)


class Renderer:
    """Renders values and opens vaults; reports what fails and puts BROKEN in its place."""

    def __init__(self, lookups: Lookups, vaults: Vaults, report: Report, paths: Mapping[Mark, Path]) -> None:
        self._lookups = lookups
        self._vaults = vaults
        self._report = report
        self._compiler: Compiler | None = None
        # Whether the template that is being rendered has used something hidden.
        self._touched = False
        self.paths = paths

    def used(self, value: Any) -> Any:
        """Return what a template uses, and remember whether it is hidden."""
        if value is BROKEN:
            raise _AlreadyReported
        self._touched = self._touched or isinstance(value, _HIDDEN)
        return value

    def value(self, value: Any, path: Path, mark: Mark, names: Mapping[str, Any]) -> Any:
        """Return a value with its templates rendered: itself, where it has none."""
        if type(value) is str:
            return self._text(value, path, mark, names) if is_template(value) else value
        if isinstance(value, Map):
            return self._map(value, path, names)
        if isinstance(value, Seq):
            return self._seq(value, path, names)
        if isinstance(value, Vaulted):
            return self._opened(value, path, mark)
        return str(value) if isinstance(value, Unsafe) else value

    def check(self, value: Any, path: Path, mark: Mark) -> None:
        """Report a template that can be none, whatever its variables are."""
        if not is_template(value):
            return
        try:
            self._compile().check(value)
        except TemplateProblem as problem:
            self._report(problem.code, path, problem.message(secret=is_secret(path)), mark)

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

    def _opened(self, value: Vaulted, path: Path, mark: Mark) -> Any:
        try:
            text = self._vaults.open(value.envelope).decode("utf-8")
        except VaultError as error:
            self._report("SL141", path, f"the vault value {error.sentence}", mark)
            return BROKEN
        except UnicodeDecodeError:
            self._report("SL141", path, "the vault value holds no UTF-8 text. Encrypt a text.", mark)
            return BROKEN
        return self._kept(Hidden(text), path, mark)

    def _kept(self, value: Any, path: Path, mark: Mark) -> Any:
        """Return a hidden value where a secret may stand; elsewhere it would be shown."""
        if _stays_secret(path):
            return value
        what = "a secret, or what comes out of a vault or a password file"
        message = f"{what}, would be shown here. Write what may be seen."
        self._report("SL144", path, message, mark)
        return BROKEN

    def _text(self, text: str, path: Path, mark: Mark, names: Mapping[str, Any]) -> Any:
        value: Any
        before, self._touched = self._touched, False
        try:
            value = self._lookups.simple(text)
            if value is None:
                value = self._compile().render(text, names, mark.source.folder)
        except _AlreadyReported:
            return BROKEN
        except TemplateProblem as problem:
            self._report(problem.code, path, problem.message(secret=is_secret(path)), mark)
            return BROKEN
        finally:
            touched, self._touched = self._touched, before
        if not isinstance(value, str | int | float) or (isinstance(value, str) and len(value) > MAX_TEXT):
            message = "the template must give one text, number or boolean of moderate size. Change the expression."
            self._report("SL134", path, message, mark)
            return BROKEN
        if touched or isinstance(value, Hidden):
            return self._kept(Hidden(value) if isinstance(value, str) else value, path, mark)
        return value

    def _compile(self) -> Compiler:
        if self._compiler is None:
            from scalelite.inventory.sandbox import Compiler  # noqa: PLC0415

            self._compiler = Compiler(self._lookups, self.used)
        return self._compiler
