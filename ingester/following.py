"""What becomes of a parcel after an attempt, and what of it goes again.

Takes what an attempt showed; decides what that settles, at once, and gives the parcels that are
left to send.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ingester.attempts import AskFirst, Attempts, UploadOptions
from ingester.control import StopControl
from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.doubt import found_in_store
from ingester.errors import FatalError
from ingester.in_hand import InHand
from ingester.items import Instance, Result, pending
from ingester.ledger import Ledger
from ingester.parcel import Parcel
from ingester.readers import SOURCE_PAUSED
from ingester.reconciliation import LookUp, Reconciled
from ingester.transport.actions import Retry, Stop
from ingester.transport.reply import SourceFailed
from ingester.transport.sender import Sender
from ingester.transport.trial import Trial

ALONE_AT_MOST = 8
"""So many files of an answer are asked again one by one; more of them go again together."""


class Following:
    """For all workers: it keeps nothing of its own."""

    def __init__(
        self,
        options: UploadOptions,
        sender: Sender,
        ledger: Ledger,
        in_hand: InHand,
        attempts: Attempts,
        trial: Trial[Parcel],
        stop: StopControl,
        release: Callable[[Sequence[Parcel]], None],
    ) -> None:
        """``release`` takes parcels that waited for the first success."""
        self._options = options
        self._sender = sender
        self._ledger = ledger
        self._in_hand = in_hand
        self._attempts = attempts
        self._trial = trial
        self._stop = stop
        self._release = release

    def without(self, parcel: Parcel, failed: SourceFailed) -> list[Parcel]:
        """One file is not what was scanned: it ends, its neighbours go again.

        Those before it went out whole: a server that reads part by part may have stored them.
        """
        instance = parcel.instances[failed.position]
        doubted = parcel.ends_in_doubt
        outcome = Outcome.IN_DOUBT if doubted else Outcome.UNREADABLE
        result = parcel.result(failed.position, outcome, failed.reason_code)
        if failed.reason_code == SOURCE_PAUSED and not doubted:
            result = pending(instance.file, SOURCE_PAUSED)._replace(header=instance.header)
        self._ledger.decide([result._replace(reason=failed.reason)])
        before = parcel.instances[: failed.position]
        after = parcel.instances[failed.position + 1 :]
        if not parcel.body.bytes_out:
            return self._in_hand.replace(parcel, [before + after] if before + after else [])
        following = self._in_hand.replace(parcel, [part for part in (after, before) if part])
        if before:
            following[-1].unconfirmed = True
        return following

    async def take_in(self, parcel: Parcel, reconciled: Reconciled) -> list[Parcel]:
        """Record what an answer settled, at once, and ask again for the rest."""
        self._ledger.decide(reconciled.results)
        parcel.give_back_buffers()
        if reconciled.confirmed:
            self._attempts.succeeded(parcel, reconciled)
            self._release(self._trial.succeeded())
        following = self._ask_for_failed(parcel, reconciled.failed)
        following += self._ask_for_unnamed(parcel, reconciled.unnamed)
        following += self._later(parcel, reconciled.later)
        doubtful = self._in_hand.replace(
            parcel, [[parcel.instances[n]] for n, _ in reconciled.look_up]
        )
        for each, (_, look_up) in zip(doubtful, reconciled.look_up, strict=True):
            if self._stop.requested:
                break
            each.last_answer = parcel.last_answer
            self._in_hand.end(each, await self._look_up(each, look_up))
        return following

    def _ask_for_failed(self, parcel: Parcel, failed: Sequence[Instance]) -> list[Parcel]:
        """Refused for a reason that may pass, or be a neighbour's: alone, once."""
        if len(failed) > ALONE_AT_MOST:
            return self._in_hand.replace(parcel, halves(failed))
        return self._in_hand.replace(parcel, [[each] for each in failed], asked_again=True)

    def _ask_for_unnamed(self, parcel: Parcel, unnamed: Sequence[Instance]) -> list[Parcel]:
        """The server did not speak of these: until one stands alone, and then once more."""
        parts = halves(unnamed) if len(unnamed) > 1 else [unnamed] if unnamed else []
        following = self._in_hand.replace(parcel, parts, asked_again=len(unnamed) == 1)
        answer = parcel.last_answer
        for each in following:
            each.unconfirmed |= answer is not None and answer.status < 300
        return following

    async def ask_first(self, parcel: Parcel, step: AskFirst) -> list[Parcel]:
        """The answer was lost: what the store shows is stored, the rest goes again."""
        found = step.found
        if found is None:
            await self._stop.sleep(step.wait_s)
            if self._stop.requested:
                return []
            found = await found_in_store(self._sender, parcel)
        parcel.unasked = found is None
        if not found:
            return [parcel]
        parcel.give_back_buffers()
        shown = [n for n, i in enumerate(parcel.instances) if i.header.sop_instance_uid in found]
        rest = [i for i in parcel.instances if i.header.sop_instance_uid not in found]
        following = self._in_hand.replace(parcel, [rest] if rest else [])
        for each in following:
            each.attempts, each.earlier_attempts = parcel.attempts, parcel.earlier_attempts
            each.doubts, each.successes_before = parcel.doubts, parcel.successes_before
        self._ledger.decide(
            [parcel.result(n, Outcome.STORED, evidence=Evidence.QIDO) for n in shown]
        )
        self._release(self._trial.succeeded())
        return following

    def _later(self, parcel: Parcel, instances: Sequence[Instance]) -> list[Parcel]:
        """The server is out of resources for these: wait, a bounded number of times."""
        if not instances:
            return []
        later = parcel.with_instances(
            instances, self._options.profile, asked_again=parcel.asked_again
        )
        later.attempts, later.earlier_attempts = parcel.attempts, parcel.earlier_attempts
        later.successes_before = parcel.successes_before
        later.successes_when_sent = parcel.successes_when_sent
        later.failed_probes = parcel.failed_probes
        self._in_hand.add(later)
        later.last_answer = parcel.last_answer
        step = self._attempts.again_later(later)
        if isinstance(step, Retry):
            return [later]
        if isinstance(step, Stop):
            self._stop.request(FatalError("the server is out of resources", step.hint))
            return []
        self._in_hand.end_all(later, Outcome.FAILED, "out_of_resources")
        return []

    async def refused_after_a_doubt(self, parcel: Parcel, reason_code: str) -> None:
        """Refused by an answer that does not name it: only what the store shows ends the doubt.

        A doubt of this run is too young to end because the store does not show it yet.
        """
        rejected = parcel.result(0, Outcome.REJECTED, reason_code)
        result = await self._look_up(parcel, LookUp(rejected, is_final=False))
        if result.outcome is Outcome.REJECTED and parcel.may_be_stored:
            result = parcel.result(0, Outcome.IN_DOUBT, "refused_after_a_doubt")
        self._in_hand.end(parcel, result)

    async def _look_up(self, parcel: Parcel, refused: LookUp) -> Result:
        """Refused now, but an earlier attempt may have stored it: ask before calling it refused."""
        found = await found_in_store(self._sender, parcel)
        ends = parcel.is_hardly_doubted and not self._options.profile.ask_on_doubt
        if found is None and not (ends or refused.is_final):
            return parcel.result(0, Outcome.IN_DOUBT, "refused_after_a_doubt")
        if found:
            outcome = Outcome.STORED if parcel.is_doubted(0) else Outcome.ALREADY_STORED
            return parcel.result(0, outcome, evidence=Evidence.QIDO)
        return refused.rejected


def halves(instances: Sequence[Instance]) -> list[Sequence[Instance]]:
    """Two parts, the second first: what is pushed last is sent next."""
    middle = len(instances) // 2
    return [instances[middle:], instances[:middle]]
