"""The event loop a verb runs on."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from ingester.cli.bugs import on_loop_exception
from ingester.errors import UsageError

T = TypeVar("T")

GC_THRESHOLDS = 10_000, 20, 20
"""Nearly nothing of a run is garbage that only a collection finds, and what waits in it is looked
through again and again: 7 % of its CPU with Python's own (`archive`, 2026-11)."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt(3)
KEPT_BYTES, LARGEST_KEPT_BYTES = 128 << 20, 32 << 20
"""What TLS makes of a file is new memory each time, which glibc gives back to the system and gets
again page by page: 7 % of the time of `cr`, 6 % of `archive`, 2 % of `ct` over HTTP (medians of
eight runs by turns, 2026-11)."""


def run_loop(main: Coroutine[Any, Any, T], event_loop: str) -> T:
    """Run ``main`` to its end on uvloop or asyncio. Raises UsageError where uvloop is not."""
    try:
        factory = _factory(event_loop)
    except BaseException:
        main.close()
        raise
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    _keep_memory()
    at_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.get_loop().set_exception_handler(on_loop_exception)
            return runner.run(main)
    finally:
        if signal.getsignal(signal.SIGINT) is not at_interrupt:  # a loop leaves Python's own
            signal.signal(signal.SIGINT, at_interrupt)


def _keep_memory() -> None:
    """Have glibc keep what is freed; other C libraries have no such switch."""
    with suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


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
