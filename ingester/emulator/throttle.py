"""A limit of requests a second, as a bucket of tokens."""

import math
import time
from collections.abc import Callable

from ingester.emulator.answers import Refusal

_STATUSES = (429, 503)


class Throttle:
    """Lets ``rate`` requests a second pass, ``burst`` of them at once.

    Refusals are 429 and 503 by turns: both mean the same, and a client must know both.

    Args:
        rate: Tokens a second, above 0.
        burst: What the bucket holds; by default what a second brings, at least one.
        clock: Monotonic seconds.

    Raises:
        ValueError: The rate is not above 0.
    """

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (rate > 0 and math.isfinite(rate)):
            raise ValueError("a limit of requests a second is above 0")
        self._rate = rate
        self._burst = max(1.0, rate if burst is None else burst)
        self._clock = clock
        self._tokens = self._burst
        self._filled_at = clock()
        self._refused = 0

    def take(self) -> None:
        """Take a token.

        Raises:
            Refusal: 429 or 503 with Retry-After, there is none.
        """
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return
        status = _STATUSES[self._refused % len(_STATUSES)]
        self._refused += 1
        wait_s = math.ceil((1 - self._tokens) / self._rate)
        raise Refusal(
            status, "Rate exceeded", "ThrottlingException", {"Retry-After": str(max(1, wait_s))}
        )
