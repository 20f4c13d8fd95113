"""Data sets of made-up studies: everything follows from the seed, nobody in them exists.

Enough of each IOD (PS3.3 A) that viewers show it; pictures are ellipses under noise.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from random import Random

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

SEED = "ingester demo 1"
VERSION_NAME = "INGESTER_DEMO"

Values = Mapping[str, object]


def uid(*parts: object) -> str:
    """A UID below 2.25 (PS3.5 B.2) that follows from the seed and the parts."""
    name = "/".join(map(str, (SEED, *parts)))
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, name).int}"


@dataclass(frozen=True, slots=True)
class Study:
    """A study of somebody who does not exist."""

    key: str
    patient_name: str
    patient_id: str
    date: str  # DA
    description: str

    @property
    def study_instance_uid(self) -> str:
        """(0020,000D)."""
        return uid(self.key)


@dataclass(frozen=True, slots=True)
class Picture:
    """What the pixels are like. ``levels``: air, tissue, organ, each a pixel's bytes."""

    rows: int
    columns: int
    frames: int = 1
    samples: int = 1
    bits: int = 16

    @property
    def levels(self) -> tuple[bytes, bytes, bytes]:
        """Air, tissue and organ: the bytes of a pixel; the lowest bits are left to the noise."""
        if self.bits == 16:
            return (b"\0\0", b"\0\4", b"\0\6")
        return (bytes(self.samples), b"\x60" * self.samples, b"\xa0" * self.samples)

    @property
    def noise(self) -> bytes:
        """Bits of a sample that are noise."""
        return b"\x3f\0" if self.bits == 16 else b"\x0f"


@dataclass(frozen=True, slots=True)
class Series:
    """A series and what its instances have in common."""

    study: Study
    number: int
    modality: str
    sop_class_uid: str
    description: str
    picture: Picture | None = None
    spacing_mm: float | None = None  # between slices; None: no slices
    transfer_syntax_uid: UID = ExplicitVRLittleEndian
    values: Values = field(default_factory=dict)

    @property
    def series_instance_uid(self) -> str:
        """(0020,000E)."""
        return uid(self.study.key, self.number)

    def sop_instance_uid(self, number: int) -> str:
        """(0008,0018)."""
        return uid(self.study.key, self.number, number)


def data_set(series: Series, number: int, **other: object) -> Dataset:
    """The data set of one instance, with ``other`` values where they are given."""
    study = series.study
    values: dict[str, object] = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": series.sop_class_uid,
        "SOPInstanceUID": series.sop_instance_uid(number),
        "StudyDate": study.date,
        "SeriesDate": study.date,
        "ContentDate": study.date,
        "StudyTime": "093000",
        "ContentTime": f"09{30 + number // 60:02}{number % 60:02}",
        "AccessionNumber": f"DEMO{study.patient_id[-4:]}",
        "Modality": series.modality,
        "Manufacturer": "Made up",
        "ReferringPhysicianName": "",
        "StudyDescription": study.description,
        "SeriesDescription": series.description,
        "PatientName": study.patient_name,
        "PatientID": study.patient_id,
        "PatientBirthDate": "19000101",
        "PatientSex": "O",
        "StudyInstanceUID": study.study_instance_uid,
        "SeriesInstanceUID": series.series_instance_uid,
        "StudyID": "1",
        "SeriesNumber": series.number,
        "InstanceNumber": number,
        **series.values,
    }
    if series.picture is not None:
        values |= _pixels(series.picture, Random(f"{SEED} {series.sop_instance_uid(number)}"))  # noqa: S311 - pictures, no secrets
    if series.spacing_mm is not None:
        values |= _plane(series, number, series.spacing_mm)
    made = Dataset()
    for keyword, value in (values | other).items():
        setattr(made, keyword, value)
    return made


