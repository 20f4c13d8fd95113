"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.process import Process


def wait_until(condition: Callable[[], object], process: Process | None = None) -> None:
    """Returns when it holds; fails after a minute, or when the process ended before."""
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.running, process.stderr_so_far()
        assert time.monotonic() < deadline
        time.sleep(0.005)
