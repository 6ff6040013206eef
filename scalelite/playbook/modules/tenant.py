"""The modules of tenants: `tenant`, `tenant_setting`, `lrs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, Field

from scalelite.core import commands
from scalelite.core.model import (
    Call,
    HostName,
    Key,
    Kind,
    Limits,
    LrsBasic,
    LrsOidc,
    ParamName,
    Secret,
    TenantName,
    WebUrl,
)
from scalelite.errors import TaskFailed
from scalelite.playbook.modules.changes import Presence, given, outcome, unless_gone
from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, Many, ParamText

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change, Hold
    from scalelite.playbook.registry import Context


def _uuid(value: Any) -> Any:
    return UUID(value) if isinstance(value, str) else value


class TenantArgs(Args):
    """Arguments of `tenant`."""

    name: TenantName | None = Field(None, description="Its name; else the play's tenant.", examples=["acme"])
    state: Presence = Field("present", description="`absent` removes it, if it has no meetings.", examples=["absent"])
    id: Annotated[UUID, BeforeValidator(_uuid)] | None = Field(
        None, description="The UUID of a new one.", examples=[None]
    )
    enabled: bool | None = Field(None, description="Whether its calls are served; all fail if not.", examples=[False])
    secrets: Annotated[tuple[Secret, ...], Many] | None = Field(
        None, description="Its secrets, the first for new links.", examples=[["{{ lookup('env', 'S') }}"]]
    )
    hosts: Annotated[tuple[HostName, ...], Many] | None = Field(
        None, description="Host names of its own.", examples=[["meet.acme.example"]]
    )
    limits: Limits | None = Field(None, description="Bounds.", examples=[{"max_meetings": 50}])
    public_url: WebUrl | None = Field(None, description="Begins its links.", examples=["https://meet.acme.example"])
    external_voice_bridge: bool | None = Field(None, description="Dial-in at a FreeSWITCH.", examples=[True])
    protect: bool | None = Field(None, description="Whether it must not be removed.", examples=[True])


async def _tenant(args: TenantArgs, context: Context) -> Outcome:
    name = tenant_name(args.name, context)
    if args.state == "absent":
        return outcome(await context.change(unless_gone(commands.remove_tenant(name))), tenant=name)
    fields = given(args, "name", "state")
    return outcome(await context.change(_present_tenant(name, fields)), tenant=name)


def _present_tenant(name: str, fields: Mapping[str, Any]) -> Wish:
    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        if Key(Kind.TENANT, name) in known.declared.objects:
            return commands.update_tenant(name, fields)(known)
        return commands.add_tenant({"name": name, **fields})(known)

    return decide


def tenant_name(given: str | None, context: Context) -> str:
    """Return the tenant that a task names, else the play's; raises TaskFailed."""
    if given:
        return given
    if context.target.kind == "tenant":
        return context.target.name
    raise TaskFailed("it must be said which tenant is meant", hint="give the tenant's name, or play over `tenants:`")


class SettingArgs(Args):
    """Arguments of `tenant_setting`."""

    tenant: TenantName | None = Field(None, description="The tenant; else the play's.", examples=["acme"])
    param: ParamName = Field(description="The parameter of create and join.", examples=["record"])
    value: ParamText | None = Field(None, description="Its value.", examples=["false"])
    override: bool = Field(False, description="Whether it wins over what the call says.", examples=[True])
    calls: Annotated[tuple[Call, ...], Many] = Field(
        ("create", "join"), description="The calls that get it.", examples=[["create"]]
    )
    state: Presence = Field("present", description="`absent` removes it.", examples=["absent"])


async def _tenant_setting(args: SettingArgs, context: Context) -> Outcome:
    tenant = tenant_name(args.tenant, context)
    if args.state == "absent":
        wish = unless_gone(commands.remove_setting(tenant, args.param))
    elif args.value is None:
        raise TaskFailed("tenant_setting: a value is needed", hint="give value, or state: absent")
    else:
        fields = {"param": args.param, "value": args.value, "override": args.override, "calls": args.calls}
        wish = commands.put_setting(tenant, fields)
    return outcome(await context.change(wish), tenant=tenant, param=args.param)


class LrsArgs(Args):
    """Arguments of `lrs`."""

    tenant: TenantName | None = Field(None, description="The tenant; else the play's.", examples=["acme"])
    state: Presence = Field("present", description="`absent` removes it.", examples=["absent"])
    endpoint: WebUrl | None = Field(None, description="URL of the LRS.", examples=["https://lrs.example.com/data/"])
    on_error: Literal["start", "fail"] = Field(
        "start", description="What a create does when no token can be had.", examples=["start"]
    )
    basic: LrsBasic | None = Field(None, description="HTTP basic authentication.", examples=[None])
    oidc: LrsOidc | None = Field(None, description="A token from an OpenID Connect provider.", examples=[None])


async def _lrs(args: LrsArgs, context: Context) -> Outcome:
    tenant = tenant_name(args.tenant, context)
    if args.state == "absent":
        wish = unless_gone(commands.remove_lrs(tenant))
    else:
        wish = commands.put_lrs(tenant, given(args, "tenant", "state"))
    return outcome(await context.change(wish), tenant=tenant)


MODULES: Final = (
    Module(
        "tenant", "Make a tenant, change it, or remove it.", TenantArgs, _tenant,
        instant=True, example="- tenant: {name: acme, enabled: false}",
    ),
    Module(
        "tenant_setting", "Set a parameter of a tenant's calls, or remove it.", SettingArgs, _tenant_setting,
        instant=True, example="- tenant_setting: {tenant: acme, param: record, value: false, override: true}",
    ),
    Module(
        "lrs", "Say where a tenant's xAPI statements go.", LrsArgs, _lrs,
        instant=True, example="- lrs: {tenant: acme, state: absent}",
    ),
)  # fmt: skip
