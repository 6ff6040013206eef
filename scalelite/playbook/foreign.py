"""Keywords of Ansible's that mean nothing here, and what to write instead."""

from __future__ import annotations

from typing import Final

FOREIGN: Final = {
    **dict.fromkeys(("hosts",), "Write servers: or tenants: instead."),
    **dict.fromkeys(
        ("gather_facts", "gather_subset", "gather_timeout", "fact_path"), "What is known of a server is in server.*."
    ),
    **dict.fromkeys(
        ("become", "become_user", "become_method", "become_flags", "become_exe", "remote_user", "connection", "port"),
        "Tasks run here, and not on the servers: write ssh into a command.",
    ),
    **dict.fromkeys(("delegate_to", "delegate_facts", "local_action"), "All tasks run on this machine. Remove it."),
    **dict.fromkeys(("roles", "import_role", "include_role"), "There are no roles: write include_tasks."),
    **dict.fromkeys(("import_tasks", "import_playbook", "include"), "Write include_tasks, or name several playbooks."),
    **dict.fromkeys(("async",), "Give the module a timeout instead."),
    **dict.fromkeys(("strategy",), "Plays go on task by task; write serial for batches."),
    **dict.fromkeys(("environment",), "Give command its env."),
    **dict.fromkeys(("vars_prompt",), "Give --extra-vars."),
    **dict.fromkeys(("force_handlers",), "Write the task under always."),
    **dict.fromkeys(("ignore_unreachable",), "Write ignore_errors."),
    **dict.fromkeys(("collections", "module_defaults", "debugger", "diff", "timeout", "args", "action"), "Remove it."),
    **dict.fromkeys(("meta",), "Handlers run at the end of each section. Remove it."),
    **dict.fromkeys(("shell", "raw", "script"), "Write command: {argv: [bash, -c, …]}."),
}
