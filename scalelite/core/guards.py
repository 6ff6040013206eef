"""Guards: bounds on what one plan may do, each with its number, its bound and the exact flag that allows it.

An allowance is an exact count, so that tomorrow's bigger accident is still caught. Rules: spec/plan.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from scalelite.core.align import unaltered
from scalelite.core.balance import TagRule
from scalelite.core.model import SECTION_OF, ClusterSpec, Key, Kind, ServerSpec, SettingSpec, TenantSpec, url_key
from scalelite.core.plan import Create, Remove, Update, owner
from scalelite.core.show import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scalelite.core.model import AnySpec, Declared
    from scalelite.core.plan import Change, Plan

Status = Literal["ok", "allowed", "blocked"]

TAG_PARAM: Final = "meta_server-tag"
_FEW_REMOVALS: Final = 3
_SECTIONS: Final[Mapping[Kind, str]] = {Kind.SERVER: "servers", Kind.TENANT: "tenants"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The inventory's section `safety`, in percent, and where each bound is written ('' for a default)."""

    max_removals: float = 30.0
    max_updates: float = 100.0
    min_capacity: float = 0.0
    places: Mapping[str, str] = field(default_factory=dict)

    def where(self, name: str) -> str:
        """Say where a bound is set."""
        return self.places.get(name) or f"the default of safety.{name}"


