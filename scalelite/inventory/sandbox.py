"""Jinja2 with everything taken out that could reach outside, loop, or make a large value of a small one."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing
from jinja2.visitor import NodeTransformer

from scalelite.inventory.templates import MAX_TEXT, TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path as FilePath

    from scalelite.inventory.templates import Lookups

_MAX_TEMPLATE: Final = 8_192
_MAX_NUMBER: Final = 10**18
_MAX_DIGITS: Final = 15
_MAX_PARTS: Final = 1_000
# Characters that the templates of one run may work on in all; 2,000 for each of 10,000 servers.
_MAX_WORK: Final = 20_000_000
# To compile a character takes as long as to work on so many.
_COMPILING: Final = 10
_STATEMENTS: Final = (nodes.Template, nodes.Output, nodes.If)
_FILTERS: Final = (
    "abs", "bool", "capitalize", "d", "default", "first", "float", "int", "last", "length", "lower", "replace",
    "round", "string", "title", "trim", "upper",
)  # fmt: skip
# Filters that take any value, and look at no more than one item of it.
_ANY_VALUE: Final = frozenset({"d", "default", "first", "last", "length"})
_METHODS: Final = frozenset(
    {
        "capitalize", "endswith", "isdigit", "lower", "lstrip", "removeprefix", "removesuffix", "replace", "rstrip",
        "split", "startswith", "strip", "title", "upper",
    }
)  # fmt: skip
# Whatever an expression over values of any type may raise; the text of none of them is shown: it may hold a value.
_FAILURES: Final = (
    TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, MemoryError, SyntaxError, TypeError,
    ValueError,
)  # fmt: skip


class _Names(Context):
    """Where names are looked up: what is handed in, the object's own keys and variables, then the free variables."""

    def resolve_or_missing(self, key: str) -> Any:
        found = super().resolve_or_missing(key)
        for scope in ("own", "vars") if found is missing else ():
            names = super().resolve_or_missing(scope)
            if names is not missing and key in names:
                return names[key]
        return found


