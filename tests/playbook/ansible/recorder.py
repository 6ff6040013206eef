"""A callback plugin for ansible-playbook: writes tasks, results and the recap as JSON lines to $RECORDED."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: recorder
type: stdout
short_description: records what happens
description: Records what happens.
"""


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Records what happens."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "recorder"

    def _tell(self, *event: Any) -> None:
        with Path(os.environ["RECORDED"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")

    def v2_playbook_on_start(self, playbook: Any) -> None:
        self._tell("playbook", Path(playbook._file_name).name)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._tell("task", task.get_name())

    def v2_playbook_on_handler_task_start(self, task: Any) -> None:
        self._tell("task", task.get_name())

    def v2_runner_on_ok(self, result: Any) -> None:
        self._tell("result", result._host.get_name(), "changed" if result.is_changed() else "ok")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._tell("result", result._host.get_name(), "ignored" if ignore_errors else "failed")

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._tell("result", result._host.get_name(), "skipped")

    def v2_playbook_on_stats(self, stats: Any) -> None:
        for host in stats.processed:
            self._tell("recap", host, stats.summarize(host))
