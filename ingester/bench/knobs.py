"""What makes the sink a slower server than it is: latency, a limit of requests, a narrow line.

Takes: the figures of the command line.
Gives: `Knobs`, shared by all connections.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_PAUSE_MIN_S: Final = 0.002  # libuv's timers count milliseconds: shorter debts are carried on


class Line:
    """A line of so many bytes a second, shared by all connections.

    Args:
        bytes_per_s: its rate, above 0.
        clock: monotonic seconds.
    """

    def __init__(self, bytes_per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._free_at = clock()

    def pause_s(self, taken_bytes: int) -> float:
        """How long the connection that brought `taken_bytes` must not be read; often 0."""
        now = self._clock()
        self._free_at = max(now, self._free_at) + taken_bytes / self._bytes_per_s
        pause_s = self._free_at - now
        return pause_s if pause_s >= _PAUSE_MIN_S else 0.0


@dataclass(frozen=True, slots=True)
class Knobs:
    """How the sink is slowed down."""

    latency_s: float = 0.0  # before each manifest
    retry_after_s: Callable[[], int | None] | None = (
        None  # takes a token: None, or how long to wait
    )
    line: Line | None = None


def limit_of(rate: float) -> Callable[[], int | None]:
    """A limit of `rate` requests a second, `rate` of them at once.

    Raises:
        ValueError: the rate is not above 0.
    """
    # a second of imports: only for those who ask for it
    from ingester.emulator.answers import Refusal  # noqa: PLC0415
    from ingester.emulator.throttle import Throttle  # noqa: PLC0415

    throttle = Throttle(rate)

    def retry_after_s() -> int | None:
        try:
            throttle.take()
        except Refusal as refusal:
            return int((refusal.headers or {})["Retry-After"])
        return None

    return retry_after_s


def line_of(mb_per_s: float) -> Line:
    """A line of so many MB (10^6 bytes) a second.

    Raises:
        ValueError: the rate is not above 0.
    """
    if not (mb_per_s > 0 and math.isfinite(mb_per_s)):
        raise ValueError("a bandwidth is above 0")
    return Line(mb_per_s * 1e6)
