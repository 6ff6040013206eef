"""What a dump writes for its secrets: themselves, a vault, a lookup of the environment, or nothing."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from hmac import digest
from typing import TYPE_CHECKING, Any, Literal

from scalelite.inventory.dump import Written
from scalelite.inventory.vault import encrypt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from scalelite.inventory.dump import Placed
    from scalelite.inventory.problems import Path
    from scalelite.inventory.vault import Password

    Watch = Callable[[Iterable[Any], int], Iterable[Any]]

Way = Literal["vault", "env", "plain", "omit"]


def in_clear(secrets: Sequence[Placed]) -> list[str]:
    """Write the secrets as they are."""
    return [placed.secret.reveal() for placed in secrets]


def left_out(secrets: Sequence[Placed]) -> list[None]:
    """Write nothing."""
    return [None] * len(secrets)


class Vault:
    """Writes Ansible vaults, the same ones for the same state: the salt is made of password, path and value."""

    def __init__(self, password: Password, watch: Watch = lambda vaults, _: vaults) -> None:
        """`watch` is handed the vaults as they are made, and how many there will be."""
        self._password = password
        self._watch = watch

    def __call__(self, secrets: Sequence[Placed]) -> list[Written]:
        """Encrypt them in threads: each costs 10,000 rounds of hashing, during which Python's lock is free."""
        with ThreadPoolExecutor() as threads:
            return list(self._watch(threads.map(self._one, secrets), len(secrets)))

    def _one(self, placed: Placed) -> Written:
        text = placed.secret.reveal()
        about = "\0".join([*map(str, placed.path), text])
        salt = digest(self._password.text.reveal().encode(errors="surrogateescape"), about.encode(), "sha256")
        vault = encrypt(text, self._password.text, label=self._password.label, salt=salt)
        return Written(f"!vault |\n{vault.rstrip()}")


class Environment:
    """Writes lookups of the environment, and keeps the values for a file."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, secrets: Sequence[Placed]) -> list[Written]:
        """Give each secret a variable."""
        return [self._one(placed) for placed in secrets]

    def _one(self, placed: Placed) -> Written:
        name = wanted = _variable(placed.path)
        number = 1
        while name in self.values:
            number += 1
            name = f"{wanted}_{number}"
        self.values[name] = placed.secret.reveal()
        return Written(f"\"{{{{ lookup('env', '{name}') }}}}\"")

    def file(self) -> str:
        """Return the values as a file that a shell can read (`set -a; . FILE`)."""
        return "".join(f"{name}={_in_shell(text)}\n" for name, text in self.values.items())


def _variable(path: Path) -> str:
    """Return a name such as SERVER_BBB1_EXAMPLE_COM_SECRET or TENANT_SCHOOL_LRS_PASSWORD for a secret."""
    section, name, *rest = (str(part) for part in path)
    parts = [section.removesuffix("s"), name, *(part for part in rest if part not in {"basic", "oidc"})]
    if rest[0] == "secrets":
        parts = [section.removesuffix("s"), name, "secret", *([str(int(rest[1]) + 1)] if rest[1] != "0" else [])]
    return re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).upper()


def _in_shell(text: str) -> str:
    return "'" + text.replace("'", "'\"'\"'") + "'"
