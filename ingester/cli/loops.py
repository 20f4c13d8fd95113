"""The event loop a verb runs on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ingester.cli.bugs import on_loop_exception
from ingester.errors import UsageError

T = TypeVar("T")

GC_THRESHOLDS = 10_000, 20, 20
"""Nearly nothing of a run is garbage that only a collection finds, and what waits in it is looked
through again and again: 7 % of its CPU with Python's own (`archive`, 2026-11)."""


def run_loop(main: Coroutine[Any, Any, T], event_loop: str) -> T:
    """Run ``main`` to its end on uvloop or asyncio. Raises UsageError where uvloop is not."""
    try:
        factory = _factory(event_loop)
    except BaseException:
        main.close()
        raise
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(on_loop_exception)
        return runner.run(main)


def _factory(event_loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if event_loop == "asyncio":
        return None
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        if event_loop == "uvloop":
            raise UsageError("uvloop is not installed", "pip install uvloop") from None
        return None
    return uvloop.new_event_loop
