"""Policies beside an inventory: rules in `policies/*.yml` that deny changes of a plan, as sandboxed Jinja2 expressions.

A rule that cannot be evaluated denies: a policy that fails must not let through what it was written to stop.
"""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field

from scalelite.core.guards import Verdict
from scalelite.core.plan import Create, Remove, Update, owner
from scalelite.core.show import as_json
from scalelite.errors import InventoryInvalid
from scalelite.inventory.entries import Entry
from scalelite.inventory.problems import Problem
from scalelite.inventory.templates import Lookups, TemplateProblem
from scalelite.inventory.vault import Vaults

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from scalelite.core.plan import Change, Plan
    from scalelite.inventory.sandbox import Compiler
    from scalelite.inventory.source import SourceFile

FOLDER: Final = "policies"


class Policy(Entry):
    """One rule: where `when` holds of a change, `deny` must not."""

    name: str = Field("", description="Name of the rule.", examples=["no-urls-by-day"], pattern=r"^[A-Za-z0-9_-]+$")
    when: str = Field("true", description="The changes it is about.", examples=["change.type == 'server'"])
    deny: str = Field("true", description="What of them it stops.", examples=["'url' in change.fields"])
    message: str = Field("", description="What is said.", examples=["urls are changed at night"])


class Policies:
    """The rules beside some inventories, and the files they stand in."""

    def __init__(self, rules: Sequence[tuple[Policy, str]], files: Sequence[SourceFile]) -> None:
        self._rules = rules
        self.files = tuple(files)

    def judge(self, plan: Plan) -> Iterator[Verdict]:
        """Yield what the rules deny."""
        if not self._rules:
            return
        from scalelite.inventory.sandbox import Compiler  # noqa: PLC0415 - Jinja2 takes 0.05 s to import

        compiler = Compiler(_NoLookups(), lambda value: value)
        for change in plan.changes:
            seen = _seen(change, plan)
            for rule, place in self._rules:
                if message := _denied(rule, compiler, seen):
                    yield Verdict(rule.name, change.key.address, message, place)


def load_policies(paths: Iterable[str]) -> Policies:
    """Read the folders `policies` beside inventories; raises InventoryInvalid."""
    rules: list[tuple[Policy, str]] = []
    files: list[SourceFile] = []
    for folder in dict.fromkeys(_beside(path) for path in paths if path != "-"):
        for file in sorted(folder.glob("*.y*ml")) if folder.is_dir() else ():
            found, source = _read(file)
            rules += found
            files.append(source)
    return Policies(rules, files)


def _beside(path: str) -> FilePath:
    inventory = FilePath(path)
    return (inventory if inventory.is_dir() else inventory.parent) / FOLDER


def _read(path: FilePath) -> tuple[list[tuple[Policy, str]], SourceFile]:
    """Read a file of rules: a list of mappings, or a mapping with the list under `policies`."""
    from pydantic import ValidationError  # noqa: PLC0415 - with the rest that only policies need

    from scalelite.inventory.parse import parse  # noqa: PLC0415
    from scalelite.inventory.source import Source  # noqa: PLC0415
    from scalelite.inventory.tree import Seq  # noqa: PLC0415

    data = path.read_bytes()
    source = Source(str(path), data, data.decode("utf-8-sig", "replace"))
    problems = _Problems()
    tree = parse(source, problems)
    rules = tree.get("policies") if isinstance(tree, dict) else tree
    if not isinstance(rules, list):
        problems.add(source, 0, "must be a list of rules {name, when, deny, message}.")
        rules = []
    found: list[tuple[Policy, str]] = []
    for at, rule in enumerate(rules):
        start = rules.marks[at].start if isinstance(rules, Seq) else 0
        try:
            policy = Policy.model_validate(dict(rule) if isinstance(rule, dict) else rule)
        except ValidationError as error:
            detail = error.errors(include_input=False, include_url=False)[0]
            problems.add(source, start, f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}.")
            continue
        if not policy.name or not policy.message:
            problems.add(source, start, "a rule needs a name and a message.")
        found.append((policy, str(source.place(start))))
    if problems.found:
        raise InventoryInvalid(problems.found)
    return found, source.file


class _Problems:
    """Collects what is wrong with a file of rules."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def __call__(self, code: str, path: Any, message: str, mark: Any, **_: Any) -> None:  # noqa: ARG002 - Report's
        self.found.append(Problem(mark.place, code, "policies", message))

    def add(self, source: Any, offset: int, message: str) -> None:
        self.found.append(Problem(source.place(offset), "SL114", "policies", message))


def _denied(rule: Policy, compiler: Compiler, seen: Mapping[str, Any]) -> str:
    """Return why a rule denies a change, or nothing."""
    try:
        if not compiler.render(f"{{{{ {rule.when} }}}}", seen, None) or not compiler.render(
            f"{{{{ {rule.deny} }}}}", seen, None
        ):
            return ""
    except TemplateProblem as problem:
        return f"{rule.message} (the rule fails: {problem.message(secret=True)})"
    return rule.message


def _seen(change: Change, plan: Plan) -> dict[str, Any]:
    """Return how rules see a change: no secrets; `before` and `after` are empty where there is none."""
    of = owner(change.key)
    action = {Create: "create", Update: "update", Remove: "delete"}[type(change)]
    return {
        "change": {
            "action": action,
            "type": str(change.key.kind),
            "name": change.key.name,
            "param": change.key.param,
            "address": change.key.address,
            "before": {} if isinstance(change, Create) else as_json(change.before),
            "after": {} if isinstance(change, Remove) else as_json(change.after),
            "fields": list(change.fields) if isinstance(change, Update) else [],
            "meetings": plan.facts.meetings_of(of),
            "users": plan.facts.server_users.get(of.name, 0),
        }
    }


class _NoLookups(Lookups):
    """Policies look nothing up."""

    def __init__(self) -> None:
        super().__init__({}, Vaults(tuple))

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TemplateProblem("SL135", "policies look nothing up. Write an expression over `change`.")
