"""AWS credentials that are always at hand: botocore's chain behind ``refreshing``.

botocore refreshes by itself only when it is asked, within 15 minutes of the end and while the
caller waits. So it is asked after half of the remaining life, at least once a minute: with keys of
an hour that costs nothing for three quarters of it, and keys of 3 s are renewed after 1.5 s. Keys
without an end are asked for again only when the server refused them.

Why not botocore's own lock: whoever comes within the last 10 minutes waits for the source.
"""

from __future__ import annotations

from ingester.auth.chain import Chain, Resolve, botocore_chain
from ingester.auth.refreshing import Refreshing, back_off_s
from ingester.auth.sigv4 import Credentials

MIN_WAIT_S = 0.2
MAX_WAIT_S = 60.0


def wait_s(remaining_s: float | None, failures: int) -> float | None:
    """How long to wait before asking again: half of the remaining life, or 1, 2, 4, … s."""
    if remaining_s is None:
        return None
    if failures:
        return back_off_s(failures)
    return max(MIN_WAIT_S, min(MAX_WAIT_S, remaining_s / 2))


class CredentialSource(Refreshing[Credentials]):
    """Snapshots of AWS credentials, of a profile or of whatever ``resolve`` gives."""

    def __init__(
        self,
        profile: str | None = None,
        *,
        resolve: Resolve | None = None,
        start_timeout_s: float = 60.0,
        hang_timeout_s: float = 60.0,
        refusal_interval_s: float = 30.0,
    ) -> None:
        super().__init__(
            Chain(botocore_chain(profile) if resolve is None else resolve),
            what="AWS credentials",
            wait_s=wait_s,
            start_timeout_s=start_timeout_s,
            hang_timeout_s=hang_timeout_s,
            refusal_interval_s=refusal_interval_s,
        )
