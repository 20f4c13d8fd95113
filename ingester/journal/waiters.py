"""Coroutines that wait until a thread has come so far."""

from __future__ import annotations

import threading
from asyncio import AbstractEventLoop, Future, get_running_loop
from collections.abc import Callable
from contextlib import suppress


class Waiters:
    """Of any event loop. ``changed`` guards what they ask about."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._waiting: list[tuple[AbstractEventLoop, Future[None]]] = []

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition`` holds; it is asked again at each ``wake``, and may raise."""
        while not condition():
            loop = get_running_loop()
            with self._changed:
                if condition():
                    return
                woken = loop.create_future()
                self._waiting.append((loop, woken))
            await woken

    def wake(self) -> None:
        """Something has changed. For whoever holds the lock, in any thread."""
        waiting, self._waiting = self._waiting, []
        for loop, woken in waiting:
            with suppress(RuntimeError):  # its loop was closed: nobody waits there any more
                loop.call_soon_threadsafe(_set, woken)


def _set(woken: Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
