"""The module `server`: state, weight, tag and secrets of the play's server."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from scalelite.core import commands
from scalelite.core.course import in_turn
from scalelite.core.holds import is_of_playbook
from scalelite.core.model import Multiplier, Secret, State, Text
from scalelite.errors import GuardRefused, TaskFailed
from scalelite.playbook.modules.changes import given, outcome, unless_gone
from scalelite.playbook.registry import SERVERS, Module, Outcome, Waiting
from scalelite.playbook.values import Args, Duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core.commands import Wish
    from scalelite.core.plan import Change, Hold
    from scalelite.playbook.registry import Context


class ServerArgs(Args):
    """Arguments of `server`."""

    state: State | Literal["absent"] | None = Field(
        None,
        description="`cordoned` and `disabled` hold it, whatever is declared; `enabled` lifts the hold of a playbook;"
        " `absent` removes it, if it has no meetings.",
        examples=["cordoned"],
    )
    load_multiplier: Multiplier | None = Field(None, description="Weight of its load.", examples=[1.0])
    tag: Text | None = Field(None, description="Its tag; '' for none.", examples=["gpu"])
    secret: Secret | None = Field(
        None, description="Its secret; the one before becomes previous_secret.", examples=["{{ lookup('env', 'S') }}"]
    )
    previous_secret: Secret | None = Field(None, description="The secret before; '' forgets it.", examples=[""])
    release_holds: bool = Field(
        False, description="Let `enabled` lift, and `cordoned` loosen, what an operator holds, too.", examples=[True]
    )
    timeout: Duration = Field(
        600.0, description="How long to wait until min_available and max_unavailable allow it.", examples=["10m"]
    )


async def _server(args: ServerArgs, context: Context) -> Outcome:
    wishes = list(_server_wishes(args, context))
    if not wishes:
        raise TaskFailed("server: nothing is asked for", hint="give state, load_multiplier, tag or secret")
    takes_out = args.state in {"cordoned", "disabled", "absent"}
    parts = await context.change(in_turn(*wishes), Waiting(args.timeout) if takes_out else None)
    return outcome(parts, state=args.state)


def _server_wishes(args: ServerArgs, context: Context) -> Iterable[Wish]:
    name = context.target.name
    if fields := given(args, "state", "timeout", "secret", "release_holds"):
        yield commands.update_server(name, fields)
    if args.secret is not None:
        yield _new_secret(name, args.secret, keep_old=args.previous_secret is None)
    if args.state == "absent":
        yield unless_gone(commands.remove_server(name))
    elif args.state is not None:
        yield _state(name, args.state, context.reason, release=args.release_holds)


def _state(name: str, state: State, why: str, *, release: bool) -> Wish:
    """Wish for a state; one that is stricter already counts as cordoned, and what an operator holds stays held."""

    def decide(known: commands.Known) -> Iterable[Change | Hold]:
        held = known.facts.holds.get(name)
        of_operator = held is not None and not is_of_playbook(held) and not release
        is_so = state == "cordoned" and commands.state_in(known, name) == "disabled"
        drained = not known.facts.server_meetings.get(name)
        if is_so and (of_operator or drained):
            return ()
        if held and of_operator and state == "enabled":
            since, why_held = held.since.astimezone(UTC), f": {held.why}" if held.why else ""
            raise GuardRefused(
                f"server '{name}' is held {held.state} by {held.by} since {since:%Y-%m-%d %H:%M} UTC{why_held}",
                f"scalelite servers enable {name}, or release_holds: true",
            )
        return commands.set_state(name, state, why)(known)

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


MODULES: Final = (
    Module(
        "server", "Change the state, weight, tag or secret of the play's server.", ServerArgs, _server, SERVERS,
        instant=True, example="- name: Take no new meetings\n  server: {state: cordoned}",
    ),
)  # fmt: skip