@dataclass(frozen=True, slots=True)
class Guard:
    """How one guard came out; `override` is the flag that allows exactly this, '' where only a remedy helps."""

    id: str
    status: Status
    subject: str
    message: str
    actual: int = 0
    limit: str = ""
    where: str = ""
    override: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a policy says of one change."""

    policy: str
    address: str
    message: str
    where: str


def check(
    plan: Plan,
    live: Declared,
    wanted: Declared,
    bounds: Bounds,
    *,
    allowed: Mapping[str, int],
    denied: Iterable[Verdict] = (),
) -> tuple[Guard, ...]:
    """Return the guards that have something to say about a plan, blocked ones first."""
    after = state_after(plan, live)
    found = [
        *_stopped(plan),
        *_removals(plan, live, wanted, bounds),
        *_updates(plan, live, bounds),
        *_taken(plan, live, after),
        *_reach(plan),
        *_capacity(plan, live, after, bounds),
        *_left_alone(plan, live, after),
        *_policies(denied),
    ]
    settled = [_allowed(guard, allowed) for guard in found]
    return tuple(sorted(settled, key=lambda guard: (guard.status != "blocked", guard.id, guard.subject)))


def _allowed(guard: Guard, allowed: Mapping[str, int]) -> Guard:
    if guard.status == "blocked" and guard.override and allowed.get(guard.id) == guard.actual:
        return Guard(guard.id, "allowed", guard.subject, guard.message, guard.actual, guard.limit, guard.where)
    return guard


def state_after(plan: Plan, live: Declared) -> dict[Key, AnySpec]:
    """Return the declared objects that an apply of the plan would leave."""
    objects = dict(live.objects)
    for change in plan.changes:
        if isinstance(change, Remove):
            objects.pop(change.key, None)
        else:
            objects[change.key] = change.after
    return objects


# --- what diff has stopped -------------------------------------------------------------------------------------------


def _stopped(plan: Plan) -> Iterator[Guard]:
    for stop in plan.blocked:
        yield Guard(stop.guard, "blocked", stop.key.address, stop.reason, stop.actual, "0", remedy=stop.remedy)


def _taken(plan: Plan, live: Declared, after: Mapping[Key, AnySpec]) -> Iterator[Guard]:
    """Yield what would take a name, a url or a host from an object that stays (busy, or out of --limit)."""
    claims = {claim: change.key for change in plan.changes for claim in _new_claims(change)}
    for key in live.objects.keys() & after.keys() if claims else ():
        for claim in _claims(after[key]):
            if claims.get(claim, key) != key:
                stays = unaltered(key).address
                message = f"its {claim[0]} {claim[1]} is still that of {stays}, which stays"
                yield Guard(
                    "taken", "blocked", claims[claim].address, message, 1, "0", remedy=f"wait until {stays} can go"
                )


def _new_claims(change: Change) -> set[tuple[str, str]]:
    match change:
        case Create():
            return set(_claims(change.after))
        case Update():
            return set(_claims(change.after)) - set(_claims(change.before))
        case _:
            return set()


def _claims(spec: AnySpec) -> Iterator[tuple[str, str]]:
    """Yield what only one may have."""
    if isinstance(spec, ServerSpec):
        yield "url", url_key(spec.url)
    elif isinstance(spec, TenantSpec):
        yield "name", spec.name
        yield from (("host", host) for host in spec.hosts)


# --- numbers ---------------------------------------------------------------------------------------------------------


def _count(objects: Iterable[Key], kind: Kind) -> int:
    return sum(1 for key in objects if key.kind is kind and key.name)


def _name(guard: str, kind: Kind) -> str:
    return guard if kind is Kind.SERVER else f"tenant-{guard}"


def _removals(plan: Plan, live: Declared, wanted: Declared, bounds: Bounds) -> Iterator[Guard]:
    for kind, section in _SECTIONS.items():
        total = _count(live.objects, kind)
        removed = sum(isinstance(change, Remove) and change.key.kind is kind for change in plan.changes)
        empty = SECTION_OF[kind] in wanted.sections and total and not _count(wanted.objects, kind)
        unwanted = removed + sum(_goes_later(change, kind) for change in plan.changes)
        if not (unwanted if empty else removed):
            continue
        guard, actual = _name("removals", kind), unwanted if empty else removed
        share = bounds.max_removals
        too_many = removed >= _FEW_REMOVALS and removed > total * share / 100
        limit, where = f"bound {share:g} %", bounds.where("max_removals")
        message = f"removals {actual:,} of {total:,}"
        if empty:
            message = f"section {section} is empty: {actual:,} of {total:,} would go"
        elif removed == total:
            message = f"all {total:,} {section} would be removed" if total > 1 else f"the only {kind} would be removed"
        if empty or removed == total or too_many:
            yield Guard(guard, "blocked", section, message, actual, limit, where, f"--allow {guard}={actual}")
        else:
            yield Guard(guard, "ok", section, message, actual, limit, where)


def _goes_later(change: Change, kind: Kind) -> bool:
    return isinstance(change, Update) and change.key.kind is kind and bool(change.reason)


def _updates(plan: Plan, live: Declared, bounds: Bounds) -> Iterator[Guard]:
    """Settings and LRS count as their tenant, once."""
    for kind, section in _SECTIONS.items():
        total = _count(live.objects, kind)
        actual = len({owner(change.key) for change in plan.changes if _updates_a(change, kind, live)})
        if actual and actual > total * bounds.max_updates / 100:
            guard = _name("updates", kind)
            message = f"updates {actual:,} of {total:,} {section}"
            where = bounds.where("max_updates")
            limit = f"bound {bounds.max_updates:g} %"
            yield Guard(guard, "blocked", section, message, actual, limit, where, f"--allow {guard}={actual}")


def _updates_a(change: Change, kind: Kind, live: Declared) -> bool:
    of = owner(change.key)
    if of.kind is not kind or of not in live.objects:
        return False
    return of != change.key or isinstance(change, Update)


def _reach(plan: Plan) -> Iterator[Guard]:
    moved = [
        change.key
        for change in plan.changes
        if isinstance(change, Update) and "url" in change.fields and plan.facts.meetings_of(change.key)
    ]
    if moved:
        meetings = sum(map(plan.facts.meetings_of, moved))
        names = _some(key.address for key in moved)
        message = f"the url changes of {len(moved):,} with {meetings:,} running: {names}"
        yield Guard(
            "reach", "blocked", "servers", message, len(moved), "0", "the program", f"--allow reach={len(moved)}",
            "cordon it and wait until it is empty",
        )  # fmt: skip


def _some(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:3]) + (f" and {len(listed) - 3:,} more" if len(listed) > 3 else "")


# --- capacity --------------------------------------------------------------------------------------------------------


def _enabled(objects: Mapping[Key, AnySpec]) -> list[ServerSpec]:
    return [spec for spec in objects.values() if isinstance(spec, ServerSpec) and spec.state == "enabled"]


def _capacity(plan: Plan, live: Declared, after: Mapping[Key, AnySpec], bounds: Bounds) -> Iterator[Guard]:
    if not any(change.key.kind is Kind.SERVER for change in plan.changes):
        return
    before, left = len(_enabled(live.objects)), len(_enabled(after))
    if left < before and left < before * bounds.min_capacity / 100:
        message = f"{left:,} of {before:,} enabled servers would be left"
        limit = f"at least {bounds.min_capacity:g} %"
        where = bounds.where("min_capacity")
        yield Guard("capacity", "blocked", "servers", message, left, limit, where, f"--allow capacity={left}")


def _left_alone(plan: Plan, live: Declared, after: Mapping[Key, AnySpec]) -> Iterator[Guard]:
    """Tenants that had a server which they may use, and would have none."""
    if not any(change.key.kind is not Kind.CLUSTER for change in plan.changes):
        return
    had = {key for key, tags in usable_tags(live.objects) if tags}
    lost = [key.address for key, tags in usable_tags(after) if not tags and key in had]
    if lost:
        guard = "tenants-without-server"
        message = f"{counted(len(lost), 'tenant')} would have no server to use: {_some(lost)}"
        yield Guard(guard, "blocked", "tenants", message, len(lost), "0", "the program", f"--allow {guard}={len(lost)}")


def usable_tags(objects: Mapping[Key, AnySpec]) -> Iterator[tuple[Key, frozenset[str]]]:
    """Yield each enabled tenant with the tags of the enabled servers that its meetings may be placed on."""
    tags = frozenset(server.tag for server in _enabled(objects))
    rules = tag_rules(objects)
    for key, spec in objects.items():
        if isinstance(spec, TenantSpec) and spec.enabled and key.name:
            rule = rules.get(key.name, rules[""])
            found = rule.tags & tags
            yield key, found or (frozenset() if rule.required else tags & {""})


def tag_rules(objects: Mapping[Key, AnySpec]) -> dict[str, TagRule]:
    """Return the default tag rule of each tenant that has one of its own; under '' that of the others."""
    cluster = objects.get(Key(Kind.CLUSTER))
    common = cluster.create if isinstance(cluster, ClusterSpec) else None
    default = common.override.get(TAG_PARAM, common.default.get(TAG_PARAM, "")) if common else ""
    rules = {"": TagRule.parse(default)}
    for key, spec in objects.items():
        if isinstance(spec, SettingSpec) and spec.param == TAG_PARAM and "create" in spec.calls:
            rules[key.name] = TagRule.parse(spec.value)
    return rules


# --- policies --------------------------------------------------------------------------------------------------------


def _policies(denied: Iterable[Verdict]) -> Iterator[Guard]:
    by_policy: dict[str, list[Verdict]] = {}
    for verdict in denied:
        by_policy.setdefault(verdict.policy, []).append(verdict)
    for policy, verdicts in by_policy.items():
        guard, count = f"policy:{policy}", len(verdicts)
        message = f"{verdicts[0].message} ({_some(verdict.address for verdict in verdicts)})"
        subject = verdicts[0].address if count == 1 else "policies"
        yield Guard(guard, "blocked", subject, message, count, "0", verdicts[0].where, f"--allow {guard}={count}")


# --- warnings --------------------------------------------------------------------------------------------------------

_HEAVY: Final = 100.0


def warnings(after: Mapping[Key, AnySpec]) -> Iterator[str]:
    """Yield what is allowed but hardly meant: LB-13, and servers that outweigh the others."""
    servers = _enabled(after)
    if servers and not any(not server.tag for server in servers):
        names = [key.address for key, tags in usable_tags(after) if not tags]
        if names:
            yield (
                "no untagged server is enabled, and these tenants have no default tag that a server has: "
                f"{_some(names)}. Their creates fail. Set their setting {TAG_PARAM}, or enable an untagged server."
            )
    weights = sorted(server.load_multiplier for server in servers)
    if len(weights) > 1:
        middle = weights[(len(weights) - 1) // 2]
        heavy = [server.id for server in servers if server.load_multiplier >= _HEAVY * middle]
        light = [server.id for server in servers if server.load_multiplier * _HEAVY <= middle]
        for names, word in ((heavy, "more"), (light, "less")):
            if names:
                yield (
                    f"load counts {_HEAVY:g} times {word} on {_some(names)} than on the other servers "
                    f"(load_multiplier {middle:g}). Check load_multiplier."
                )
