"""What a run says: as text like Ansible's, as JSON, as JUnit; no secret in any of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from scalelite.core.model import MASK
from scalelite.core.show import plain

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping, Sequence

    from scalelite.playbook.book import Play, Task
    from scalelite.playbook.tasks import Done

COUNTS: Final = ("ok", "changed", "unreachable", "failed", "skipped", "rescued", "ignored")
_WIDTH: Final = 80
# A shorter text would take letters out of words.
_SHORTEST_SECRET: Final = 4
CENSORED: Final = "the output has been hidden because no_log is set"


class Masker:
    """Takes secrets out of what is said."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def hide(self, text: str) -> None:
        """Show this text never."""
        if len(text) >= _SHORTEST_SECRET:
            self._secrets.add(text)

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        for secret in self._secrets:
            if secret in text:
                text = text.replace(secret, MASK)
        return text

    def is_secret(self, value: Any) -> bool:
        """Say whether a value holds what is not to be shown."""
        return bool(self.within(value) != value)

    def within(self, value: Any) -> Any:
        """Return a value with all of its texts masked."""
        if isinstance(value, dict):
            return {name: self.within(item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.within(item) for item in value]
        return self(value) if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Ended:
    """How a run ended: counts by target, which servers it left held, its number in the journal (0: none)."""

    counts: Mapping[str, Counter[str]]
    held: Mapping[str, str]
    run: int = 0
    interrupted: bool = False

    @property
    def failed(self) -> bool:
        """Whether a target failed."""
        return any(count["failed"] or count["unreachable"] for count in self.counts.values())


class Output(Protocol):
    """What is told as the run goes on."""

    def play(self, play: Play, targets: Sequence[str]) -> None:
        """A play begins."""

    def task(self, task: Task, targets: Sequence[str], *, handler: bool) -> None:
        """A task begins with these targets."""

    def result(self, target: str, done: Done, *, rescued: bool) -> None:
        """A task is done with a target."""

    def note(self, text: str) -> None:
        """Something is worth saying."""

    def end(self, ended: Ended) -> None:
        """All is done."""


class TextOutput:
    """A line a result, as Ansible prints them."""

    def __init__(self, write: Callable[[str], None], masker: Masker, *, diff: bool, verbose: bool = False) -> None:
        self._write = write
        self._mask = masker
        self._diff = diff
        self._verbose = verbose
        self._module = ""

    def play(self, play: Play, targets: Sequence[str]) -> None:
        """Print its banner."""
        self._banner(f"PLAY [{play.name}]")
        if not targets:
            self._write("skipping: nothing matches")

    def task(self, task: Task, targets: Sequence[str], *, handler: bool) -> None:  # noqa: ARG002 - of the protocol
        """Print its banner."""
        self._module = task.module.name
        self._banner(f"{'RUNNING HANDLER' if handler else 'TASK'} [{task.name}]")

    def _banner(self, title: str) -> None:
        title = self._mask(plain(title))
        self._write(f"\n{title} {'*' * max(3, _WIDTH - len(title))}")

    def result(self, target: str, done: Done, *, rescued: bool) -> None:  # noqa: ARG002 - of the protocol
        """Print a line, one for each item of a loop."""
        for label, item in done.items or (("", done),):
            shown = f" => (item={self._shown(label)})" if done.items else ""
            self._write(f"{self._line(target, item, no_log=done.no_log)[:_MOST]}{'' if done.no_log else shown}")
        if done.items and done.status == "failed":
            self._write(f"fatal: [{target}]: FAILED! => {self._shown(done.data.get('msg', ''))}")
        if done.ignored:
            self._write("...ignoring")
        for line in done.diff if self._diff and not done.no_log else ():
            self._write(f"    {self._shown(line)}")

    def _line(self, target: str, done: Done, *, no_log: bool) -> str:
        name = f"[{target or 'cluster'}]"
        match done.status:
            case "skipped":
                return f"skipping: {name}"
            case "failed" | "unreachable":
                return f"fatal: {name}: {_FATAL[done.status]}! => {self._data(done, no_log=no_log)}"
        says = self._module in _SAYING or self._verbose
        return f"{done.status}: {name}" + (f" => {self._data(done, no_log=no_log)}" if says else "")

    def _data(self, done: Done, *, no_log: bool) -> str:
        if no_log:
            return json.dumps({"censored": CENSORED})
        return plain(json.dumps(self._mask.within(_public(done.data)), ensure_ascii=False, default=str))

    def _shown(self, text: str) -> str:
        return self._mask(plain(text))

    def note(self, text: str) -> None:
        """Print it."""
        self._write(self._shown(text))

    def end(self, ended: Ended) -> None:
        """Print the recap, and which servers are left held."""
        self._banner("PLAY RECAP")
        width = max((len(name) for name in ended.counts), default=0)
        for name, count in sorted(ended.counts.items()):
            counts = " ".join(f"{f'{what}={count[what]}':<{len(what) + 4}}" for what in COUNTS)
            self._write(f"{name or 'cluster':<{max(width, 7)}} : {counts}".rstrip())
        for server, state in ended.held.items():
            self._write(f"left held: {server} {state}")


_FATAL: Final = {"failed": "FAILED", "unreachable": "UNREACHABLE"}
_SAYING: Final = frozenset({"debug", "assert"})
_MOST: Final = 4_000


def _public(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if not name.startswith("_")}


@dataclass(slots=True)
class _Recorded:
    play: str
    task: str
    where: str
    module: str
    handler: bool
    results: list[tuple[str, Done, bool]] = field(default_factory=list)


class RecordingOutput:
    """Keeps all results, and writes them as one document at the end; what is said meanwhile goes to `note`."""

    def __init__(self, write: Callable[[str], None], note: Callable[[str], None], masker: Masker, form: str) -> None:
        self._write = write
        self._note = note
        self._mask = masker
        self._form = form
        self._play = ""
        self._tasks: list[_Recorded] = []

    def play(self, play: Play, targets: Sequence[str]) -> None:  # noqa: ARG002 - of the protocol
        """Note that what follows is of this play."""
        self._play = play.name

    def task(self, task: Task, targets: Sequence[str], *, handler: bool) -> None:  # noqa: ARG002 - of the protocol
        """Note that what follows is of this task."""
        self._tasks.append(_Recorded(self._play, task.name, str(task.place), task.module.name, handler))

    def result(self, target: str, done: Done, *, rescued: bool) -> None:
        """Keep it."""
        self._tasks[-1].results.append((target, done, rescued))

    def note(self, text: str) -> None:
        """Say it beside the document."""
        self._note(self._mask(plain(text)))

    def end(self, ended: Ended) -> None:
        """Write the document."""
        self._write(self._json(ended) if self._form == "json" else self._junit())

    def _json(self, ended: Ended) -> str:
        document = {
            "run": ended.run or None,
            "interrupted": ended.interrupted,
            "tasks": [
                {
                    "play": task.play,
                    "task": task.task,
                    "place": task.where,
                    "module": task.module,
                    "handler": task.handler,
                    "results": {target: self._result(done, rescued) for target, done, rescued in task.results},
                }
                for task in self._tasks
            ],
            "recap": {name: {what: count[what] for what in COUNTS} for name, count in sorted(ended.counts.items())},
            "left_held": dict(ended.held),
        }
        return json.dumps(self._mask.within(document), ensure_ascii=False, indent=2, default=str)

    def _result(self, done: Done, rescued: bool) -> dict[str, Any]:
        data = {"censored": CENSORED} if done.no_log else _public(done.data)
        diff = {} if done.no_log or not done.diff else {"diff": list(done.diff)}
        return {"status": done.status, "ignored": done.ignored, "rescued": rescued, "result": data, **diff}

    def _junit(self) -> str:

        cases = [
            self._case(task, target, done, rescued) for task in self._tasks for target, done, rescued in task.results
        ]
        failures = sum("<failure" in case for case in cases)
        skipped = sum("<skipped" in case for case in cases)
        counts = f'tests="{len(cases)}" failures="{failures}" errors="0" skipped="{skipped}"'
        head = f'<testsuite name="scalelite playbook" {counts}>'
        return "\n".join(['<?xml version="1.0" encoding="UTF-8"?>', head, *cases, "</testsuite>"])

    def _case(self, task: _Recorded, target: str, done: Done, rescued: bool) -> str:
        from xml.sax.saxutils import quoteattr  # noqa: PLC0415 - it brings HTTP and TLS along

        def quoted(text: str) -> str:
            return quoteattr(self._mask(plain(text)))

        name = quoted(f"[{target or 'cluster'}] {task.play}: {task.task}")
        open_tag = f"  <testcase classname={quoted(task.where)} name={name}"
        if done.status == "skipped":
            return f"{open_tag}><skipped/></testcase>"
        if done.failed and not rescued:
            message = CENSORED if done.no_log else str(done.data.get("msg", "failed"))
            return f"{open_tag}><failure message={quoted(message)}/></testcase>"
        return f"{open_tag}/>"
