"""AWS credentials that are always at hand, renewed in the background.

Takes a source that blocks (botocore's chain); gives frozen snapshots that never wait. Each fetch
has a daemon thread of its own, and there is one at a time. Everything else happens on the loop
without awaiting anything that blocks: a source that hangs costs a thread, and the uploads go on
with the keys they have. After ``hang_timeout_s`` the thread is left behind and the chain is gone
through anew; so many as ``MAX_STUCK`` may be left behind at a time.

botocore refreshes by itself only when it is asked, within 15 minutes of the end and while the
caller waits. So it is asked after half of the remaining life, at least once a minute: with keys of
an hour that costs nothing for three quarters of it, and keys of 3 s are renewed after 1.5 s. Keys
without an end are asked for again only when the server refused them.

Why not botocore's own lock: whoever comes within the last 10 minutes waits for the source.
"""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from ingester.auth.chain import Fetched, FetchFailed, Keys, Provider, Resolve, botocore_chain, fetch
from ingester.auth.sigv4 import Credentials
from ingester.errors import FatalError, UsageError

MAX_STUCK = 4
"""Threads, each perhaps with a child process, that a dead source may cost."""

MIN_WAIT_S = 0.2
MAX_WAIT_S = 60.0


class NoCredentials(FatalError):  # noqa: N818 - says what is wrong
    """There are no keys to sign with. The caller mends their source and starts again."""


def wait_s(remaining_s: float, failures: int) -> float:
    """How long to wait before asking again: half of the remaining life, or 1, 2, 4, … s."""
    if failures:
        return float(min(MAX_WAIT_S, 2 ** min(failures - 1, 16)))
    return max(MIN_WAIT_S, min(MAX_WAIT_S, remaining_s / 2))


@dataclass(frozen=True, slots=True)
class _Flight:
    """One fetch under way. ``anew``: through the whole chain, whatever botocore has cached."""

    number: int
    anew: bool
    landed: asyncio.Future[None]


class CredentialSource:
    """Snapshots of AWS credentials. Use as an async context manager; one loop only.

    ``refusal_interval_s``: keys that were refused and came back the same are not asked for again
    before that, however many requests they fail.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        resolve: Resolve | None = None,
        start_timeout_s: float = 60.0,
        hang_timeout_s: float = 60.0,
        refusal_interval_s: float = 30.0,
    ) -> None:
        self._resolve = botocore_chain(profile) if resolve is None else resolve
        self._start_timeout_s = start_timeout_s
        self._hang_timeout_s = hang_timeout_s
        self._refusal_interval_s = refusal_interval_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._current: Credentials | None = None
        self._expires: datetime | None = None
        self._provider: Provider | None = None
        self._flight: _Flight | None = None
        self._flights = 0
        self._landed = 0  # the number of the youngest flight that came back
        self._stuck = 0
        self._failures = 0  # in a row
        self._confirmed_at = float("-inf")  # when the chain last had nothing but the current keys
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
        """Wait for the first keys.

        Raises:
            NoCredentials: the source has none, fails, or hangs for ``start_timeout_s``.
            UsageError: the profile does not exist.
        """
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._start_timeout_s):
                await self._join(self._take_off(anew=True))
        except TimeoutError:
            self.stop()
            raise NoCredentials(
                f"the source of the AWS credentials gave none for {self._start_timeout_s:g} s"
            ) from None
        if self._current is None:
            self.stop()
            failure = self.failure or FetchFailed("no AWS credentials")
            raise (UsageError if failure.usage else NoCredentials)(failure.text, failure.hint)

    def stop(self) -> None:
        """Ask no more. A thread that still waits for its source is left behind."""
        for timer in (self._poll, self._hang):
            if timer is not None:
                timer.cancel()
        self._poll = self._hang = None
        self._loop = None

    def snapshot(self) -> Credentials:
        """The last keys the source gave. Never waits.

        Raises:
            NoCredentials: it was not started.
        """
        if self._current is None:
            raise NoCredentials("no AWS credentials yet")
        return self._current

    async def refresh_now(self, refused: Credentials, timeout_s: float) -> Credentials | None:
        """Other keys than those a server refused (401, 403), or None if the source has no others.

        Any number may ask: they wait for one fetch, at most ``timeout_s``.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._is_current(refused):
                    flight = self._flight
                    if flight is None and not self._recently_confirmed():
                        flight = self._take_off(anew=True)
                    if flight is None:
                        return None
                    await self._join(flight)
                    if flight.anew:
                        break
        except TimeoutError:
            pass
        return None if self._is_current(refused) else self._current

    def _is_current(self, refused: Credentials) -> bool:
        return self._current is None or self._current.snapshot_id == refused.snapshot_id

    def _recently_confirmed(self) -> bool:
        return (
            self._loop is None or self._loop.time() - self._confirmed_at < self._refusal_interval_s
        )

    async def _join(self, flight: _Flight | None) -> None:
        if flight is not None:
            await asyncio.shield(flight.landed)  # one that stops waiting stops only itself

    def _take_off(self, *, anew: bool) -> _Flight | None:
        """Start a fetch, unless too many threads hang already."""
        loop = self._loop
        if loop is None or self._stuck >= MAX_STUCK:
            return None
        self._flights += 1
        provider = None if anew else self._provider
        flight = _Flight(self._flights, anew or provider is None, loop.create_future())
        self._flight = flight
        self._hang = loop.call_later(self._hang_timeout_s, self._leave_behind, flight)
        threading.Thread(
            target=self._fetch, args=(loop, flight, provider), name="credentials", daemon=True
        ).start()
        return flight

    def _fetch(
        self, loop: asyncio.AbstractEventLoop, flight: _Flight, provider: Provider | None
    ) -> None:
        outcome = fetch(self._resolve, provider)
        if not loop.is_closed():
            try:
                loop.call_soon_threadsafe(self._land, flight, outcome)
            except RuntimeError:  # closed in between: nobody waits any more
                return

    def _land(self, flight: _Flight, outcome: Fetched | FetchFailed) -> None:
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
        if flight.anew and self._current is before and self._loop is not None:
            self._confirmed_at = self._loop.time()
        self._schedule()

    def _take_over(self, fetched: Fetched) -> None:
        self.failure = None
        self._failures = 0
        self._provider = fetched.provider
        self._expires = fetched.expires
        current = self._current
        if current is None or fetched.keys != Keys(
            current.access_key, current.secret_key, current.token
        ):
            number = 1 if current is None else current.snapshot_id + 1
            self._current = Credentials(*fetched.keys, snapshot_id=number)
            self._confirmed_at = float("-inf")

    def _fail(self, failure: FetchFailed) -> None:
        self.failure = failure
        self._failures += 1

    def _leave_behind(self, flight: _Flight) -> None:
        """The source hangs: those who wait go on, and the next fetch uses none of its locks."""
        self._stuck += 1
        self._provider = None
        self._end_flight(flight)
        self._fail(FetchFailed("the source of the AWS credentials does not answer"))
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
        if self._loop is not None and self._expires is not None:
            remaining_s = (self._expires - datetime.now(UTC)).total_seconds()
            self._poll = self._loop.call_later(
                wait_s(remaining_s, self._failures), self._poll_source
            )

    def _poll_source(self) -> None:
        if self._flight is None and self._take_off(anew=False) is None:
            self._schedule()
