"""What commands share: this process's settings and logs, a connection, the inventory that they are about."""

from __future__ import annotations

import gc
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeVar

import click

from scalelite import logs
from scalelite.core.model import Kind
from scalelite.errors import UsageError
from scalelite.inventory.passwords import PROMPT, PasswordSource, password
from scalelite.settings import Settings, process_environment, process_settings

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Any

    from scalelite.flows.services import Services
    from scalelite.inventory.load import Inventory
    from scalelite.inventory.vault import Password
    from scalelite.store.db import Connection

T = TypeVar("T")
DEFAULT_INVENTORY: Final = Path("inventories/default")
_ACTOR: Final = "scalelite.actor"
_PASSWORDS: Final = "scalelite.passwords"
_OPENED: Final = "scalelite.opened"


def settings_of_process() -> Settings:
    """Read the environment, and --actor of the command, and send logs where it says."""
    settings = process_settings()
    logs.configure(settings.log_level, settings.log_format)
    context = click.get_current_context(silent=True)
    actor = context.meta.get(_ACTOR) if context else None
    return replace(settings, actor=actor) if actor else settings


def actor_option(function: Callable[..., T]) -> Callable[..., T]:
    """Add the option --actor, which `settings_of_process` takes up; for commands that write revisions."""

    def keep(context: click.Context, _: click.Parameter, value: str | None) -> None:
        context.meta[_ACTOR] = value

    return click.option(
        "--actor",
        metavar="NAME",
        expose_value=False,
        callback=keep,
        help="Who does this, for the history; else SCALELITE_ACTOR, the CI job, or user@host.",
    )(function)


def vault_options(function: Callable[..., T]) -> Callable[..., T]:
    """Add the options that name passwords of vaults, which `vault_passwords` takes up."""

    def keep(context: click.Context, option: click.Parameter, value: Sequence[str] | bool) -> None:
        texts = ([PROMPT] if value else []) if isinstance(value, bool) else value
        read = PasswordSource if option.name == "vault_password_file" else PasswordSource.of
        context.meta.setdefault(_PASSWORDS, []).extend(read(text) for text in texts)

    options = [
        click.option("--ask-vault-pass", is_flag=True, expose_value=False, callback=keep, help="Ask for a password."),
        click.option(
            "--vault-id", multiple=True, metavar="LABEL@FILE", expose_value=False, callback=keep,
            help="The password of vaults with a label: a file, a program, or `prompt`.",
        ),
        click.option(
            "--vault-password-file", multiple=True, metavar="FILE", expose_value=False, callback=keep,
            help="A file with the password of vaults, or a program that prints it.",
        ),
    ]  # fmt: skip
    for option in options:
        function = option(function)
    return function


def inventory_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name inventories."""
    function = vault_options(click.argument("paths", nargs=-1, metavar="[PATH]...")(function))
    return click.option("-i", "--inventory", multiple=True, metavar="PATH", help="An inventory; a later one wins.")(
        function
    )


def vault_passwords(settings: Settings) -> list[Password]:
    """Return the passwords that options name, else that of the environment's file; raises PasswordUnavailable.

    Asked for and looked up once a command, however often it loads an inventory.
    """
    known = click.get_current_context().meta
    if _OPENED not in known:
        sources: list[PasswordSource] = known.get(_PASSWORDS, [])
        if not sources and settings.vault_password_file:
            sources = [PasswordSource(settings.vault_password_file)]
        known[_OPENED] = [password(source, asked_password) for source in sources]
    passwords: list[Password] = known[_OPENED]
    return passwords


def asked_password(label: str, *, twice: bool = False) -> str:
    """Ask for a password on the terminal; raises UsageError where there is none."""
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to ask for the vault password", hint="give --vault-password-file")
    question = f"Vault password ({label})" if label else "Vault password"
    answer: str = click.prompt(
        question, hide_input=True, err=True, default="", show_default=False, confirmation_prompt=twice
    )
    return answer


def _shown_as(doing: str, actor: str) -> str:
    """Return the name in pg_stat_activity, of at most 63 bytes: of a long address of a job, its end tells most."""
    frame = f"scalelite {doing}  pid {os.getpid()}"
    return f"scalelite {doing} {actor.encode()[len(frame) - 63 :].decode(errors='ignore')} pid {os.getpid()}"


def with_connection(settings: Settings, use: Callable[[Connection], Awaitable[T]], *, doing: str) -> T:
    """Run a coroutine function on a connection to the cluster's database; `doing` names it to who waits for a lock."""
    import asyncio  # noqa: PLC0415 - 0.03 s to import

    from scalelite.store.db import connect  # noqa: PLC0415 - 0.1 s to import
    from scalelite.store.seal import Sealer  # noqa: PLC0415
    from scalelite.wiring import open_database  # noqa: PLC0415

    results: list[T] = []  # not returned: asyncio makes a text of what its main task returns, which may be a cluster

    async def connected(conninfo: str) -> None:
        name = _shown_as(doing, settings.actor)
        async with connect(conninfo, name, Sealer(settings.encryption_keys)) as connection:
            results.append(await use(connection))

    gc.disable()  # what is read lives until the command ends: looking at it again and again takes 0.04 s
    try:
        with open_database(settings) as conninfo:
            asyncio.run(connected(conninfo))
    finally:
        gc.enable()
    return results[0]


