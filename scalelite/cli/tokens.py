"""tokens: who may use the management API."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import click

from scalelite.cli.listing import format_option, print_list
from scalelite.cli.session import settings_of_process, with_connection

if TYPE_CHECKING:
    from scalelite.cli.listing import Style
    from scalelite.core.tokens import Scope, Token

HEADS: Final = ("name", "scope", "created by", "created", "expires")
_UNITS: Final = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class Lifetime(click.ParamType[float]):
    """A time such as 90d, in seconds."""

    name = "time"

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the text."""
        if isinstance(value, int | float):
            return float(value)
        found = re.fullmatch(r"([1-9]\d{0,5})([mhdw])", value.strip())
        if not found:
            self.fail(f"'{value}' is no time such as 12h, 90d or 52w", param, ctx)
        return float(int(found[1]) * _UNITS[found[2]])


@click.group()
def tokens() -> None:
    """Say who may use the management API, and for what.

    \b
    Example: scalelite tokens add ci --scope admin --expires 90d
    """


@tokens.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "operate", "admin", "import"]),
    required=True,
    help="read: look; operate: also change states, panic and poll; admin: all; import: recordings alone.",
)
@click.option("--expires", "lifetime_s", type=Lifetime(), help="After this time it is refused, e.g. 90d; else never.")
def add(name: str, scope: Scope, lifetime_s: float | None) -> None:
    """Make a token and print it, the only time that it is shown.

    \b
    Example: scalelite tokens add monitoring --scope read --expires 52w
    """
    from scalelite.flows import tokens as flow  # noqa: PLC0415 - 0.1 s to import

    settings = settings_of_process()
    made = with_connection(
        settings,
        lambda connection: flow.add(connection, name, scope, settings.actor, lifetime_s),
        doing="tokens add",
    )
    click.echo("Keep it now: it is not shown again. Send it as 'Authorization: Bearer TOKEN'.", err=True)
    click.echo(made)


@tokens.command("list")
@format_option
def list_(style: Style) -> None:
    """List tokens: names and scopes, never the tokens.

    \b
    Example: scalelite tokens list --format json
    """
    from scalelite.flows import tokens as flow  # noqa: PLC0415

    found = with_connection(settings_of_process(), flow.every, doing="tokens list")
    print_list(style, HEADS, [_cells(token) for token in found], [_plain(token) for token in found])


@tokens.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget a token: it is refused from now on.

    \b
    Example: scalelite tokens remove ci
    """
    from scalelite.flows import tokens as flow  # noqa: PLC0415

    with_connection(settings_of_process(), lambda connection: flow.remove(connection, name), doing="tokens remove")


def _plain(token: Token) -> dict[str, str | bool | None]:
    return {
        "name": token.name,
        "scope": token.scope,
        "created_by": token.created_by,
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat() if token.expires_at else None,
        "expired": token.expired,
    }


def _cells(token: Token) -> tuple[str, ...]:
    until = f"{token.expires_at:%Y-%m-%d %H:%M}{' (expired)' if token.expired else ''}" if token.expires_at else "never"
    return token.name, token.scope, token.created_by, f"{token.created_at:%Y-%m-%d %H:%M}", until
