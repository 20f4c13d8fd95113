"""Whether the server is away for everybody, and the wait for it, in place of one batch's decision.

An attempt says of its reply whether it looks like an outage. While there is one, batches are the
probes, one at a time; one that the server is lost over, though it was well right before, is to
blame itself. Event loop only; what is known of one batch is kept in its Parcel.
"""

from __future__ import annotations

from ingester.dicomweb.qido import instance_query
from ingester.known_good import KnownGood
from ingester.parcel import Parcel
from ingester.transport.actions import (
    SAME_COMMAND,
    Action,
    GiveUp,
    Outage,
    Resend,
    Retry,
    Split,
    Stop,
)
from ingester.transport.admission import Admission
from ingester.transport.reply import Answer, NoAnswer
from ingester.transport.retry import Situation
from ingester.transport.sender import Sender
from ingester.transport.signs import NO_TRUST, THROTTLED, leaves_in_doubt, shows_an_outage
from ingester.transport.trial import Trial

MANY_IN_A_ROW = 10
"""So many requests lost by anybody, without a success in between: the server is away. Twice what a
server of a few connections loses in one moment, and far fewer than all workers would try."""
BODY_WITHOUT_A_LOOK = 4
"""One probe in so many is the batch itself although the look-up before it failed."""
LACKS_IN_A_ROW = 3
"""So many parcels, nothing stored in between, that a server has no resources for, though it takes a
file that it has, and took as much in this run: the last of them is waited with. Of all, which may
be too large for it, MANY_IN_A_ROW."""
DEATHS_THAT_BLAME = 2
"""Once may be chance: the server was well before a request and gone after it."""
PATIENCE_IN_BACKOFFS = 60
"""Before anything was ever stored, a server that dies is waited for 60 back-off bases: 30 s. So is
one that refuses TLS after it has answered: it may be starting again."""


