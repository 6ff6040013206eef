"""The modules that say something to the cluster or to nobody; each finds nothing to do where all is so already."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field

from scalelite.core import commands
from scalelite.core.model import (
    Call,
    Count,
    HostName,
    Key,
    Kind,
    Limits,
    LrsBasic,
    LrsOidc,
    Multiplier,
    ParamName,
    Secret,
    State,
    TenantName,
    Text,
    WebUrl,
    has_secret,
)
from scalelite.core.plan import Create, Hold, Remove, Update
from scalelite.errors import NotDeclared, TaskFailed
from scalelite.playbook.registry import Module, Outcome, TargetKind, Waiting
from scalelite.playbook.values import (
    Args,
    Condition,
    Conditions,
    Duration,
    Many,
    ParamText,
    Texts,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change
    from scalelite.playbook.registry import Context

_SERVERS: Final = frozenset[TargetKind]({"server"})
_Presence = Literal["present", "absent"]


def _outcome(parts: Iterable[Change | Hold], **data: Any) -> Outcome:
    """Return what came of a wish, with a line a field for --diff; secrets print as stars."""
    parts = tuple(parts)
    return Outcome(bool(parts), data, diff=tuple(line for part in parts for line in _lines(part)))


def _lines(part: Change | Hold) -> Iterable[str]:
    address = part.key.address
    match part:
        case Hold():
            yield f"  {address}  held: {part.before or 'no'} -> {part.after or 'no'}"
        case Create():
            yield f"+ {address}"
        case Remove():
            yield f"- {address}"
        case Update():
            for name in part.fields:
                before, after = getattr(part.before, name), getattr(part.after, name)
                shown = "changed" if has_secret(before) or has_secret(after) else f"{_shown(before)} -> {_shown(after)}"
                yield f"~ {address}  {name}: {shown}"


def _shown(value: object) -> str:
    return "''" if value in {"", ()} else str(value)


def _given(args: Args, *but: str) -> dict[str, Any]:
    """Return the arguments that a task gives."""
    return {name: getattr(args, name) for name in args.model_fields_set if name not in but}


# --- server, tenant, tenant_setting, lrs -----------------------------------------------------------------------------


class ServerArgs(Args):
    """Arguments of `server`."""

    state: State | Literal["absent"] | None = Field(
        None,
        description="`cordoned` and `disabled` hold it, whatever is declared; `enabled` lifts the hold; `absent`"
        " removes it, if it has no meetings.",
        examples=["cordoned"],
    )
    load_multiplier: Multiplier | None = Field(None, description="Weight of its load.", examples=[1.0])
    tag: Text | None = Field(None, description="Its tag; '' for none.", examples=["gpu"])
    secret: Secret | None = Field(
        None, description="Its secret; the one before becomes previous_secret.", examples=["{{ lookup('env', 'S') }}"]
    )
    previous_secret: Secret | None = Field(None, description="The secret before; '' forgets it.", examples=[""])
    timeout: Duration = Field(
        600.0, description="How long to wait until min_available and max_unavailable allow it.", examples=["10m"]
    )


async def _server(args: ServerArgs, context: Context) -> Outcome:
    wishes = list(_server_wishes(args, context))
    if not wishes:
        raise TaskFailed("server: nothing is asked for", hint="give state, load_multiplier, tag or secret")
    takes_out = args.state in {"cordoned", "disabled", "absent"}
    parts = await context.change(commands.in_turn(*wishes), Waiting(args.timeout, _LOOK_S) if takes_out else None)
    return _outcome(parts, state=args.state)


_LOOK_S: Final = 1.0


def _server_wishes(args: ServerArgs, context: Context) -> Iterable[Wish]:
    name = context.target.name
    if fields := _given(args, "state", "timeout", "secret"):
        yield commands.update_server(name, fields)
    if args.secret is not None:
        yield _new_secret(name, args.secret, keep_old=args.previous_secret is None)
    if args.state == "absent":
        yield _unless_gone(commands.remove_server(name))
    elif args.state == "cordoned":
        yield _cordoned(name, context.reason)
    elif args.state is not None:
        yield commands.set_state(name, args.state, context.reason)


def _cordoned(name: str, why: str) -> Wish:
    """Wish for a server to be cordoned; one that is drained counts as disabled, and is as it shall be."""

    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        drained = commands.state_in(known, name) == "disabled" and not known.facts.server_meetings.get(name)
        return () if drained else commands.set_state(name, "cordoned", why)(known)

    return decide


def _new_secret(name: str, secret: Secret, *, keep_old: bool) -> Wish:
    """Wish for a secret; the one before goes on to be accepted until someone takes it out."""

    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        before = commands.server_of(known.declared, name)
        if before.secret == secret:
            return ()
        fields = {"secret": secret, **({"previous_secret": before.secret} if keep_old else {})}
        return commands.update_server(name, fields)(known)

    return decide


def _unless_gone(wish: Wish) -> Wish:
    """Wish for something to be gone; that it is not there is as good."""

    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        try:
            return tuple(wish(known))
        except NotDeclared:
            return ()

    return decide


def _uuid(value: Any) -> Any:
    return UUID(value) if isinstance(value, str) else value


class TenantArgs(Args):
    """Arguments of `tenant`."""

    name: TenantName | None = Field(None, description="Its name; else the play's tenant.", examples=["acme"])
    state: _Presence = Field("present", description="`absent` removes it, if it has no meetings.", examples=["absent"])
    id: Annotated[UUID, BeforeValidator(_uuid)] | None = Field(
        None, description="The UUID of a new one.", examples=[None]
    )
    enabled: bool | None = Field(None, description="Whether it may make new meetings.", examples=[False])
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
    name = _tenant_name(args.name, context)
    if args.state == "absent":
        return _outcome(await context.change(_unless_gone(commands.remove_tenant(name))), tenant=name)
    fields = _given(args, "name", "state")
    return _outcome(await context.change(_present_tenant(name, fields)), tenant=name)


def _present_tenant(name: str, fields: Mapping[str, Any]) -> Wish:
    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        if Key(Kind.TENANT, name) in known.declared.objects:
            return commands.update_tenant(name, fields)(known)
        return commands.add_tenant({"name": name, **fields})(known)

    return decide


def _tenant_name(given: str | None, context: Context) -> str:
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
    state: _Presence = Field("present", description="`absent` removes it.", examples=["absent"])


async def _tenant_setting(args: SettingArgs, context: Context) -> Outcome:
    tenant = _tenant_name(args.tenant, context)
    if args.state == "absent":
        wish = _unless_gone(commands.remove_setting(tenant, args.param))
    elif args.value is None:
        raise TaskFailed("tenant_setting: a value is needed", hint="give value, or state: absent")
    else:
        fields = {"param": args.param, "value": args.value, "override": args.override, "calls": args.calls}
        wish = commands.put_setting(tenant, fields)
    return _outcome(await context.change(wish), tenant=tenant, param=args.param)


class LrsArgs(Args):
    """Arguments of `lrs`."""

    tenant: TenantName | None = Field(None, description="The tenant; else the play's.", examples=["acme"])
    state: _Presence = Field("present", description="`absent` removes it.", examples=["absent"])
    endpoint: WebUrl | None = Field(None, description="URL of the LRS.", examples=["https://lrs.example.com/data/"])
    on_error: Literal["start", "fail"] = Field(
        "start", description="What a create does when no token can be had.", examples=["start"]
    )
    basic: LrsBasic | None = Field(None, description="HTTP basic authentication.", examples=[None])
    oidc: LrsOidc | None = Field(None, description="A token from an OpenID Connect provider.", examples=[None])


async def _lrs(args: LrsArgs, context: Context) -> Outcome:
    tenant = _tenant_name(args.tenant, context)
    if args.state == "absent":
        wish = _unless_gone(commands.remove_lrs(tenant))
    else:
        wish = commands.put_lrs(tenant, _given(args, "tenant", "state"))
    return _outcome(await context.change(wish), tenant=tenant)


# --- meetings and recordings -----------------------------------------------------------------------------------------


class PanicArgs(Args):
    """Arguments of `panic`."""

    keep_state: bool = Field(False, description="Do not hold the server disabled.", examples=[True])
    skip_end_calls: bool = Field(False, description="Forget the meetings without asking the server.", examples=[True])
    timeout: Duration = Field(
        600.0, description="How long to wait until min_available and max_unavailable allow it.", examples=["10m"]
    )


async def _panic(args: PanicArgs, context: Context) -> Outcome:
    gate = Waiting(args.timeout, _LOOK_S)
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
    tenant = _tenant_name(args.tenant, context)
    return await context.give_recordings(tenant, owner=args.source, record_ids=args.record_ids, metadata=args.where)


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


# --- looking and waiting ---------------------------------------------------------------------------------------------


class NoArgs(Args):
    """A module without arguments."""


async def _poll(_: NoArgs, context: Context) -> Outcome:
    return Outcome(data=await context.poll())


class WaitArgs(Args):
    """Arguments of `wait_for`."""

    meetings: Count | None = Field(None, description="Until it has at most so many meetings.", examples=[0])
    users: Count | None = Field(None, description="Until it has at most so many users.", examples=[0])
    load: float | None = Field(None, ge=0, description="Until its load is at most this.", examples=[10])
    online: bool | None = Field(None, description="Until it is online, or no longer.", examples=[True])
    version: str | None = Field(None, description="Until its BigBlueButton version begins so.", examples=["3.0"])
    seconds: Duration | None = Field(None, description="So long.", examples=["30s"])
    timeout: Duration = Field(300.0, description="Fail after so long.", examples=["2h"])
    every: Duration = Field(5.0, description="Poll the server so often.", examples=["30s"])


async def _wait_for(args: WaitArgs, context: Context) -> Outcome:
    """Wait by polls of our own that the server has answered: what was seen before says nothing of now (DR-1)."""
    if args.seconds is not None:
        await context.sleep(args.seconds)
    wanted = _given(args, "seconds", "timeout", "every")
    if not wanted:
        return Outcome()
    of_server = context.target.kind == "server"
    if not of_server and (context.target.kind != "tenant" or wanted.keys() != {"meetings"}):
        raise TaskFailed("wait_for: a server is waited for, or a tenant's meetings", hint="play over `servers:`")
    deadline = context.now_s() + args.timeout
    while True:
        seen = await (context.poll() if of_server else context.look())
        missing = [name for name, value in wanted.items() if not _met(name, value, seen)]
        if not missing or context.check:
            return Outcome(data=seen)
        left = deadline - context.now_s()
        if left <= 0:
            now = ", ".join(f"{name} is {seen.get(name)}" for name in missing)
            return Outcome(data={**seen, "msg": f"not so within {args.timeout:g} s: {now}"}, failed=True)
        await context.sleep(min(args.every, left))


def _met(name: str, wanted: Any, seen: Mapping[str, Any]) -> bool:
    if name == "online":
        return bool(seen["online"] is wanted)
    if not seen.get("answered", True):
        return False
    if name == "version":
        return str(seen["version"]).startswith(wanted)
    return bool(seen[name] <= wanted)


class PauseArgs(Args):
    """Arguments of `pause`."""

    seconds: Duration | None = Field(None, description="So long.", examples=[30])
    minutes: Duration | None = Field(None, description="So many minutes.", examples=[1])
    prompt: str | None = Field(None, description="Ask on the terminal to press Enter.", examples=["Go on?"])


async def _pause(args: PauseArgs, context: Context) -> Outcome:
    wait_s = (args.seconds or 0.0) + 60 * (args.minutes or 0.0)
    if wait_s:
        await context.sleep(wait_s)
    elif not context.check:
        await context.ask(args.prompt or "Press Enter to go on")
    return Outcome()


# --- words and variables ---------------------------------------------------------------------------------------------


class DebugArgs(Args):
    """Arguments of `debug`."""

    msg: Any = Field("Hello world!", description="What to say.", examples=["{{ server.id }} has {{ server.meetings }}"])
    var: str | None = Field(None, description="An expression whose value to show.", examples=["result"])


async def _debug(args: DebugArgs, context: Context) -> Outcome:
    return Outcome(data={args.var: context.variable(args.var)} if args.var else {"msg": args.msg})


class FailArgs(Args):
    """Arguments of `fail`."""

    msg: str = Field("Failed as requested from task", description="Why.", examples=["No server is left."])


async def _fail(args: FailArgs, _: Context) -> Outcome:
    return Outcome(failed=True, data={"msg": args.msg})


class AssertArgs(Args):
    """Arguments of `assert`."""

    that: Conditions = Field(description="What must be so.", examples=[["server.online"]])
    fail_msg: str = Field("Assertion failed", description="What to say if it is not.", examples=["It is offline."])
    success_msg: str = Field("All assertions passed", description="What to say if it is.", examples=["Good."])
    quiet: bool = Field(False, description="Say nothing of it.", examples=[True])


async def _assert(args: AssertArgs, context: Context) -> Outcome:
    broken: Condition | None = next((text for text in args.that if not context.condition(text)), None)
    if broken is not None:
        return Outcome(failed=True, data={"msg": args.fail_msg, "assertion": broken, "evaluated_to": False})
    return Outcome(data={} if args.quiet else {"msg": args.success_msg})


class FactArgs(Args):
    """Arguments of `set_fact`: any names."""

    model_config = ConfigDict(extra="allow")


async def _set_fact(args: FactArgs, _: Context) -> Outcome:
    facts = dict(args.model_extra or {})
    return Outcome(data={"ansible_facts": facts}, facts=facts)


class IncludeArgs(Args):
    """Arguments of `include_tasks`."""

    file: str = Field(description="A file with a list of tasks, beside this one.", examples=["drain-one.yml"])


BUILTIN: Final = (
    Module(
        "server", "Change the state, weight, tag or secret of the play's server.", ServerArgs, _server, _SERVERS,
        instant=True, example="- name: Take no new meetings\n  server: {state: cordoned}",
    ),
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
    Module(
        "apply", "Apply inventories, as `scalelite apply` does.", ApplyArgs, _apply,
        example="- apply: {inventory: inventories/default}\n  run_once: true",
    ),
    Module(
        "poll", "Ask the server what runs on it, whatever its state, and keep that.", NoArgs, _poll, _SERVERS,
        example="- poll:\n  register: result\n  until: result.online\n  retries: 20\n  delay: 15s",
    ),
    Module(
        "wait_for", "Wait until the server is so, by polls that it answers.", WaitArgs, _wait_for,
        example="- wait_for: {meetings: 0, timeout: 2h, every: 30s}",
    ),
    Module(
        "panic", "Hold the server disabled and end all of its meetings.", PanicArgs, _panic, _SERVERS,
        example="- panic: {skip_end_calls: false}",
    ),
    Module(
        "end_meetings", "End meetings of the play's server or tenant, or of all.", EndMeetingsArgs, _end_meetings,
        example="- end_meetings: {where: {older_than: 12h, empty: true}}",
    ),
    Module(
        "recordings_to_tenant", "Give recordings to a tenant.", RecordingsArgs, _recordings_to_tenant,
        example="- recordings_to_tenant: {tenant: acme}",
    ),
    Module("debug", "Say something.", DebugArgs, _debug, instant=True,
        example="- debug: {msg: \"{{ server.id }}\"}"),
    Module("assert", "Fail unless something is so.", AssertArgs, _assert, instant=True,
        example="- assert: {that: server.online}"),
    Module("fail", "Fail.", FailArgs, _fail, instant=True,
        example="- fail: {msg: Not like this}\n  when: server.meetings > 100"),
    Module("pause", "Wait, or ask to go on.", PauseArgs, _pause, once=True, example="- pause: {seconds: 30}"),
    Module("set_fact", "Set variables of the target.", FactArgs, _set_fact, instant=True,
        example="- set_fact: {before: 3}"),
    Module(
        "include_tasks", "Do the tasks of another file here.", IncludeArgs, None, free="file",
        instant=True, example="- include_tasks: drain-one.yml",
    ),
)  # fmt: skip
