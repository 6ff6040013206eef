"""Secrets on the command line: `-`, `@FILE` or `env:NAME`, since others can read what stands there in clear."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scalelite.core.model import Secret
from scalelite.settings import process_environment

if TYPE_CHECKING:
    from collections.abc import Callable


class SecretText(click.ParamType[Secret]):
    """A secret as a parameter of a command; it is never printed, and an empty one is refused."""

    name = "secret"

    def convert(self, value: str | Secret, param: click.Parameter | None, ctx: click.Context | None) -> Secret:
        """Read it from where the text says that it is."""
        if isinstance(value, Secret):
            return value
        source, text = self._read(value, lambda reason: self.fail(reason, param, ctx))
        if not text:
            self.fail(f"the {self.name} {source} is empty", param, ctx)
        return Secret(text)

    def _read(self, value: str, fail: Callable[[str], object]) -> tuple[str, str]:
        if value == "-":
            return "on standard input", sys.stdin.readline().rstrip("\r\n")
        if value.startswith("@"):
            try:
                return value, Path(value[1:]).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                fail(f"{value} cannot be read: {type(error).__name__}")
        if value.startswith("env:"):
            return value, process_environment().get(value.removeprefix("env:"), "")
        if self.is_secret(value):
            click.echo(
                f"warning: others can read the {self.name} in the process list; give it as -, @FILE or env:NAME",
                err=True,
            )
        return "", value

    def is_secret(self, value: str) -> bool:
        """Say whether a value that stands on the command line in clear should not."""
        return bool(value)


class AddressText(SecretText):
    """The URL of a database; it may hold a password."""

    name = "address"

    def is_secret(self, value: str) -> bool:
        """Only one with a password is."""
        return "@" in value or "password=" in value


SECRET = SecretText()
ADDRESS = AddressText()
