"""Decides about one file from its head: what it is, or why it is not sent.

The scanner answers for nearly all files; pydicom for what the scanner hands over; the rules about
what can be sent are here. They refuse only what no server could take: without its UIDs an
instance cannot be grouped, sent or looked for, and without a transfer syntax it cannot be read.
"""

from collections.abc import Callable
from io import BytesIO
from typing import BinaryIO, Final

from ingester.dicom.data_set import data_set_offset
from ingester.dicom.encoding import FILE_ENDS, Buffer
from ingester.dicom.fallback import read_with_pydicom
from ingester.dicom.scanner import (
    DICOMDIR_SOP_CLASS_UID,
    LAST_TAG,
    META_OFFSET,
    NEEDED,
    header_of,
    read_header,
)
from ingester.dicom.values import HandOver, Header, NeedMore, NotPart10, Problem

FORCED_BYTES: Final = 64 << 10
"""Of a file without 'DICM', no more than this is looked at, be it a log of 10 GB."""

MAX_USABLE_UID_CHARACTERS: Final = 256
"""What HealthImaging imports. PS3.5 allows 64, archives hold longer ones."""

_UNUSABLE: Final = frozenset(" /\\?#%&;\"'<>`")
"""Not for a path segment, a query or a header; nor is what does not print."""

_USED_UIDS: Final = (
    "study_instance_uid",
    "series_instance_uid",
    "sop_instance_uid",
    "transfer_syntax_uid",
)

_MEDIA_STORAGE_SOP_CLASS_UID: Final = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID: Final = 0x00020003
_SOP_INSTANCE_UID: Final = 0x00080018

_TAGS_OF_SOP_INSTANCES: Final = (b"\x08\0\x18\0", b"\0\x08\0\x18", b"\x02\0\x03\0")
"""In either byte order. Where none of them stands, pydicom need not look: most files that are
not DICOM cost one search."""

_NOT_DICOM: Final = Problem("not_dicom", "not_dicom", "there is no SOP Instance UID", None)
_DICOMDIR: Final = Problem("skipped", "dicomdir", "a DICOMDIR holds no instance (PS3.3 F)", None)


def inspect_part10(
    prefix: Buffer, file_size: int, open_file: Callable[[], BinaryIO]
) -> Header | NeedMore | Problem:
    """Say what a file is, from its first bytes.

    Args:
        prefix: The file from its first byte, as far as it has been read.
        file_size: Bytes in the file.
        open_file: Opens the same file, buffered, for pydicom. Called only when the prefix is not
            the whole file and the scanner does not understand it; closed here.

    Raises:
        OSError: `open_file` failed, or the file could not be read: the caller's to decide.
    """
    if not prefix and file_size == 0:
        return Problem("not_dicom", "empty", "the file is empty", None)
    scanned = read_header(prefix, file_size)
    match scanned:
        case Header():
            # It has its UIDs, and they are valid: of the rules only one is left.
            is_dicomdir = scanned.media_storage_sop_class_uid == DICOMDIR_SOP_CLASS_UID
            return _DICOMDIR if is_dicomdir else scanned
        case NeedMore():
            return scanned
        case NotPart10():
            return _without_preamble(prefix, file_size)
        case HandOver():
            return _ask_pydicom(prefix, file_size, open_file, scanned)


def _ask_pydicom(
    prefix: Buffer, file_size: int, open_file: Callable[[], BinaryIO], scanned: HandOver
) -> Header | Problem:
    """Let pydicom read a Part 10 file that the scanner does not understand."""
    stream = BytesIO(prefix) if len(prefix) >= file_size else open_file()
    with stream:
        reading = read_with_pydicom(stream, file_size, NEEDED, LAST_TAG)
    values = reading.values
    if values.get(_MEDIA_STORAGE_SOP_CLASS_UID) == DICOMDIR_SOP_CLASS_UID:
        return _DICOMDIR
    if reading.is_exhausted:
        return _invalid("header_too_large", "the header has more than is read of one")
    is_incomplete = not all(values.get(tag) for tag in NEEDED)
    if reading.is_cut or (is_incomplete and scanned.reason == FILE_ENDS):
        return _invalid("truncated_header", FILE_ENDS, scanned.offset)
    if reading.failure:
        reason = f"the header cannot be read: {reading.failure}"
        return _invalid("unreadable_header", reason, scanned.offset)
    # Without an end of group 2 everything is compared: that finds a difference too many at worst.
    return _judge(header_of(values, data_set_offset(prefix) or META_OFFSET))


def _without_preamble(prefix: Buffer, file_size: int) -> NeedMore | Problem:
    """Tell an instance that lacks only its preamble or group 2 from what is not DICOM."""
    head = bytes(prefix[:FORCED_BYTES])
    if len(head) < min(file_size, FORCED_BYTES):
        return NeedMore(min(file_size, FORCED_BYTES))
    if any(marker in head for marker in _TAGS_OF_SOP_INSTANCES):
        reading = read_with_pydicom(BytesIO(head), len(head), (_SOP_INSTANCE_UID,), LAST_TAG)
        for tag in (_SOP_INSTANCE_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID):
            if is_usable_uid(reading.values.get(tag, "")):
                reason = "DICOM without a preamble and 'DICM' (PS3.10 7.1)"
                return _invalid("no_part10_header", reason, 0)
    return _NOT_DICOM


def _judge(header: Header) -> Header | Problem:
    """Refuse a header without what a store needs; give back one that can be used."""
    if header.media_storage_sop_class_uid == DICOMDIR_SOP_CLASS_UID:
        return _DICOMDIR
    if not header.sop_instance_uid and not header.media_storage_sop_instance_uid:
        return _NOT_DICOM
    for name in ("sop_instance_uid", "study_instance_uid", "series_instance_uid"):
        if not getattr(header, name):
            return _invalid(f"missing_{name}", f"the data set has no {name}")
    if not header.transfer_syntax_uid:
        return _invalid("missing_transfer_syntax_uid", "group 2 has no transfer_syntax_uid")
    for name in _USED_UIDS:
        if not is_usable_uid(getattr(header, name)):
            return _invalid("bad_uid", f"{name} cannot be used as a UID")
    return header._replace(
        sop_class_uid=_usable_or_empty(header.sop_class_uid),
        media_storage_sop_class_uid=_usable_or_empty(header.media_storage_sop_class_uid),
        media_storage_sop_instance_uid=_usable_or_empty(header.media_storage_sop_instance_uid),
    )


def is_usable_uid(uid: str) -> bool:
    """Whether a UID can stand in a URL, a header and a journal. Not whether PS3.5 9.1 allows it."""
    return (
        0 < len(uid) <= MAX_USABLE_UID_CHARACTERS
        and uid.isascii()
        and uid.isprintable()
        and _UNUSABLE.isdisjoint(uid)
        and bool(uid.strip("."))
    )


def _usable_or_empty(uid: str) -> str:
    """Return a UID that is only reported, or '' for one that cannot be: the store may take it."""
    return uid if is_usable_uid(uid) else ""


def _invalid(reason_code: str, reason: str, offset: int | None = None) -> Problem:
    return Problem("invalid", reason_code, reason, offset)
