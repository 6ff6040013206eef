"""The test command, `python -m tests`: all that CI means by it, in the order of what fails fastest.

Lint and format (ruff), types (mypy --strict), tests. Arguments go to pytest. Standard library only.
"""

import subprocess
import sys
from pathlib import Path

STEPS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
    "tests": ["pytest"],
}


def main() -> int:
    root = Path(__file__).parent.parent
    failed = []
    for name, command in STEPS.items():
        extra = sys.argv[1:] if name == "tests" else []
        print(f"== {name}: {' '.join(command + extra)}", flush=True)  # noqa: T201
        if subprocess.run([sys.executable, "-m", *command, *extra], cwd=root, check=False).returncode:
            failed.append(name)
    if failed:
        print(f"== failed: {', '.join(failed)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
