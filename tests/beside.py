"""What runs beside the tests, since it must take long and needs little: the soak; started first, waited for last.

A test that waits for it has the mark `beside`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

# 10 minutes, as the issue has it; what CI sets.
SECONDS: Final = float(os.environ.get("SCALELITE_SOAK", "600" if os.environ.get("SCALELITE_TESTS") == "full" else "0"))
# About 3 % of a core with the servers and Postgres that belong to it.
_CALLS_PER_S: Final = "16"
# To start, and to stop.
_MORE_S: Final = 120.0
_ROOT: Final = Path(__file__).parents[1]


class Soak:
    """A process of its own; it ends with these tests, however they end."""

    def __enter__(self) -> Self:
        self._told: IO[bytes] = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "benchmarks.soak", str(SECONDS), _CALLS_PER_S]
        # Ctrl-C is for the tests, which end it then.
        self._process = subprocess.Popen(
            command, cwd=_ROOT, stdout=self._told, stderr=self._told, stdin=subprocess.DEVNULL, start_new_session=True
        )
        os.setpriority(os.PRIO_PROCESS, self._process.pid, 5)
        return self

    def join(self) -> tuple[int, str]:
        """Wait for its end; returns its exit status, and what it said."""
        status = self._process.wait(SECONDS + _MORE_S)
        self._told.seek(0)
        return status, self._told.read().decode()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
        self._told.close()
