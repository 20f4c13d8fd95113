"""Asking a store by QIDO-RS whether it has an instance (PS3.18 10.6)."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

SOP_INSTANCE_UID = "00080018"
STUDY_INSTANCE_UID = "0020000D"
PAGE = 1000
"""Results of one page: AWS HealthImaging and most others refuse more."""


def instance_query(study_instance_uid: str, sop_instance_uid: str) -> str:
    """Path and query, below the base URL, that finds one instance of a study."""
    study, sop = quote(study_instance_uid, safe=""), quote(sop_instance_uid, safe="")
    return f"/studies/{study}/instances?SOPInstanceUID={sop}&limit=1"


def study_query(study_instance_uid: str, offset: int) -> str:
    """Path and query of a page of all instances of a study."""
    study = quote(study_instance_uid, safe="")
    return f"/studies/{study}/instances?limit={PAGE}&offset={offset}"


def sop_instance_uids(body: bytes, study_instance_uid: str) -> set[str] | None:
    """SOP Instance UIDs in an answer, or None where it is not a list of DICOM JSON data sets.

    An empty body (some servers answer 204) is a list of none. What says that it is of another
    study is none of this one's: there are servers that take no notice of what they were asked.
    """
    if not body.strip():
        return set()
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(document, list):
        return None
    found: set[str] = set()
    for item in document:
        if not isinstance(item, dict):
            continue
        uid, study = _text(item, SOP_INSTANCE_UID), _text(item, STUDY_INSTANCE_UID)
        if uid is not None and study in (None, study_instance_uid):
            found.add(uid)
    return found


def _text(item: dict[str, object], tag: str) -> str | None:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    if isinstance(values, list) and values and isinstance(values[0], str):
        return values[0].rstrip("\0 ")
    return None
