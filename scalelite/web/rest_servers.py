"""Calls of the management API about servers and the cluster: from parameters to wishes, from views to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from scalelite.core import commands
from scalelite.core.course import in_turn
from scalelite.errors import SpecRefused
from scalelite.flows import management
from scalelite.flows import poll as poller
from scalelite.web import rest_models as m

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scalelite.core.model import State
    from scalelite.flows.management import ServerView
    from scalelite.web.rest_call import Answer, Call

_STATES: Final[Mapping[str, State]] = {"enable": "enabled", "cordon": "cordoned", "disable": "disabled"}


async def get_servers(call: Call) -> Answer:
    """Every server, by id."""
    found = await management.servers(call.services)
    if not found:
        return 404, m.Error(error="No servers are configured")
    return 200, [_server(view, call) for view in found]


async def get_server(call: Call) -> Answer:
    """One server."""
    return 200, _server(await management.server(call.services, call.params.id), call)


async def add_server(call: Call) -> Answer:
    """Add a server."""
    new: m.NewServer = call.params.server
    if not new.url or not new.secret:
        raise SpecRefused("Server needs a URL and a secret")
    is_hostname = call.services.settings.server_id_is_hostname
    server_id = commands.new_server_id(new.url, call.services.new_id, is_hostname=is_hostname)
    fields = {"id": server_id, "url": new.url, "secret": new.secret, "tag": new.tag or ""}
    fields["load_multiplier"] = _multiplier(new.load_multiplier, default=1.0)
    await call.change("addServer", commands.add_server(fields))
    return 201, _server(await management.server(call.services, server_id), call)


async def update_server(call: Call) -> Answer:
    """Change a server's fields and state, in one revision."""
    new: m.ServerFields = call.params.server
    if new.state and new.state not in _STATES:
        raise SpecRefused(f"Invalid state parameter: {new.state}")
    fields: dict[str, Any] = {name: value for name in ("url", "secret") if (value := getattr(new, name))}
    if new.load_multiplier is not None:
        fields["load_multiplier"] = _multiplier(new.load_multiplier)
    if "tag" in new.model_fields_set:
        fields["tag"] = new.tag or ""
    if fields:
        call.caller.require("admin")

    wishes = [commands.update_server(call.params.id, fields)]
    if new.state:
        wishes.append(commands.set_state(call.params.id, _STATES[new.state], new.reason))
    await call.change("updateServer", in_turn(*wishes))
    return 200, _server(await management.server(call.services, call.params.id), call)


async def delete_server(call: Call) -> Answer:
    """Remove a server."""
    await call.change("deleteServer", commands.remove_server(call.params.id))
    return 200, m.Success(success=f"Server id={call.params.id} was destroyed")


async def panic_server(call: Call) -> Answer:
    """Disable a server and end its meetings."""
    params: m.Panic = call.params
    done = await management.panic(
        call.services,
        call.caller.actor,
        params.id,
        keep_state=params.keep_state or params.server.keep_state,
        skip_end_calls=params.skip_end_calls,
        why=params.reason or "panic",
    )
    ends = [
        m.MeetingEnd(tenant_id=str(end.meeting.tenant), meeting_id=end.meeting.meeting_id, outcome=end.outcome)
        for end in done.meetings
    ]
    said = f"Server id={params.id} has been disabled and the meetings have been destroyed"
    return 200, m.Panicked(success=said, meetings=ends)


def _multiplier(value: float | str | None, *, default: float = 0.0) -> float:
    """Read Scalelite's numbers, which may be texts; raises SpecRefused for what is not above 0."""
    try:
        number = default if value in {None, ""} else float(value or 0)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise SpecRefused("Load-multiplier must be a non-zero number")
    return number


def _server(view: ServerView, call: Call) -> m.Server:
    spec, row = view.spec, view.row
    seen = row.health in {"online", "unhealthy"}
    return m.Server(
        id=spec.id,
        url=spec.url,
        secret=spec.secret.reveal() if call.shows_secrets else None,
        tag=spec.tag,
        bbb_version=row.bbb_version,
        state=row.state,
        load=row.load if seen and row.state != "disabled" else "unavailable",
        load_multiplier=str(float(spec.load_multiplier)),
        online="online" if seen else "offline",
    )


# --- the cluster -----------------------------------------------------------------------------------------------------


async def get_status(call: Call) -> Answer:
    """What `scalelite status` shows."""
    return 200, [m.StatusOfServer.model_validate(row) for row in await management.status(call.services)]


async def get_meetings(call: Call) -> Answer:
    """The meetings of all tenants or of one, with their servers."""
    found = await management.meetings(call.services, call.params.tenant, call.params.server)
    return 200, [m.Meeting.model_validate(meeting) for meeting in found]


async def get_history(call: Call) -> Answer:
    """Revisions, newest first."""
    found = await management.history(call.services, call.params.limit, call.params.before)
    return 200, [m.Revision(**row) for row in found]


async def poll(call: Call) -> Answer:
    """Poll all servers now."""
    outcome = await poller.poll_round(call.services)
    return 200, m.Polled(polled=len(outcome.statuses), failed=list(outcome.failed), suspect=outcome.suspect)
