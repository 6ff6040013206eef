"""Draws docs/demo.svg from a real run of the demo: `python docs/picture.py`."""

from __future__ import annotations

import io
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "demo.svg"
DEMO = "inventories/demo"
WIDTH = 118
# The steps that tell the story, and how many lines of each.
STEPS = {
    "scalelite plan": 13,
    "scalelite poll": 1,
    "create?": 4,
    "join?": 1,
    "scalelite status": 4,
    "curl": 1,
    "recordings import": 2,
    "/video/": 1,
}


def main() -> None:
    command = [sys.executable, "-m", "scalelite", "demo", "--once"]
    # In a folder of its own, since a cluster that there was before has nothing to create; its Postgres lingers there.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        shutil.copytree(PICTURE.parents[1] / DEMO, Path(folder, DEMO))
        out = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    seen: set[str] = set()
    for step in out.split("\n▸ ")[1:]:
        title, *lines = step.rstrip().splitlines()
        found = next((name for name in STEPS if name in title), None)
        repeated = found in seen and "No changes" not in step
        if found is None or repeated:
            continue
        seen.add(found)
        console.print(Text(f"$ {title}"[:WIDTH], style="bold cyan"), no_wrap=True, overflow="crop")
        for line in itertools.takewhile(bool, lines[: STEPS[found]]):
            console.print(Text(line[:WIDTH], style=_style(line)), no_wrap=True, overflow="crop")
        console.print()
    PICTURE.write_text(console.export_svg(title="scalelite demo"), encoding="utf-8")


def _style(line: str) -> str:
    if re.match(r"\s+\+ ", line):
        return "green"
    return "bold" if "No changes" in line or "Plan:" in line else ""


if __name__ == "__main__":
    main()
