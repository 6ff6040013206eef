"""Jinja2 with everything taken out that could reach outside, loop, or make a large value of a small one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.exceptions import SecurityError, TemplateSyntaxError, UndefinedError
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import missing

from scalelite.inventory.templates import MAX_TEXT, TemplateProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_TEMPLATE: Final = 8_192
_MAX_NUMBER: Final = 10**18
_STATEMENTS: Final = (nodes.Template, nodes.Output, nodes.If)
_FILTERS: Final = (
    "abs", "bool", "capitalize", "d", "default", "first", "float", "int", "last", "length", "lower", "replace",
    "round", "string", "title", "trim", "upper",
)  # fmt: skip
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
    """Where names are looked up: what is handed in, then the free variables."""

    def resolve_or_missing(self, key: str) -> Any:
        found = super().resolve_or_missing(key)
        if found is missing and (free := super().resolve_or_missing("vars")) is not missing and key in free:
            return free[key]
        return found


def _replace(text: str, old: str, new: str) -> str:
    if not old or len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise ValueError
    return text.replace(old, new)


def _boolean(value: object) -> bool:
    """As in Ansible, but only what is meant as a boolean is one."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return value if isinstance(value, bool) else words[str(value).lower()]


class _Sandbox(ImmutableSandboxedEnvironment):
    """Allows expressions over texts and numbers; calls only `lookup` and harmless methods of texts."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = _Names

    def __init__(self, lookup: Callable[..., str]) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True, optimized=False)
        self._lookup = lookup
        self.globals = {"lookup": lookup}
        self.filters = {name: self.filters[name] for name in _FILTERS if name in self.filters}
        self.filters |= {"replace": _replace, "bool": _boolean}

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
        if getattr(__obj, "__name__", "") == "replace" and self.is_safe_callable(__obj):
            return _replace(__obj.__self__, *args)
        if not self.is_safe_callable(__obj):
            raise SecurityError
        return __obj(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        numbers = isinstance(left, int | float) and isinstance(right, int | float)
        if operator == "**" or (operator != "+" and not numbers):
            raise SecurityError
        result = super().call_binop(context, operator, left, right)
        if (isinstance(result, int | float) and abs(result) > _MAX_NUMBER) or (
            isinstance(result, str) and len(result) > MAX_TEXT
        ):
            raise OverflowError
        return result


class Compiler:
    """Turns a template's text into a function of its variables; the same text is compiled once."""

    def __init__(self, lookup: Callable[..., str]) -> None:
        self._environment = _Sandbox(lookup)
        self._compiled: dict[str, Callable[[Mapping[str, Any]], Any]] = {}

    def render(self, text: str, variables: Mapping[str, Any]) -> Any:
        """Return the value of a template; raises TemplateProblem."""
        run = self._compiled.get(text)
        if run is None:
            run = self._compiled[text] = self._compile(text)
        try:
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

    def _compile(self, text: str) -> Callable[[Mapping[str, Any]], Any]:
        if len(text) > _MAX_TEMPLATE:
            raise TemplateProblem("SL134", f"a template may have {_MAX_TEMPLATE:,} characters. Make it shorter.")
        try:
            tree = self._environment.parse(text)
            if any(not isinstance(node, _STATEMENTS) for node in tree.find_all(nodes.Stmt)):
                raise _not_allowed()
            if expression := _whole_expression(tree, text):
                return self._typed(expression)
            return self._environment.from_string(tree).render
        except TemplateProblem:
            raise
        except TemplateSyntaxError as error:
            raise TemplateProblem(
                "SL130", "not a valid template{}. Correct it, or use !unsafe.", f": {error.message}"
            ) from None
        except _FAILURES:
            raise TemplateProblem("SL130", "not a valid template. Correct it, or use !unsafe.") from None

    def _typed(self, expression: str) -> Callable[[Mapping[str, Any]], Any]:
        compiled = self._environment.compile_expression(expression, undefined_to_none=False)

        def run(variables: Mapping[str, Any]) -> Any:
            result = compiled(variables)
            if isinstance(result, Undefined):
                str(result)  # raises, as a strict undefined does when it is used
            return result

        return run


def _whole_expression(tree: nodes.Template, text: str) -> str:
    """Return the expression of which a template consists, if it consists of one."""
    if len(tree.body) != 1 or not (text.startswith("{{") and text.endswith("}}")):
        return ""
    output = tree.body[0]
    if (
        not isinstance(output, nodes.Output)
        or len(output.nodes) != 1
        or isinstance(output.nodes[0], nodes.TemplateData)
    ):
        return ""
    inner = text[2:-2]
    inner = inner[1:] if inner[0] in "-+" else inner
    return inner[:-1] if inner[-1] in "-+" else inner


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
