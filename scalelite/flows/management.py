"""What the management API looks at and does, each with a connection of its own, and for no longer than a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from scalelite.core import commands
from scalelite.core.model import Key, Kind, LrsSpec, SettingSpec
from scalelite.errors import NotDeclared
from scalelite.flows import admin
from scalelite.flows.acting import Acting
from scalelite.flows.meetings import running
from scalelite.flows.status import server_rows, servers_with_rows
from scalelite.store import db, specs
from scalelite.store import history as revisions
from scalelite.store.specs import Author

if TYPE_CHECKING:
    from uuid import UUID

    from scalelite.core.commands import Wish
    from scalelite.core.model import Declared, ServerSpec, TenantSpec
    from scalelite.flows.services import Services
    from scalelite.flows.status import ServerRow
    from scalelite.store.db import Connection
    from scalelite.store.observed import RunningMeeting

# Every answer comes within 12 s: a writer waits for another's lock for less than that.
_LOCK_S: Final = 5.0
_WRITE_S: Final = 10.0
_PANIC_LOCK_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server as it is declared, and as it is."""

    spec: ServerSpec
    row: ServerRow


@dataclass(frozen=True, slots=True)
class TenantView:
    """A tenant with its LRS."""

    spec: TenantSpec
    lrs: LrsSpec | None


@dataclass(frozen=True, slots=True)
class SettingView:
    """A tenant's setting, with the id that Scalelite's commands name it by."""

    id: UUID
    tenant: TenantSpec
    spec: SettingSpec


async def servers(services: Services) -> list[ServerView]:
    """Return all servers, by id."""
    async with services.database.use() as connection:
        return [ServerView(spec, row) for spec, row in await servers_with_rows(connection)]


async def server(services: Services, server_id: str) -> ServerView:
    """Return one server; raises NotDeclared."""
    if not server_id or "\0" in server_id:  # which Postgres takes in no text
        raise NotDeclared("server", server_id)
    async with services.database.use() as connection:
        for spec, row in await servers_with_rows(connection, server_id):
            return ServerView(spec, row)
    raise NotDeclared("server", server_id)


async def meetings(services: Services, tenant: str = "", server_id: str = "") -> list[RunningMeeting]:
    """Return the meetings of a tenant (by id or name) or of all, on a server or on any; raises NotDeclared."""
    async with services.database.use() as connection:
        found = await running(connection, tenant=tenant)
    return [meeting for meeting in found if not server_id or meeting.server == server_id]


async def tenants(services: Services) -> list[TenantView]:
    """Return all tenants, by name."""
    async with services.database.use() as connection:
        return await tenants_with_lrs(connection)


async def tenants_with_lrs(connection: Connection) -> list[TenantView]:
    """Return all tenants, by name."""
    declared = (await admin.read_live(connection)).declared
    return [_tenant(declared, spec) for spec in commands.tenants(declared)]


async def tenant(services: Services, name_or_id: str) -> TenantView:
    """Return one tenant; raises NotDeclared."""
    declared = await _declared(services)
    return _tenant(declared, commands.tenant_of(declared, name_or_id))


async def _declared(services: Services) -> Declared:
    async with services.database.use() as connection:
        return (await admin.read_live(connection)).declared


def _tenant(declared: Declared, spec: TenantSpec) -> TenantView:
    lrs = declared.objects.get(Key(Kind.LRS, spec.name))
    return TenantView(spec, lrs if isinstance(lrs, LrsSpec) else None)


async def settings(services: Services, tenant: str = "") -> list[SettingView]:
    """Return the settings of a tenant (by id or name), or of all; raises NotDeclared for an unknown one."""
    async with services.database.use() as connection:
        return await settings_of(connection, tenant)


async def settings_of(connection: Connection, tenant: str = "") -> list[SettingView]:
    """Return the settings of a tenant (by id or name), or of all; raises NotDeclared for an unknown one."""
    async with db.snapshot(connection):
        declared = (await specs.load_live(connection)).declared
        ids = await specs.setting_ids(connection)
    of = {spec.name: spec for spec in commands.tenants(declared)}
    if tenant:
        spec = commands.tenant_of(declared, tenant)
        of = {spec.name: spec}
    return [
        SettingView(ids[key], of[key.name], spec)
        for key, spec in declared.of_kind(Kind.SETTING)
        if key.name in of and key in ids
    ]


async def status(services: Services) -> list[ServerRow]:
    """Return what `scalelite status` shows."""
    async with services.database.use() as connection:
        return await server_rows(connection)


async def history(services: Services, limit: int, before: int | None) -> list[dict[str, Any]]:
    """Return revisions, newest first."""
    async with services.database.use() as connection:
        return await revisions.recent_revisions(connection, limit, before)


async def change(services: Services, actor: str, operation: str, wish: Wish) -> admin.Changed:
    """Carry out a wish in somebody's name; raises what admin.change raises."""
    async with services.database.use(timeout_s=_WRITE_S) as connection:
        author = Author(actor, operation, {"api": operation})
        return await admin.change(connection, Acting(author, services.new_id, _LOCK_S), wish)


async def panic(services: Services, actor: str, server_id: str, **how: Any) -> admin.Panicked:
    """Panic in somebody's name; raises NotDeclared."""
    author = Author(actor, "panicServer", {"api": "panicServer"})
    return await admin.panic(services, author, server_id, lock_timeout_s=_PANIC_LOCK_S, **how)
