"""What a run is given besides its files, as the journal keeps it: variables, and where the groups come from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scalelite.errors import UsageError
from scalelite.playbook.templates import SECRET_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Given:
    """Variables of --extra-vars and paths of --inventory; `left_out` are variables that were not kept, by name."""

    variables: Mapping[str, Any]
    inventory: Sequence[str] = ()
    left_out: Sequence[str] = ()

    def text(self, is_secret: Callable[[Any], bool], *, sealed: bool) -> str:
        """Return what the journal keeps: what is secret only where it is `sealed`."""
        secret = [] if sealed else [name for name, value in self.variables.items() if is_secret(value)]
        kept = {name: value for name, value in self.variables.items() if name not in secret}
        document = {"variables": kept, "inventory": list(self.inventory), "left_out": sorted(secret)}
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


def secret_texts(variables: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts of variables whose names say that they are secret, at any depth."""
    for name, value in variables.items():
        if SECRET_NAME.search(name):
            yield from _texts(value)
        elif isinstance(value, dict):
            yield from secret_texts(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
