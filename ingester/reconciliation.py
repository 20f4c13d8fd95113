"""From a manifest to results: what the server said of each instance of a parcel, and what is left.

Pure. Only an instance that the answer names as stored is stored, whatever the status says.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.dicomweb.profiles import SecondCopy, ServerProfile, disposition_of
from ingester.dicomweb.reasons import warning_words
from ingester.dicomweb.store_response import (
    Refused,
    Stored,
    StoreResponse,
    Verdict,
    parse_store_response,
    reconcile,
)
from ingester.items import Instance, Result
from ingester.parcel import Parcel
from ingester.transport.reply import Answer

OpenEnd = Literal["failed", "unnamed", "later"]

READABLE_STATUS = frozenset({200, 201, 202, 203, 206, 400, 409})
"""Statuses whose body is read for a manifest.

203 is a 200 that a proxy has changed and says so (RFC 9110 15.3.4): of any other proxy on the way
nobody would know, so what the body names is the server's word as much as under a 200.
"""


CALLS_IT_A_DUPLICATE = frozenset({0x0111, 45070})
"""Failure reasons: PS3.7 C.4.2, and Azure's. After a doubt, also of an earlier run, they may speak
of what it is about."""


class LookUp(NamedTuple):
    """Refused now, but an earlier attempt may have stored it: the store is asked first."""

    rejected: Result  # what it is where the store does not show it
    is_final: bool  # or cannot: there may be another file's bytes


class Reconciled(NamedTuple):
    """What an answer settled, and what it left open."""

    results: list[Result]
    failed: list[Instance]  # refused for a reason that may pass: once more
    unnamed: list[Instance]  # not spoken of: until they stand alone, and once more
    later: list[Instance]  # the server is out of resources: after a pause
    look_up: list[tuple[int, LookUp]]  # with positions
    confirmed: int
    unknown_uids: int  # UIDs in the answer that were never sent


def manifest_of(answer: Answer) -> StoreResponse | None:
    """The manifest of an answer; None where its status is none that has one, or it has none."""
    return parse_store_response(answer.body) if answer.status in READABLE_STATUS else None


def reconcile_parcel(parcel: Parcel, response: StoreResponse, profile: ServerProfile) -> Reconciled:
    """Settle what the manifest settles."""
    if profile.second_copy is not SecondCopy.KEEPS_FIRST and _is_all_stored(parcel, response):
        results = parcel.all_stored()
        return Reconciled(results, [], [], [], [], len(results), 0)
    headers = [instance.header for instance in parcel.instances]
    sent = [(h.sop_instance_uid, h.media_storage_sop_instance_uid) for h in headers]
    verdicts, unknown = reconcile(sent, response)
    settled = Reconciled([], [], [], [], [], 0, len(unknown))
    confirmed = 0
    for position, verdict in enumerate(verdicts):
        end = _end(parcel, position, verdict, profile)
        if isinstance(end, Result):
            settled.results.append(end)
            confirmed += end.evidence is not None
        elif isinstance(end, LookUp):
            settled.look_up.append((position, end))
        else:
            open_ends = {"failed": settled.failed, "later": settled.later}
            open_ends.get(end, settled.unnamed).append(parcel.instances[position])
    return settled._replace(confirmed=confirmed)


def _is_all_stored(parcel: Parcel, response: StoreResponse) -> bool:
    """Whether it names all of them as stored, and says nothing else: nearly always."""
    if response.failed or any(code is not None for code in response.stored.values()):
        return False
    return response.stored.keys() == {i.header.sop_instance_uid for i in parcel.instances}


def _end(
    parcel: Parcel, position: int, verdict: Verdict, profile: ServerProfile
) -> Result | LookUp | OpenEnd:
    if isinstance(verdict, Stored):
        if profile.second_copy is SecondCopy.KEEPS_FIRST and parcel.replaces_another(position):
            result = parcel.result(position, Outcome.ALREADY_STORED, evidence=Evidence.MANIFEST)
            return result._replace(
                reason_code="earlier_version_kept",
                reason=f"{profile.name} has an earlier version of this file, and keeps it",
            )
        warned = verdict.warning_code is not None
        outcome = Outcome.STORED_WITH_WARNING if warned else Outcome.STORED
        result = parcel.result(position, outcome, evidence=Evidence.MANIFEST)
        if verdict.warning_code is None:
            return result
        return result._replace(
            warning_code=verdict.warning_code,
            reason_code=f"warning_{verdict.warning_code:04X}",
            reason=warning_words(verdict.warning_code),
        )
    if isinstance(verdict, Refused):
        return _refused(parcel, position, verdict.failure_code, profile)
    return "unnamed"


def _refused(
    parcel: Parcel, position: int, failure_code: int | None, profile: ServerProfile
) -> Result | LookUp | OpenEnd:
    disposition = disposition_of(profile, failure_code)
    if disposition == "retry_later":
        return "later"
    if disposition == "already_stored":
        result = parcel.result(position, Outcome.ALREADY_STORED, evidence=Evidence.MANIFEST)
        return result._replace(failure_code=failure_code)
    if disposition == "alone_once" and not parcel.asked_again:
        return "failed"
    code = "no_reason" if failure_code is None else f"failure_{failure_code:04X}"
    result = parcel.result(position, Outcome.REJECTED, code)._replace(failure_code=failure_code)
    says_nothing = disposition == "alone_once"  # 0110, or no reason: a duplicate, perhaps
    if not (parcel.is_doubted(position) or (says_nothing and profile.ask_on_doubt)):
        return result
    has_a_reason = not says_nothing and failure_code not in CALLS_IT_A_DUPLICATE
    return LookUp(
        result,
        is_final=has_a_reason
        and not parcel.may_be_stored
        and not parcel.is_shown_by_a_hit(position),
    )
