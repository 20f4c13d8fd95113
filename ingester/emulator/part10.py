"""Who an instance is, read by pydicom from the file that arrived (PS3.10 section 7).

pydicom walks the whole data set up to the pixel data, so a data set whose structure is broken
before them is refused. Values are taken as the bytes that stand in the file.
"""

import logging
import os
import re
import warnings
from dataclasses import dataclass

import pydicom

# Digits and dots, a digit at either end of each component: safe as a file name. Leading zeros,
# which PS3.5 section 9.1 forbids, are in real archives, and HealthImaging keeps such instances.
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_MAX_UID_LENGTH = 64

STORE_THREAD = "emulator-store"


def _is_others(record: logging.LogRecord) -> bool:
    """Keep from the log what pydicom says in the thread of the store: it quotes values."""
    return not (record.threadName or "").startswith(STORE_THREAD)


logging.getLogger("pydicom").addFilter(_is_others)

# A longer value before the pixel data is not needed here and stays in the file.
_DEFER_ABOVE_BYTES = 65536


class UnreadableError(Exception):
    """Not a DICOM file that pydicom can read; the cause is chained."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What the store knows an instance by; a missing value is an empty string."""

    study_instance_uid: str  # (0020,000D)
    series_instance_uid: str  # (0020,000E)
    sop_instance_uid: str  # (0008,0018)
    sop_class_uid: str  # (0008,0016)
    transfer_syntax_uid: str  # (0002,0010)
    modality: str  # (0008,0060)
    study_date: str  # (0008,0020); this and the rest is what HealthImaging groups by
    accession_number: str  # (0008,0050)
    patient_id: str  # (0010,0020)
    study_id: str  # (0020,0010)
    series_number: str  # (0020,0011)

    @property
    def is_storable(self) -> bool:
        """All five UIDs are there and can be names of files."""
        return all(
            is_uid(uid)
            for uid in (
                self.study_instance_uid,
                self.series_instance_uid,
                self.sop_instance_uid,
                self.sop_class_uid,
                self.transfer_syntax_uid,
            )
        )


def is_uid(value: str) -> bool:
    """Tell whether a value has the form of a UID, which is also safe as a file name."""
    return len(value) <= _MAX_UID_LENGTH and _UID.fullmatch(value) is not None


def read_identity(path: str | os.PathLike[str]) -> Identity:
    """Read a Part 10 file up to its pixel data.

    Memory stays below the size of the elements before the pixel data; of a deflated file pydicom
    inflates the whole.

    Raises:
        UnreadableError: There is no preamble with prefix, or the structure cannot be followed.
        OSError: The disk failed.
    """
    try:
        data_set = read_data_set(path)
        return Identity(
            study_instance_uid=_text(data_set, 0x0020000D),
            series_instance_uid=_text(data_set, 0x0020000E),
            sop_instance_uid=_text(data_set, 0x00080018),
            sop_class_uid=_text(data_set, 0x00080016),
            transfer_syntax_uid=_text(data_set.file_meta, 0x00020010),
            modality=_text(data_set, 0x00080060),
            study_date=_text(data_set, 0x00080020).lstrip(" "),
            accession_number=_text(data_set, 0x00080050).lstrip(" "),
            patient_id=_text(data_set, 0x00100020).lstrip(" "),
            study_id=_text(data_set, 0x00200010).lstrip(" "),
            series_number=_text(data_set, 0x00200011).lstrip(" "),
        )
    except Exception as error:
        # pydicom raises about any type on a broken file; only the disk's own errors have an errno.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UnreadableError from error


def read_data_set(path: str | os.PathLike[str]) -> pydicom.Dataset:
    """Read a Part 10 file up to its pixel data; a value that is long stays in the file.

    Raises:
        Exception: Of about any type, if the file is broken.
    """
    # pydicom's warnings quote values. catch_warnings is not for threads; a filter by module is.
    warnings.filterwarnings("ignore", module=r"pydicom\.")
    return pydicom.dcmread(path, stop_before_pixels=True, defer_size=_DEFER_ABOVE_BYTES)


def _text(data_set: pydicom.Dataset, tag: int) -> str:
    if tag not in data_set:
        return ""
    value = data_set.get_item(tag).value
    if isinstance(value, bytes):
        value = value.decode("ascii", "backslashreplace")
    return value.rstrip("\0 ") if isinstance(value, str) else ""
