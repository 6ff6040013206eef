"""servers: list, add, change, hold, panic and sync BigBlueButton servers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scalelite.cli.changes import DONE_IN_PART, author_of, carry_out, given, tell
from scalelite.cli.ending import panic_server, server_and_meetings
from scalelite.cli.listing import Listing, format_option, print_list, to_yaml
from scalelite.cli.secret_text import SECRET
from scalelite.cli.server_rows import HEADS, as_sync_file, cells, plain
from scalelite.cli.session import actor_option, settings_of_process, with_connection, with_services
from scalelite.core import show
from scalelite.errors import FileUnusable, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.cli.changes import Meant
    from scalelite.cli.listing import Style
    from scalelite.core.commands import Wish
    from scalelite.core.model import Declared, Secret, State
    from scalelite.core.plan import Mode
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.db import Connection
    from scalelite.store.runtime import Held


@click.group(cls=Listing)
def servers() -> None:
    """List BigBlueButton servers, and add, change, hold and remove them.

    A server is named by its id, its host name, or so much of the beginning of either that only one begins so.

    \b
    Example: scalelite servers
             scalelite servers add https://bbb1.example.com/bigbluebutton/api @secret --tag gpu
             scalelite servers cordon bbb1 --reason "audio crackles"
    """


# --- look ------------------------------------------------------------------------------------------------------------


@servers.command("list")
@format_option
@click.option("--show-secrets", is_flag=True, help="Print secrets in clear.")
def list_(style: Style, show_secrets: bool) -> None:
    """List the servers, with what the poller last saw of them.

    \b
    Example: scalelite servers list --format json
    """
    found = with_connection(settings_of_process(), _all, doing="servers list")
    values = [plain(*one, show_secrets=show_secrets) for one in found]
    print_list(style, HEADS, [cells(value) for value in values], values)


async def _all(connection: Connection) -> list[tuple[Any, ServerRow, Held | None]]:
    from scalelite.flows.status import servers_with_rows  # noqa: PLC0415 - 0.1 s to import
    from scalelite.store.runtime import load_holds_in_full  # noqa: PLC0415

    holds = await load_holds_in_full(connection)
    return [(spec, row, holds.get(spec.id)) for spec, row in await servers_with_rows(connection)]


@servers.command("yaml")
@click.option("--verbose", is_flag=True, help="Also state, load, version and whether it is online, which sync ignores.")
def yaml_(verbose: bool) -> None:
    """Print a file for `servers sync`, with the secrets in clear.

    \b
    Example: scalelite servers yaml > servers.yml
    """
    from scalelite.flows.status import servers_with_rows  # noqa: PLC0415

    found = with_connection(settings_of_process(), servers_with_rows, doing="servers yaml")
    click.echo(to_yaml(as_sync_file(found, verbose=verbose), explicit=True), nl=False)


@servers.command("meetings")
@click.argument("server_ids", metavar="[ID]...", nargs=-1)
@format_option
def meetings_(server_ids: tuple[str, ...], style: Style) -> int:
    """Ask servers, or all of them, what meetings run on them.

    \b
    Example: scalelite servers meetings bbb1 bbb2
    """
    from scalelite.flows.meetings import listed_by_servers  # noqa: PLC0415 - 0.2 s to import

    found = with_services(
        settings_of_process(), lambda services: listed_by_servers(services, server_ids), doing="servers meetings"
    )
    rows = [(listing.server.id, meeting_id) for listing in found for meeting_id in listing.meetings]
    print_list(style, ("server", "meeting"), rows, [{"server": row[0], "meeting_id": row[1]} for row in rows])
    failures = [listing for listing in found if listing.failure]
    for listing in failures:
        click.echo(f"error: server {listing.server.id}: {listing.failure}", err=True)
    return DONE_IN_PART if failures else 0


# --- declare ---------------------------------------------------------------------------------------------------------


def _changed(command: str, text: str, wish: Callable[[str], Wish], done: str, message: str = "") -> None:
    """Do something to the server that a person means, and say so."""

    def meant(declared: Declared) -> Meant:
        from scalelite.core.commands import find_server  # noqa: PLC0415

        server_id = find_server(declared, text).id
        return server_id, wish(server_id)

    name, changed = carry_out(f"servers {command}", meant, message)
    tell(f"Server {name} is {done}", changed)


@servers.command("add")
@click.argument("url")
@click.argument("secret", type=SECRET)
@click.option("--load-multiplier", type=float, help="Above 1 for a weaker server; 1 if not given.")
@click.option("--tag", help="For meetings that ask for it.")
@click.option("--id", "server_id", help="Its id; else its host name (SERVER_ID_IS_HOSTNAME) or a UUID.")
@actor_option
def add(url: str, secret: Secret, load_multiplier: float | None, tag: str | None, server_id: str | None) -> None:
    """Add a server; it starts disabled. SECRET is `-` (standard input), @FILE, env:NAME, or the secret itself.

    \b
    Example: scalelite servers add https://bbb1.example.com/bigbluebutton/api env:BBB1_SECRET --load-multiplier 2
    """
    import uuid  # noqa: PLC0415

    from scalelite.core import commands  # noqa: PLC0415

    settings = settings_of_process()
    chosen = server_id or commands.new_server_id(url, uuid.uuid4, is_hostname=settings.server_id_is_hostname)
    fields = {"id": chosen, "url": url, "secret": secret, **given(load_multiplier=load_multiplier, tag=tag)}
    _, changed = carry_out("servers add", lambda _: (chosen, commands.add_server(fields)))
    tell(f"Server {chosen} is added, and disabled: scalelite servers enable {chosen}", changed)


@servers.command("update")
@click.argument("text", metavar="ID")
@click.option("--secret", type=SECRET, metavar="SECRET", help="-, @FILE, env:NAME, or the secret itself.")
@click.option("--url", help="Its API; refused while meetings are on it.")
@click.option("--load-multiplier", type=float, help="Above 1 for a weaker server.")
@click.option("--tag", help="'' for none.")
@actor_option
def update(text: str, **fields: Any) -> None:
    """Change a server's secret, url, multiplier or tag.

    \b
    Example: scalelite servers update bbb1 --secret @new-secret --tag ''
    """
    from scalelite.core.commands import update_server  # noqa: PLC0415

    wanted = given(**fields)
    if not wanted:
        raise UsageError("nothing is named that should change", hint="--secret, --url, --load-multiplier or --tag")
    _changed("update", text, lambda server_id: update_server(server_id, wanted), "updated")


@servers.command("load-multiplier")
@click.argument("text", metavar="ID")
@click.argument("factor", type=float)
@actor_option
def load_multiplier_(text: str, factor: float) -> None:
    """Set what a server's load is multiplied by; above 1 for a weaker server.

    \b
    Example: scalelite servers load-multiplier bbb1 2.5
    """
    from scalelite.core.commands import update_server  # noqa: PLC0415

    wanted = {"load_multiplier": factor}
    _changed("load-multiplier", text, lambda server_id: update_server(server_id, wanted), f"weighted {factor:g}")


@servers.command("tag")
@click.argument("text", metavar="ID")
@click.argument("tag", default="")
@actor_option
def tag_(text: str, tag: str) -> None:
    """Set a server's tag; without TAG it has none.

    \b
    Example: scalelite servers tag bbb1 gpu
    """
    from scalelite.core.commands import update_server  # noqa: PLC0415

    _changed("tag", text, lambda server_id: update_server(server_id, {"tag": tag}), f"tagged '{tag}'")


@servers.command("remove")
@click.argument("text", metavar="ID")
@actor_option
def remove(text: str) -> None:
    """Remove a server; refused while meetings are on it.

    \b
    Example: scalelite servers remove bbb1
    """
    from scalelite.core.commands import remove_server  # noqa: PLC0415

    _changed("remove", text, remove_server, "removed")


# --- hold ------------------------------------------------------------------------------------------------------------

_reason = click.option("--reason", default="", help="Why, for colleagues and for the history.")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


def _set_state(command: str, text: str, state: State, reason: str, done: str) -> None:
    from scalelite.core.commands import set_state  # noqa: PLC0415

    _changed(command, text, lambda server_id: set_state(server_id, state, reason), done, reason)


@servers.command("enable")
@click.argument("text", metavar="ID")
@_reason
@actor_option
def enable(text: str, reason: str) -> None:
    """Let a server take meetings, and lift what holds it; the next poll counts it in.

    \b
    Example: scalelite servers enable bbb1
    """
    _set_state("enable", text, "enabled", reason, "enabled")


@servers.command("cordon")
@click.argument("text", metavar="ID")
@_reason
@actor_option
def cordon(text: str, reason: str) -> None:
    """Place no new meetings on a server; those on it go on, and it is disabled when it is empty.

    \b
    Example: scalelite servers cordon bbb1 --reason "kernel update"
    """
    _set_state("cordon", text, "cordoned", reason, "cordoned")


@servers.command("disable")
@click.argument("text", metavar="ID")
@_reason
@_yes
@actor_option
def disable(text: str, reason: str, yes: bool) -> int:
    """Take a server out of service; meetings on it are ended, after asking.

    \b
    Example: scalelite servers disable bbb1 --reason "disk swap" --yes
    """
    server_id, meetings = server_and_meetings(text)
    if not meetings:
        _set_state("disable", server_id, "disabled", reason, "disabled")
        return 0
    return panic_server(server_id, meetings, reason or "disabled", yes=yes, command="servers disable")


@servers.command("panic")
@click.argument("text", metavar="ID")
@click.option("--keep-state", is_flag=True, help="Leave its state as it is.")
@click.option("--skip-end-calls", is_flag=True, help="Only forget its meetings; do not ask it to end them.")
@_reason
@_yes
@actor_option
def panic(text: str, keep_state: bool, skip_end_calls: bool, reason: str, yes: bool) -> int:
    """Disable a server, whether or not it answers, and end or forget all meetings on it.

    \b
    Example: scalelite servers panic bbb1 --yes
    """
    server_id, meetings = server_and_meetings(text)
    how = {"keep_state": keep_state, "skip_end_calls": skip_end_calls}
    return panic_server(server_id, meetings, reason or "panic", yes=yes or not meetings, command="servers panic", **how)


# --- many at once ----------------------------------------------------------------------------------------------------


def read_text(path: str) -> str:
    """Return the text of a file, or of standard input for `-`; raises FileUnusable."""
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise FileUnusable(path, error) from error


@servers.command("add-all")
@click.argument("file")
@actor_option
def add_all(file: str) -> None:
    """Add all servers of a YAML file with `servers: [{url, secret}, …]`, or none; they start disabled.

    \b
    Example: scalelite servers add-all new-servers.yml
    """
    added = add_listed(read_text(file))
    for url, server_id in added:
        click.echo(f"server: {url}\nid: {server_id}")


def add_listed(text: str) -> list[tuple[str, str]]:
    """Add what a file lists in one revision; returns (url, id) of each."""
    import uuid  # noqa: PLC0415

    from scalelite.core import commands  # noqa: PLC0415
    from scalelite.core.course import in_turn  # noqa: PLC0415
    from scalelite.inventory.sync_file import listed_servers  # noqa: PLC0415

    settings = settings_of_process()
    added = []
    for fields in listed_servers(text):
        drawn = commands.new_server_id(fields["url"], uuid.uuid4, is_hostname=settings.server_id_is_hostname)
        added.append({"id": drawn, **fields})
    wish = in_turn(*(commands.add_server(fields) for fields in added))
    if added:
        carry_out("servers add-all", lambda _: ("", wish), settings=settings)
    return [(fields["url"], fields["id"]) for fields in added]


@servers.command("sync")
@click.argument("path")
@click.option(
    "--mode",
    type=click.Choice(["keep", "cordon", "force"]),
    default="cordon",
    show_default=True,
    help="What becomes of servers that the file lacks: kept; removed if empty, else cordoned; emptied and removed.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@actor_option
def sync(path: str, mode: Mode, dry_run: bool) -> int:
    """Make the servers what a YAML file (or `-`) says, without asking: the apply of `servers:` alone.

    \b
    Example: scalelite servers yaml > servers.yml && scalelite servers sync servers.yml --dry-run
    """
    from scalelite.flows import sync as flow  # noqa: PLC0415 - 0.2 s to import
    from scalelite.inventory.sync_file import wanted_servers  # noqa: PLC0415

    settings = settings_of_process()
    wanted = wanted_servers(read_text(path))
    author = author_of(settings, "servers sync")

    async def acting(services: Services) -> flow.Synced:
        return await flow.sync(services, wanted, mode, author, dry_run=dry_run)

    done = with_services(settings, acting, doing="servers sync")
    for server, what in flow.told(done):
        click.echo(f"{show.plain(server)}: {what}")
    for keep in done.plan.keeps:
        click.echo(f"{show.plain(keep.key.name)}: {show.plain(keep.reason)}")
    if not done.revision:
        click.echo("Nothing was written." if done.plan.changes else "Nothing to do.")
    else:
        click.echo(f"Revision {done.revision:,}.")
    return DONE_IN_PART if done.left else 0
