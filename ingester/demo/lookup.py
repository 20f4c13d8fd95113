"""Asks the store again for what the journal calls stored.

By QIDO-RS (PS3.18 10.6) whether it is there, by WADO-RS (10.4) whether its bytes are the file's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from ingester.dicomweb.qido import PAGE, sop_instance_uids, study_query
from ingester.journal import FileRow
from ingester.transport.reply import Answer
from ingester.transport.sender import Sender


@dataclass(slots=True)
class Found:
    """What the store has of the instances it was asked for."""

    asked: int = 0
    found: int = 0  # by QIDO-RS
    equal: int = 0  # retrieved, byte for byte the file
    differences: list[str] = field(default_factory=list)


async def look_up(sender: Sender, studies: Sequence[str], rows: Sequence[FileRow]) -> Found:
    """Ask for every row; what the store has of these studies besides is a difference too."""
    found = Found(asked=len(rows))
    there: set[str] = set()
    for study in studies:
        there |= await _instances_of(sender, study, found)
    wanted = {row.sop_instance_uid for row in rows}
    found.differences += [f"not asked for, but in the store: {uid}" for uid in there - wanted]
    for row in rows:
        if row.sop_instance_uid not in there:
            found.differences.append(f"not found by QIDO-RS: {row.sop_instance_uid}")
            continue
        found.found += 1
        if await _is_equal(sender, row):
            found.equal += 1
        else:
            found.differences.append(f"other bytes by WADO-RS: {row.sop_instance_uid}")
    return found


async def _instances_of(sender: Sender, study: str, found: Found) -> set[str]:
    """SOP Instance UIDs that the store has of a study, page by page."""
    there: set[str] = set()
    while True:
        answer = await sender.get(study_query(study, len(there)))
        page = None
        if isinstance(answer, Answer) and answer.status in (200, 204):
            page = sop_instance_uids(answer.body, study)
        if page is None:
            found.differences.append(f"no answer to a search by QIDO-RS in study {study}")
            return there
        nothing_new = page <= there
        there |= page
        if len(page) < PAGE or nothing_new:
            return there


async def _is_equal(sender: Sender, row: FileRow) -> bool:
    answer = await sender.get(
        f"/studies/{row.study_instance_uid}/series/{row.series_instance_uid}"
        f"/instances/{row.sop_instance_uid}"
    )
    if not isinstance(answer, Answer) or answer.status != 200:
        return False
    return await asyncio.to_thread(_read, row.path) == answer.body


def _read(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()
