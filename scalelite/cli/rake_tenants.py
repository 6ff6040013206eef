"""The old tasks tenants…, tenantSettings… and recordings…, with the output that Scalelite v1.8.5 was recorded with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scalelite.cli.rake import Refused, not_found
from scalelite.core import commands
from scalelite.core.listing import Filter
from scalelite.core.model import Secret
from scalelite.core.show import counted
from scalelite.errors import NotDeclared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from scalelite.cli.rake import Rake
    from scalelite.core.commands import Wish
    from scalelite.core.model import LrsSpec, TenantSpec
    from scalelite.core.rake import Arguments
    from scalelite.flows.management import SettingView, TenantView
    from scalelite.flows.services import Services
    from scalelite.store.db import Connection


def _check_enabled(rake: Rake) -> None:
    if not rake.settings.multitenancy:
        raise Refused("Multitenancy is disabled, task can not be completed")


# --- tenants ---------------------------------------------------------------------------------------------------------


def _tenants(rake: Rake) -> list[TenantView]:
    from scalelite.flows.management import tenants_with_lrs  # noqa: PLC0415 - 0.1 s to import

    return rake.read(tenants_with_lrs)


def list_tenants(rake: Rake, _: Arguments) -> None:
    _check_enabled(rake)
    found = _tenants(rake)
    for view in found:
        secrets = ":".join(secret.reveal() for secret in view.spec.secrets)
        rake.say(f"id: {view.spec.id}\n\tname: {view.spec.name}\n\tsecrets: {secrets}")
        for name, value in lrs_fields(view.lrs).items():
            rake.say(f"\t{name}: {value}")
    rake.say(f"Total number of tenants: {len(found)}")


def lrs_fields(lrs: LrsSpec | None) -> dict[str, str]:
    """Return a tenant's LRS by the names that Scalelite has for its parts."""
    if lrs is None:
        return {}
    prefix, given = ("lrs", lrs.basic) if lrs.basic else ("kc", lrs.oidc)
    fields = {f"{prefix}_{name}": value.reveal() if isinstance(value, Secret) else value for name, value in given or ()}
    return {"lrs_endpoint": lrs.endpoint, **fields}


