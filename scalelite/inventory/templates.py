"""What templates may look up, and what can be wrong with one; Jinja2 itself is imported only where it is needed."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from scalelite.errors import VaultError
from scalelite.inventory.tree import Hidden
from scalelite.inventory.vault import is_vault

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.inventory.vault import Vaults

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
    return match is not None and is_env_name(match[1] or match[2]) and not (match[3] or match[4])


def is_env_name(name: str) -> bool:
    """Tell whether a text looks like the name of a variable, and not like a secret in its place."""
    return re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) is not None


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
    """`lookup(kind, name, default=...)`: an environment that was handed in, and files."""

    def __init__(self, environment: Mapping[str, str], vaults: Vaults) -> None:
        self._environment = environment
        self._vaults = vaults

    def __call__(self, kind: Any, name: Any, default: Any, folder: FilePath | None) -> Any:
        """Return what is looked up, else the default; a folder is the inventory's. Raises TemplateProblem."""
        if not isinstance(name, str) or kind not in {"env", "file", "password_file"}:
            raise TemplateProblem("SL135", "unknown lookup. Write lookup('env', 'NAME', default='...').")
        if kind == "env":
            return self._variable(name, default)
        try:
            return self._file(name, folder, below=kind == "file")
        except FileNotFoundError:
            if default is not None:
                return default
            raise _unreadable("does not exist", "Correct the path or add a default: lookup(..., default='')") from None
        except UnicodeDecodeError:
            raise _unreadable("is not UTF-8", "Save it as UTF-8") from None
        except (OSError, ValueError):
            raise _unreadable("cannot be read", "Correct the path or its permissions") from None

    def _variable(self, name: str, default: Any) -> Any:
        if name in self._environment:
            return self._environment[name]
        if default is None:
            shown = f" {name}" if is_env_name(name) else ""
            raise TemplateProblem(
                "SL132",
                f"the environment variable{shown} is not set. Set it or add a default: lookup('env', ..., default='').",
            )
        return default

    def _file(self, name: str, folder: FilePath | None, *, below: bool) -> str:
        """Read a file; `below`: only if it is in the inventory's folder, links followed. A password is hidden."""
        if folder is None:
            raise _unreadable(
                "belongs to no folder, since the inventory is standard input", "Give the inventory as a file"
            )
        root, path = FilePath(os.path.realpath(folder)), FilePath(os.path.realpath(folder / name))
        if below and not path.is_relative_to(root):
            raise _unreadable(
                "is not below the inventory's folder", "Move it there, or use lookup('password_file', ...)"
            )
        # Not to hang at a pipe.
        with open(path, "rb", opener=lambda at, flags: os.open(at, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _unreadable("is no regular file", "Give a file")
            data = file.read(MAX_TEXT + 1)
        if len(data) > MAX_TEXT:
            raise _unreadable(f"has more than {MAX_TEXT:,} bytes", "Give a smaller one")
        text = data.decode("utf-8")
        if not is_vault(text):
            return text.rstrip("\r\n") if below else Hidden(text.strip())
        try:
            return Hidden(self._vaults.open(text).decode("utf-8").rstrip("\r\n"))
        except VaultError as error:
            raise TemplateProblem("SL141", f"the vaulted file {error.sentence}") from None

    def simple(self, text: str) -> str | None:
        """Return the value of a template that is one lookup of the environment and no more; None for others."""
        match = _ENV_LOOKUP.fullmatch(text)
        if not match:
            return None
        first, second, default, other_default = match.groups()
        value: str = self._variable(first or second, other_default if default is None else default)
        return value


def _unreadable(what: str, remedy: str) -> TemplateProblem:
    return TemplateProblem("SL146", f"the file that is looked up {what}. {remedy}.")
