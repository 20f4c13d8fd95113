"""What reading the head of one file can give: plain values, told apart by their type.

`read_header` (scanner) gives Header, NeedMore, HandOver or NotPart10; `inspect_part10`
(inspection) gives Header, NeedMore or Problem. None of them is ever raised.
"""

import re
from typing import Final, Literal, NamedTuple

MAX_TEXT_CHARACTERS: Final = 320
"""Text is cut here: a header lives as long as its instance is open, and 50,000 may be. LO has 64
characters of up to four bytes (PS3.5 6.2), and a UID beyond the limit must still look it."""

MAX_UID_CHARACTERS: Final = 64
"""PS3.5 9.1. Longer ones exist and are pydicom's to read."""

UID_ALPHABET: Final = b"0123456789."

_CODE: Final = re.compile(r"[A-Z0-9 _]{1,16}")


class Header(NamedTuple):
    """The identity of one instance, and what preflight asks. Absent elements are ''.

    UIDs have no trailing NUL or space (PS3.5 9.1 and 6.2). Text is decoded as Latin-1 whatever
    (0008,0005) says: that never fails, keeps every byte, and is exact for ASCII.
    """

    study_instance_uid: str  # (0020,000D) UI
    series_instance_uid: str  # (0020,000E) UI
    sop_instance_uid: str  # (0008,0018) UI, of the data set, which decides
    sop_class_uid: str  # (0008,0016) UI
    transfer_syntax_uid: str  # (0002,0010) UI
    media_storage_sop_class_uid: str  # (0002,0002) UI
    media_storage_sop_instance_uid: str  # (0002,0003) UI; one that differs is a finding
    patient_id: str  # (0010,0020) LO
    issuer_of_patient_id: str  # (0010,0021) LO
    study_date: str  # (0008,0020) DA
    accession_number: str  # (0008,0050) SH
    modality: str  # (0008,0060) CS; '' where it is no code
    data_set_offset: int  # bytes; the first one after group 2 (PS3.10 7.1)


class NeedMore(NamedTuple):
    """The prefix ends before the answer does. Never for a prefix that is the whole file."""

    size: int  # bytes; the prefix to come back with, at least. Never beyond the file


class HandOver(NamedTuple):
    """The scanner does not understand this file; pydicom must decide."""

    offset: int  # bytes from the start of the file, where it stopped understanding
    reason: str  # for people; never a value of the file


class NotPart10(NamedTuple):
    """There is no 'DICM' at byte 128 (PS3.10 7.1), or the file ends before it."""


class Problem(NamedTuple):
    """A file that will not be sent, and why. It is an outcome, not an error."""

    outcome: Literal["invalid", "not_dicom", "skipped"]
    reason_code: str  # snake_case and stable: people count and script by it
    reason: str  # for people; never a value of the file
    offset: int | None  # bytes from the start of the file, where that is known


def text_of(raw: bytes) -> str:
    """The characters of a text value, without its padding (PS3.5 6.2), never failing."""
    return raw.rstrip(b"\0 ")[:MAX_TEXT_CHARACTERS].decode("latin-1")


def code_of(text: str) -> str:
    """The CS value (PS3.5 6.2), or ''.

    It is shown where patients' data is not, and a length that lies puts other text in its place.
    """
    return text if _CODE.fullmatch(text) else ""


def uid_of(raw: bytes) -> str | None:
    """The UID of a UI value without its padding; None where it breaks PS3.5 9.1."""
    uid = raw.rstrip(b"\0 ")
    # A leading dot goes too: '..' would be a way up in a URL.
    if len(uid) > MAX_UID_CHARACTERS or uid.translate(None, UID_ALPHABET) or uid[:1] == b".":
        return None
    return uid.decode("ascii")