def with_services(settings: Settings, use: Callable[[Services], Awaitable[T]], *, doing: str) -> T:
    """Run a coroutine function on the open services: for commands that ask servers, or that work for long."""
    import asyncio  # noqa: PLC0415 - 0.03 s to import

    from scalelite.wiring import open_database, open_services  # noqa: PLC0415 - 0.3 s to import

    results: list[T] = []

    async def opened(conninfo: str) -> None:
        async with open_services(settings, conninfo, name=_shown_as(doing, settings.actor)) as services:
            results.append(await use(services))

    with open_database(settings) as conninfo:
        asyncio.run(opened(conninfo))
    return results[0]


def read_inventory(settings: Settings, paths: Sequence[str], *, tell_warnings: bool = True) -> Inventory:
    """Load the inventory that the command names, else SCALELITE_INVENTORY, else inventories/default."""
    from scalelite.inventory.load import load_inventory, without_gc  # noqa: PLC0415

    chosen = list(paths) or ([settings.inventory] if settings.inventory else [])
    if not chosen and DEFAULT_INVENTORY.exists():
        chosen = [str(DEFAULT_INVENTORY)]
    if not chosen:
        raise UsageError(
            "no inventory is named", hint=f"give a path, set SCALELITE_INVENTORY, or make {DEFAULT_INVENTORY}"
        )
    if chosen.count("-") > 1:
        raise UsageError("standard input can be read once: '-' is named twice", hint="leave one of them out")
    sources: list[Path | Literal["-"]] = ["-" if path == "-" else Path(path) for path in chosen]
    with without_gc():
        try:
            inventory = load_inventory(
                sources,
                environment=process_environment(),
                stdin=sys.stdin.buffer,
                passwords=lambda: vault_passwords(settings),
            )
        finally:
            gc.freeze()  # what was loaded, and its problems, live as long as the process: never look at them
    if tell_warnings:
        _tell_warnings(settings, inventory)
    return inventory


def _tell_warnings(settings: Settings, inventory: Inventory) -> None:
    for warning in inventory.warnings:
        click.echo(warning.text(caret=False), err=True)
    if not settings.multitenancy and any(inventory.wanted.of_kind(Kind.TENANT)):
        click.echo("warning: MULTITENANCY_ENABLED is not true: no call will be one of these tenants'", err=True)


def confirmed(question: str) -> bool:
    """Ask on the terminal; only `yes` goes on."""
    click.echo(f"{question} Only 'yes' goes on: ", err=True, nl=False)
    return sys.stdin.readline().strip() == "yes"


def ask_before(question: str, *, yes: bool) -> None:
    """Ask before meetings end; raises UsageError for anything but yes, and where nobody is there."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"nobody is there to confirm: {question}", hint="--yes does it without asking")
    if not confirmed(question):
        raise UsageError("not confirmed, nothing was done")


def ask_to_apply() -> None:
    """Ask whether to apply what was shown; raises UsageError for anything but yes, and where nobody is there."""
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to confirm", hint="give --auto-approve to apply without asking")
    if not confirmed("Apply these changes?"):
        raise UsageError("not confirmed, nothing was written")
