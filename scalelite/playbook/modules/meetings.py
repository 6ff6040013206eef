"""The modules that end meetings: `panic`, `end_meetings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import Field

from scalelite.core.model import TenantName
from scalelite.playbook.registry import SERVERS, Module, Outcome, Waiting
from scalelite.playbook.values import Args, Duration

if TYPE_CHECKING:
    from scalelite.playbook.registry import Context


class PanicArgs(Args):
    """Arguments of `panic`."""

    keep_state: bool = Field(False, description="Do not hold the server disabled.", examples=[True])
    skip_end_calls: bool = Field(False, description="Forget the meetings without asking the server.", examples=[True])
    timeout: Duration = Field(
        600.0, description="How long to wait until min_available and max_unavailable allow it.", examples=["10m"]
    )


async def _panic(args: PanicArgs, context: Context) -> Outcome:
    gate = Waiting(args.timeout)
    return await context.panic(keep_state=args.keep_state, skip_end_calls=args.skip_end_calls, gate=gate)


class MeetingsWhere(Args):
    """Which meetings."""

    tenant: TenantName | None = Field(None, description="Only this tenant's.", examples=["acme"])
    older_than: Duration | None = Field(None, description="Only those that began so long ago.", examples=["12h"])
    empty: bool | None = Field(None, description="Only those that the last poll saw nobody in.", examples=[True])


class EndMeetingsArgs(Args):
    """Arguments of `end_meetings`."""

    where: MeetingsWhere = Field(MeetingsWhere(), description="Which; else all of the target.", examples=[{}])


async def _end_meetings(args: EndMeetingsArgs, context: Context) -> Outcome:
    where = args.where
    return await context.end_meetings(tenant=where.tenant, older_than_s=where.older_than, empty=where.empty)


MODULES: Final = (
    Module(
        "panic", "Hold the server disabled and end all of its meetings.", PanicArgs, _panic, SERVERS,
        example="- panic: {skip_end_calls: false}",
    ),
    Module(
        "end_meetings", "End meetings of the play's server or tenant, or of all.", EndMeetingsArgs, _end_meetings,
        example="- end_meetings: {where: {older_than: 12h, empty: true}}",
    ),
)  # fmt: skip
