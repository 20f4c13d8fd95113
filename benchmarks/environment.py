"""What a measurement depends on besides its subject: variables, machine, versions.

Gives: the environment of a measured process, and what a record says of where it was made; no host
name.
"""

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import subprocess
from typing import Any, Final

ROOT: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_LIBRARIES: Final = ("aiohttp", "uvloop", "apsw", "pydicom", "botocore", "msgspec")


def environment() -> dict[str, str]:
    """The environment of a measured process: without settings that would change the subject."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INGESTER_", "AWS_")) and not name.lower().endswith("_proxy")
    }


def _git(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def machine() -> dict[str, Any]:
    """Where and of what a record is: commit, processor, Python and libraries."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    generated = (":!benchmarks/results", ":!benchmarks/README.md")  # by the measurement itself
    changed = _git("status", "--porcelain", "--", ".", *generated)
    return {
        "commit": _git("rev-parse", "--verify", "HEAD"),
        "dirty": changed is None or bool(changed),
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions,
    }
