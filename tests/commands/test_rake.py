"""`scalelite rake` beside the recordings: rake's own command line, logs, revisions, and our names for the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scalelite.cli import rake_meetings, rake_servers, rake_tenants
from scalelite.core.rake import TASKS, Called, parse_task

if TYPE_CHECKING:
    from scalelite.sim import RunningServer
    from tests.plan.conftest import Here


@pytest.mark.shows("cli: old spelling")
@pytest.mark.parametrize(
    ("text", "called"),
    [
        ("servers", Called("servers")),
        ("servers[]", Called("servers")),
        ("a:b[x]", Called("a:b", ("x",))),
        ("a[x, y ,,z,]", Called("a", ("x", "y", "", "z", ""))),
        ("a[x\\,y,z]", Called("a", ("x,y", "z"))),
        ("a[p=1 2,[b]]", Called("a", ("p=1 2", "[b]"))),
        ("a[x", Called("a[x")),
    ],
)
def test_a_task_is_read_as_rake_reads_it(text: str, called: Called) -> None:
    assert parse_task(text) == called


@pytest.mark.shows("cli: rake -T")
def test_each_task_that_is_listed_can_be_run() -> None:
    assert {*rake_servers.DOES, *rake_meetings.DOES, *rake_tenants.DOES} == TASKS.keys()


@pytest.mark.shows("cli: old spelling")
def test_several_tasks_and_variables_stand_on_one_line(here: Here) -> None:
    here.environ("SERVER_ID_IS_HOSTNAME", "false")  # so that it is as before afterwards
    url = "https://bbb1.example.com/bigbluebutton/api"
    done = here("rake", "SERVER_ID_IS_HOSTNAME=true", "--trace", f"servers:add[{url},SECRET,2.0,tag]", "servers")
    assert done.out.startswith("OK\nid: bbb1.example.com\nid: bbb1.example.com\n\turl: ")
    assert here.sql("SELECT actor, message FROM revision") == [("tester", "rake servers:add")]
    assert here("rake", "nope", "servers", status=1).err.startswith("rake aborted!\nDon't know how to build task")
    here("rake", "--nope", status=64)
    assert here("rake", "-T", "servers:s").out.startswith("rake servers:sync[path,mode,dryrun]")


@pytest.mark.shows("cli: what Scalelite writes to its log")
def test_the_log_is_written_where_and_when_it_is_asked_for(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    task = "servers:add[https://bbb{}.example.com/bigbluebutton/api,SECRET]"
    monkeypatch.delenv("LOG_LEVEL")
    assert not here("rake", task.format(1)).err
    here.environ("RAILS_LOG_LEVEL", "info")
    url = "https://bbb2.example.com/bigbluebutton/api"
    assert re.fullmatch(
        rf"I, \[\d{{4}}-\d\d-\d\dT[\d:]{{8}}\.\d{{6}} #\d+\]  INFO -- : Adding server {re.escape(url)}\.\.\.\n",
        here("rake", task.format(2)).err,
    )
    here.environ("RAILS_LOG_TO_STDOUT", "true")
    done = here("rake", task.format(3))
    assert "Adding server https://bbb3" in done.out
    assert not done.err


@pytest.mark.shows("cli: defects that are mended")
def test_panic_with_false_disables_the_server(cluster: Here, servers: list[RunningServer]) -> None:
    assert cluster("rake", "servers:panic[bbb1,false]").out.endswith(
        "Clearing Meeting id=room-1\nClearing Meeting id=room-2\nOK\n"
    )
    assert "\tdisabled\n" in cluster("rake", "servers").out
    assert not servers[0].meetings


@pytest.mark.shows("issue G: bin/rake")
def test_the_wrapper_passes_tasks_on(here: Here) -> None:
    wrapper = Path(__file__).parents[2] / "deploy" / "rake"
    lines = [line for line in wrapper.read_text().splitlines() if line]
    assert lines == ["#!/bin/sh", 'exec scalelite rake "$@"']
    script = wrapper.read_text().replace("exec scalelite", f'exec "{sys.executable}" -m scalelite')
    done = subprocess.run(["/bin/sh", "-s", "servers"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "No servers are configured\n")


# --- the command line as a whole -------------------------------------------------------------------------------------


@pytest.mark.shows("cli: shell completion")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_completes_commands(here: Here, shell: str) -> None:
    assert "_SCALELITE_COMPLETE" in here("completion", shell).out


@pytest.mark.shows("cli: shell completion")
@pytest.mark.parametrize(
    ("words", "names"), [("scalelite ser", {"serve", "servers"}), ("scalelite meetings ", {"end", "info", "list"})]
)
def test_completion_names_the_commands(words: str, names: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scalelite"], capture_output=True, text=True, check=False,
        env={"_SCALELITE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))},
    )  # fmt: skip
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == names
