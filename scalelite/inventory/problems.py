"""What can be wrong with an inventory: codes, words for them, and a collector; never the value of a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scalelite.core.model import Place
    from scalelite.inventory.source import Mark

Path = tuple[str | int, ...]
Severity = Literal["error", "warning"]

# Each code with one sentence on what it is and why it counts; `scalelite explain SL112` prints it.
CODES: Final[dict[str, str]] = {
    "SL101": "A file or folder of the inventory cannot be read: it does not exist, or this user may not open it.",
    "SL102": "A file is empty, or an inventory manages nothing: taken as it stands, it would ask for an empty cluster.",
    "SL103": "A document is larger than 64 MiB, or one of its values than 1,000,000 characters: no cluster needs that.",
    "SL104": "A file is not UTF-8 text: it has another encoding, or holds NUL or other control characters.",
    "SL105": "The file is not valid YAML, so that nothing of it can be used.",
    "SL106": "A file holds more than one YAML document (`---`): only the first would count, so none is taken.",
    "SL107": "A key stands twice in one mapping: YAML forbids it, and one of the two values would be lost.",
    "SL108": "A YAML tag that is not supported: inventories are data, and only `!vault` and `!unsafe` have a meaning.",
    "SL109": "An alias (`*name`) points nowhere or at itself, or a document has more nodes than fit in memory.",
    "SL110": "Mappings and lists are nested more than 100 levels deep, which no inventory needs.",
    "SL111": "A key that is not text: keys are names, so numbers, lists and mappings must be quoted or removed.",
    "SL112": "A number is outside of its range.",
    "SL113": "A key is not known here, mostly because it is misspelt: it would have no effect.",
    "SL114": "A value is of the wrong type; values are never converted, so that what is typed is what is meant.",
    "SL115": "Something that is required is missing or empty.",
    "SL116": "A value is not one of those that can be chosen from.",
    "SL117": "A URL is not of the right form.",
    "SL118": "A name, an id or a text is not of the right form: some characters or lengths are not allowed.",
    "SL119": "Two keys contradict each other: one of them says what the other one says, too.",
    "SL120": "Two servers have the same URL (letter case, default port and last slash do not count).",
    "SL121": "An object or a key is declared in two files of one inventory; only a later -i may override.",
    "SL122": "Two tenants have the same id.",
    "SL123": "Two tenants have the same host name, so that a call could not be told to be the one's or the other's.",
    "SL124": "A parameter is set by the load balancer itself and cannot be a setting of a tenant or of the cluster.",
    "SL125": "A section has no value: absent means 'not managed', `{}` means 'there are none'.",
    "SL130": "A template is not valid Jinja2.",
    "SL131": "A template uses a variable that is not defined.",
    "SL132": "A template looks up an environment variable that is not set, and gives no default.",
    "SL133": "A template failed when it was rendered.",
    "SL134": "A template does not give one text, number or boolean, or gives a text of more than 65,536 characters.",
    "SL135": "A template uses what inventories do not allow: statements that loop or assign, or an unknown function.",
    "SL140": "A folder group_vars or host_vars that is not in the top folder of its inventory, where it has no effect.",
    "SL141": "A vault cannot be opened: no password is given, none of those that are fits, or it is damaged.",
    "SL142": "A server or a group is named that the inventory does not have, or a pattern that no server matches.",
    "SL143": "Groups contain each other in a circle, so that none of them is the parent.",
    "SL144": "A secret, or a value out of a vault or a password file, stands where plans and listings would show it.",
    "SL145": "A range of servers cannot be read, or makes more than 100,000 of them.",
    "SL146": "A file that a template looks up cannot be read, or is not below the inventory.",
    "SL201": "A playbook is no list of plays, or a file that it includes no list of tasks.",
    "SL202": "A task of a playbook has no module, or more than one.",
    "SL203": "A key of a task is neither a keyword nor a module, mostly because it is misspelt.",
    "SL204": "A task notifies a handler that is not there.",
    "SL206": "A keyword of Ansible's that has no meaning here.",
    "SL207": "A file that a playbook names is not there.",
}

# Nobody reads more of them.
MAX_PROBLEMS: Final = 10_000

# Keys whose values, and whatever stands below them, are never shown.
SECRET_KEYS: Final = frozenset({"secret", "previous_secret", "secrets", "password", "client_secret"})

_VARIABLES: Final = {("vars",), ("group_vars",), ("host_vars",)}
# Comparing with more names would take seconds where there are many mistakes.
_COMPARED: Final = 1_000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in an inventory, and where.

    `caret` is the column (from 1) in the masked source line, 0: none; `byte` counts the file's bytes before it.
    """

    place: Place
    code: str
    path: str
    message: str
    source_line: str = ""
    severity: Severity = "error"
    rendered_from: Place | None = None
    caret: int = 0
    byte: int = 0

    def text(self, caret: bool = False) -> str:
        """Return the problem as one line; with `caret` also its source line and a caret below."""
        origin = f" (rendered from {self.rendered_from})" if self.rendered_from else ""
        path = f"{self.path}: " if self.path else ""
        line = f"{self.place}: {self.severity}[{self.code}] {path}{self.message}{origin}"
        if not caret or not self.source_line:
            return line
        return f"{line}\n    {self.source_line}\n    {' ' * (self.caret - 1)}^"


class Report(Protocol):
    """How a problem is reported, by whoever finds it."""

    def __call__(
        self,
        code: str,
        path: Path,
        message: str,
        mark: Mark,
        *,
        at_key: bool = False,
        rendered_from: Mark | None = None,
        severity: Severity = "error",
    ) -> None:
        """Take one problem; `at_key`: it is the key that is wrong, not the value."""


def printable(text: str) -> str:
    """Return a text that cannot disturb a terminal or a log: control characters are escaped."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def path_text(path: Path) -> str:
    """Return a path as messages show it; it ends at a key whose content is secret."""
    shown = ""
    for part in path:
        if isinstance(part, int):
            shown += f"[{part}]"
            continue
        shown += f".{part}" if shown else part
        if part in SECRET_KEYS and len(path) > 1:
            break
    return printable(shown)


def is_free(path: Path) -> bool:
    """Tell whether a path is that of variables, which may hold anything."""
    return path[:1] in _VARIABLES or (path[:1] == ("groups",) and path[2:3] == ("vars",))


def is_secret(path: Path) -> bool:
    """Tell whether the value at a path is a secret, or may be one (free variables)."""
    return is_free(path) or any(part in SECRET_KEYS for part in path)


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return ` Did you mean ...?` for a misspelt name, or nothing; of many known ones, the first are looked at."""
    found = get_close_matches(name, list(islice(known, _COMPARED)), n=1, cutoff=cutoff)
    return f" Did you mean '{found[0]}'?" if found else ""
