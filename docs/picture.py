"""Draws docs/demo.svg from a real run of the demo: `python docs/picture.py`, in the root of a clone."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent / "demo.svg"
WIDTH = 118
# The steps that tell the story, and how many lines of each.
STEPS = {"scalelite plan": 9, "scalelite poll": 1, "create?": 4, "join?": 1, "scalelite status": 5}


def main() -> None:
    command = [sys.executable, "-m", "scalelite", "demo", "--once"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    seen: set[str] = set()
    for step in out.split("\n▸ ")[1:]:
        title, *lines = step.rstrip().splitlines()
        found = next((name for name in STEPS if name in title), None)
        repeated = found in seen and "No changes" not in step
        if found is None or repeated:
            continue
        seen.add(found)
        console.print(Text(f"$ {title}", style="bold cyan"))
        for line in lines[: STEPS[found]]:
            console.print(Text(line[:WIDTH], style=_style(line)), no_wrap=True, overflow="crop")
        console.print()
    PICTURE.write_text(console.export_svg(title="scalelite demo"), encoding="utf-8")


def _style(line: str) -> str:
    if re.match(r"\s+\+ ", line):
        return "green"
    return "bold" if "No changes" in line or "Plan:" in line else ""


if __name__ == "__main__":
    main()
