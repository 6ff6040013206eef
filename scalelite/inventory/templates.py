"""What templates may look up, and what can be wrong with one; Jinja2 itself is imported only where it is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT: Final = 65_536

# The form that most secrets have, rendered without Jinja2: a template compiled for each of 10,000 servers takes 1.5 s.
_ENV_LOOKUP: Final = re.compile(
    r"""\{\{ \s* lookup \( \s* (?: 'env' | "env" ) \s* , \s* (?: '(\w+)' | "(\w+)" ) \s*
        (?: , \s* default \s* = \s* (?: '([^'"\\{}]*)' | "([^'"\\{}]*)" ) \s* )? \) \s* \}\}""",
    re.VERBOSE | re.ASCII,
)


def names_env(text: str) -> bool:
    """Tell whether a text only names a variable of the environment, without a default: it holds no secret itself."""
    match = _ENV_LOOKUP.fullmatch(text)
    return match is not None and not (match[3] or match[4])


class TemplateProblem(Exception):
    """A template cannot be rendered; `{}` in its message stands for a detail that is not shown beside secrets."""

    def __init__(self, code: str, message: str, detail: str = "", instead: str = "") -> None:
        super().__init__(code)
        self.code = code
        self._message = message
        self._detail = detail
        self._instead = instead

    def message(self, *, secret: bool) -> str:
        """Return the words; without the detail for a value that is a secret."""
        return self._message.replace("{}", self._instead if secret else self._detail, 1)


class Lookups:
    """`lookup(kind, name, default=...)` over an environment that was handed in."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def __call__(self, kind: Any = None, name: Any = None, default: Any = None) -> Any:
        """Return a variable of the environment, else the default; raises TemplateProblem."""
        if kind in {"file", "password_file"}:
            raise TemplateProblem("SL194", f"lookup('{kind}', ...) is not supported yet. Use lookup('env', 'NAME').")
        if kind != "env" or not isinstance(name, str):
            raise TemplateProblem("SL135", "unknown lookup. Write lookup('env', 'NAME', default='...').")
        if name in self._environment:
            return self._environment[name]
        if default is None:
            shown = f" {name}" if re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) else ""
            raise TemplateProblem(
                "SL132",
                f"the environment variable{shown} is not set. Set it or add a default: lookup('env', ..., default='').",
            )
        return default

    def simple(self, text: str) -> str | None:
        """Return the value of a template that is one lookup of the environment and no more; None for others."""
        match = _ENV_LOOKUP.fullmatch(text)
        if not match:
            return None
        first, second, default, other_default = match.groups()
        value: str = self(kind="env", name=first or second, default=other_default if default is None else default)
        return value
