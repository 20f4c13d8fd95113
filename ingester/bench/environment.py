"""What a measurement depends on besides its subject: variables, machine, versions.

Gives: the environment of a measured process, and what a record says of where it was made; no host
name.
"""

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
from typing import Any, Final

_LIBRARIES: Final = ("aiohttp", "uvloop", "apsw", "pydicom", "botocore", "msgspec")


def environment() -> dict[str, str]:
    """The environment of a measured process: without settings that would change the subject."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("INGESTER_", "AWS_")) and not name.lower().endswith("_proxy")
    }


def machine() -> dict[str, Any]:
    """The time, the processor, and the versions of system, Python and libraries."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as info:
        names = [line.partition(":")[2].strip() for line in info if line.startswith("model name")]
        model = names[0] if names else model
    versions = {}
    for library in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "libraries": versions,
    }


def cpu_times() -> tuple[int, int] | None:
    """Ticks that all cores together were idle, and all ticks, since the start; None: not known."""
    try:
        with open("/proc/stat", encoding="ascii") as stat:
            ticks = [int(word) for word in stat.readline().split()[1:9]]  # guests are in user
    except (OSError, ValueError):
        return None
    return ticks[3] + ticks[4], sum(ticks)


def busy_share(before: tuple[int, int] | None, after: tuple[int, int] | None) -> float | None:
    """The share of all cores that anybody used between two times; None: not known."""
    if before is None or after is None or after[1] <= before[1]:
        return None
    return 1 - (after[0] - before[0]) / (after[1] - before[1])