def add(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    if not arguments["name"] or not arguments["secrets"]:
        raise Refused("Error: both name and secrets are required to create a Tenant")
    fields = {"name": arguments["name"], "secrets": commands.secrets_of(arguments["secrets"])}
    rake.change(commands.add_tenant(fields))
    made = next(view.spec for view in _tenants(rake) if view.spec.name == arguments["name"])
    rake.say(f"OK\nNew Tenant id: {made.id}")


def _change(rake: Rake, tenant: str, wish: Callable[[str], Wish]) -> None:
    """Change a tenant that is named by its id."""
    spec = _tenant(rake, tenant)
    rake.change(wish(spec.name))
    rake.say(f"OK\nUpdated Tenant id: {tenant}")


def _tenant(rake: Rake, tenant: str) -> TenantSpec:
    for view in _tenants(rake):
        if str(view.spec.id) == tenant:
            return view.spec
    raise not_found("Tenant", tenant)


def update(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    fields: dict[str, Any] = {}
    if arguments["name"]:
        fields["name"] = arguments["name"]
    if arguments["secrets"]:
        fields["secrets"] = commands.secrets_of(arguments["secrets"])
    if not arguments["id"] or not fields:
        raise Refused("Error: id and either name or secrets are required to update a Tenant")
    _change(rake, arguments["id"], lambda name: commands.update_tenant(name, fields))


def remove(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    rake.change(commands.remove_tenant(_tenant(rake, arguments["id"]).name))
    rake.say("Tenant was successfully deleted.")


def update_lrs_basic(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    endpoint, *basic = (arguments[name] for name in ("lrs_endpoint", "lrs_username", "lrs_password"))
    if not all((arguments["id"], endpoint, *basic)):
        raise Refused("Error: id, LRS_ENDPOINT, LRS_USERNAME, LRS_PASSWORD are required to update a Tenant")
    fields = {"endpoint": endpoint, "basic": dict(zip(("username", "password"), basic, strict=True))}
    _change(rake, arguments["id"], lambda name: commands.put_lrs(name, fields))


def update_lrs_kc(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    names = ("token_url", "client_id", "client_secret", "username", "password")
    oidc = {name: arguments[f"kc_{name}"] for name in names}
    if not all((arguments["id"], arguments["lrs_endpoint"], *oidc.values())):
        raise Refused(
            "Error: LRS_ENDPOINT, KC_TOKEN_URL, KC_CLIENT_ID, KC_CLIENT_SECRET, KC_USERNAME, KC_PASSWORD"
            " are required to update a Tenant"
        )
    fields = {"endpoint": arguments["lrs_endpoint"], "oidc": oidc}
    _change(rake, arguments["id"], lambda name: commands.put_lrs(name, fields))


# --- settings --------------------------------------------------------------------------------------------------------


def _settings(rake: Rake) -> list[SettingView]:
    from scalelite.flows.management import settings_of  # noqa: PLC0415 - 0.1 s to import

    return rake.read(settings_of)


def list_settings(rake: Rake, _: Arguments) -> None:
    _check_enabled(rake)
    settings = _settings(rake)
    for tenant in _tenants(rake):
        mine = [view for view in settings if view.tenant.name == tenant.spec.name]
        rake.say(f"Tenant: {tenant.spec.name}")
        if not mine:
            rake.warn("  No custom settings are configured")
        for view in mine:
            override = "true" if view.spec.override else "false"
            rake.say(f"  id: {view.id}\n\tparam: {view.spec.param}")
            rake.say(f"\tvalue: {view.spec.value}\n\toverride: {override}")


def add_setting(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    if not all(arguments[name] for name in arguments.names):
        raise Refused("Error: tenant_id, param, value and override are required to create a TenantSetting")
    param = arguments["param"]
    # Whatever is not `true` counted as false.
    fields = {"param": param, "value": arguments["value"], "override": arguments["override"] == "true"}
    rake.change(commands.put_setting(arguments["tenant_id"], fields))
    tenant = arguments["tenant_id"].lower()
    made = next(
        view
        for view in _settings(rake)
        if view.spec.param == param and tenant in {str(view.tenant.id), view.tenant.name}
    )
    rake.say(f"OK\nNew TenantSetting id: {made.id}")


def remove_setting(rake: Rake, arguments: Arguments) -> None:
    _check_enabled(rake)
    found = next((view for view in _settings(rake) if str(view.id) == arguments["id"]), None)
    if found is None:
        raise not_found("TenantSetting", arguments["id"])
    rake.change(commands.remove_setting(found.tenant.name, found.spec.param))
    rake.say("TenantSetting was successfully deleted.")


# --- recordings ------------------------------------------------------------------------------------------------------


def add_to_tenant(rake: Rake, arguments: Arguments) -> None:
    wanted = arguments["tenant_id"]
    if not wanted:
        raise Refused("No tenant ID was provided")

    async def find(connection: Connection) -> TenantSpec:
        from scalelite.flows.admin import read_live  # noqa: PLC0415 - 0.1 s to import

        return commands.tenant_of((await read_live(connection)).declared, wanted)

    async def acting(services: Services) -> int:
        from scalelite.flows.library import add_to_tenant as give  # noqa: PLC0415

        return await give(services, tenant, Filter(states=None))

    try:
        tenant = rake.read(find)
    except NotDeclared as error:
        raise Refused(f"Error: {error.message}") from None
    rake.serve(acting)
    rake.say(f"All existing recordings have been successfully linked to tenant {wanted}")


def update_recordings(rake: Rake, _: Arguments) -> None:
    from scalelite.flows.library import reread  # noqa: PLC0415 - 0.2 s to import

    outcome = rake.serve(reread)
    rake.say(f"{counted(outcome.read, 'recording')} read, {outcome.changed} changed.")
    if outcome.problems:
        raise Refused("\n".join(f"Error: {problem}" for problem in outcome.problems))


def watch_recordings(_: Rake, __: Arguments) -> None:
    from scalelite.cli import recordings  # noqa: PLC0415

    if recordings.watch.callback:
        recordings.watch.callback()


DOES: Final[Mapping[str, Callable[[Rake, Arguments], None]]] = {
    "tenants": list_tenants,
    "tenants:add": add,
    "tenants:update": update,
    "tenants:remove": remove,
    "tenants:update_lrs_basic": update_lrs_basic,
    "tenants:update_lrs_kc": update_lrs_kc,
    "tenantSettings": list_settings,
    "tenantSettings:add": add_setting,
    "tenantSettings:remove": remove_setting,
    "recordings:addToTenant": add_to_tenant,
    "recordings:update": update_recordings,
    "recordings:watch": watch_recordings,
}
