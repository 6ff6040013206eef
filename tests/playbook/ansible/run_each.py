"""Runs playbooks one after the other as ansible-playbook does, which ends with the first that fails: by its own parts.

Usage: python run_each.py -i INVENTORY PLAYBOOK…
"""

from __future__ import annotations

import sys

from ansible.cli.playbook import PlaybookCLI
from ansible.executor.playbook_executor import PlaybookExecutor
from ansible.plugins.loader import init_plugin_loader

program = PlaybookCLI(["ansible-playbook", *sys.argv[1:]])
program.parse()
init_plugin_loader()
loader, inventory, variables = program._play_prereqs()
for playbook in sys.argv[3:]:
    PlaybookExecutor([playbook], inventory, variables, loader, {}).run()
