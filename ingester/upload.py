"""The fourth stage: sends batches, reads what the server says of each instance, decides.

Takes StudyBatch; everything is decided here, through the ledger, in the tick in which the answer
was understood. ``workers`` requests are under way at most; splits and retries of a batch stay with
its worker. Ends when the grouping has ended and nothing waits. On a stop a worker finishes the
request it has on the wire and leaves the rest pending; cancelled, what was on the wire is in doubt.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

from ingester.attempts import AskFirst, Attempts, Interrupted, Step, UploadOptions
from ingester.batches import BatchLimits
from ingester.channel import Channel, ChannelClosed
from ingester.control import StopControl
from ingester.dicomweb.outcome import Outcome
from ingester.errors import FatalError
from ingester.following import Following, halves
from ingester.in_hand import InHand
from ingester.items import StudyBatch, ToUpload
from ingester.known_good import FindKnownGood
from ingester.ledger import Ledger
from ingester.parcel import Parcel, make_body, words_of
from ingester.readers import Readers
from ingester.reconciliation import Reconciled
from ingester.transport.actions import SAME_COMMAND, GiveUp, Refused, Split, Stop
from ingester.transport.admission import Admission
from ingester.transport.reply import SourceFailed
from ingester.transport.sender import Sender
from ingester.transport.signs import CONFLICT, named
from ingester.transport.trial import MAX_WAITING, Trial


class Upload:
    """The stage; ``worker`` runs once for each request that may be under way."""

    def __init__(
        self,
        options: UploadOptions,
        inbox: Channel[ToUpload | Parcel],
        sender: Sender,
        admission: Admission,
        ledger: Ledger,
        limits: BatchLimits,
        stop: StopControl,
        readers: Readers,
        random: Random,
        find_known_good: FindKnownGood,
        *,
        proven: bool,
    ) -> None:
        self._options = options
        self._inbox = inbox
        self._ledger = ledger
        self._limits = limits
        self._stop = stop
        self._readers = readers
        self._trial: Trial[Parcel] = Trial(proven=proven)
        self.admission = admission
        self._attempts = Attempts(
            options,
            sender,
            admission,
            self._trial,
            stop,
            random,
            readers,
            find_known_good,
            self._release,
        )
        self._in_hand = InHand(ledger, options.profile)
        self._following = Following(
            options, sender, ledger, self._in_hand, self._attempts, self._trial, stop, self._release
        )
        self._busy = 0
        self._idle_since: float | None = time.monotonic()
        self._input_ended = False
        self._checked = False  # the setting, because nothing but refusals came at the end
        self._setting_is_doubtful = False
        self._conflicts = False  # then a file that was stored before was refused by a bare conflict

    @property
    def retries(self) -> int:
        """Requests that were sent again."""
        return self._attempts.retries

    async def worker(self) -> None:
        """Take and deliver until nothing is left or the run is to end."""
        while (item := await self._next()) is not None:
            self._busy += 1
            self._note_idle()
            try:
                if isinstance(item, StudyBatch):
                    await self._ledger.wait_for_room()
                    await self._ledger.wait_announced(item.ticket)
                    await self._deliver(self._parcel(item))
                else:
                    await self._deliver(item)
            finally:
                self._busy -= 1
                self._note_idle()
        if self._attempts.given_up and not (
            self._trial.proven or self._busy or self._stop.requested
        ):
            self._stop.request(FatalError("the server took nothing", SAME_COMMAND))

    def idle_s(self) -> float:
        """Seconds for which one more request could have been under way than there was to send."""
        if self._idle_since is None or self.admission.is_shut or len(self._inbox):
            return 0.0
        return time.monotonic() - self._idle_since

    def _note_idle(self) -> None:
        if self._busy >= self.admission.limit:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = time.monotonic()

    def leave(self) -> None:
        """The run ends here: see ``InHand.leave``."""
        self._in_hand.leave()

    async def _next(self) -> Parcel | StudyBatch | None:
        while not self._stop.requested:
            if self._input_ended and self._busy == 0 and not len(self._inbox):
                if not len(self._trial):
                    if self._inbox.closed:
                        return None
                elif self._trial.proven and not self._checked:
                    await self._check_at_the_end()
                    continue
                elif released := self._trial.end_of_input():
                    self._release(released)
                else:
                    self._setting_is_wrong("every request so far was refused")
                    return None
            try:
                item = await self._inbox.get()
            except ChannelClosed:
                return None
            if isinstance(item, Parcel | StudyBatch):
                return item
            self._input_ended = True
        return None

    async def _check_at_the_end(self) -> None:
        """Nothing but refusals at the end: see whether a file that was taken before still is."""
        self._checked = True
        self._busy += 1
        try:
            taken = await self._attempts.known_good.is_taken(anew=False)
            at_hand = self._attempts.known_good.at_hand
            self._setting_is_doubtful = taken is False or not at_hand
            self._conflicts = taken is None and at_hand
        finally:
            self._busy -= 1

    def _parcel(self, batch: StudyBatch) -> Parcel:
        options = self._options
        body = make_body(
            batch.instances, options.profile, self._readers, checksums=options.checksums
        )
        parcel = Parcel(batch.study_instance_uid, batch.instances, body, batch.batch_id)
        self._in_hand.add(parcel)
        return parcel

    async def _deliver(self, first: Parcel) -> None:
        """Send a parcel and all that it is split into, until each file has its end."""
        stack = [first]
        while stack and not self._stop.requested:
            parcel = stack.pop()
            verdict, parcel.verdict = parcel.verdict, None
            if verdict is not None:
                stack.extend(await self._apply(parcel, verdict))
                continue
            step = await self._attempts.until_decided(parcel)
            stack.extend(await self._settle(parcel, step))

    async def _settle(self, parcel: Parcel, step: Step) -> list[Parcel]:
        """Act on the end of a parcel's attempts; returns what is left to send."""
        if isinstance(step, Interrupted):
            return []
        if isinstance(step, Stop):
            return await self._stopped(parcel, step)
        if isinstance(step, SourceFailed):
            return self._following.without(parcel, step)
        if isinstance(step, Reconciled):
            return await self._following.take_in(parcel, step)
        if isinstance(step, AskFirst):
            return await self._following.ask_first(parcel, step)
        if isinstance(step, Refused):
            return await self._refused(parcel, step)
        assert isinstance(step, Split | GiveUp)  # noqa: S101 - retries ended in the loop
        return await self._apply(parcel, step)

    async def _stopped(self, parcel: Parcel, stop: Stop) -> list[Parcel]:
        """End the run, unless the server takes what it took before: a firewall refuses bodies."""
        words = "" if parcel.refusal is None else words_of(parcel.refusal)
        if stop.unless_known_good and await self._attempts.known_good.is_taken_at_last():
            return await self._refused(parcel, Refused(Outcome.REJECTED, "refused"))
        if not self._stop.requested:  # else a signal has ended the look, and nothing came of it
            self._stop.request(FatalError(stop.message, stop.hint, words))
        return []

    async def _refused(self, parcel: Parcel, refused: Refused) -> list[Parcel]:
        """Take a refusal at its word, or keep it until another request succeeds."""
        verdict: Split | GiveUp = Split(refused=True)
        if parcel.single or refused.outcome is Outcome.FAILED:  # a conflict is never split
            verdict = GiveUp(refused.outcome, refused.reason_code)
        if self._trial.may_act(parcel.successes_when_sent):
            return await self._apply(parcel, verdict)
        parcel.verdict = verdict
        parcel.give_back_buffers()
        if not self._trial.wait(parcel, parcel.batch_id) and not await self._setting_is_right():
            self._setting_is_wrong(f"{MAX_WAITING + 1} unrelated requests in a row were refused")
        return []

    async def _setting_is_right(self) -> bool:
        """Whether the server still takes what it took before; then the refusals are the files'."""
        return self._trial.proven and await self._attempts.known_good.check_setting()

    def _setting_is_wrong(self, message: str) -> None:
        if self._stop.requested:
            return
        last = self._attempts.last_refusal
        if last is not None:
            message += f" (the last with HTTP {last.status})"
        self._stop.request(
            FatalError(
                f"{message}, and none succeeded" + ("" if last is None else named(last)),
                "is this the right server, operation and body form? Nothing was rejected",
                self._last_words(),
            )
        )

    def _last_words(self) -> str:
        last = self._attempts.last_refusal
        return "" if last is None else words_of(last)

    async def _apply(self, parcel: Parcel, verdict: Split | GiveUp) -> list[Parcel]:
        refused = isinstance(verdict, Split) and verdict.refused
        doubtful = self._trial.successes == 0 or self._setting_is_doubtful
        if doubtful and (refused or _is_rejection(verdict)):
            # Nothing shows that the setting is still right: try again next time.
            self._in_hand.end_all(parcel, Outcome.FAILED, "refused_without_any_success")
            return []
        if isinstance(verdict, GiveUp):
            if _is_rejection(verdict) and parcel.single and parcel.is_doubted(0):
                await self._following.refused_after_a_doubt(parcel, verdict.reason_code)
            elif self._conflicts and _is_rejection(verdict) and _is_conflict(parcel):
                self._in_hand.end_all(parcel, Outcome.FAILED, "refused_like_a_stored_file")
            else:
                self._in_hand.end_all(parcel, verdict.outcome, verdict.reason_code)
            return []
        if verdict.shrink:
            self._limits.shrink(parcel.body.framing.content_length)
        parcels = self._in_hand.replace(parcel, halves(parcel.instances))
        for each in parcels:
            each.asked_again |= refused and each.single
        return parcels

    def _release(self, parcels: Sequence[Parcel]) -> None:
        for parcel in parcels:
            self._inbox.put_now(parcel)


def _is_conflict(parcel: Parcel) -> bool:
    return parcel.refusal is not None and parcel.refusal.status == CONFLICT


def _is_rejection(verdict: Split | GiveUp) -> bool:
    return isinstance(verdict, GiveUp) and verdict.outcome is Outcome.REJECTED
