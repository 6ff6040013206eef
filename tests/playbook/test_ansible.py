"""The same playbooks through ansible-playbook and through ours: the same tasks in the same order, the same recap."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scalelite.playbook.options import Options, chosen

if TYPE_CHECKING:
    from tests.playbook.conftest import Stage

CASES = Path(__file__).parents[1] / "cases" / "playbook"
NAMES = sorted(path.stem for path in CASES.glob("*.yml"))
SERVERS = ("bbb1", "bbb2", "bbb3")
# What Ansible calls it.
RECAP = {"failures": "failed"}
Events = list[tuple[str, dict[str, str]]]


def as_ansible(text: str, name: str) -> str:
    """The playbook in Ansible's words, about hosts of its own: those of another may have failed."""
    return re.sub(
        r"^  servers: all$", f"  hosts: g_{name.replace('-', '_')}\n  gather_facts: false", text, flags=re.MULTILINE
    )


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Events, dict[str, dict[str, int]]]]:
    """What ansible-playbook did with each playbook, all in one process."""
    folder = tmp_path_factory.mktemp("ansible")
    shutil.copytree(CASES / "more", folder / "more")
    inventory = ["[all:vars]", "ansible_connection=local", f"ansible_python_interpreter={sys.executable}"]
    for name in NAMES:
        (folder / f"{name}.yml").write_text(as_ansible((CASES / f"{name}.yml").read_text(), name))
        inventory += [f"[g_{name.replace('-', '_')}]", *(f"{server}-{name}" for server in SERVERS)]
    (folder / "inventory.ini").write_text("\n".join(inventory) + "\n")
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C.UTF-8",
        "HOME": str(folder),
        "RECORDED": str(folder / "recorded"),
        "ANSIBLE_HOME": str(folder),
        "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "ansible"),
        "ANSIBLE_STDOUT_CALLBACK": "recorder",
        "ANSIBLE_FORKS": "3",
    }
    program = [sys.executable, str(Path(__file__).parent / "ansible" / "run_each.py")]
    files = [f"{name}.yml" for name in NAMES]
    done = subprocess.run(
        [*program, "-i", "inventory.ini", *files],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (folder / "recorded").exists(), done.stdout + done.stderr
    return read(folder / "recorded")


def read(path: Path) -> dict[str, tuple[Events, dict[str, dict[str, int]]]]:
    events: dict[str, Events] = defaultdict(list)
    recaps: dict[str, dict[str, dict[str, int]]] = defaultdict(dict)
    now = ""
    for line in path.read_text().splitlines():
        kind, *rest = json.loads(line)
        if kind == "playbook":
            now = rest[0].removesuffix(".yml")
        elif kind == "task":
            events[now].append((rest[0], {}))
        elif kind == "result":
            events[now][-1][1][rest[0].partition("-")[0]] = rest[1]
        else:
            server, _, name = rest[0].partition("-")
            recaps[name][server] = {RECAP.get(what, what): count for what, count in rest[1].items()}
    return {name: (events[name], recaps[name]) for name in NAMES}


def told(events: Events) -> Events:
    """Without what Ansible says of includes themselves, and without tasks that nobody did."""
    return [(name, results) for name, results in events if results and not name.startswith("include ")]


@pytest.mark.shows("issue H: table test", "playbooks: as Ansible")
@pytest.mark.parametrize("name", NAMES)
async def test_a_playbook_goes_as_in_ansible(name: str, stage: Stage, recorded: Any) -> None:
    await stage.cluster.start(len(SERVERS))
    ours = await stage.run(CASES / f"{name}.yml")
    events, recap = recorded[name]
    assert told(ours.events) == told(events)
    counts = {server: {what: ours.counts[server][what] for what in recap[server]} for server in recap}
    assert counts == recap


@pytest.mark.shows("playbooks: tags")
def test_tags_choose_as_in_ansible() -> None:
    from ansible.playbook.taggable import Taggable

    class Tagged(Taggable):  # type: ignore[misc]
        def __init__(self, tags: list[str]) -> None:
            self.tags, self._loader, self._parent = tags, None, None

        def get_play(self) -> None:
            """Of no play."""

    own = [[], ["a"], ["a", "b"], ["always"], ["never"], ["never", "a"], ["always", "a"]]
    asked = [{"all"}, {"a"}, {"b"}, {"tagged"}, {"untagged"}, {"never"}, {"a", "untagged"}]
    left_out: list[set[str]] = [set(), {"a"}, {"always"}, {"tagged"}, {"untagged"}, {"all"}, {"never"}]
    for tags in own:
        for wanted in asked:
            for unwanted in left_out:
                ours = chosen(tags, Options(tags=frozenset(wanted), skip_tags=frozenset(unwanted)))
                assert ours == Tagged(tags).evaluate_tags(wanted, unwanted, {}), (tags, wanted, unwanted)
