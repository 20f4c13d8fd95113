"""Sends one parcel, again where that helps, until something is decided about it.

Takes a parcel; gives a Step: what the manifest settled, or what is to become of the whole. Says
nothing to the ledger and keeps no queue: that is the stage's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple
from urllib.parse import quote

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_never

from ingester.attempt_log import log_attempt
from ingester.control import StopControl
from ingester.dicomweb.outcome import WAS_TAKEN, Outcome
from ingester.dicomweb.profiles import ServerProfile
from ingester.dicomweb.retry_after import retry_after_s
from ingester.doubt import found_in_store
from ingester.known_good import FindKnownGood, KnownGood
from ingester.outages import DEATHS_THAT_BLAME, Outages
from ingester.parcel import Parcel, without_rest
from ingester.readers import Readers
from ingester.reconciliation import Reconciled, manifest_of, reconcile_parcel
from ingester.transport.actions import Action, GiveUp, Refused, Resend, Retry, Split, Stop
from ingester.transport.admission import Admission, End, Turn
from ingester.transport.reply import Answer, NoAnswer, Reply, SourceFailed
from ingester.transport.retry import RetryPolicy, Situation, decide
from ingester.transport.sender import Sender
from ingester.transport.series_gate import SeriesGate
from ingester.transport.signs import (
    THROTTLED,
    UNAUTHORIZED,
    leaves_in_doubt,
    may_follow_a_crash,
    shows_an_outage,
)
from ingester.transport.trial import Trial

MAX_STRANGE_BATCHES = 3


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """``per_study``: post to /studies/{StudyInstanceUID} (StoreDICOMStudy).

    ``max_outage_s``: how long a server that is away is waited for.
    """

    profile: ServerProfile
    retry: RetryPolicy
    per_study: bool = False
    checksums: bool = True
    max_outage_s: float = 43_200.0


class Interrupted(NamedTuple):
    """The run is to end before this parcel was sent (again)."""


class AskFirst(NamedTuple):
    """Ask the store what it has before sending again. ``found``: it was asked, and shows these."""

    wait_s: float
    found: set[str] | None = None


Step = Action | Reconciled | SourceFailed | Interrupted | AskFirst


class Attempts:
    """All requests go out here, whoever's they are; what is learned of the server is kept here."""

    def __init__(
        self,
        options: UploadOptions,
        sender: Sender,
        admission: Admission,
        trial: Trial[Parcel],
        stop: StopControl,
        random: Random,
        readers: Readers,
        find_known_good: FindKnownGood,
        release: Callable[[Sequence[Parcel]], None],
    ) -> None:
        self._options = options
        self.known_good = KnownGood(
            find_known_good, self._post, options.profile, readers, admission, trial, release, stop,
            options.max_outage_s,
        )  # fmt: skip
        self._outages = Outages(
            admission, trial, sender, self.known_good,
            max_outage_s=options.max_outage_s, backoff_base_s=options.retry.backoff_base_s,
        )  # fmt: skip
        self._sender = sender
        self._admission = admission
        self._trial = trial
        self._stop = stop
        self._random = random
        self._gate = SeriesGate()
        self._strange_batches: set[int] = set()  # in a row, answered with UIDs never sent
        self._sent = 0  # attempts, of all parcels
        self.last_good = 0  # the latest of the attempts that stored something
        self.given_up = 0  # parcels that never got an answer, without a success in between
        self.last_refusal: Answer | None = None  # with no more of its body than is shown
        self.retries = 0

    async def until_decided(self, parcel: Parcel) -> Step:
        """Send it, wait and send it again as often as the decision says."""
        attempts = AsyncRetrying(
            retry=retry_if_result(lambda step: isinstance(step, Retry | Resend)),
            wait=_wait_s,
            sleep=self._stop.sleep,
            stop=stop_never,
        )
        step: Step = await attempts(self._attempt, parcel)
        return step

    def succeeded(self, parcel: Parcel, reconciled: Reconciled) -> None:
        """An answer named some of it as being in the store."""
        self.given_up = 0
        self.last_good = max(self.last_good, parcel.sent)
        taken = [one.size or 0 for one in reconciled.results if one.outcome in WAS_TAKEN]
        if taken:
            self._outages.has_room(max(taken), parcel.body.framing.content_length)

    def again_later(self, parcel: Parcel) -> Step:
        """What to do with instances that the server had no resources for: as after a 503."""
        asked = None if parcel.last_answer is None else parcel.last_answer.retry_after
        away = self._admission.breaker.open
        step = self._decided(parcel, Answer(503, b"", asked), still_away=away)
        if isinstance(step, GiveUp):
            step = self._outages.out_of_resources(parcel, step)
        if isinstance(step, Retry):
            self._admission.hold(step.hold_all_s)
        return step

    async def _attempt(self, parcel: Parcel) -> Step:
        await self.known_good.undisturbed()
        await self._sender.ready()
        async with self._gate.enter(i.header.series_instance_uid for i in parcel.instances):
            turn = await self._admission.enter()
            if turn is None:
                return Interrupted()
            end: End = "other"
            hold_s = 0.0
            try:
                if turn.probe and not await self._outages.may_probe(parcel):
                    return self._outages.wait(parcel)
                # In this turn: who is to blame for what comes of the body is told by it.
                if parcel.unasked:
                    found = await found_in_store(self._sender, parcel)
                    parcel.unasked = found is None
                    if found:
                        return AskFirst(0.0, found)
                    if self._stop.requested:
                        return Interrupted()
                began = time.monotonic()
                reply = await self._send(parcel)
                step = log_attempt(parcel, reply, self._read(parcel, reply, turn), began)
                end = _end_of(reply, step)
                hold_s = step.hold_all_s if isinstance(step, Retry) else 0.0
                return step
            finally:
                self._admission.leave(turn, end, hold_s)

    async def _send(self, parcel: Parcel) -> Reply:
        parcel.successes_when_sent = self._trial.successes
        if parcel.attempts == 0:
            parcel.successes_before = parcel.successes_when_sent
        if parcel.attempts or parcel.earlier_attempts:
            self.retries += 1
        parcel.attempts += 1
        self._sent += 1
        parcel.sent = self._sent
        parcel.body.bytes_out = 0
        reply = await self._post(parcel)
        if isinstance(reply, Answer):
            parcel.body.bytes_out = 0  # whatever became of them, it is not unknown
        return reply

    async def _post(self, parcel: Parcel) -> Reply:
        path = "/studies"
        if self._options.per_study:
            path = f"/studies/{quote(parcel.study_instance_uid, safe='')}"
        return await self._sender.post(path, parcel.body)

    def _read(self, parcel: Parcel, reply: Reply, turn: Turn) -> Step:
        """What a reply means for the parcel."""
        if isinstance(reply, SourceFailed):
            return reply
        away = shows_an_outage(reply)
        reconciled: Reconciled | None = None
        parcel.refusal = None
        if isinstance(reply, Answer):
            parcel.last_answer = reply
            response = manifest_of(reply)
            if response is not None:
                reconciled = reconcile_parcel(parcel, response, self._options.profile)
                # Out of resources for all of them: it is there, and takes nothing.
                away = len(reconciled.later) == len(parcel.instances)
        still_away = self._outages.heard(parcel, away=away, probe=turn.probe)
        if reconciled is not None and isinstance(reply, Answer):
            if still_away:
                return self._outages.wait(parcel)
            return self._reconciled(parcel, reply, reconciled)
        if isinstance(reply, Answer):
            parcel.refusal = self.last_refusal = without_rest(reply)
        if away and turn.probe:
            self._outages.blame(parcel, reply)
        parcel.given_for_lost = parcel.given_for_lost or may_follow_a_crash(reply)
        step = self._decided(parcel, reply, still_away=still_away)
        if isinstance(step, Resend) and self._options.profile.ask_on_doubt:
            return AskFirst(step.wait_s)
        return step

    def _decided(self, parcel: Parcel, reply: Answer | NoAnswer, *, still_away: bool) -> Action:
        """The decision about a reply without a manifest, remembered."""
        situation = self._situation(parcel, reply)
        action = decide(reply, situation, self._options.retry, self._random)
        self._remember(parcel, reply, action)
        return self._outages.instead_of(action, parcel, reply, situation, still_away=still_away)

    def _reconciled(self, parcel: Parcel, answer: Answer, reconciled: Reconciled) -> Step:
        if reconciled.confirmed and not reconciled.unknown_uids:
            self._strange_batches.clear()
        if reconciled.unknown_uids:
            parcel.unconfirmed = parcel.unconfirmed or answer.status < 300
            self._strange_batches.add(parcel.batch_id)
            if len(self._strange_batches) >= MAX_STRANGE_BATCHES:
                return Stop(
                    "the server answers with SOP Instance UIDs that were never sent",
                    "does it change UIDs? Then what is stored cannot be told from what is not",
                )
        self.known_good.keep(parcel, reconciled)
        names_none_of_ours = len(reconciled.unnamed) == len(parcel.instances)
        if names_none_of_ours and (parcel.asked_again or not parcel.single):
            outcome = Outcome.IN_DOUBT if answer.status < 300 else Outcome.REJECTED
            self.last_refusal = without_rest(answer)
            parcel.unconfirmed = parcel.unconfirmed or answer.status < 300
            return Refused(outcome, "not_confirmed")
        return reconciled

    def _situation(self, parcel: Parcel, reply: Answer | NoAnswer) -> Situation:
        retry_after = reply.retry_after if isinstance(reply, Answer) else None
        outage = parcel.successes_at_outage
        return Situation(
            attempts=parcel.attempts,
            doubts=parcel.doubts,
            auth_refusals=parcel.auth_refusals,
            single=parcel.single,
            proven=self._trial.proven,
            others_succeed=self._trial.successes > parcel.successes_before,
            keys_are_good=parcel.auth_refusals > 0 and self.last_good > parcel.refused_at,
            retry_after_s=retry_after_s(retry_after, datetime.now(UTC)),
            conflict_is_transient=self._options.profile.conflict_is_transient,
            others_succeed_now=self._trial.successes > parcel.successes_when_sent
            or (outage is not None and self._trial.successes > outage),
            is_to_blame=parcel.deaths >= DEATHS_THAT_BLAME,
        )

    def _remember(self, parcel: Parcel, reply: Answer | NoAnswer, action: Action) -> None:
        if isinstance(reply, Answer):
            refused = reply.meant_status in UNAUTHORIZED
            if refused and not parcel.auth_refusals:
                parcel.refused_at = self._sent
            parcel.auth_refusals = parcel.auth_refusals + 1 if refused else 0
            parcel.unconfirmed = parcel.unconfirmed or reply.status < 300
        if leaves_in_doubt(reply):
            parcel.doubts += 1
            parcel.ever_in_doubt = True
            self.given_up += isinstance(action, Split | GiveUp)
        transient = self._options.profile.conflict_is_transient
        if transient and isinstance(reply, Answer) and reply.status == 409:
            self._gate.close()  # two requests met in one series


def _end_of(reply: Reply, step: Step) -> End:
    """How the request ended, for all others."""
    if isinstance(step, Reconciled):
        return "good" if step.confirmed else "other"
    if isinstance(reply, SourceFailed) or not shows_an_outage(reply):
        return "other"
    if isinstance(reply, Answer) and reply.meant_status in THROTTLED:
        # A 503 that names no time comes of a crash as often as of a limit: it teaches no pace.
        names_a_limit = reply.meant_status == 429 or reply.retry_after is not None
        return "throttled" if names_a_limit else "lost"
    return "lost"


def _wait_s(state: RetryCallState) -> float:
    """The wait that the decision asked for."""
    assert state.outcome is not None  # noqa: S101 - tenacity sets it before it waits
    step = state.outcome.result()
    return step.wait_s if isinstance(step, Retry | Resend) else 0.0
