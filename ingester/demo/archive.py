"""Writes the archive of the demonstration and says what has to become of each file.

Seven studies as a hospital has them, one of them in two directories, and what every old archive
has besides: a copy, another version of an instance, a file that was cut off, notes, a DICOMDIR and
a link.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from pydicom.uid import ImplicitVRLittleEndian

from ingester.demo.content import (
    Picture,
    Series,
    Study,
    data_set,
    dicomdir,
    part10,
    text_report,
)
from ingester.dicomweb.outcome import Outcome

CUT_AT_BYTES = 700
"""Behind the SOP Instance UID and before the Study Instance UID."""


@dataclass(frozen=True, slots=True)
class Made:
    """A file and the outcome it has to have; of two with the same UIDs either may be the one."""

    path: str  # below the archive
    outcome: Outcome
    reason_code: str = ""
    key: tuple[str, str] = ("", "")  # Study and SOP Instance UID, where it is an instance


_CHEST = Study("chest", "Fictitious^Ada", "DEMO-0001", "20190308", "CT CHEST")
_ABDOMEN = Study("abdomen", "Fictitious^Ben", "DEMO-0002", "20200117", "CT ABDOMEN")
_HEAD = Study("head", "Fictitious^Cleo", "DEMO-0003", "20210922", "MR HEAD")
_HAND = Study("hand", "Fictitious^Dan", "DEMO-0004", "20170530", "HAND LEFT")
_HEART = Study("heart", "Fictitious^Eve", "DEMO-0005", "20221104", "ECHOCARDIOGRAPHY")
_BODY = Study("body", "Fictitious^Finn", "DEMO-0006", "20230214", "PET WHOLE BODY")
_PAPER = Study("paper", "Fictitious^Gus", "DEMO-0007", "20110801", "SCANNED PAPERS")

_CT = {
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    "AcquisitionNumber": 1,
    "KVP": 120,
    "RescaleIntercept": -1024,
    "RescaleSlope": 1,
}
_MR = {
    "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
    "ScanningSequence": "SE",
    "SequenceVariant": "NONE",
    "ScanOptions": "",
    "MRAcquisitionType": "2D",
    "EchoTrainLength": 1,
}
_PET = {
    "ImageType": ["ORIGINAL", "PRIMARY"],
    "Units": "BQML",
    "RescaleIntercept": 0,
    "RescaleSlope": 1,
    "FrameReferenceTime": 0,
}
_US = {"ImageType": ["ORIGINAL", "PRIMARY"], "LossyImageCompression": "00"}
_CLASS = "1.2.840.10008.5.1.4.1.1."
_SLICE = Picture(256, 256)


_SCOUT_TYPE = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
_HAND_VIEW = {"BodyPartExamined": "HAND", "ViewPosition": "PA"}
_REPORT = text_report("No finding: there is nobody in these pictures.")
_PAGE = Picture(1754, 1240, bits=8)
_STILL = Picture(480, 640, samples=3, bits=8)
_CLIP = Picture(240, 320, frames=24, samples=3, bits=8)

# fmt: off
_AXIAL = Series(_CHEST, 2, "CT", _CLASS + "2", "AXIAL 5 MM", _SLICE, 5.0, values=_CT)
_LIVER = Series(_ABDOMEN, 1, "CT", _CLASS + "2", "AXIAL 3 MM", _SLICE, 3.0, values=_CT)

# Directory, first and last instance number, series.
_ARCHIVE: tuple[tuple[str, int, int, Series], ...] = (
    ("disk1/ct-chest/scout", 1, 1,
        Series(_CHEST, 1, "CT", _CLASS + "2", "SCOUT", _SLICE, 1.0, values=_CT | _SCOUT_TYPE)),
    ("disk1/ct-chest/axial", 1, 48, _AXIAL),
    ("disk1/ct-chest/report", 1, 1,
        Series(_CHEST, 3, "SR", _CLASS + "88.11", "REPORT", values=_REPORT)),
    ("disk1/ct-abdomen", 1, 20, _LIVER),
    ("disk1/mr-head/t1", 1, 20,
        Series(_HEAD, 1, "MR", _CLASS + "4", "T1", _SLICE, 4.0, ImplicitVRLittleEndian,
            _MR | {"EchoTime": 10, "RepetitionTime": 500})),
    ("disk1/mr-head/t2", 1, 24,
        Series(_HEAD, 2, "MR", _CLASS + "4", "T2", _SLICE, 4.0, ImplicitVRLittleEndian,
            _MR | {"EchoTime": 90, "RepetitionTime": 4000})),
    ("disk1/cr-hand", 1, 2,
        Series(_HAND, 1, "CR", _CLASS + "1", "PA", Picture(1024, 832), values=_HAND_VIEW)),
    ("disk2/ct-abdomen", 21, 36, _LIVER),
    ("disk2/us-heart/clip", 1, 1,
        Series(_HEART, 1, "US", _CLASS + "3.1", "FOUR CHAMBERS", _CLIP, values=_US)),
    ("disk2/us-heart/stills", 1, 2,
        Series(_HEART, 2, "US", _CLASS + "6.1", "STILLS", _STILL, values=_US)),
    ("disk2/pt-body", 1, 30,
        Series(_BODY, 1, "PT", _CLASS + "128", "AC", Picture(128, 128), 4.0, values=_PET)),
    ("disk2/papers", 1, 2,
        Series(_PAPER, 1, "OT", _CLASS + "7", "REQUEST", _PAGE, values={"ConversionType": "SD"})),
)
# fmt: on

STUDIES = (_CHEST, _ABDOMEN, _HEAD, _HAND, _HEART, _BODY, _PAPER)


def write_archive(root: str) -> list[Made]:
    """Write all files below ``root``; the same bytes each time. Raises OSError."""
    made: list[Made] = []
    for directory, first, last, series in _ARCHIVE:
        for number in range(first, last + 1):
            file = _instance(f"{directory}/IM{number:04}.dcm", Outcome.STORED, "", series, number)
            data = part10(data_set(series, number), series.transfer_syntax_uid)
            _write(os.path.join(root, file.path), data, series.study.date)
            made.append(file)
    for file, data in _oddities():
        _write(os.path.join(root, file.path), data, _CHEST.date)
        made.append(file)
    link = Made("latest", Outcome.SKIPPED, "symlink")
    os.symlink("disk2", os.path.join(root, link.path))
    return [*made, link]


def _oddities() -> Iterator[tuple[Made, bytes]]:
    """Files that are not simply stored."""
    syntax, copies = _AXIAL.transfer_syntax_uid, "disk2/copies"
    copy = _instance(f"{copies}/chest-1.dcm", Outcome.DUPLICATE, "same_data_set", _AXIAL, 1)
    yield copy, part10(data_set(_AXIAL, 1), syntax, "OTHER_PROGRAM")
    other = _instance(f"{copies}/chest-2-new.dcm", Outcome.CONFLICT, "other_data_set", _AXIAL, 2)
    yield other, part10(data_set(_AXIAL, 2, PatientName="Fictitious^Ada^Corrected"), syntax)
    cut = Made(f"{copies}/chest-49.dcm", Outcome.INVALID, "truncated_header")
    yield cut, part10(data_set(_AXIAL, 49), syntax)[:CUT_AT_BYTES]
    notes = Made("disk2/notes.txt", Outcome.NOT_DICOM, "not_dicom")
    yield notes, b"Disk 2 came back from the repair shop.\n"
    yield Made("disk1/DICOMDIR", Outcome.SKIPPED, "dicomdir"), dicomdir()


def _instance(path: str, outcome: Outcome, reason_code: str, series: Series, number: int) -> Made:
    key = (series.study.study_instance_uid, series.sop_instance_uid(number))
    return Made(path, outcome, reason_code, key)


def _write(path: str, data: bytes, date: str) -> None:
    """Write a file that was last changed on ``date``: its time stamp can be trusted."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        file.write(data)
    when = datetime.strptime(date, "%Y%m%d").replace(tzinfo=UTC).timestamp()
    os.utime(path, (when, when))
