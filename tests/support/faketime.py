"""A clock that is wrong, for a whole process (Debian: faketime)."""

import os
import subprocess
from pathlib import Path

import pytest


def environment_of_a_clock(offset: str) -> dict[str, str]:
    """Variables for a process whose clock is off by `-20m`, `+20m`, …; its intervals are right.

    Skips where faketime is not installed, and fails where the tools of the tests have to be.
    """
    library = _library()
    if library is None:
        reason = "faketime is not installed"
        if os.environ.get("INGESTER_REQUIRE_ORTHANC") == "1":
            pytest.fail(f"{reason}, but INGESTER_REQUIRE_ORTHANC=1")
        pytest.skip(reason)
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": offset,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def _library() -> Path | None:
    try:
        listed = subprocess.run(
            ["dpkg", "-L", "libfaketime"], capture_output=True, check=False, text=True
        ).stdout
    except OSError:
        return None
    found = [Path(line) for line in listed.splitlines() if line.endswith("/libfaketimeMT.so.1")]
    return found[0] if found else None
