"""Reads a Store Instances Response (PS3.18 10.5.3, Annex I) and reconciles it with what was sent.

A 2xx is not 'stored': real servers answer 200 with both lists empty, 400 with some stored,
409 with one stored, with the wrong Content-Type or none. So the answer is read for what it says of
each SOP Instance UID, whatever its status and Content-Type.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

REFERENCED_SOP_SEQUENCE = "00081199"
FAILED_SOP_SEQUENCE = "00081198"
OTHER_FAILURES_SEQUENCE = "0008119A"
_REFERENCED_SOP_INSTANCE_UID = "00081155"
_SOP_INSTANCE_UID = "00080018"  # where AWS's sample finds the UIDs of failures
_WARNING_REASON = "00081196"
_FAILURE_REASON = "00081197"
_US = re.compile(r"[0-9]{1,5}")  # PS3.5 6.2: 16 bits

Json = Mapping[str, object]


class StoreResponse(NamedTuple):
    """What a server said of the instances of one request."""

    stored: dict[str, int | None]  # SOP Instance UID → warning reason
    failed: dict[str, int | None]  # SOP Instance UID → failure reason


class Stored(NamedTuple):
    """The server says it has stored this instance."""

    warning_code: int | None


class Refused(NamedTuple):
    """The server says it has not, with a reason (0008,1197) or without."""

    failure_code: int | None


class Unconfirmed(NamedTuple):
    """The server does not speak of this instance."""


Verdict = Stored | Refused | Unconfirmed


def parse_store_response(body: bytes) -> StoreResponse | None:
    """The response, or None where the body is not a DICOM JSON object with a list of instances.

    An object that has neither sequence (an empty one, an error message) is None; one whose
    sequences have no Value is a response that names nothing.
    """
    try:
        document = msgspec.json.decode(body.removeprefix(BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(document, list) and len(document) == 1:
        document = document[0]  # some servers wrap the data set as QIDO-RS does
    if not isinstance(document, dict):
        return None
    keys = (REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE, OTHER_FAILURES_SEQUENCE)
    if not any(key in document for key in keys):
        return None
    stored: dict[str, int | None] = {}
    failed: dict[str, int | None] = {}
    for item in _items(document, FAILED_SOP_SEQUENCE):
        if uid := _uid(item):
            failed[uid] = _number(item, _FAILURE_REASON)
    for item in _items(document, REFERENCED_SOP_SEQUENCE):
        if uid := _uid(item):
            warning = _number(item, _WARNING_REASON)
            stored[uid] = stored.get(uid) if warning is None else warning  # of one named twice
    return StoreResponse(stored, failed)


def reconcile(
    sent: Sequence[tuple[str, str]],
    response: StoreResponse,
) -> tuple[list[Verdict], set[str]]:
    """A verdict for each instance sent, and the UIDs the answer names that were never sent.

    ``sent`` holds the SOP Instance UID of the data set and of the file meta, which differ in some
    real files: a server may answer with either. One in the file meta counts where it can mean no
    other file (a derived image may keep its original's). An instance in both lists is refused: it
    is not claimed on a contradiction.
    """
    owned = {uid for uid, _ in sent}
    in_meta = Counter(meta for uid, meta in sent if meta != uid)
    verdicts = [
        _verdict((uid, meta if meta not in owned and in_meta[meta] == 1 else ""), response)
        for uid, meta in sent
    ]
    known = {uid for uids in sent for uid in uids}
    named = response.stored.keys() | response.failed.keys()
    return verdicts, named - known


def _verdict(uids: tuple[str, str], response: StoreResponse) -> Verdict:
    for uid in uids:
        if uid and uid in response.failed:
            return Refused(response.failed[uid])
    for uid in uids:
        if uid and uid in response.stored:
            return Stored(response.stored[uid])
    return Unconfirmed()


def _values(item: Json, tag: str) -> Sequence[object]:
    element = item.get(tag)
    value = element.get("Value") if isinstance(element, dict) else None
    return value if isinstance(value, list) else ()


def _items(item: Json, tag: str) -> Iterable[Json]:
    return (value for value in _values(item, tag) if isinstance(value, dict))


def _first(item: Json, tag: str) -> object:
    values = _values(item, tag)
    return values[0] if values else None


def _uid(item: Json) -> str:
    for tag in (_REFERENCED_SOP_INSTANCE_UID, _SOP_INSTANCE_UID):
        value = _first(item, tag)
        if isinstance(value, str):
            return value.rstrip("\0 ")
    return ""


def _number(item: Json, tag: str) -> int | None:
    value = _first(item, tag)
    if (isinstance(value, str) and _US.fullmatch(value)) or (
        isinstance(value, float) and value.is_integer()
    ):
        value = int(value)
    return value if type(value) is int and 0 <= value <= 0xFFFF else None
