"""Asking a store by QIDO-RS whether it has an instance (PS3.18 10.6)."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

SOP_INSTANCE_UID = "00080018"
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


def sop_instance_uids(body: bytes) -> set[str] | None:
    """SOP Instance UIDs in an answer, or None where it is not a list of DICOM JSON data sets.

    An empty body (some servers answer 204) is a list of none.
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
        element = item.get(SOP_INSTANCE_UID) if isinstance(item, dict) else None
        values = element.get("Value") if isinstance(element, dict) else None
        if isinstance(values, list) and values and isinstance(values[0], str):
            found.add(values[0].rstrip("\0 "))
    return found
