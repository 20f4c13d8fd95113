"""Credentials of any kind that are always at hand, renewed in the background.

Takes a source that blocks (botocore's chain, a command, a file); gives snapshots that never wait.
Each fetch has a daemon thread of its own, and there is one at a time. Everything else happens on
the loop without awaiting anything that blocks: a source that hangs costs a thread, and the uploads
go on with what they have. After ``hang_timeout_s`` the thread is left behind and the source is
asked anew; so many as ``MAX_STUCK`` may be left behind at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Self, TypeVar

from ingester.auth.fetching import Fetch, Fetched, FetchFailed
from ingester.errors import FatalError, NoThreadError, UsageError
from ingester.logs import INFO, WARNING, log
from ingester.threads import start

MAX_STUCK = 4
"""Threads, each perhaps with a child process, that a dead source may cost."""

MAX_BACK_OFF_S = 60.0

V = TypeVar("V")


class NoCredentials(FatalError):  # noqa: N818 - says what is wrong
    """There is nothing to authorize with. The caller mends the source and starts again."""


WaitS = Callable[[float | None, int], float | None]
"""From the remaining life in seconds, if it is known, and the failures in a row to the time until
the source is asked again by itself. None: never."""


def back_off_s(failures: int) -> float:
    """1, 2, 4, … 60 s."""
    return float(min(MAX_BACK_OFF_S, 2 ** min(failures - 1, 16)))


@dataclass(frozen=True, slots=True)
class _Flight:
    """One fetch under way."""

    number: int
    anew: bool
    landed: asyncio.Future[None]


class Refreshing(Generic[V]):
    """Snapshots of what a source gives. Use as an async context manager; one loop only.

    ``what`` names it for people. ``refusal_interval_s``: what was refused and came back the same
    is not asked for again before that, however many requests it fails.
    """

    def __init__(
        self,
        fetch: Fetch[V],
        *,
        what: str,
        wait_s: WaitS,
        start_timeout_s: float = 60.0,
        hang_timeout_s: float = 60.0,
        refusal_interval_s: float = 30.0,
    ) -> None:
        self._fetch = fetch
        self._what = what
        self._wait_s = wait_s
        self._start_timeout_s = start_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._refusal_interval_s = refusal_interval_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: Fetched[V] | None = None
        self._anew = True  # nothing is kept from the last time, or it hangs
        self._flight: _Flight | None = None
        self._flights = 0
        self._landed = 0  # the number of the youngest flight that came back
        self._stuck = 0
        self._failures = 0  # in a row
        self._confirmed_at = float("-inf")  # when the source last had nothing but the current value
        self._poll: asyncio.TimerHandle | None = None
        self._hang: asyncio.TimerHandle | None = None
        self.failure: FetchFailed | None = None  # of the last fetch

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    async def start(self) -> None:
        """Wait for the first value.

        Raises:
            NoCredentials: the source has none, fails, or hangs for ``start_timeout_s``.
            UsageError: what was asked for does not exist.
        """
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._join(self._take_off(anew=True))
        except TimeoutError:
            self.stop()
            raise NoCredentials(
                f"the source of the {self._what} gave none for {self._start_timeout_s:g} s"
            ) from None
        except BaseException:
            self.stop()
            raise
        if self._current is None:
            self.stop()
            failure = self.failure or FetchFailed(f"no {self._what}")
            raise (UsageError if failure.usage else NoCredentials)(failure.text, failure.hint)

    def stop(self) -> None:
        """Ask no more. A thread that still waits for its source is left behind."""
        for timer in (self._poll, self._hang):
            if timer is not None:
                timer.cancel()
        self._poll = self._hang = None
        self._loop = None
        self._fetch.close()

    def snapshot(self) -> V:
        """The last value the source gave, the same object as long as it is equal. Never waits.

        Raises:
            NoCredentials: it was not started.
        """
        return self._given().value

    @property
    def origin(self) -> str:
        """Where the last value came from, for a sentence."""
        return self._given().origin

    def expired(self, now: datetime) -> bool:
        """Whether the source said that the last value ends before ``now``."""
        expires = self._given().expires
        return expires is not None and expires <= now

    def _given(self) -> Fetched[V]:
        if self._current is None:
            raise NoCredentials(f"no {self._what} yet")
        return self._current

    async def refresh_now(
        self, refused: V, timeout_s: float, *, interval_s: float | None = None
    ) -> V | None:
        """Another value than one that a server refused, or None if the source has no other.

        Any number may ask: they wait for one fetch, at most ``timeout_s``. ``interval_s`` takes the
        place of ``refusal_interval_s``.
        """
        interval_s = self._refusal_interval_s if interval_s is None else interval_s
        try:
            async with asyncio.timeout(timeout_s):
                while self._is_current(refused):
                    flight = self._flight
                    if flight is None and not self._recently_confirmed(interval_s):
                        flight = self._take_off(anew=True)
                    if flight is None:
                        return None
                    await self._join(flight)
                    if flight.anew:
                        break
        except TimeoutError:
            pass
        return None if self._is_current(refused) else self.snapshot()

    def _is_current(self, refused: V) -> bool:
        return self._current is None or self._current.value is refused

    def _recently_confirmed(self, interval_s: float) -> bool:
        return self._loop is None or self._loop.time() - self._confirmed_at < interval_s

    async def _join(self, flight: _Flight | None) -> None:
        if flight is not None:
            await asyncio.shield(flight.landed)  # one that stops waiting stops only itself

    def _take_off(self, *, anew: bool) -> _Flight | None:
        """Start a fetch, unless too many threads hang already, or the system has no more."""
        loop = self._loop
        if loop is None or self._stuck >= MAX_STUCK:
            return None
        self._flights += 1
        flight = _Flight(self._flights, anew or self._anew, loop.create_future())
        self._flight = flight
        self._hang = loop.call_later(self._hang_timeout_s, self._leave_behind, flight)
        thread = threading.Thread(
            target=self._fly, args=(loop, flight), name="credentials", daemon=True
        )
        try:
            start(thread)
        except NoThreadError as error:  # it would never land, and count as a thread that hangs
            self._end_flight(flight)
            self._fail(FetchFailed(f"there is no thread to ask for the {self._what}", error.hint))
            return None
        return flight

    def _fly(self, loop: asyncio.AbstractEventLoop, flight: _Flight) -> None:
        outcome = self._fetch(anew=flight.anew)
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._land, flight, outcome)
            except RuntimeError:  # closed in between: nobody waits any more
                return

    def _land(self, flight: _Flight, outcome: Fetched[V] | FetchFailed) -> None:
        if flight is self._flight:
            self._end_flight(flight)
        else:
            self._stuck -= 1
        if flight.number < self._landed:
            return  # a younger one was faster
        self._landed = flight.number
        before = self._current
        if isinstance(outcome, FetchFailed):
            self._fail(outcome)
        else:
            self._take_over(outcome)
        same = before is not None and self._is_current(before.value)
        if flight.anew and same and self._loop is not None:
            self._confirmed_at = self._loop.time()
        self._schedule()

    def _take_over(self, fetched: Fetched[V]) -> None:
        self.failure = None
        self._failures = 0
        self._anew = False
        current = self._current
        if current is not None and current.value == fetched.value:
            fetched = Fetched(current.value, fetched.expires, fetched.origin)
        else:
            self._confirmed_at = float("-inf")
            log(INFO, "credentials", of=self._what)
        self._current = fetched

    def _fail(self, failure: FetchFailed) -> None:
        self.failure = failure
        self._failures += 1
        log(WARNING, "credentials_failed", of=self._what, in_a_row=self._failures)

    def _leave_behind(self, flight: _Flight) -> None:
        """The source hangs: those who wait go on, and the next fetch uses none of its locks."""
        self._stuck += 1
        self._anew = True
        self._end_flight(flight)
        self._fail(FetchFailed(f"the source of the {self._what} does not answer"))
        self._schedule()

    def _end_flight(self, flight: _Flight) -> None:
        self._flight = None
        if self._hang is not None:
            self._hang.cancel()
        if not flight.landed.done():
            flight.landed.set_result(None)

    def _schedule(self) -> None:
        if self._poll is not None:
            self._poll.cancel()
        self._poll = None
        if self._loop is None or self._current is None:
            return
        expires = self._current.expires
        remaining_s = None if expires is None else (expires - datetime.now(UTC)).total_seconds()
        wait_s = self._wait_s(remaining_s, self._failures)
        if wait_s is not None:
            self._poll = self._loop.call_later(wait_s, self._poll_source)

    def _poll_source(self) -> None:
        if self._flight is None and self._take_off(anew=False) is None:
            self._schedule()
