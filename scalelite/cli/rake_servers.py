"""The old tasks servers… and status, with the output that Scalelite v1.8.5 was recorded with."""

from __future__ import annotations

import logging
import os
import re
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scalelite.cli.changes import author_of
from scalelite.cli.listing import to_yaml
from scalelite.cli.rake import Aborted, Refused, log, not_found
from scalelite.cli.server_rows import as_sync_file, known_load, seems_online
from scalelite.cli.servers import add_listed
from scalelite.core import commands, show
from scalelite.core.model import Key, Kind
from scalelite.errors import NotDeclared, ScaleliteError, SyncFileInvalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from scalelite.cli.rake import Rake
    from scalelite.core.commands import Known, Wish
    from scalelite.core.model import ServerSpec, State
    from scalelite.core.rake import Arguments
    from scalelite.flows.admin import Panicked
    from scalelite.flows.meetings import Listing
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.db import Connection

_MODES: Final = ("keep", "cordon", "force")
_ACTIVE_LOAD: Final = """\
WARNING: You are trying to disable a server with active load. You should use the cordon option if
          you do not want to clear all the meetings
If you still wish to continue please enter `yes`"""


# --- look ------------------------------------------------------------------------------------------------------------


def _found(rake: Rake) -> list[tuple[ServerSpec, ServerRow]]:
    from scalelite.flows.status import servers_with_rows  # noqa: PLC0415 - 0.1 s to import

    return rake.read(servers_with_rows)


def list_servers(rake: Rake, _: Arguments) -> None:
    found = _found(rake)
    if not found:
        rake.warn("No servers are configured")
    for spec, row in found:
        load = known_load(row)
        rake.say(f"id: {spec.id}")
        for line in (
            f"url: {spec.url}",
            f"secret: {spec.secret.reveal()}",
            row.state,
            f"load: {'unavailable' if load is None else load}",
            f"load multiplier: {spec.load_multiplier}",
            f"bbb version: {row.bbb_version}",
            f"tag: {spec.tag}",
            "online" if seems_online(row) else "offline",
        ):
            rake.say(f"\t{line}")


def yaml(rake: Rake, arguments: Arguments) -> None:
    text = to_yaml(as_sync_file(_found(rake), verbose=bool(arguments["verbose"])), explicit=True)
    rake.say(text.removesuffix("\n"))


_STATUS_HEADS: Final = (
    "HOSTNAME", "STATE", "STATUS", "MEETINGS", "USERS", "LARGEST MEETING", "VIDEOS", "LOAD", "BBB VERSION", "TAG",
)  # fmt: skip
_LOAD: Final = _STATUS_HEADS.index("LOAD")


def status(rake: Rake, _: Arguments) -> None:
    rows = sorted((_cells(row) for _, row in _found(rake)), key=lambda cells: cells[0])
    rake.say("\n" + _drawn(rows) if rows else "")


def _cells(row: ServerRow) -> tuple[str, ...]:
    load = known_load(row)
    numbers = (row.meetings, row.users, row.largest_meeting, row.videos)
    head = (row.hostname.partition(":")[0], row.state, "online" if seems_online(row) else "offline")
    return (*head, *map(str, numbers), "" if load is None else str(load), row.bbb_version, row.tag)


