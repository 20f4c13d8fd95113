"""An emulator whose credentials change every few seconds, as a process of its own.

    python -m tests.healthimaging.rotating STORE BEGIN PERIOD_S OVERLAP_S LATENCY_S

The keys number n are good from BEGIN + n periods on, for a period and the overlap. Prints the ready
line, and after its input has ended how many requests it saw and how many it refused.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from dataclasses import dataclass

from ingester.emulator import Credentials, Emulator
from ingester.emulator.answers import Refusal
from ingester.emulator.canonical import Head
from ingester.emulator.sigv4 import Claim, Verifier

_KEY = re.compile(r"Credential=KEY([0-9]+)/")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which keys are good when. Seconds since the epoch."""

    begin: float
    period_s: float
    overlap_s: float

    def current(self, now: float) -> int:
        """The youngest keys."""
        return int((now - self.begin) // self.period_s)

    def end_of(self, number: int) -> float:
        """When the keys expire."""
        return self.begin + (number + 1) * self.period_s + self.overlap_s

    def is_good(self, number: int, now: float) -> bool:
        """Whether a request may be signed with them now."""
        return self.begin + number * self.period_s <= now < self.end_of(number)


def keys(number: int) -> Credentials:
    """Those of a number."""
    return Credentials(f"KEY{number}", f"secret-canary-{number}", f"token-canary-{number}")


class RotatingVerifier(Verifier):
    """Takes the current keys, and the ones before for the overlap."""

    def __init__(self, region: str, schedule: Schedule) -> None:
        super().__init__(region, keys(0))
        self.refused = 0
        self.seen: set[int] = set()
        self._schedule = schedule

    def open(self, head: Head) -> Claim:
        """See Verifier."""
        found = _KEY.search(head.value("authorization"))
        number = int(found[1]) if found else -1
        try:
            claim = Verifier(self.region, self._good_now(number)).open(head)
        except Refusal:
            self.refused += 1
            raise
        self.seen.add(number)
        return claim

    def _good_now(self, number: int) -> Credentials:
        if not self._schedule.is_good(number, time.time()):
            raise Refusal(403, "The security token included in the request is expired", "")
        return keys(number)


async def serve(store: str, schedule: Schedule, latency_s: float) -> None:
    """Until the input ends."""
    emulator = Emulator(store=store, credentials=keys(0), tls=True, latency_s=latency_s)
    verifier = RotatingVerifier(emulator.region, schedule)
    emulator._front._verifier = verifier
    async with emulator:
        print(json.dumps(emulator.ready_line() | {"base_url": emulator.base_url}), flush=True)  # noqa: T201
        await asyncio.to_thread(sys.stdin.read)
    report = {
        "requests": emulator.requests,
        "refused": verifier.refused,
        "keys": sorted(verifier.seen),
    }
    print(json.dumps(report), flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(
        serve(sys.argv[1], Schedule(*(float(each) for each in sys.argv[2:5])), float(sys.argv[5]))
    )
