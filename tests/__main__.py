"""The test command, `python -m tests`: all that CI means by it, in the order of what fails fastest.

Lint and format (ruff), types (mypy --strict), tests, two at a time since they wait most of the time. Arguments go to
pytest. Standard library only.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
STEPS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy"],
}
# What pytest ends with where nothing was to be run, as with arguments that name tests of the other kind.
NO_TESTS = 5


def run(module: str, *arguments: str) -> int:
    print(f"== {module} {' '.join(arguments)}", flush=True)  # noqa: T201
    return subprocess.run([sys.executable, "-m", module, *arguments], cwd=ROOT, check=False).returncode


def run_tests(arguments: list[str]) -> int:
    """Run the tests; in the full level those that take minutes and need little (`beside`) beside all others."""
    if os.environ.get("SCALELITE_TESTS") != "full":
        return run("pytest", "-n", "2", *arguments)
    with tempfile.TemporaryFile() as told:
        command = [sys.executable, "-m", "pytest", "-m", "beside", *arguments]
        with subprocess.Popen(command, cwd=ROOT, stdout=told, stderr=told, stdin=subprocess.DEVNULL) as beside:
            status = run("pytest", "-n", "2", "-m", "not beside", *arguments)
            print("== what ran beside", flush=True)  # noqa: T201
            beside.wait()
        told.seek(0)
        print(told.read().decode(), flush=True)  # noqa: T201
    codes = {status, beside.returncode}
    return 0 if codes <= {0, NO_TESTS} and codes != {NO_TESTS} else 1


def main() -> int:
    failed = [name for name, (module, *arguments) in STEPS.items() if run(module, *arguments)]
    if run_tests(sys.argv[1:]):
        failed.append("tests")
    if failed:
        print(f"== failed: {', '.join(failed)}")  # noqa: T201
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