def _drawn(rows: Sequence[tuple[str, ...]]) -> str:
    """Draw a table: heads in the middle, texts to the left, the load to the right."""
    widths = [max(len(line[place]) for line in (_STATUS_HEADS, *rows)) for place in range(len(_STATUS_HEADS))]
    heads = [f" {_middle(head, width)} " for head, width in zip(_STATUS_HEADS, widths, strict=True)]
    lines = [
        [
            f" {cell.rjust(width) if place == _LOAD else cell.ljust(width)} "
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("".join(line) for line in (heads, *lines))


def _middle(text: str, width: int) -> str:
    left = (width - len(text) + 1) // 2
    return (" " * left + text).ljust(width)


def meeting_list(rake: Rake, arguments: Arguments) -> None:
    wanted = arguments.listed("server_ids")

    async def asking(services: Services) -> list[Listing]:
        from scalelite.flows.meetings import listed_by_servers  # noqa: PLC0415 - 0.2 s to import

        return await listed_by_servers(services, wanted)

    try:
        found = rake.serve(asking)
    except NotDeclared as error:
        raise not_found("Server", error.name) from None
    for listing in found:
        rake.say(f"\nServer ID: {listing.server.id}\nServer Url: {listing.server.url}")
    for listing in found:
        if listing.failure:
            rake.warn(f"\nFailed to get server id={listing.server.id} status: {listing.failure}")
            continue
        if not listing.meetings:
            rake.warn("\tNo meetings to display")
        rake.say("MeetingIDs: \n\t" + "\n\t".join(listing.meetings))


# --- declare ---------------------------------------------------------------------------------------------------------


def add(rake: Rake, arguments: Arguments) -> None:
    url, secret = arguments["url"], arguments["secret"]
    if not url or not secret:
        raise Refused("Error: Please input at least a URL and a secret!")
    if not url.startswith(("http://", "https://")):
        raise Refused("Error: Server URL must start with http:// or https://")
    log.info("Adding server %s...", url)
    multiplier = _multiplier(arguments["load_multiplier"] or "1")
    server_id = commands.new_server_id(url, uuid.uuid4, is_hostname=rake.settings.server_id_is_hostname)
    fields = {"id": server_id, "url": url, "secret": secret, "load_multiplier": multiplier, "tag": arguments["tag"]}
    add_it = commands.add_server(fields)

    def wish(known: Known) -> Any:
        if Key(Kind.SERVER, server_id) in known.declared.objects:
            raise Aborted("ApplicationRedisRecord::RecordNotSaved", f"Server already exists with id '{server_id}'")
        return add_it(known)

    rake.change(wish)
    rake.say(f"OK\nid: {server_id}")


def _multiplier(text: str) -> float | str:
    """Read the number that a text begins with; what is none is refused by the model, as in an inventory."""
    found = re.match(r"\s*[-+]?\d+(\.\d+)?([eE][-+]?\d+)?", text)
    return float(found[0]) if found else text


def update(rake: Rake, arguments: Arguments) -> None:
    rake.announce(f"Updating server {arguments['id']}...")
    _spec(rake, arguments["id"])
    fields: dict[str, Any] = {}
    if arguments["secret"]:
        fields["secret"] = arguments["secret"]
    if arguments.given("tag"):
        fields["tag"] = arguments["tag"]
    if arguments["load_multiplier"]:
        fields["load_multiplier"] = _multiplier(arguments["load_multiplier"])
    rake.change(commands.update_server(arguments["id"], fields))
    rake.say("OK")


def load_multiplier(rake: Rake, arguments: Arguments) -> None:
    _spec(rake, arguments["id"])
    multiplier = _multiplier(arguments["load_multiplier"] or "1")
    rake.change(commands.update_server(arguments["id"], {"load_multiplier": multiplier}))
    rake.say("OK")


def tag(rake: Rake, arguments: Arguments) -> None:
    _spec(rake, arguments["id"])
    rake.change(commands.update_server(arguments["id"], {"tag": arguments["tag"]}))
    rake.say("OK")


def remove(rake: Rake, arguments: Arguments) -> None:
    _begun(rake, "Removing", arguments, commands.remove_server)


def enable(rake: Rake, arguments: Arguments) -> None:
    _begun(rake, "Enabling", arguments, _state("enabled"))


def cordon(rake: Rake, arguments: Arguments) -> None:
    _begun(rake, "Cordoning", arguments, _state("cordoned"))


def _state(state: State) -> Callable[[str], Wish]:
    return lambda server_id: commands.set_state(server_id, state)


def _begun(rake: Rake, doing: str, arguments: Arguments, wish: Callable[[str], Wish]) -> None:
    rake.announce(f"{doing} server {arguments['id']}...")
    _spec(rake, arguments["id"])
    rake.change(wish(arguments["id"]))
    rake.say("OK")


def _spec(rake: Rake, server_id: str) -> int:
    """Return how many meetings a server has; raises Refused for an unknown one."""

    async def look(connection: Connection) -> int:
        from scalelite.flows.admin import read_live  # noqa: PLC0415 - 0.1 s to import
        from scalelite.store.runtime import meetings_on  # noqa: PLC0415

        commands.server_of((await read_live(connection)).declared, server_id)
        return len(await meetings_on(connection, server_id))

    try:
        return rake.read(look)
    except NotDeclared:
        raise Refused(f"ERROR: No server found with id: {server_id}") from None


# --- end -------------------------------------------------------------------------------------------------------------


def disable(rake: Rake, arguments: Arguments) -> None:
    rake.announce(f"Disabling server {arguments['id']}...")
    if not _spec(rake, arguments["id"]):
        rake.change(commands.set_state(arguments["id"], "disabled"))
    else:
        rake.say(_ACTIVE_LOAD)
        if rake.asked() == "yes":
            _panic(rake, arguments["id"])
    rake.say("OK")


def panic(rake: Rake, arguments: Arguments) -> None:
    rake.announce(f"Panicking server {arguments['id']}...")
    _spec(rake, arguments["id"])
    how = {name: arguments.flag(name) for name in ("keep_state", "skip_end_calls")}
    _panic(rake, arguments["id"], **how)
    rake.say("OK")


def _panic(rake: Rake, server_id: str, *, keep_state: bool = False, skip_end_calls: bool = False) -> None:
    async def acting(services: Services) -> Panicked:
        from scalelite.flows import admin  # noqa: PLC0415 - 0.2 s to import

        author = author_of(rake.settings, f"rake {rake.task}")
        why = rake.task.partition(":")[2]
        return await admin.panic(
            services, author, server_id, why=why, keep_state=keep_state, skip_end_calls=skip_end_calls
        )

    for end in rake.serve(acting).meetings:
        rake.announce(f"Clearing Meeting id={end.meeting.meeting_id}")
        if end.outcome != "ended" and not skip_end_calls:
            rake.warn(f"WARNING: Could not end meeting id={end.meeting.meeting_id}: {end.reason}")


# --- many at once ----------------------------------------------------------------------------------------------------


def _text(path: str, reading: str) -> str:
    """Read a file, or fail with Ruby's words."""
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        how = "io_fread" if isinstance(error, IsADirectoryError) else reading
        raise Refused(f"{os.strerror(error.errno or 0)} @ {how} - {path}") from None


def add_all(rake: Rake, arguments: Arguments) -> None:
    if not arguments["path"]:
        raise Refused("no implicit conversion of nil into String")
    try:
        added = add_listed(_text(arguments["path"], "rb_check_realpath_internal"))
    except SyncFileInvalid as error:
        raise Refused(error.old) from None
    for url, server_id in added:
        rake.say(f"server: {url}\nid: {server_id}")


def sync(rake: Rake, arguments: Arguments) -> None:
    try:
        _sync(rake, arguments)
    except SyncFileInvalid as error:
        raise Refused(f"ERROR: {error.old}") from None
    except ScaleliteError as error:
        raise Refused(f"ERROR: {error.message}") from None


def _sync(rake: Rake, arguments: Arguments) -> None:
    from scalelite.flows import sync as flow  # noqa: PLC0415 - 0.2 s to import
    from scalelite.inventory.sync_file import wanted_servers  # noqa: PLC0415

    if not arguments["path"]:
        raise Refused("Missing 'path' parameter")
    mode: Any = arguments["mode"] or "cordon"
    if mode not in _MODES:
        raise Refused(f"Unknown sync mode '{mode}' (choose: {' '.join(_MODES)})")
    wanted = wanted_servers(_text(arguments["path"], "rb_sysopen"))
    author = author_of(rake.settings, "rake servers:sync")

    async def acting(services: Services) -> flow.Synced:
        return await flow.sync(services, wanted, mode, author, dry_run=arguments.flag("dryrun"))

    done = rake.serve(acting)
    for server, what in flow.told(done):
        level = logging.WARNING if what.startswith("Failed") else logging.INFO
        log.log(level, "[%s] %s", show.plain(server), what)
    if done.left:
        raise Refused("\n".join(f"[{address.partition('/')[2]}] Server still not empty!" for address in done.left))


DOES: Final[Mapping[str, Callable[[Rake, Arguments], None]]] = {
    "servers": list_servers,
    "servers:add": add,
    "servers:addAll": add_all,
    "servers:cordon": cordon,
    "servers:disable": disable,
    "servers:enable": enable,
    "servers:loadMultiplier": load_multiplier,
    "servers:meeting_list": meeting_list,
    "servers:panic": panic,
    "servers:remove": remove,
    "servers:sync": sync,
    "servers:tag": tag,
    "servers:update": update,
    "servers:yaml": yaml,
    "status": status,
}
