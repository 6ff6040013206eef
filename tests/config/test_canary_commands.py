"""Every command in every form that it prints, at the most talkative: none says a secret, but those that say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scalelite.cli import COMMANDS
from scalelite.cli.plan_options import REPORTS
from tests.config.test_canary import CANARY, INVENTORY, OPENED, PASSWORD, cluster, quietly

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["cluster"]  # a fixture

# What serve logs is looked through in web/test_secrets_in_logs.py; the others show what they make up themselves.
ELSEWHERE = {"serve", "simulate", "demo", "completion"}
# Say what is in a catalogue, and read nothing of anybody's.
CATALOGUES = {"explain", "schema"}
LISTINGS = ("servers", "tenants", "tenant-settings", "meetings", "status", "tokens list", "recordings list", "doctor")
SYNC = f"servers: {{bbb1: {{secret: {CANARY}-synced, url: 'https://bbb1/bigbluebutton/api'}}}}\n"
BROKEN_SYNC = f"servers: {{bbb1: {{secret: {CANARY}: {CANARY}}}, bbb2: {{secret: [{CANARY}]}}}}\n"
PLAYBOOK = f"""
- servers: bbb1:bbb7
  vars: {{mine: "{CANARY}-played"}}
  tasks:
    - debug: {{var: server}}
    - debug: {{msg: "{{{{ server }}}} {{{{ vars }}}} {{{{ lookup('env', 'CANARY') }}}}"}}
      no_log: true
    - server: {{secret: "{{{{ lookup('env', 'CANARY') }}}}"}}
    - fail: {{msg: "{{{{ lookup('env', 'CANARY') }}}}"}}
- tenants: t
  tasks:
    - debug: {{var: tenant}}
    - lrs: {{endpoint: "https://lrs/", basic: {{username: u, password: "{{{{ lookup('env', 'CANARY') }}}}"}}}}
"""


class Tried:
    """Runs commands, and remembers which."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database = folder, database
        self.commands: set[str] = set()

    def __call__(self, *words: str, status: int = 0) -> str:
        self.commands.add(words[0])
        return quietly(self.folder, self.database, *words, status=status)


@pytest.mark.shows("issue B: a canary test", "inventory: secrets are a type of their own", "cli: --format", "DE-8")
def test_no_command_says_a_secret_in_any_form(cluster: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SPOOL", "WORK", "PUBLISH", "UNPUBLISH"):
        monkeypatch.setenv(f"RECORDING_{name}_DIR", str(cluster / "recordings" / name.lower()))
    tried = Tried(cluster, database)
    for style in ("text", "json", "gitlab-codequality", "junit", "sarif"):
        tried("validate", "--format", style, *INVENTORY)
    tried("inventory", "show", "bbb7", "--format", "json", "--explain", *INVENTORY)
    tried("vault", "view", *OPENED, "inv/inv.yml", status=64)
    tried("servers", "--format", "json")
    for listing in LISTINGS:
        for style in ("table", "json", "yaml"):
            tried(*listing.split(), "--format", style, status=1 if listing == "doctor" else 0)
    for command in ("history", "drift"):
        tried(command)
    tried("blame", "server/bbb1", "--format", "json")
    inventory = cluster / "inv" / "inv.yml"
    inventory.write_text(inventory.read_text().replace(f"{CANARY}-", f"{CANARY}-new-"))
    outs = [f"--out={kind}={kind}.out.json" for kind in REPORTS]
    tried("plan", "--full", "--show-unchanged", "--show-unmanaged", "--refresh", *outs, *INVENTORY)
    tried("apply", "-y", *INVENTORY)
    tried("poll", "--once")
    tried("rollback", "1", "-y", *INVENTORY)
    (cluster / "sync.yml").write_text(SYNC)
    (cluster / "broken.yml").write_text(BROKEN_SYNC)
    for command in ("sync", "add-all"):
        tried("servers", command, "broken.yml", status=3)
    tried("servers", "sync", "--dry-run", "sync.yml", status=5)
    for words in (
        ["servers", "add", "https://bbb9/bigbluebutton/api", "env:CANARY"],
        ["servers", "add", "https://bbb9/bigbluebutton/api", f"{CANARY}-typed"],
        ["tenants", "add", "new", "@inv/secret.txt"],
        ["tenants", "update", "new", "--secrets", "env:CANARY"],
    ):
        tried(*words, status=1 if words[-1].endswith("typed") else 0)
    tried("tenants", "update-lrs-basic", "new", "https://lrs/", "u", "env:CANARY")
    tried("tokens", "add", "ci", "--scope", "read")
    tried("db", "status")
    tried("export", "--secrets", "env", "--env-file", "secrets.env", "-o", "exported/")
    (cluster / "play.yml").write_text(PLAYBOOK)
    for style in ("text", "json", "junit"):
        tried("playbook", "run", "play.yml", "-v", "--diff", "--format", style, "-i", "inv", *OPENED, status=8)
    tried("playbook", "runs")
    tried("migrate-from", f"redis://:{CANARY}@127.0.0.1:1", f"postgresql://u:{CANARY}@127.0.0.1:1/x", "--yes", status=1)
    tried("recordings", "import", "inv/secret.txt", status=9)
    tried("rake", "status")
    with pytest.raises(AssertionError, match=CANARY):
        tried("servers", "yaml")  # says them, as the guide has it
    assert tried.commands | ELSEWHERE | CATALOGUES == COMMANDS.keys()
    assert PASSWORD not in "".join(path.read_text() for path in cluster.glob("*.out.json"))
