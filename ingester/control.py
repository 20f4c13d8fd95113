"""How a run is stopped: intake first, then, if asked again or too late, what is under way."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from ingester.errors import FatalError, StoppedEarly
from ingester.logs import WARNING, log

Cause = FatalError | signal.Signals


class StopControl:
    """Asked by signals, by a fatal finding or by the journal; looked at by every stage.

    ``requested`` means: start nothing new, finish what is on the wire, leave the rest pending.
    ``abandoned`` means: what is on the wire is given up and becomes in doubt.
    A fatal cause wins over a signal, the first of a kind over later ones.
    """

    def __init__(self) -> None:
        self.cause: Cause | None = None
        self.starting = False  # in a wait that ends when the run is asked to
        self._requested = asyncio.Event()
        self._abandoned = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def requested(self) -> bool:
        """Whether the run is to end."""
        return self._requested.is_set()

    @property
    def abandoned(self) -> bool:
        """Whether even what is on the wire is given up."""
        return self._abandoned.is_set()

    def request(self, cause: Cause) -> None:
        """Stop intake and let what is on the wire finish."""
        log(WARNING, "stop", cause=_name(cause))
        if self.cause is None or (
            isinstance(cause, FatalError) and not isinstance(self.cause, FatalError)
        ):
            self.cause = cause
        if not self._requested.is_set():
            self._requested.set()
            for listener in self._listeners:
                listener()

    def when_requested(self, call: Callable[[], None]) -> None:
        """Have ``call()`` called once, in the tick in which the run is asked to end."""
        self._listeners.append(call)

    def abandon(self, cause: Cause) -> None:
        """Give up what is on the wire as well."""
        log(WARNING, "abandon", cause=_name(cause))
        self.request(cause)
        self._abandoned.set()

    @asynccontextmanager
    async def ends_the_start(self) -> AsyncIterator[None]:
        """Around a wait before the run has begun: nothing is under way that could finish.

        Raises StoppedEarly when a signal asks the run to end, or whatever else did.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(0 if self.requested else None) as wait:
                self.starting = inside = True
                self.when_requested(lambda: wait.reschedule(loop.time()) if inside else None)
                try:
                    yield
                finally:
                    self.starting = inside = False
        except TimeoutError:
            if not wait.expired() or self.cause is None:
                raise
            if isinstance(self.cause, FatalError):
                raise self.cause from None
            raise StoppedEarly(self.cause.value) from None

    async def wait_requested(self) -> None:
        """Return when the run is to end."""
        await self._requested.wait()

    async def wait_abandoned(self, timeout_s: float) -> None:
        """Return when what is on the wire is to be given up, at the latest after ``timeout_s``."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._abandoned.wait()
        except TimeoutError:
            self._abandoned.set()

    async def sleep(self, seconds: float) -> None:
        """Sleep, but no longer than the run goes on."""
        if seconds <= 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._requested.wait()
        except TimeoutError:
            return


def _name(cause: Cause) -> str:
    return cause.name if isinstance(cause, signal.Signals) else cause.without_value
