"""What a log file has."""

import json
import time
from pathlib import Path


def lines_of(path: Path) -> list[dict[str, object]]:
    """Its lines so far; every whole one is an object."""
    if not path.exists():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def until_logged(path: Path, event: str, within_s: float = 60) -> None:
    """Waits until it has a line of this event."""
    deadline = time.monotonic() + within_s
    while not any(line["event"] == event for line in lines_of(path)):
        assert time.monotonic() < deadline, f"no such event: {event}"
        time.sleep(0.01)