def part10(made: Dataset, transfer_syntax_uid: UID, version_name: str = VERSION_NAME) -> bytes:
    """The file of a data set (PS3.10 7.1). The same arguments give the same bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = made.SOPClassUID
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = UID(uid("implementation"))
    meta.ImplementationVersionName = version_name
    made.file_meta = meta
    file = BytesIO()
    dcmwrite(file, made, enforce_file_format=True)
    return file.getvalue()


def dicomdir() -> bytes:
    """A DICOMDIR (PS3.3 F) without records: a file that is DICOM and holds no instance."""
    made = Dataset()
    made.SOPClassUID = "1.2.840.10008.1.3.10"
    made.SOPInstanceUID = uid("dicomdir")
    made.FileSetID = "DEMO"
    made.OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity = 0
    made.OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity = 0
    made.FileSetConsistencyFlag = 0
    made.DirectoryRecordSequence = []
    return part10(made, ExplicitVRLittleEndian)


def text_report(words: str) -> Values:
    """What a Basic Text SR (PS3.3 A.35.1) has besides patient, study and series."""
    title, finding = (
        _code("18748-4", "LN", "Diagnostic imaging report"),
        _code("121071", "DCM", "Finding"),
    )
    text = Dataset()
    text.RelationshipType = "CONTAINS"
    text.ValueType = "TEXT"
    text.ConceptNameCodeSequence = [finding]
    text.TextValue = words
    return {
        "ReferencedPerformedProcedureStepSequence": [],
        "PerformedProcedureCodeSequence": [],
        "CompletionFlag": "COMPLETE",
        "VerificationFlag": "UNVERIFIED",
        "ValueType": "CONTAINER",
        "ConceptNameCodeSequence": [title],
        "ContinuityOfContent": "SEPARATE",
        "ContentSequence": [text],
    }


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = scheme
    code.CodeMeaning = meaning
    return code


def _plane(series: Series, number: int, spacing_mm: float) -> Values:
    return {
        "FrameOfReferenceUID": uid(series.study.key, "frame of reference"),
        "PositionReferenceIndicator": "",
        "PatientPosition": "HFS",
        "PixelSpacing": [1.5, 1.5],
        "SliceThickness": spacing_mm,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-192, -192, round(-number * spacing_mm, 1)],
    }


def _pixels(picture: Picture, chance: Random) -> dict[str, object]:
    values: dict[str, object] = {
        "SamplesPerPixel": picture.samples,
        "PhotometricInterpretation": "RGB" if picture.samples == 3 else "MONOCHROME2",
        "Rows": picture.rows,
        "Columns": picture.columns,
        "BitsAllocated": picture.bits,
        "BitsStored": 12 if picture.bits == 16 else 8,
        "HighBit": 11 if picture.bits == 16 else 7,
        "PixelRepresentation": 0,
        "PixelData": b"".join(_frame(picture, chance) for _ in range(picture.frames)),
    }
    if picture.samples == 3:
        values["PlanarConfiguration"] = 0
    if picture.frames > 1:
        values |= {
            "NumberOfFrames": picture.frames,
            "FrameTime": 40,
            "FrameIncrementPointer": 0x00181063,
        }
    return values


def _frame(picture: Picture, chance: Random) -> bytes:
    """An ellipse of tissue with one of an organ inside, and noise in the lowest bits."""
    air, tissue, organ = picture.levels
    size = chance.uniform(0.3, 0.5)
    lines: list[bytes] = []
    for row in range(picture.rows):
        height = 2 * row / picture.rows - 1
        inner = _chord(height, size, picture.columns)
        body = _chord(height, 0.85, picture.columns) - inner
        left = (picture.columns - 2 * (inner + body)) // 2
        line = air * left + tissue * body + organ * 2 * inner + tissue * body
        lines.append(line + air * (picture.columns - 2 * (inner + body) - left))
    plain = b"".join(lines)
    mask = int.from_bytes(picture.noise * (len(plain) // len(picture.noise)))
    noise = int.from_bytes(chance.randbytes(len(plain))) & mask
    return (int.from_bytes(plain) | noise).to_bytes(len(plain))


def _chord(height: float, radius: float, columns: int) -> int:
    """Pixels from the middle to the edge of an ellipse, at a height from -1 to 1."""
    return int(math.sqrt(max(0.0, radius * radius - height * height)) * columns / 2)