class _Budget:
    """How many characters all templates of a run may work on: what each may use is bounded, and their number not."""

    def __init__(self) -> None:
        self._left = _MAX_WORK

    def renew(self) -> None:
        self._left = _MAX_WORK

    def spend(self, characters: int) -> None:
        self._left -= characters
        if self._left < 0:
            raise TemplateProblem("SL134", f"the templates work on more than {_MAX_WORK:,} characters. Simplify them.")

    def filter(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a filter that takes scalars alone, and pays for them and for what it returns."""

        def bounded(value: Any, *args: Any, **kwargs: Any) -> Any:
            return self.pay(function, value, *args, **kwargs)

        return bounded

    def pay(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function of texts and numbers, whose time grows with what each of them has."""
        for value in (*args, *kwargs.values()):
            self.spend(len(value) if isinstance(_scalar(value), str) else 1)
        result = function(*args, **kwargs)
        self.spend(len(result) if isinstance(result, str | list) else 1)
        return result if isinstance(result, list) else _scalar(result)


def _scalar(value: Any) -> Any:
    """Let texts and numbers of moderate size and booleans pass; a list or mapping would become a text of any size."""
    if isinstance(value, Undefined):
        return value
    if value is not None and not isinstance(value, str | int | float):
        raise TypeError
    if (isinstance(value, str) and len(value) > MAX_TEXT) or (isinstance(value, int) and abs(value) > _MAX_NUMBER):
        raise OverflowError
    return value


def _replace(text: str, old: str, new: str) -> str:
    if not old or len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise ValueError
    return text.replace(old, new)


def _split(text: str, separator: str | None = None, maxsplit: int = -1) -> list[str]:
    parts = text.split(separator, _MAX_PARTS if maxsplit < 0 else min(maxsplit, _MAX_PARTS))
    if len(parts) > _MAX_PARTS:
        raise OverflowError
    return parts


def _round(value: float, precision: int = 0) -> float:
    return round(float(value), max(-_MAX_DIGITS, min(precision, _MAX_DIGITS)))


def _boolean(value: object) -> bool:
    """As in Ansible, but only what is meant as a boolean is one."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return value if isinstance(value, bool) else words[str(value).lower()]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Allows expressions over texts and numbers; calls only `lookup` and harmless methods of texts."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = _Names

    def __init__(self, lookup: Callable[..., Any], budget: _Budget, extras: Extras) -> None:
        super().__init__(
            undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, optimized=False, finalize=_scalar
        )
        self._lookup = lookup
        self._budget = budget
        self.globals = {"lookup": lookup}
        own: dict[str, Any] = {"replace": _replace, "bool": _boolean, "round": _round}
        filters = {name: own.get(name) or self.filters[name] for name in _FILTERS}
        self.filters = {
            name: function if name in _ANY_VALUE else budget.filter(function) for name, function in filters.items()
        } | dict(extras.filters)
        self.tests |= extras.tests

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Keys before attributes, so that a variable may be called `items`."""
        if hasattr(obj, "keys"):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        return super().getattr(obj, attribute)

    def is_safe_callable(self, obj: Any) -> bool:
        return obj is self._lookup or (
            isinstance(getattr(obj, "__self__", None), str) and getattr(obj, "__name__", "") in _METHODS
        )

    def call(self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: PYI063
        if not self.is_safe_callable(__obj):
            raise SecurityError
        if __obj is self._lookup:
            return __obj(*args, **kwargs)
        bounded: Any = {"replace": _replace, "split": _split}.get(__obj.__name__)
        if bounded:
            return self._budget.pay(bounded, __obj.__self__, *args, **kwargs)
        return self._budget.pay(
            lambda _, *arguments, **named: __obj(*arguments, **named), __obj.__self__, *args, **kwargs
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        texts = isinstance(left, str) and isinstance(right, str)
        if operator == "**" or not (numbers or (operator == "+" and texts)):
            raise SecurityError
        result = _scalar(super().call_binop(context, operator, left, right))
        self._budget.spend(len(result) if texts else 1)
        return result


@dataclass(frozen=True, slots=True)
class Extras:
    """Filters and tests besides those of inventories; they bound what they do themselves."""

    filters: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    tests: Mapping[str, Callable[..., Any]] = field(default_factory=dict)


class Compiler:
    """Turns a template's text into a function of its variables; the same text is compiled once."""

    def __init__(self, lookups: Lookups, used: Callable[[Any], Any], extras: Extras | None = None) -> None:
        self._budget = _Budget()
        self._lookups = lookups
        self._used = used
        self._folder: FilePath | None = None
        self._environment = _Sandbox(self._looked_up, self._budget, extras or Extras())
        self._compiled: dict[str, Callable[[Mapping[str, Any]], Any]] = {}

    def check(self, text: str) -> None:
        """Raise TemplateProblem for a text that is no template, or uses what is not allowed."""
        if text not in self._compiled:
            self._compiled[text] = self._compile(text)

    def renew(self) -> None:
        """Let the next templates work on as much as the first ones: what runs for hours renders without end."""
        self._budget.renew()

    def _looked_up(self, kind: Any = None, name: Any = None, default: Any = None) -> Any:
        return self._used(self._lookups(kind, name, default, self._folder))

    def render(self, text: str, variables: Mapping[str, Any], folder: FilePath | None) -> Any:
        """Return the value of a template that stands in an inventory's folder; raises TemplateProblem."""
        before, self._folder = self._folder, folder
        try:
            run = self._compiled.get(text)
            if run is None:
                run = self._compiled[text] = self._compile(text)
            self._budget.spend(len(text))
            return run(variables)
        except TemplateProblem:
            raise
        except UndefinedError as error:
            raise _undefined(error, text) from None
        except SecurityError:
            raise _not_allowed() from None
        except _FAILURES as error:
            what = type(error).__name__
            raise TemplateProblem("SL133", f"the template fails ({what}). Correct the expression.") from None
        finally:
            self._folder = before

    def _compile(self, text: str) -> Callable[[Mapping[str, Any]], Any]:
        if len(text) > _MAX_TEMPLATE:
            raise TemplateProblem("SL134", f"a template may have {_MAX_TEMPLATE:,} characters. Make it shorter.")
        self._budget.spend(_COMPILING * len(text))
        try:
            tree = _bounded(self._environment.parse(text))
            if expression := _whole_expression(tree, text):
                return self._typed(expression)
            return self._text(tree)
        except TemplateProblem:
            raise
        except TemplateSyntaxError as error:
            raise TemplateProblem(
                "SL130", "not a valid template{}. Correct it, or use !unsafe.", f": {(error.message or '').rstrip('.')}"
            ) from None
        except _FAILURES:
            raise TemplateProblem("SL130", "not a valid template. Correct it, or use !unsafe.") from None

    def _typed(self, expression: nodes.Expr) -> Callable[[Mapping[str, Any]], Any]:
        """Return a function that gives the value of an expression as it is, a number as a number."""
        body = [nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)]
        template = self._environment.from_string(nodes.Template(body, lineno=1))

        def run(variables: Mapping[str, Any]) -> Any:
            context = template.new_context(dict(variables))
            for _ in template.root_render_func(context):
                pass
            result = context.vars["result"]
            if isinstance(result, Undefined):
                str(result)  # raises, as a strict undefined does when it is used
            return result

        return run

    def _text(self, tree: nodes.Template) -> Callable[[Mapping[str, Any]], str]:
        template = self._environment.from_string(tree)

        def run(variables: Mapping[str, Any]) -> str:
            parts: list[str] = []
            length = 0
            for part in template.root_render_func(template.new_context(dict(variables))):
                length += len(part)
                if length > MAX_TEXT:
                    raise OverflowError
                parts.append(part)
            self._budget.spend(length)
            return "".join(parts)

        return run


def _bounded(tree: nodes.Template) -> nodes.Template:
    """Refuse what loops or assigns, and make `~` a `+` of texts, whose size is watched."""
    if any(not isinstance(node, _STATEMENTS) for node in tree.find_all(nodes.Stmt)):
        raise _not_allowed()
    return _Joined().visit(tree)  # type: ignore[no-any-return]


class _Joined(NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - jinja2's
        texts = [
            nodes.Filter(self.visit(part), "string", [], [], None, None, lineno=node.lineno) for part in node.nodes
        ]
        joined: nodes.Expr = texts[0]
        for text in texts[1:]:
            joined = nodes.Add(joined, text, lineno=node.lineno)
        return joined


def _whole_expression(tree: nodes.Template, text: str) -> nodes.Expr | None:
    """Return the expression of which a template consists, if it consists of one."""
    if len(tree.body) != 1 or not (text.startswith("{{") and text.endswith("}}")):
        return None
    output = tree.body[0]
    if (
        not isinstance(output, nodes.Output)
        or len(output.nodes) != 1
        or isinstance(output.nodes[0], nodes.TemplateData)
    ):
        return None
    return output.nodes[0]


def _not_allowed() -> TemplateProblem:
    return TemplateProblem(
        "SL135",
        "only expressions and if are allowed in templates, and of functions lookup and simple methods of texts."
        " Write the value out, or make it where the environment is made.",
    )


_UNDEFINED: Final = re.compile(r"(?:has no attribute )?'(\w+)'(?: is undefined)?")


def _undefined(error: UndefinedError, text: str) -> TemplateProblem:
    """Name what is undefined, but only by a name that is written in the template itself."""
    match = _UNDEFINED.search((error.message or "").removeprefix("'dict object' "))
    name = match[1] if match and re.search(rf"\b{match[1]}\b", text) else ""
    of_vars = bool(name) and re.search(rf"\bvars\.{name}\b", text) is not None
    message = "the template uses {}, which is not defined. Define it under vars:, or add | default('...')."
    if of_vars:
        return TemplateProblem("SL131", message.format(f"vars.{name}"))
    return TemplateProblem("SL131", message, f"'{name}'" if name else "a variable", "a variable")
