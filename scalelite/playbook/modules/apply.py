"""The module `apply`: inventories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from scalelite.core.model import Count
from scalelite.playbook.registry import Module, Outcome
from scalelite.playbook.values import Args, Texts

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


class ApplyArgs(Args):
    """Arguments of `apply`."""

    inventory: Texts = Field(description="Paths of inventories; a later one wins.", examples=["inventories/default"])
    mode: Literal["keep", "cordon", "force"] = Field(
        "cordon", description="Undeclared servers: as `apply --mode`.", examples=["cordon"]
    )
    limit: Texts = Field((), description="Only these, as --limit.", examples=[["large"]])
    exclude: Texts = Field((), description="All but these, as --exclude.", examples=[["bbb3"]])
    sections: Texts = Field((), description="Only these sections.", examples=[["tenants"]])
    tenant_data: str = Field("", description="Recordings of removed tenants.", examples=["keep"])
    release_holds: bool = Field(False, description="Lift what is held.", examples=[True])
    allow: dict[str, Count] = Field({}, description="Let a guard pass that counts exactly so.", examples=[{}])


async def _apply(args: ApplyArgs, context: Context) -> Outcome:
    return await context.apply(args.inventory, {name: getattr(args, name) for name in _APPLY_OPTIONS})


_APPLY_OPTIONS: Final = ("mode", "limit", "exclude", "sections", "tenant_data", "release_holds", "allow")


MODULES: Final = (
    Module(
        "apply", "Apply inventories, as `scalelite apply` does.", ApplyArgs, _apply,
        example="- apply: {inventory: inventories/default}\n  run_once: true",
    ),
)  # fmt: skip
