"""Sends one parcel, again where that helps, until something is decided about it.

Takes a parcel; gives a Step: what the manifest settled, or what is to become of the whole. Says
nothing to the ledger and keeps no queue: that is the stage's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from random import Random
from typing import NamedTuple
from urllib.parse import quote

from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_never

from ingester.attempt_log import log_attempt
from ingester.control import StopControl
from ingester.dicomweb.outcome import Outcome
from ingester.dicomweb.profiles import ServerProfile
from ingester.dicomweb.retry_after import retry_after_s
from ingester.dicomweb.store_response import StoreResponse, parse_store_response
from ingester.parcel import Parcel, words_of
from ingester.reconciliation import READABLE_STATUS, Reconciled, reconcile_parcel
from ingester.transport.hold import Hold
from ingester.transport.reply import Answer, NoAnswer, Reply, SourceFailed
from ingester.transport.retry import (
    Action,
    GiveUp,
    Refused,
    Resend,
    Retry,
    RetryPolicy,
    Situation,
    Split,
    Stop,
    decide,
    leaves_in_doubt,
)
from ingester.transport.sender import Sender
from ingester.transport.series_gate import SeriesGate
from ingester.transport.trial import Trial

MAX_ANSWERS_WITH_UNKNOWN_UIDS = 3
MAX_LOST_IN_A_ROW = 12
"""Bisecting the largest batch to the one file that kills the server takes nine."""


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """``per_study``: post to /studies/{StudyInstanceUID} (StoreDICOMStudy)."""

    profile: ServerProfile
    retry: RetryPolicy
    per_study: bool = False
    checksums: bool = True


class Interrupted(NamedTuple):
    """The run is to end before this parcel was sent (again)."""


class AskFirst(NamedTuple):
    """Ask the store what it has before sending again."""

    wait_s: float


Step = Action | Reconciled | SourceFailed | Interrupted | AskFirst


class Attempts:
    """All requests go out here, whoever's they are; what is learned of the server is kept here."""

    def __init__(
        self,
        options: UploadOptions,
        sender: Sender,
        trial: Trial[Parcel],
        stop: StopControl,
        random: Random,
    ) -> None:
        self._options = options
        self._sender = sender
        self._trial = trial
        self._stop = stop
        self._random = random
        self._gate = SeriesGate()
        self._answers_with_unknown_uids = 0
        self._sent = 0  # attempts, of all parcels
        self.last_good = 0  # the latest of them that stored something
        self.hold = Hold(stop)
        self.lost_in_a_row = 0  # parcels that never got an answer, without a success in between
        self.last_refusal = ""  # the server's words
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

    def again_later(self, parcel: Parcel) -> Action:
        """What to do with instances that the server had no resources for: as after a 503."""
        asked = None if parcel.last_answer is None else parcel.last_answer.retry_after
        answer = Answer(503, b"", asked)
        return decide(answer, self._situation(parcel, answer), self._options.retry, self._random)

    async def _attempt(self, parcel: Parcel) -> Step:
        await self.hold.wait()
        await self._sender.ready()
        if self._stop.requested:
            return Interrupted()
        parcel.successes_when_sent = self._trial.successes
        if parcel.attempts == 0:
            parcel.successes_before = parcel.successes_when_sent
        else:
            self.retries += 1
        parcel.attempts += 1
        self._sent += 1
        parcel.sent = self._sent
        parcel.body.bytes_out = 0
        began = time.monotonic()
        async with self._gate.enter(i.header.series_instance_uid for i in parcel.instances):
            reply = await self._sender.post(self._path(parcel), parcel.body)
        if isinstance(reply, Answer):
            parcel.body.bytes_out = 0  # whatever became of them, it is not unknown
        return log_attempt(parcel, reply, self._read(parcel, reply), began)

    def _path(self, parcel: Parcel) -> str:
        if not self._options.per_study:
            return "/studies"
        return f"/studies/{quote(parcel.study_instance_uid, safe='')}"

    def _read(self, parcel: Parcel, reply: Reply) -> Step:
        """What a reply means for the parcel."""
        if isinstance(reply, SourceFailed):
            return reply
        if isinstance(reply, Answer):
            parcel.last_answer = reply
            if reply.status in READABLE_STATUS:
                response = parse_store_response(reply.body)
                if response is not None:
                    return self._reconcile(parcel, reply, response)
        action = decide(reply, self._situation(parcel, reply), self._options.retry, self._random)
        self._remember(parcel, reply, action)
        if isinstance(action, Resend) and self._options.profile.ask_on_doubt:
            return AskFirst(action.wait_s)
        return action

    def _reconcile(self, parcel: Parcel, answer: Answer, response: StoreResponse) -> Step:
        reconciled = reconcile_parcel(parcel, response, self._options.profile)
        if reconciled.unknown_uids:
            self._answers_with_unknown_uids += 1
            if self._answers_with_unknown_uids >= MAX_ANSWERS_WITH_UNKNOWN_UIDS:
                return Stop(
                    "the server answers with SOP Instance UIDs that were never sent",
                    "does it change UIDs? Then what is stored cannot be told from what is not",
                )
        names_none_of_ours = len(reconciled.unnamed) == len(parcel.instances)
        if names_none_of_ours and (parcel.asked_again or not parcel.single):
            outcome = Outcome.IN_DOUBT if answer.status < 300 else Outcome.REJECTED
            self.last_refusal = words_of(answer)
            parcel.unconfirmed = parcel.unconfirmed or answer.status < 300
            return Refused(outcome, "not_confirmed")
        return reconciled

    def _situation(self, parcel: Parcel, reply: Answer | NoAnswer) -> Situation:
        retry_after = reply.retry_after if isinstance(reply, Answer) else None
        return Situation(
            attempts=parcel.attempts,
            doubts=parcel.doubts,
            auth_refusals=parcel.auth_refusals,
            single=parcel.single,
            proven=self._trial.proven,
            others_succeed=self._trial.successes > parcel.successes_before
            or self._is_to_blame(parcel, reply),
            keys_are_good=parcel.auth_refusals > 0 and self.last_good > parcel.refused_at,
            retry_after_s=retry_after_s(retry_after, datetime.now(UTC)),
            conflict_is_transient=self._options.profile.conflict_is_transient,
        )

    def _is_to_blame(self, parcel: Parcel, reply: Answer | NoAnswer) -> bool:
        """Whether a parcel, rather than the server, is why it got no answer to the last.

        Where nothing else is under way nobody else can succeed: then what was sent before it says
        that the server was well, until too many in a row are lost.
        """
        died = isinstance(reply, NoAnswer) and reply.kind == "lost"
        return (
            (died or (self._trial.proven and leaves_in_doubt(reply)))
            and parcel.attempts >= self._options.retry.max_attempts
            and self.lost_in_a_row < MAX_LOST_IN_A_ROW
        )

    def _remember(self, parcel: Parcel, reply: Answer | NoAnswer, action: Action) -> None:
        if isinstance(reply, Answer):
            refused = reply.status in (401, 403)
            if refused and not parcel.auth_refusals:
                parcel.refused_at = self._sent
            parcel.auth_refusals = parcel.auth_refusals + 1 if refused else 0
            self.last_refusal = words_of(reply)
            parcel.unconfirmed = parcel.unconfirmed or reply.status < 300
        if leaves_in_doubt(reply):
            parcel.doubts += 1
            parcel.ever_in_doubt = True
            self.lost_in_a_row += isinstance(action, Split | GiveUp)
        if isinstance(action, Retry) and action.hold_all_s:
            self.hold.extend(action.hold_all_s)
        transient = self._options.profile.conflict_is_transient
        if transient and isinstance(reply, Answer) and reply.status == 409:
            self._gate.close()  # two requests met in one series


def _wait_s(state: RetryCallState) -> float:
    """The wait that the decision asked for."""
    assert state.outcome is not None  # noqa: S101 - tenacity sets it before it waits
    step = state.outcome.result()
    return step.wait_s if isinstance(step, Retry | Resend) else 0.0
