"""What a source of credentials is: something that blocks, and gives a value or says why not."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Protocol, TypeVar

V_co = TypeVar("V_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Fetched(Generic[V_co]):
    """What the source gave, and when it says that ends. ``expires`` None: it does not say."""

    value: V_co = field(repr=False)
    expires: datetime | None
    origin: str  # for a sentence: "the bearer token of INGESTER_TOKEN"


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """Why there is nothing, in our words. ``usage``: what was asked for does not exist."""

    text: str
    hint: str = ""
    usage: bool = False


class Fetch(Protocol[V_co]):
    """A source that blocks, called in a thread; what comes back is a value, never an exception."""

    def __call__(self, *, anew: bool) -> Fetched[V_co] | FetchFailed:
        """Fetch; ``anew``: from the beginning, whatever is kept from the last time."""
        ...

    def close(self) -> None:
        """End what a call still waits for, if that can be done."""
        ...
