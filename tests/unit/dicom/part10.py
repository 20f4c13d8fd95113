"""Part 10 files made by hand, and pydicom's own: what the tests of this folder read."""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import BinaryIO, NoReturn

import pydicom
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag
from pydicom.valuerep import validate_type_and_regex

from ingester.dicom import Header, NeedMore, Problem, inspect_part10
from ingester.dicom.values import MAX_TEXT_CHARACTERS

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SERIES, SOP = "1.2.826.0.1.1", "1.2.826.0.1.1.2", "1.2.826.0.1.1.2.3"
UNDEFINED = 0xFFFFFFFF
LONG = {"OB", "OW", "SQ", "UN", "UT", "UC"}

ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def element(
    tag: int, vr: str, value: str | bytes, *, length: int | None = None, explicit: bool = True
) -> bytes:
    """One data element, padded to an even length unless a length is given."""
    raw = value.encode("latin-1") if isinstance(value, str) else value
    if length is None:
        raw += (b"\0" if vr in {"UI", "OB", "UN"} else b" ") * (len(raw) % 2)
        length = len(raw)
    if not explicit:
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, length) + raw
    if vr in LONG:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr.encode(), 0, length) + raw
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), length) + raw


def group_2(
    transfer_syntax_uid: str = EXPLICIT,
    media_storage_sop_class_uid: str = CT_IMAGE_STORAGE,
    media_storage_sop_instance_uid: str = SOP,
    *,
    group_length: int | None = None,
) -> bytes:
    """Group 2 with the given UIDs; an empty one is left out."""
    body = element(0x00020001, "OB", b"\0\1")
    for tag, uid in (
        (0x00020002, media_storage_sop_class_uid),
        (0x00020003, media_storage_sop_instance_uid),
        (0x00020010, transfer_syntax_uid),
    ):
        body += element(tag, "UI", uid) if uid else b""
    declared = len(body) if group_length is None else group_length
    return element(0x00020000, "UL", struct.pack("<I", declared)) + body


def identity(*, explicit: bool = True, **changed: str) -> bytes:
    """The elements that identify an instance, in order; one changed to '' is left out."""
    return identity_but(changed, explicit=explicit)


def identity_but(changed: dict[str, str], *, explicit: bool = True) -> bytes:
    """The same, of names that are only known when the test runs."""
    values = {"sop": SOP, "study": STUDY, "series": SERIES, "sop_class": CT_IMAGE_STORAGE} | changed
    elements = (
        (0x00080016, "UI", values["sop_class"]),
        (0x00080018, "UI", values["sop"]),
        (0x00080020, "DA", "20240229"),
        (0x00080050, "SH", "A1"),
        (0x00080060, "CS", "CT"),
        (0x00100020, "LO", "P1"),
        (0x00100021, "LO", "HOSPITAL"),
        (0x0020000D, "UI", values["study"]),
        (0x0020000E, "UI", values["series"]),
        (0x00200011, "IS", "7"),
    )
    return b"".join(element(t, vr, v, explicit=explicit) for t, vr, v in elements if v)


def pixels(*, explicit: bool = True) -> bytes:
    """What follows the header of an image."""
    return element(0x00280010, "US", b"\1\0", explicit=explicit) + element(
        0x7FE00010, "OW", bytes(64), explicit=explicit
    )


def part10(data_set: bytes, meta: bytes | None = None) -> bytes:
    """A file: preamble, 'DICM', group 2, data set."""
    return bytes(128) + b"DICM" + (group_2() if meta is None else meta) + data_set


def inspect(data: bytes) -> Header | NeedMore | Problem:
    """Inspect a file that is in the prefix as a whole."""
    return inspect_part10(data, len(data), no_file)


def problem(data: bytes) -> tuple[str, str]:
    """The outcome and the reason code of a file that is not sent."""
    found = inspect(data)
    assert isinstance(found, Problem)
    return found.outcome, found.reason_code


def deflated(data_set: bytes) -> bytes:
    """A file with a deflated data set (PS3.5 A.5)."""
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return part10(deflater.compress(data_set) + deflater.flush(), group_2(DEFLATED))


def no_file() -> NoReturn:
    """Stand in for `open_file` where the prefix must be enough."""
    raise AssertionError("the file was opened")


def opener(data: bytes) -> "Opener":
    """Stand in for a file that may be opened."""
    return Opener(data)


class Opener:
    """Counts how often a file is opened."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.opened = 0

    def __call__(self) -> BinaryIO:
        self.opened += 1
        return BytesIO(self.data)


def pydicom_files() -> Iterator[str]:
    """Every file of pydicom's own data, by its path inside of it; none is downloaded."""
    for folder, _, names in sorted(os.walk(data_folder())):
        for name in sorted(names):
            if not name.endswith((".py", ".pyc", ".md", ".txt", ".json")):
                yield os.path.relpath(os.path.join(folder, name), data_folder())


def data_folder() -> str:
    """The folder of pydicom's own data."""
    return os.path.join(os.path.dirname(pydicom.__file__), "data")


def content(name: str) -> bytes:
    """One file of pydicom's own data."""
    with open(os.path.join(data_folder(), name), "rb") as file:
        return file.read()


def at_pixels(tag: int, _vr: str | None, _length: int) -> bool:
    """Where reading usually stops."""
    return tag >= 0x7FE00000


def read_by_pydicom(
    data: bytes, stop_when: Callable[[BaseTag, str | None, int], bool] = at_pixels
) -> tuple[Dataset, Dataset, list[str]]:
    """Group 2, the data set and the complaints, by pydicom."""
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        data_set = read_partial(BytesIO(data), stop_when, force=True)
        data_set.get("SpecificCharacterSet")
    return data_set.file_meta, data_set, [str(complaint.message) for complaint in complaints]


def header_by_pydicom(data: bytes) -> tuple[Dataset, Dataset] | None:
    """Group 2 and the data set up to (0020,0011), where pydicom reads them without a complaint."""
    with contextlib.suppress(Exception):
        meta, data_set, complaints = read_by_pydicom(data, lambda tag, *_: tag > 0x00200011)
        return None if complaints else (meta, data_set)
    return None


def raw_value(data_set: Dataset, tag: int) -> str:
    """The characters of an element as they stand in the file, without padding; '' if absent."""
    if tag not in data_set:
        return ""
    value: object = data_set.get_item(tag).value
    if isinstance(value, bytes):
        return value.decode("latin-1").rstrip("\0 ")
    return str(value or "").rstrip("\0 ")


FIELDS = {
    "study_instance_uid": 0x0020000D,
    "series_instance_uid": 0x0020000E,
    "sop_instance_uid": 0x00080018,
    "sop_class_uid": 0x00080016,
    "transfer_syntax_uid": 0x00020010,
    "media_storage_sop_class_uid": 0x00020002,
    "media_storage_sop_instance_uid": 0x00020003,
    "patient_id": 0x00100020,
    "issuer_of_patient_id": 0x00100021,
    "study_date": 0x00080020,
    "accession_number": 0x00080050,
    "modality": 0x00080060,
}
"""The fields of a Header and their tags (PS3.6)."""


def fields_by_pydicom(meta: Dataset, data_set: Dataset) -> dict[str, str]:
    """What a Header should say, by pydicom: text no longer than a Header keeps, a code or none."""
    fields = {
        name: raw_value(meta if tag >> 16 == 2 else data_set, tag)[:MAX_TEXT_CHARACTERS]
        for name, tag in FIELDS.items()
    }
    is_code, _ = validate_type_and_regex("CS", fields["modality"])
    return fields if is_code else fields | {"modality": ""}
