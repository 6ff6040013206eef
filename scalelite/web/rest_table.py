"""The calls of the management API as one table: it routes, says the scopes, and makes the OpenAPI document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scalelite.web import rest_models as m
from scalelite.web import rest_servers as servers
from scalelite.web import rest_tenants as tenants
from scalelite.web.rest_call import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping

OPERATIONS: Final[Mapping[str, Operation]] = {
    "getServers": Operation(
        "GET", "read", "List the servers.", m.Params, {200: list[m.Server], 404: m.Error}, servers.get_servers
    ),
    "getServerInfo": Operation("GET", "read", "Show a server.", m.ById, {200: m.Server}, servers.get_server),
    "addServer": Operation(
        "POST", "admin", "Add a server; it starts disabled.", m.AddServer, {201: m.Server}, servers.add_server
    ),
    "updateServer": Operation(
        "POST",
        "operate",
        "Change a server's state (scope operate), url, secret, tag or load multiplier (scope admin).",
        m.UpdateServer,
        {200: m.Server},
        servers.update_server,
    ),
    "deleteServer": Operation(
        "POST", "admin", "Remove a server that has no meetings.", m.ById, {200: m.Success}, servers.delete_server
    ),
    "panicServer": Operation(
        "POST",
        "operate",
        "Disable a server and end its meetings, of all tenants, whether or not it answers.",
        m.Panic,
        {200: m.Panicked},
        servers.panic_server,
    ),
    "getTenants": Operation(
        "GET",
        "read",
        "List the tenants.",
        m.Params,
        {200: list[m.TenantShort] | m.Message},
        tenants.get_tenants,
        tenants=True,
    ),
    "getTenantInfo": Operation(
        "GET", "read", "Show a tenant.", m.ById, {200: m.Tenant}, tenants.get_tenant, tenants=True
    ),
    "addTenant": Operation(
        "POST",
        "admin",
        "Add a tenant.",
        m.AddTenant,
        {201: m.TenantWritten, 400: m.Error | m.Message},
        tenants.add_tenant,
        tenants=True,
    ),
    "updateTenant": Operation(
        "POST",
        "admin",
        "Change a tenant's name or secrets, or switch it off.",
        m.UpdateTenant,
        {200: m.TenantWritten},
        tenants.update_tenant,
        tenants=True,
    ),
    "deleteTenant": Operation(
        "POST",
        "admin",
        "Remove a tenant that has no meetings.",
        m.ById,
        {200: m.Success},
        tenants.delete_tenant,
        tenants=True,
    ),
    "updateTenantLrs": Operation(
        "POST",
        "admin",
        "Set or remove a tenant's LRS.",
        m.Lrs,
        {200: m.TenantWritten},
        tenants.update_lrs,
        tenants=True,
    ),
    "getTenantSettings": Operation(
        "GET",
        "read",
        "List the settings of a tenant, or of all.",
        m.OfTenant,
        {200: list[m.Setting]},
        tenants.get_settings,
        tenants=True,
    ),
    "addTenantSetting": Operation(
        "POST",
        "admin",
        "Add a setting to a tenant, or replace it.",
        m.AddSetting,
        {201: m.Setting},
        tenants.add_setting,
        tenants=True,
    ),
    "deleteTenantSetting": Operation(
        "POST", "admin", "Remove a tenant's setting.", m.ById, {200: m.Success}, tenants.delete_setting, tenants=True
    ),
    "getStatus": Operation(
        "GET",
        "read",
        "Show states, health and load, as last polled.",
        m.Params,
        {200: list[m.StatusOfServer]},
        servers.get_status,
    ),
    "getMeetings": Operation(
        "GET",
        "read",
        "List the meetings with the server that each is on, and whether that answers.",
        m.MeetingsOf,
        {200: list[m.Meeting]},
        servers.get_meetings,
    ),
    "getHistory": Operation(
        "GET",
        "read",
        "List what was changed, by whom, newest first.",
        m.HistoryPage,
        {200: list[m.Revision]},
        servers.get_history,
    ),
    "poll": Operation("POST", "operate", "Poll all servers now.", m.Params, {200: m.Polled}, servers.poll),
}
