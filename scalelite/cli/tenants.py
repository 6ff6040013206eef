"""tenants and tenant-settings: list, add, change and remove tenants, their xAPI credentials and their parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from scalelite.cli.changes import carry_out, given, shown_secrets, tell
from scalelite.cli.listing import Listing, format_option, print_list
from scalelite.cli.secret_text import SECRET
from scalelite.cli.session import actor_option, settings_of_process, with_connection
from scalelite.core.model import Secret
from scalelite.errors import Ambiguous, NotDeclared, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scalelite.cli.changes import Meant
    from scalelite.cli.listing import Style
    from scalelite.core.commands import Wish
    from scalelite.core.model import Declared
    from scalelite.flows.management import SettingView, TenantView
    from scalelite.store.db import Connection

HEADS: Final = ("id", "name", "enabled", "hosts", "secrets", "xapi")
SETTING_HEADS: Final = ("tenant", "id", "param", "value", "override", "calls")


@click.group(cls=Listing)
def tenants() -> None:
    """List tenants, and add, change and remove them.

    A tenant is named by its id, its name, a host of its own, or so much of the beginning that only one begins so.

    \b
    Example: scalelite tenants
             scalelite tenants add acme @secrets
    """


# --- tenants ---------------------------------------------------------------------------------------------------------


@tenants.command("list")
@format_option
@click.option("--show-secrets", is_flag=True, help="Print secrets in clear.")
def list_(style: Style, show_secrets: bool) -> None:
    """List the tenants.

    \b
    Example: scalelite tenants list --format yaml
    """
    from scalelite.flows.management import tenants_with_lrs  # noqa: PLC0415 - 0.1 s to import

    found = with_connection(settings_of_process(), tenants_with_lrs, doing="tenants list")
    values = [_plain(view, show_secrets=show_secrets) for view in found]
    print_list(style, HEADS, [_cells(value) for value in values], values)


def _plain(view: TenantView, *, show_secrets: bool) -> dict[str, Any]:
    spec = view.spec
    return {
        "id": str(spec.id),
        "name": spec.name,
        "enabled": spec.enabled,
        "hosts": list(spec.hosts),
        "secrets": [shown_secrets([secret], show=show_secrets) for secret in spec.secrets],
        "limits": spec.limits.model_dump(),
        "recordings": spec.recordings.model_dump(),
        "public_url": spec.public_url,
        "external_voice_bridge": spec.external_voice_bridge,
        "protect": spec.protect,
        "lrs": _plain_lrs(view.lrs, show_secrets=show_secrets),
    }


def _plain_lrs(lrs: Any, *, show_secrets: bool) -> dict[str, Any] | None:
    if lrs is None:
        return None
    way = "basic" if lrs.basic else "oidc"
    fields = {
        name: shown_secrets([value], show=show_secrets) if isinstance(value, Secret) else value
        for name, value in (lrs.basic or lrs.oidc)
    }
    return {"endpoint": lrs.endpoint, "on_error": lrs.on_error, way: fields}


def _cells(value: dict[str, Any]) -> tuple[str, ...]:
    lrs = value["lrs"]["endpoint"] if value["lrs"] else "-"
    enabled = "yes" if value["enabled"] else "no"
    hosts, secrets = " ".join(value["hosts"]) or "-", ":".join(value["secrets"])
    return (value["id"], value["name"], enabled, hosts, secrets, lrs)


def _changed(command: str, text: str, wish: Callable[[str], Wish], done: str) -> None:
    """Do something to the tenant that a person means, and say so."""

    def meant(declared: Declared) -> Meant:
        from scalelite.core.commands import find_tenant  # noqa: PLC0415

        name = find_tenant(declared, text).name
        return name, wish(name)

    name, changed = carry_out(command, meant)
    tell(f"Tenant {name} is {done}", changed)


@tenants.command()
@click.argument("name")
@click.argument("secrets", type=SECRET)
@actor_option
def add(name: str, secrets: Secret) -> None:
    """Add a tenant. SECRETS (one, or several with ':' between) is `-`, @FILE, env:NAME, or they themselves.

    \b
    Example: scalelite tenants add acme env:ACME_SECRETS
    """
    from scalelite.core import commands  # noqa: PLC0415

    fields = {"name": name, "secrets": commands.secrets_of(secrets.reveal())}
    _, changed = carry_out("tenants add", lambda _: (name, commands.add_tenant(fields)))
    tell(f"Tenant {name} is added", changed)


@tenants.command()
@click.argument("text", metavar="ID")
@click.option("--name", help="Another name: it is renamed, and keeps all that is its own.")
@click.option("--secrets", type=SECRET, metavar="SECRETS", help="-, @FILE, env:NAME, or they themselves.")
@actor_option
def update(text: str, name: str | None, secrets: Secret | None) -> None:
    """Give a tenant another name or other secrets.

    \b
    Example: scalelite tenants update acme --secrets @secrets
    """
    from scalelite.core import commands  # noqa: PLC0415

    fields = given(name=name, secrets=commands.secrets_of(secrets.reveal()) if secrets else None)
    if not fields:
        raise UsageError("nothing is named that should change", hint="--name or --secrets")
    _changed("tenants update", text, lambda known: commands.update_tenant(known, fields), "updated")


@tenants.command()
@click.argument("text", metavar="ID")
@actor_option
def remove(text: str) -> None:
    """Remove a tenant, with its settings; refused while it has meetings or recordings.

    \b
    Example: scalelite tenants remove acme
    """
    from scalelite.core.commands import remove_tenant  # noqa: PLC0415

    _changed("tenants remove", text, remove_tenant, "removed")


# --- xAPI ------------------------------------------------------------------------------------------------------------


@tenants.command("update-lrs-basic")
@click.argument("text", metavar="ID")
@click.argument("endpoint")
@click.argument("username")
@click.argument("password", type=SECRET)
@actor_option
def update_lrs_basic(text: str, endpoint: str, username: str, password: Secret) -> None:
    """Send a tenant's xAPI statements to an LRS, with a user name and a password (`-`, @FILE, env:NAME).

    \b
    Example: scalelite tenants update-lrs-basic acme https://lrs.example.com/data/ user env:LRS_PASSWORD
    """
    from scalelite.core.commands import put_lrs  # noqa: PLC0415

    fields = {"endpoint": endpoint, "basic": {"username": username, "password": password}}
    _changed("tenants update-lrs-basic", text, lambda name: put_lrs(name, fields), "set up for xAPI")


@tenants.command("update-lrs-kc")
@click.argument("text", metavar="ID")
@click.argument("endpoint")
@click.argument("token_url")
@click.argument("client_id")
@click.argument("client_secret", type=SECRET)
@click.argument("username")
@click.argument("password", type=SECRET)
@actor_option
def update_lrs_kc(text: str, endpoint: str, **oidc: Any) -> None:
    """Send a tenant's xAPI statements to an LRS, with tokens of an OpenID Connect provider such as Keycloak.

    CLIENT_SECRET and PASSWORD are `-`, @FILE, env:NAME, or they themselves.

    \b
    Example: scalelite tenants update-lrs-kc acme https://lrs.example.com/data/ \\
               https://kc.example.com/realms/r/protocol/openid-connect/token bbb env:KC_SECRET bbb-user env:KC_PASSWORD
    """
    from scalelite.core.commands import put_lrs  # noqa: PLC0415

    fields = {"endpoint": endpoint, "oidc": oidc}
    _changed("tenants update-lrs-kc", text, lambda name: put_lrs(name, fields), "set up for xAPI")


@tenants.command("remove-lrs")
@click.argument("text", metavar="ID")
@actor_option
def remove_lrs(text: str) -> None:
    """Send a tenant's xAPI statements nowhere.

    \b
    Example: scalelite tenants remove-lrs acme
    """
    from scalelite.core.commands import remove_lrs as wish  # noqa: PLC0415

    _changed("tenants remove-lrs", text, wish, "without xAPI")


# --- settings --------------------------------------------------------------------------------------------------------


@click.group("tenant-settings", cls=Listing)
def tenant_settings() -> None:
    """List the parameters that tenants' create and join calls get, and add and remove them.

    \b
    Example: scalelite tenant-settings
             scalelite tenant-settings add acme record false --override
    """


def _settings(tenant: str = "") -> list[SettingView]:
    async def look(connection: Connection) -> list[SettingView]:
        from scalelite.core.commands import find_tenant  # noqa: PLC0415
        from scalelite.flows.admin import read_live  # noqa: PLC0415
        from scalelite.flows.management import settings_of  # noqa: PLC0415

        name = find_tenant((await read_live(connection)).declared, tenant).name if tenant else ""
        return await settings_of(connection, name)

    return with_connection(settings_of_process(), look, doing="tenant-settings")


@tenant_settings.command("list")
@click.option("--tenant", default="", metavar="ID", help="Only its settings.")
@format_option
def list_settings(tenant: str, style: Style) -> None:
    """List settings.

    \b
    Example: scalelite tenant-settings list --tenant acme
    """
    values: list[dict[str, Any]] = [
        {
            "tenant": view.tenant.name,
            "id": str(view.id),
            "param": view.spec.param,
            "value": view.spec.value,
            "override": view.spec.override,
            "calls": list(view.spec.calls),
        }
        for view in _settings(tenant)
    ]
    rows = [
        (*list(value.values())[:4], "yes" if value["override"] else "no", " ".join(value["calls"])) for value in values
    ]
    print_list(style, SETTING_HEADS, rows, values)


@tenant_settings.command("add")
@click.argument("tenant")
@click.argument("param")
@click.argument("value")
@click.option("--override", is_flag=True, help="It counts whatever the call says; else only where the call says none.")
@actor_option
def add_setting(tenant: str, param: str, value: str, override: bool) -> None:
    """Set a parameter of a tenant's create and join calls; one that is there is replaced.

    \b
    Example: scalelite tenant-settings add acme welcome "Welcome to Acme"
    """
    from scalelite.core.commands import put_setting  # noqa: PLC0415

    fields = {"param": param, "value": value, "override": override}
    _changed("tenant-settings add", tenant, lambda name: put_setting(name, fields), f"given {param}")


@tenant_settings.command("remove")
@click.argument("text", metavar="ID")
@actor_option
def remove_setting(text: str) -> None:
    """Remove a setting, named by its id, the beginning of it, or TENANT/PARAM.

    \b
    Example: scalelite tenant-settings remove acme/welcome
    """
    from scalelite.core import commands  # noqa: PLC0415

    view = find_setting(_settings(), text)
    name, param = view.tenant.name, view.spec.param
    _, changed = carry_out("tenant-settings remove", lambda _: (name, commands.remove_setting(name, param)))
    tell(f"Tenant {name} is without {param}", changed)


def find_setting(views: list[SettingView], text: str) -> SettingView:
    """Return the setting that a person means; raises NotDeclared, Ambiguous."""
    names = {f"{view.tenant.name}/{view.spec.param}": view for view in views}
    if text in names:
        return names[text]
    found = {name: view for name, view in names.items() if text and str(view.id).startswith(text.lower())}
    if not found:
        raise NotDeclared("setting", text)
    if len(found) > 1:
        raise Ambiguous("setting", text, [f"{view.id} ({name})" for name, view in found.items()])
    return next(iter(found.values()))
