"""Where the passwords of vaults come from: files, and programs that print one; who asks people is not known here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from scalelite.core.model import Secret
from scalelite.errors import PasswordUnavailable
from scalelite.inventory.vault import Password

if TYPE_CHECKING:
    from collections.abc import Callable

PROMPT: Final = "prompt"
_PROGRAM_TIMEOUT_S: Final = 60
_MAX_BYTES: Final = 65_536


class PasswordSource(NamedTuple):
    """A file, a program or `prompt`, and the label of the vaults that its password is for."""

    path: str
    label: str = ""

    @classmethod
    def of(cls, text: str) -> PasswordSource:
        """Read `label@path`, or a path."""
        label, at, path = text.partition("@")
        return cls(path, label) if at and path else cls(text)


def password(source: PasswordSource, ask: Callable[[str], str]) -> Password:
    """Return the password that a source gives; raises PasswordUnavailable."""
    if source.path == PROMPT:
        text = ask(source.label)
    else:
        path = Path(source.path).expanduser()
        # As Ansible does: what may be run is run.
        text = _printed(path, source.label) if path.is_file() and os.access(path, os.X_OK) else _written(path)
    if not text:
        raise PasswordUnavailable(source.path, "holds no password" if source.path != PROMPT else "was left empty")
    return Password(Secret(text), source.label)


def _written(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return _text(file.read(_MAX_BYTES)).strip()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise PasswordUnavailable(str(path), f"cannot be read: {reason}") from None


def _printed(path: Path, label: str) -> str:
    """Run a program; one that is called NAME-client is told the label, as Ansible tells it."""
    told = ["--vault-id", label] if path.stem.endswith("-client") and label else []
    try:
        done = subprocess.run(  # noqa: S603 - that is what it is for
            [path.resolve(), *told], stdout=subprocess.PIPE, timeout=_PROGRAM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PasswordUnavailable(str(path), f"cannot be run ({type(error).__name__})") from None
    if done.returncode:
        raise PasswordUnavailable(str(path), f"ended with status {done.returncode}")
    return _text(done.stdout).strip("\r\n")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
