"""Where a measurement was made, with the commit; no host name."""

import os
import subprocess
from typing import Any, Final

from ingester.bench import environment

ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Where and of what a record is: commit, processor, Python and libraries."""
    generated = (":!benchmarks/results", ":!benchmarks/README.md")  # by the measurement itself
    changed = _git("status", "--porcelain", "--", ".", *generated)
    return {
        "commit": _git("rev-parse", "--verify", "HEAD"),
        "dirty": changed is None or bool(changed),
        **environment.machine(),
    }
