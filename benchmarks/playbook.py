"""A play of 10 tasks over 1,000 servers with modules that only touch the database, and --syntax-check: seconds each.

python -m benchmarks.playbook [SERVERS]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scalelite.store.embedded import embedded

PLAY = """
- name: Ten tasks
  servers: all
  tasks:
    - server: {state: cordoned}
    - server: {tag: gpu, load_multiplier: 2.0}
    - set_fact: {before: "{{ server.meetings }}"}
    - assert: {that: [server.state == 'cordoned', before == 0]}
    - server: {state: disabled}
    - server: {tag: ""}
    - server: {load_multiplier: 1.0}
      register: changed
    - debug: {msg: "{{ server.id }}"}
      when: changed is changed
    - server: {state: cordoned}
    - server: {state: enabled}
"""


def main(count: int) -> None:
    """Print how long each takes."""
    program = Path(sys.executable).with_name("scalelite")
    with tempfile.TemporaryDirectory() as folder, embedded(Path(folder) / "home") as conninfo:
        play, inventory = Path(folder) / "play.yml", Path(folder) / "inventory.yml"
        play.write_text(PLAY)
        servers = "".join(f"  bbb{number}.example.com: {{secret: s{number}}}\n" for number in range(count))
        inventory.write_text(f"servers:\n{servers}")
        environment = {**os.environ, "DATABASE_URL": conninfo}

        def timed(*arguments: str) -> float:
            started = time.monotonic()
            subprocess.run([program, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - started

        timed("apply", str(inventory), "--auto-approve")
        syntax_s = min(timed("playbook", "run", str(play), "--syntax-check") for _ in range(3))
        print(f"--syntax-check         {syntax_s:.2f} s")
        print(f"10 tasks x {count:,} servers {timed('playbook', 'run', str(play)):.1f} s")
        print(f"the same with --check  {timed('playbook', 'run', str(play), '--check'):.1f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000)
