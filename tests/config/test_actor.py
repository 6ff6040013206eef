"""Who revisions are written for, where nobody says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from scalelite.settings import read_settings

GITHUB = {
    "GITHUB_RUN_ID": "7", "GITHUB_ACTOR": "eva", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r",
}  # fmt: skip
GITLAB = {"CI_JOB_URL": "https://gitlab.example.com/o/r/-/jobs/9", "GITLAB_USER_LOGIN": "max"}


@pytest.mark.shows("plan: actor: SCALELITE_ACTOR, CI user and job url, else user@host")
@pytest.mark.parametrize(
    ("environment", "actor"),
    [
        (GITHUB, "eva https://github.com/o/r/actions/runs/7"),
        (GITLAB, "max https://gitlab.example.com/o/r/-/jobs/9"),
        ({**GITLAB, "SCALELITE_ACTOR": "ops"}, "ops"),
        ({**GITHUB, "SCALELITE_ACTOR": ""}, "eva https://github.com/o/r/actions/runs/7"),
    ],
)
def test_a_ci_job_acts_for_its_user(environment: dict[str, str], actor: str) -> None:
    assert read_settings(environment).actor == actor


@pytest.mark.shows("plan: actor: SCALELITE_ACTOR, CI user and job url, else user@host")
@pytest.mark.skipif(os.getuid() != 0, reason="only root may become anybody")
def test_a_user_without_a_name_acts_by_number() -> None:
    program = (
        "import os; os.setuid(54321); from scalelite.settings import read_settings; print(read_settings({}).actor)"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import scalelite.settings; {program}"],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"uid54321@{socket.gethostname()}\n"
