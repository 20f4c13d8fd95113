"""What is done about an attempt: one of these values."""

from __future__ import annotations

from typing import NamedTuple

from ingester.dicomweb.outcome import Outcome

SAME_COMMAND = "the same command goes on when the server is back"


class Retry(NamedTuple):
    """Send it again, nothing was stored. ``hold_all_s``: nobody else may send before either."""

    wait_s: float
    hold_all_s: float = 0.0


class Resend(NamedTuple):
    """Send it again, it may have been stored."""

    wait_s: float


class Split(NamedTuple):
    """Send the halves. ``shrink``: and make no batch as large as this again.

    ``refused``: the server would not have the whole, so a file that then stands alone is asked for
    once more thereby.
    """

    shrink: bool = False
    refused: bool = False


class Refused(NamedTuple):
    """The server will not have it. Split it, or end a single file, when the setting is proven."""

    outcome: Outcome
    reason_code: str


class GiveUp(NamedTuple):
    """All its files end this way."""

    outcome: Outcome
    reason_code: str


class Outage(NamedTuple):
    """The server takes nothing from anybody: wait for it, one probe at a time."""

    message: str


class Stop(NamedTuple):
    """The run cannot go on with this target.

    ``unless_known_good``: if it takes a stored file again, it refuses this request only.
    """

    message: str
    hint: str
    unless_known_good: bool = False


Action = Retry | Resend | Split | Refused | GiveUp | Outage | Stop
