"""The module `recordings_to_tenant`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from scalelite.core.model import TenantName
from scalelite.playbook.modules.tenant import tenant_name
from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, ParamText, Texts

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


class RecordingsArgs(Args):
    """Arguments of `recordings_to_tenant`."""

    tenant: TenantName | None = Field(None, description="Who gets them; else the play's tenant.", examples=["acme"])
    source: TenantName | None = Field(
        None, alias="from", description="Take this tenant's; else those of nobody.", examples=["old"]
    )
    record_ids: Texts = Field((), description="Only those whose ids begin so.", examples=[["abc"]])
    where: dict[str, ParamText] = Field(
        {}, description="Only those with this metadata.", examples=[{"bbb-context": "Math"}]
    )


async def _recordings_to_tenant(args: RecordingsArgs, context: Context) -> Outcome:
    tenant = tenant_name(args.tenant, context)
    return await context.give_recordings(tenant, owner=args.source, record_ids=args.record_ids, metadata=args.where)


MODULES: Final = (
    Module(
        "recordings_to_tenant", "Give recordings to a tenant.", RecordingsArgs, _recordings_to_tenant,
        example="- recordings_to_tenant: {tenant: acme}",
    ),
)  # fmt: skip
