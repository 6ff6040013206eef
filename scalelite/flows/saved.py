"""Saved plans: made of a plan, and applied later as they stand, or not at all. Rules: spec/plan.md, apply."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from scalelite.core import document as documents
from scalelite.core import guards as checks
from scalelite.core import saved
from scalelite.core.document import (
    Context,
    Diagnostic,
    Drift,
    Git,
    InventoryFileRef,
    InventoryRef,
    Kept,
    PlanDocument,
    ScopeRef,
    Target,
)
from scalelite.core.entries import reason
from scalelite.core.model import Key, Kind
from scalelite.core.show import as_json
from scalelite.errors import StalePlan
from scalelite.flows import reconcile
from scalelite.store import plans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from scalelite.core import drift as drifts
    from scalelite.flows.reconcile import Check, Origin, Planned, Request
    from scalelite.store.db import Connection

LIFE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class About:
    """What a document says of its making, besides the plan."""

    version: str
    plan_id: str
    now: datetime
    origin: Origin
    diagnostics: tuple[str, ...] = ()


def document(planned: Planned, request: Request, about: About) -> PlanDocument:
    """Return a plan as a document, with its digest; it holds no secret."""
    identity, plan = planned.identity, planned.plan
    context = Context(identity.key, planned.wanted.places, planned.revisions)
    drift = list(_drift(planned.drift))
    unsigned = PlanDocument(
        scalelite_version=about.version,
        plan_id=about.plan_id,
        created_at=about.now.isoformat(timespec="seconds"),
        expires_at=(about.now + LIFE).isoformat(timespec="seconds"),
        applyable=planned.applyable,
        target=Target(
            cluster=planned.cluster_name,
            cluster_uuid=identity.uuid,
            schema_revision=identity.schema_revision,
            live_revision=plan.revision,
        ),
        inventory=_inventory(about.origin),
        scope=_scope(request),
        summary=documents.summary(plan, len(drift)),
        resource_changes=documents.resource_changes(plan, context),
        resource_drift=drift,
        kept=[Kept(address=keep.key.address, reason=reason(keep.reason, keep.held, about.now)) for keep in plan.keeps],
        releases=_releases(planned),
        guards=documents.guard_results(planned.guards),
        diagnostics=[Diagnostic(severity="warning", summary=text) for text in (*planned.warnings, *about.diagnostics)],
    )
    return unsigned.model_copy(update={"digest": documents.digest(unsigned, identity.key)})


def _releases(planned: Planned) -> list[Kept]:
    """Return the holds that are lifted, each with what tells it from another on the same server."""
    released = []
    for hold in planned.plan.releases:
        held = planned.plan.facts.holds[hold.key.name]
        since = held.since.astimezone(UTC).isoformat(timespec="seconds")
        released.append(Kept(address=hold.key.address, reason=f"held {held.state} by {held.by} since {since}"))
    return released


def _inventory(origin: Origin) -> InventoryRef:
    return InventoryRef(
        sources=list(origin.sources),
        files=[InventoryFileRef(path=path, sha256=sha256) for path, sha256 in origin.files.items()],
        git=Git(sha=origin.git[0], dirty=origin.git[1]) if origin.git else None,
    )


def _scope(request: Request) -> ScopeRef:
    return ScopeRef(
        mode=request.mode,
        limit=list(request.limit),
        exclude=list(request.exclude),
        sections=list(request.sections),
        tenant_data=request.tenant_data,
        release_holds=request.release_holds,
        allow=dict(request.allow),
    )


def _drift(found: Iterable[drifts.Drift]) -> Iterator[Drift]:
    """Yield what somebody changed outside of the inventory since it was applied, field by field."""
    for each in found:
        for name, touch in (each.fields or {"": each.last}).items():
            yield Drift(
                address=each.key.address,
                path=name,
                before=_visible(each.before, name),
                after=_visible(each.live, name),
                actor=touch.actor,
                at=touch.at.isoformat(timespec="seconds"),
                revision=touch.revision,
            )


def _visible(spec: object, name: str) -> Any:
    return as_json(getattr(spec, name, None)) if name else None


# --- applying one ----------------------------------------------------------------------------------------------------


def parse(data: bytes) -> PlanDocument:
    """Return a saved plan; raises StalePlan for one that this version cannot have written."""
    try:
        return PlanDocument.model_validate_json(data)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False, include_url=False)[0]["loc"])
        raise StalePlan(f"the plan was tampered with, or is of another version: {where}", hint="plan again") from None


def scoped(request: Request, document: PlanDocument, allow: Mapping[str, int]) -> Request:
    """Return the request that a saved plan was made of; allowances may be added."""
    scope = document.scope
    return replace(
        request,
        mode=scope.mode,
        limit=tuple(scope.limit),
        exclude=tuple(scope.exclude),
        sections=tuple(scope.sections),
        tenant_data=scope.tenant_data,
        release_holds=scope.release_holds,
        allow={**scope.allow, **allow},
    )


async def refuse_unusable(connection: Connection, document: PlanDocument, now: datetime) -> None:
    """Raise StalePlan where a saved plan is of another cluster, tampered with, applied already or expired."""
    identity = await plans.identity(connection)
    applied = await plans.applied_plan(connection, document.plan_id)
    here = saved.Here(identity.uuid, identity.key, identity.schema_revision, now, str(applied or ""))
    saved.refuse_unusable(document, here)


async def plan_again(connection: Connection, document: PlanDocument, request: Request) -> Planned:
    """Plan what a saved plan says, from the inventory (for the secrets); raises StalePlan where it comes out another.

    What else would change by now is left out: only what was saved is applied.
    """
    planned = await reconcile.compare(connection, request)
    if found := list(saved.broken(saved.reliances_of(document), planned.plan.facts)):
        raise StalePlan(f"the plan is stale: {'; '.join(found[:3])}", hint="plan again")
    await _refuse_differing(connection, document, planned)
    addresses = {change.address for change in document.resource_changes}
    releases = {kept.address for kept in document.releases}
    plan = replace(
        planned.plan,
        changes=tuple(change for change in planned.plan.changes if change.key.address in addresses),
        endings=tuple(ending for ending in planned.plan.endings if ending.key.address in addresses),
        releases=tuple(hold for hold in planned.plan.releases if hold.key.address in releases),
    )
    guards = checks.check(
        plan, planned.live, planned.wanted, request.bounds, allowed=request.allow, denied=request.judge(plan)
    )
    return replace(planned, plan=plan, guards=guards)


async def _refuse_differing(connection: Connection, document: PlanDocument, planned: Planned) -> None:
    context = Context(planned.identity.key, planned.wanted.places, planned.revisions)
    changes = documents.resource_changes(planned.plan, context)
    for address, why in saved.differing(document, changes):
        if not why:
            key = Key.of_address(address) or Key(Kind.CLUSTER)
            raise StalePlan(await reconcile.who_changed(connection, key), hint="plan again")
        raise StalePlan(f"the plan is stale: {address}: {why}", hint="plan again")
    releases = {kept.address: kept.reason for kept in _releases(planned)}
    for kept in document.releases:
        if releases.get(kept.address) != kept.reason:
            said = f"the plan is stale: {kept.address} was {kept.reason}; that is no longer so"
            raise StalePlan(said, hint="plan again")


def still_holds(document: PlanDocument, planned: Planned) -> Check:
    """Return the check inside the applying transaction: the rows and facts are as saved, and nobody was faster."""

    async def check(connection: Connection) -> None:
        if applied := await plans.applied_plan(connection, document.plan_id):
            raise StalePlan(f"the plan was applied already {applied}")
        keys = reconcile.live_keys(planned.plan.changes)
        now = await plans.revisions_of(connection, list(keys.values()))
        for key, live in keys.items():
            if now.get(live, 0) != planned.revisions.get(key, 0):
                raise StalePlan(await reconcile.who_changed(connection, live), hint="plan again")
        await reconcile.refuse_stale(connection, planned, saved.reliances_of(document))

    return check