class Outages:
    """What all attempts know together of a server that takes nothing. Times in seconds."""

    def __init__(
        self,
        admission: Admission,
        trial: Trial[Parcel],
        sender: Sender,
        known_good: KnownGood,
        *,
        max_outage_s: float,
        backoff_base_s: float,
    ) -> None:
        self._admission = admission
        self._trial = trial
        self._sender = sender
        self._known_good = known_good
        self._max_outage_s = max_outage_s
        self._trial_outage_s = PATIENCE_IN_BACKOFFS * backoff_base_s
        self._no_proxy = False  # the last that was heard of a server that is away
        self._lost_in_a_row = 0  # of anybody, without an answer to anybody in between
        self._lacks = self._lacks_of_ordinary = 0  # parcels given up for its lack of resources
        self._is_full = False  # what one file that it has would show is not asked any more
        self._largest_bytes = 0  # of the files that it stored in this run
        self._longest_bytes = 0  # of the requests of which it stored some

    async def may_probe(self, parcel: Parcel) -> bool:
        """Whether a server that was away is well enough to get this parcel.

        One that was lost before is not the first to be tried again: it may be why.
        """
        parcel.after_known_good = False
        tells = parcel.failed_probes and not self._is_full
        taken = await self._known_good.is_taken(anew=True) if tells else None
        if taken:
            parcel.after_known_good = True
            return True
        if taken is None and await self._is_well(parcel):
            return True
        parcel.failed_probes += 1
        if self._sender.refused_for_good:
            return True  # nothing to wait for: its own attempt is told so, and ends the run
        # Its look-ups may be what is away, or it wants no file twice: the body, now and then.
        return parcel.failed_probes % BODY_WITHOUT_A_LOOK == 0

    async def _is_well(self, parcel: Parcel) -> bool:
        """Whether it answers a small question, before it gets a body."""
        first = parcel.instances[0].header
        query = instance_query(first.study_instance_uid, first.sop_instance_uid)
        answer = await self._sender.get(query)
        self._no_proxy = _shows_no_proxy(answer)
        # Some servers have no QIDO-RS: that one is not found does not say that it is away.
        return isinstance(answer, Answer) and answer.meant_status not in (429, 502, 503, 504)

    def heard(self, parcel: Parcel, *, away: bool, probe: bool) -> bool:
        """Take in how an attempt ended; say whether the server is still away."""
        if not away:
            self._lost_in_a_row = 0
            self._admission.is_back()
        elif probe:
            parcel.failed_probes += 1
        return away and self._admission.breaker.open

    def has_room(self, largest_bytes: int, request_bytes: int) -> None:
        """It has stored files of a request, the largest of this size."""
        self._lacks = self._lacks_of_ordinary = 0
        self._is_full = False
        self._largest_bytes = max(self._largest_bytes, largest_bytes)
        self._longest_bytes = max(self._longest_bytes, request_bytes)

    def out_of_resources(self, parcel: Parcel, give_up: GiveUp) -> GiveUp | Retry | Resend:
        """Give up one that the server has no room for, unless it has none for anything new."""
        self._lacks += 1
        self._lacks_of_ordinary += (
            parcel.body.framing.content_length <= self._longest_bytes
            and max(instance.size for instance in parcel.instances) <= self._largest_bytes
        )
        self._is_full = self._lacks_of_ordinary >= LACKS_IN_A_ROW or self._lacks >= MANY_IN_A_ROW
        if not self._is_full:
            return give_up
        self._admission.is_away("it is out of resources for one batch after the other")
        return _again_as_probe(parcel, in_doubt=False)

    def blame(self, parcel: Parcel, reply: Answer | NoAnswer) -> None:
        """A probe without a manifest: was the server lost over it, or after it took another?"""
        gone = isinstance(reply, NoAnswer) and reply.maybe_stored
        parcel.deaths += gone or parcel.after_known_good

    def instead_of(
        self,
        action: Action,
        parcel: Parcel,
        reply: Answer | NoAnswer,
        situation: Situation,
        *,
        still_away: bool,
    ) -> Action:
        """The decision about one batch, or the wait for the server where that is what it shows."""
        self._no_proxy = _shows_no_proxy(reply)
        if isinstance(reply, NoAnswer) or reply.meant_status not in THROTTLED:
            self._lost_in_a_row += shows_an_outage(reply)
        if situation.is_to_blame and isinstance(action, Split | GiveUp):
            return action
        if isinstance(action, Stop) and isinstance(reply, NoAnswer) and reply.kind in NO_TRUST:
            return action  # however many were lost before: it is not waited for
        in_doubt = leaves_in_doubt(reply)
        if still_away and not isinstance(action, Stop):
            return self.wait(parcel, in_doubt=in_doubt, asked_s=situation.retry_after_s)
        if parcel.deaths and shows_an_outage(reply) and not situation.others_succeed:
            action = Outage("it takes nothing since a request was lost")  # soon told by a probe
        if isinstance(action, Outage):
            lost = isinstance(reply, NoAnswer) and reply.kind == "lost"
            if not situation.proven and not lost:
                return Stop(action.message, SAME_COMMAND)
            parcel.successes_at_outage = self._trial.successes
            self._admission.is_away(action.message)
        elif self._lost_in_a_row >= MANY_IN_A_ROW and situation.proven:
            self._admission.is_away(f"{self._lost_in_a_row} requests in a row were lost")
        else:
            return action
        return _again_as_probe(parcel, in_doubt=in_doubt)

    def wait(
        self, parcel: Parcel, *, in_doubt: bool = False, asked_s: float | None = None
    ) -> Stop | Retry | Resend:
        """A probe was not taken: wait for the next, unless that was long enough."""
        longest_s = self._max_outage_s if self._trial.proven else self._trial_outage_s
        if self._admission.away_s >= longest_s:
            return self._gave_up(longest_s)
        left_s = longest_s - self._admission.away_s  # the last look is at its very end
        self._admission.probe_failed(min(asked_s or 0.0, left_s), left_s)
        return _again_as_probe(parcel, in_doubt=in_doubt)

    def _gave_up(self, waited_s: float) -> Stop:
        if self._no_proxy:
            return Stop(
                f"the proxy has let nothing through for {waited_s:.0f} s",
                "the same command goes on when the proxy is back",
            )
        return Stop(f"the server has taken nothing for {waited_s:.0f} s", SAME_COMMAND)


def _shows_no_proxy(reply: Answer | NoAnswer) -> bool:
    return isinstance(reply, NoAnswer) and reply.kind == "no_proxy"


def _again_as_probe(parcel: Parcel, *, in_doubt: bool) -> Retry | Resend:
    """When it gets its turn, and not before: the door knows when the server is asked again."""
    parcel.start_over()
    return Resend(0.0) if in_doubt else Retry(0.0)
