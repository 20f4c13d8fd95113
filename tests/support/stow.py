"""What a store does with a STOW-RS body: read the instances (by pydicom) and write the answer.

PS3.18 10.5.3.2 (Store Instances Response Module: PS3.18 Annex I).
"""

import hashlib
import json
import threading
import warnings
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import NamedTuple

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from tests.support.multipart import MultipartError, boundary_of, split

SOP_CLASS, SOP, STUDY, SERIES = 0x0008_0016, 0x0008_0018, 0x0020_000D, 0x0020_000E

_quiet = threading.Lock()


class Received(NamedTuple):
    """One part of a request; the UIDs are empty where pydicom could not read them."""

    sha256: str  # of the part's bytes, the file as it was sent
    sop: str
    sop_class: str
    study: str
    series: str


def files_of(content_type: str, body: bytes) -> list[bytes]:
    """Splits a request body into files: `multipart/related`, or one `application/dicom`.

    Raises:
        MultipartError: the body is neither, or a part is not `application/dicom`.
    """
    if content_type.partition(";")[0].strip().lower() == "application/dicom":
        return [body]
    parts = split(body, boundary_of(content_type))
    for part in parts:
        if part.headers.get("content-type") != "application/dicom":
            raise MultipartError(f"a part is not application/dicom: {part.headers}")
    return [part.body for part in parts]


def read_instance(file: bytes) -> Received:
    """Reads the identity of one Part 10 file."""
    try:
        uids = _uids(file)
    except Warning:  # tests turn warnings into errors, in this thread too
        with _quiet, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            uids = _uids(file)
    return Received(hashlib.sha256(file).hexdigest(), *uids)


def _uids(file: bytes) -> tuple[str, str, str, str]:
    try:
        dataset = read_partial(
            BytesIO(file),
            stop_when=_after_the_uids,
            specific_tags=[BaseTag(tag) for tag in (SOP_CLASS, SOP, STUDY, SERIES)],
        )
        sop, sop_class, study, series = (
            bytes(dataset.get_item(tag).value or b"").rstrip(b"\0 ").decode("ascii")
            if tag in dataset
            else ""
            for tag in (SOP, SOP_CLASS, STUDY, SERIES)
        )
    except Warning:
        raise
    except Exception:  # noqa: BLE001 - a hostile file: pydicom raises nearly anything
        return "", "", "", ""
    return sop, sop_class, study, series


def _after_the_uids(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return int(tag) > SERIES


def store_instances_response(
    *,
    stored: Iterable[Received] = (),
    warnings_of: Mapping[str, int] | None = None,
    failed: Iterable[tuple[Received, int]] = (),
    failed_uid_tag: str = "00081155",
    other_failures: Iterable[int] = (),
    base_url: str = "",
) -> bytes:
    """Writes the answer as DICOM JSON; empty sequences are left out.

    Args:
        stored: goes to ReferencedSOPSequence (0008,1199).
        warnings_of: WarningReason (0008,1196) by SOP Instance UID.
        failed: goes to FailedSOPSequence (0008,1198) with its FailureReason (0008,1197).
        failed_uid_tag: `00080018` is what AWS's own sample reads.
        other_failures: reasons of failures without a UID, OtherFailuresSequence (0008,119A).
        base_url: where the RetrieveURLs (0008,1190) begin.
    """
    by_uid = warnings_of or {}
    sequences = {
        "00081199": [_referenced(item, by_uid.get(item.sop), base_url) for item in stored],
        "00081198": [
            {
                "00081150": _value("UI", item.sop_class),
                failed_uid_tag: _value("UI", item.sop),
                "00081197": _value("US", reason),
            }
            for item, reason in failed
        ],
        "0008119A": [{"00081197": _value("US", reason)} for reason in other_failures],
    }
    answer = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    return json.dumps(answer).encode()


def _referenced(item: Received, warning: int | None, base_url: str) -> dict[str, object]:
    url = f"{base_url}/studies/{item.study}/series/{item.series}/instances/{item.sop}"
    reference: dict[str, object] = {
        "00081150": _value("UI", item.sop_class),
        "00081155": _value("UI", item.sop),
        "00081190": _value("UR", url),
    }
    if warning is not None:
        reference["00081196"] = _value("US", warning)
    return reference


def search_result(item: Received) -> dict[str, object]:
    """Writes one instance as QIDO-RS does (PS3.18 10.6.3.3), with its four UIDs."""
    return {
        f"{SOP_CLASS:08X}": _value("UI", item.sop_class),
        f"{SOP:08X}": _value("UI", item.sop),
        f"{STUDY:08X}": _value("UI", item.study),
        f"{SERIES:08X}": _value("UI", item.series),
    }


def _value(vr: str, value: str | int) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}
