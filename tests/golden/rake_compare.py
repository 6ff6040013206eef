"""What is compared of a recorded rake task: what was printed, logged, asked of servers, and left behind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

from scalelite.cli.rake_tenants import lrs_fields
from scalelite.core.model import LrsSpec
from tests.golden.rake_stage import NOBODY, T1, T2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core.model import AnySpec, TenantSpec

DRAWN: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
# Where a server, tenant, meeting or setting begins in what is printed: their order is that of a set.
_ENTRY: Final = re.compile(
    r"^(?=id: |Total |Clearing |Tenant: |  id: |\nMeetingID: |\nServer ID: |MeetingIDs: |  [\w.-]+:$"
    r"| [\w.]+ +(?:enabled|disabled|cordoned) )",
    re.MULTILINE,
)
_LOG_LINE: Final = re.compile(r"[A-Z], \[\S+ #\d+\]\s+(\w+) -- : (.*)$")
_LEVEL: Final = re.compile("(DEBUG|INFO|WARN|ERROR|FATAL): ")
_DEPRECATED: Final = re.compile(r"^Redis#sadd .*\n", re.MULTILINE)


def entries(text: str) -> list[str]:
    """Return the entries of a text, sorted, without what differs from run to run, and no backtrace."""
    if text.startswith("rake aborted!"):
        text = "".join(text.splitlines(keepends=True)[:2]).rstrip("\n") + "\n"
    text = DRAWN.sub(lambda found: found[0] if found[0] in {T1, T2} else "drawn", _DEPRECATED.sub("", text))
    text = text.replace(f'for "{NOBODY}" port', 'for "127.0.0.1" port')
    text = re.sub("(notFound|checksumError): .*", r"\1", text)  # the servers' own words
    return sorted(part.strip("\n") for part in _ENTRY.split(text))


def without_log(text: str) -> tuple[str, list[str]]:
    """Part standard error from the log on it, as the recording parted them: LEVEL: message."""
    found = [(line, _LOG_LINE.match(line)) for line in text.splitlines(keepends=True)]
    return "".join(line for line, log in found if not log), [f"{log[1]}: {log[2]}" for _, log in found if log]


def recorded(record: dict[str, Any], part: str) -> list[str]:
    """Return the recorded lines of the log, requests to servers, or state."""
    match part:
        case "log":
            return _recorded_log(record)
        case "upstream":
            calls = {(call["server"], call["path"].rpartition("/")[2], call["query"]) for call in record["upstream"]}
            return [request_line(name, call, parse_qsl(query, keep_blank_values=True)) for name, call, query in calls]
        case _:
            return _recorded_state(record)


def _recorded_log(record: dict[str, Any]) -> list[str]:
    """Return the recorded lines from level info on; a message that began with a line's end stands in one."""
    lines: list[str] = []
    for line in record["log"]:
        if _LEVEL.match(line):
            lines.append(line)
        else:
            lines[-1] += line
    return [line for line in lines if not line.startswith("DEBUG")]


def _recorded_state(record: dict[str, Any]) -> list[str]:
    """Return what a task left in Redis or in Postgres, without Redis's indexes."""
    if "rows" in record:
        return [" ".join(row) for row in record["rows"]]
    kept: dict[str, dict[str, str]] = {
        key.removeprefix("scalelite:"): value for key, value in record.get("redis", {}).items()
    }
    if record["case"] == "counters":
        return [f"{server} failed {value['unhealthy_counter']}" for server, value in kept.items()]
    found = []
    for key, value in kept.items():
        kind, _, name = key.partition(":")
        more = " ".join(f"{field}={text}" for field, text in sorted(value.items()) if field not in {"name", "secrets"})
        if kind == "tenant":
            found.append(f"tenant {name} {value['name']} {value['secrets']} {more}".rstrip())
        elif kind == "tenant_setting":
            found.append(f"setting {value['tenant_id']} {value['param']}={value['value']} {value['override']}")
    return found


def tenant_line(spec: TenantSpec, lrs: AnySpec | None) -> str:
    """Return a tenant as a line of the state."""
    secrets = ":".join(secret.reveal() for secret in spec.secrets)
    fields = lrs_fields(lrs if isinstance(lrs, LrsSpec) else None)
    more = " ".join(f"{field}={text}" for field, text in sorted(fields.items()))
    return f"tenant {spec.id} {spec.name} {secrets} {more}".rstrip()


def request_line(server: str, call: str, params: Iterable[tuple[str, str]]) -> str:
    """Return a request to a server as a line."""
    query = "&".join(f"{name}={value}" for name, value in sorted(params) if name != "checksum")
    return f"{server} {call or 'index'}?{query}"


def undrawn(line: str) -> str:
    """Return a line without ids that are drawn, and without the words of servers and of HTTP clients."""
    line = DRAWN.sub(lambda found: found[0] if found[0] in {T1, T2} else "drawn", line)
    return re.sub(r"(status: |Could not end meeting id=\w+: |version of server id=\w+: ).*", r"\1…", line)
