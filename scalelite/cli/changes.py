"""How commands change declared state and holds: each wish ends in flows/admin, as a revision with its actor."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, Final

import click

from scalelite.cli.session import settings_of_process, with_connection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from scalelite.core.commands import Wish
    from scalelite.core.model import Declared
    from scalelite.flows.admin import Changed
    from scalelite.settings import Settings
    from scalelite.store.db import Connection
    from scalelite.store.specs import Author

Meant = tuple[str, "Wish"]
# The exit status of what could only be done in part.
DONE_IN_PART: Final = 9


def author_of(settings: Settings, command: str, message: str = "") -> Author:
    """Return who changes something by a command."""
    from scalelite.store.specs import Author  # noqa: PLC0415 - 0.1 s to import

    return Author(settings.actor, message or command, {"command": command})


def carry_out(
    command: str, meant: Callable[[Declared], Meant], message: str = "", settings: Settings | None = None
) -> tuple[str, Changed]:
    """Find out on what is live whom a command means, and do it; returns its full name and what changed."""
    chosen = settings or settings_of_process()

    async def acting(connection: Connection) -> tuple[str, Changed]:
        from scalelite.flows import admin  # noqa: PLC0415
        from scalelite.flows.acting import Acting  # noqa: PLC0415

        name, wish = meant((await admin.read_live(connection)).declared)
        author = author_of(chosen, command, message)
        return name, await admin.change(connection, Acting(author, uuid.uuid4), wish)

    return with_connection(chosen, acting, doing=command)


def tell(what: str, changed: Changed) -> None:
    """Say what was done, and as which revision."""
    click.echo(f"{what}. Revision {changed.revision:,}." if changed else f"{what} already. Nothing was written.")


def given(**fields: Any) -> dict[str, Any]:
    """Return the fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def shown_secrets(secrets: Iterable[Any], *, show: bool) -> str:
    """Return secrets in clear where they were asked for, else stars."""
    return ":".join(secret.reveal() if show else str(secret) for secret in secrets)
