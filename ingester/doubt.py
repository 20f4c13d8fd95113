"""Asking a store by QIDO-RS what it has of a parcel whose answer was lost.

A hit proves the UID: with our own doubt about it, the instance is ours and stored. Where an earlier
run sent other bytes under the UID, the store is not asked: it shows those. Silence proves nothing,
a store may show what it has later: what is not found is sent again.
"""

from __future__ import annotations

from ingester.dicomweb.qido import PAGE, instance_query, sop_instance_uids, study_query
from ingester.parcel import Parcel
from ingester.transport.reply import Answer
from ingester.transport.sender import Sender

ONE_BY_ONE_AT_MOST = 20
MAX_PAGES = 10
"""Of a study's instances: what lies beyond 10,000 is taken as not found."""


async def found_in_store(sender: Sender, parcel: Parcel) -> set[str] | None:
    """SOP Instance UIDs of the parcel that the store shows; None where it does not answer that."""
    uids = {
        instance.header.sop_instance_uid
        for position, instance in enumerate(parcel.instances)
        if parcel.is_shown_by_a_hit(position)
    }
    if not uids:
        return None
    study = parcel.study_instance_uid
    found: set[str] = set()
    if len(uids) <= ONE_BY_ONE_AT_MOST:
        for uid in uids:
            shown = await _ask(sender, study, instance_query(study, uid))
            if shown is None:
                return None
            found |= shown
        return found & uids
    for page in range(MAX_PAGES):
        async with sender.pages:
            shown = await _ask(sender, study, study_query(study, page * PAGE))
        if shown is None:
            return None
        nothing_new = shown <= found
        found |= shown
        if len(shown) < PAGE or nothing_new or uids <= found:
            break
    return found & uids


async def _ask(sender: Sender, study_instance_uid: str, query: str) -> set[str] | None:
    answer = await sender.get(query)
    if not isinstance(answer, Answer) or answer.status not in (200, 204):
        return None
    return sop_instance_uids(answer.body, study_instance_uid)
