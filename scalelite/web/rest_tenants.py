"""Calls of the management API about tenants, their LRS and their settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scalelite.core import commands
from scalelite.errors import NotDeclared
from scalelite.flows import management
from scalelite.web import rest_models as m

if TYPE_CHECKING:
    from scalelite.core.model import LrsSpec, TenantSpec
    from scalelite.flows.management import SettingView, TenantView
    from scalelite.web.rest_call import Answer, Call


async def get_tenants(call: Call) -> Answer:
    """Every tenant, by name."""
    found = await management.tenants(call.services)
    if not found:
        return 200, m.Message(message="No tenants exist")
    shown = call.shows_secrets
    return 200, [
        m.TenantShort(id=str(view.spec.id), name=view.spec.name, secrets=_joined(view.spec) if shown else None)
        for view in found
    ]


async def get_tenant(call: Call) -> Answer:
    """One tenant."""
    return 200, _tenant(await management.tenant(call.services, call.params.id), call)


async def add_tenant(call: Call) -> Answer:
    """Add a tenant."""
    new: m.TenantFields = call.params.tenant
    if not new.name or not new.secrets:
        return 400, m.Message(message="Error: both name and secrets are required to create a Tenant")
    tenant_id = call.services.new_id()
    fields = {"id": tenant_id, "name": new.name, **_tenant_fields(new)}
    await call.change("addTenant", commands.add_tenant(fields))
    return 201, m.TenantWritten(tenant=_tenant(await management.tenant(call.services, str(tenant_id)), call))


async def update_tenant(call: Call) -> Answer:
    """Change a tenant."""
    new: m.TenantFields = call.params.tenant
    fields = {**({"name": new.name} if new.name else {}), **_tenant_fields(new)}
    tenant_id = str((await management.tenant(call.services, call.params.id)).spec.id)  # its name may be another after
    await call.change("updateTenant", commands.update_tenant(tenant_id, fields))
    return 200, m.TenantWritten(tenant=_tenant(await management.tenant(call.services, tenant_id), call))


def _tenant_fields(new: m.TenantFields) -> dict[str, Any]:
    fields: dict[str, Any] = {} if new.enabled is None else {"enabled": new.enabled}
    if new.secrets:
        fields["secrets"] = commands.secrets_of(new.secrets.reveal())
    return fields


async def delete_tenant(call: Call) -> Answer:
    """Remove a tenant, with its settings."""
    await call.change("deleteTenant", commands.remove_tenant(call.params.id))
    return 200, m.Success(success=f"Tenant id={call.params.id} was destroyed")


async def update_lrs(call: Call) -> Answer:
    """Set or remove a tenant's LRS."""
    new: LrsSpec | None = call.params.lrs
    wish = commands.put_lrs(call.params.id, dict(new)) if new else commands.remove_lrs(call.params.id)
    await call.change("updateTenantLrs", wish)
    return 200, m.TenantWritten(tenant=_tenant(await management.tenant(call.services, call.params.id), call))


def _joined(spec: TenantSpec) -> str:
    return ":".join(secret.reveal() for secret in spec.secrets)


def _tenant(view: TenantView, call: Call) -> m.Tenant:
    shown, spec, lrs = call.shows_secrets, view.spec, view.lrs
    fields: dict[str, Any] = {"secrets": _joined(spec) if shown else None}
    if lrs:
        fields["lrs_endpoint"] = lrs.endpoint
    if lrs and lrs.basic:
        fields["lrs_username"] = lrs.basic.username
        fields["lrs_password"] = lrs.basic.password.reveal() if shown else None
    if lrs and lrs.oidc:
        oidc = lrs.oidc
        fields |= {"kc_token_url": oidc.token_url, "kc_client_id": oidc.client_id, "kc_username": oidc.username}
        fields["kc_client_secret"] = oidc.client_secret.reveal() if shown else None
        fields["kc_password"] = oidc.password.reveal() if shown else None
    return m.Tenant(id=str(spec.id), name=spec.name, enabled=None if spec.enabled else False, **fields)


# --- settings of tenants ---------------------------------------------------------------------------------------------


async def get_settings(call: Call) -> Answer:
    """The settings of a tenant, or of all."""
    found = await management.settings(call.services, call.params.tenant)
    return 200, [_setting(view) for view in found]


async def add_setting(call: Call) -> Answer:
    """Add or replace a tenant's setting."""
    new: m.NewSetting = call.params.setting
    fields = {"param": new.param, "value": new.value, "override": new.override, "calls": new.calls}
    await call.change("addTenantSetting", commands.put_setting(call.params.tenant, fields))
    found = await management.settings(call.services, call.params.tenant)
    return 201, next(_setting(view) for view in found if view.spec.param == new.param)


async def delete_setting(call: Call) -> Answer:
    """Remove a tenant's setting, by its id."""
    for view in await management.settings(call.services):
        if str(view.id) == call.params.id:
            await call.change("deleteTenantSetting", commands.remove_setting(view.tenant.name, view.spec.param))
            return 200, m.Success(success=f"Tenant setting id={call.params.id} was destroyed")
    raise NotDeclared("setting", call.params.id)


def _setting(view: SettingView) -> m.Setting:
    spec = view.spec
    return m.Setting(
        id=str(view.id),
        tenant_id=str(view.tenant.id),
        tenant=view.tenant.name,
        param=spec.param,
        value=spec.value,
        override=spec.override,
        calls=list(spec.calls),
    )
