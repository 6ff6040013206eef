"""What a run is given besides its files, as the journal keeps it: variables, and where the groups come from."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalelite.errors import UsageError
from scalelite.inventory.files import Reader
from scalelite.inventory.parse import parse
from scalelite.inventory.reports import Problems, TooMany
from scalelite.inventory.tree import Map, Vaulted
from scalelite.playbook.templates import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from scalelite.inventory.vault import Vaults


@dataclass(frozen=True, slots=True)
class Given:
    """Variables of --extra-vars and paths of --inventory; `secret` and `left_out`, not kept, are names of variables."""

    variables: Mapping[str, Any]
    inventory: Sequence[str] = ()
    left_out: Sequence[str] = ()
    secret: Sequence[str] = ()

    def text(self, is_secret: Callable[[Any], bool], *, sealed: bool) -> str:
        """Return what the journal keeps: what is secret only where it is `sealed`."""
        secret = sorted(name for name, value in self.variables.items() if is_secret(value))
        kept = {name: value for name, value in self.variables.items() if sealed or name not in secret}
        names = {"left_out": [] if sealed else secret, "secret": secret if sealed else []}
        document = {"variables": kept, "inventory": list(self.inventory), **names}
        return json.dumps(document, default=str) if self.variables or self.inventory else ""

    def over(self, kept: Given) -> Given:
        """Return what is kept with what is given now over it; raises UsageError for what has to be given again."""
        if missing := sorted(set(kept.left_out) - self.variables.keys()):
            raise UsageError(
                f"{', '.join(missing)}: secret, and kept only where SCALELITE_ENCRYPTION_KEY is set",
                hint="give it again with --extra-vars",
            )
        return Given({**kept.variables, **self.variables}, self.inventory or kept.inventory)


def read(text: str) -> Given:
    """Return what `Given.text` has written."""
    return Given(**json.loads(text)) if text else Given({})


def variables_of(path: Path, vaults: Vaults, hide: Callable[[str], None]) -> dict[str, Any]:
    """Read a file of variables; `hide` is told each text that was vaulted. Raises UsageError, VaultError."""
    problems, found = Problems(), []
    with suppress(TooMany):
        found = [
            (tree, source.vaulted)
            for source in Reader(None, vaults, problems).read(path)
            if isinstance(tree := parse(source, problems), Map)
        ]
    wrong = [f"{problem.place}: {problem.message}" for problem in problems.sorted() if problem.severity == "error"]
    if wrong or not found:
        raise UsageError(f"--extra-vars: {wrong[0] if wrong else f'{path}: expected a mapping of names'}")
    return {
        name: _opened(value, vaults, hide, vaulted=vaulted) for tree, vaulted in found for name, value in tree.items()
    }


def _opened(value: Any, vaults: Vaults, hide: Callable[[str], None], *, vaulted: bool) -> Any:
    if isinstance(value, dict):
        return {name: _opened(item, vaults, hide, vaulted=vaulted) for name, item in value.items()}
    if isinstance(value, list):
        return [_opened(item, vaults, hide, vaulted=vaulted) for item in value]
    if isinstance(value, Vaulted):
        value, vaulted = vaults.open(value.envelope).decode("utf-8", "replace"), True
    if vaulted and isinstance(value, str):
        hide(value)
    return value


def secret_texts(variables: Mapping[str, Any], names: Sequence[str] = ()) -> Iterator[str]:
    """Yield the texts of variables whose names say that they are secret, at any depth, or are among these."""
    for name, value in variables.items():
        if name in names or SECRET_NAME.search(name):
            yield from _texts(value)
        elif isinstance(value, dict):
            yield from secret_texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
