"""The modules of playbooks, a file for what each concerns; they import nothing that does IO: a context is handed in."""

from __future__ import annotations

from typing import Final

from scalelite.playbook.modules import (
    apply,
    command,
    control,
    meetings,
    recordings,
    server,
    tenant,
    uri,
    waiting,
)

BUILTIN: Final = (
    *server.MODULES,
    *tenant.MODULES,
    *meetings.MODULES,
    *recordings.MODULES,
    *apply.MODULES,
    *waiting.MODULES,
    *control.MODULES,
    *command.MODULES,
    *uri.MODULES,
)
