"""DICOM files to ingest: pydicom's own, and small valid Part 10 files written by the thousand.

Files are made from bytes by hand (PS3.5 7.1, PS3.10 7.1): 20,000 of them take a few seconds.
Everything follows from the seed.
"""

import hashlib
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"
_NATIVE = {
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
}
CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_IMPLEMENTATION = "2.25.138461904163716021954037209120283541961"
_LONG = {"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"}


@dataclass(frozen=True, slots=True)
class Written:
    """One file as it was written."""

    path: Path
    study: str
    series: str
    sop: str
    sha256: str  # of the file
    size: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """A directory of studies, and what is in it."""

    root: Path
    files: dict[Path, Written]

    @property
    def sop_instance_uids(self) -> set[str]:
        """All of them; every file has its own."""
        return {file.sop for file in self.files.values()}

    @property
    def sha256_by_sop(self) -> dict[str, str]:
        """The digest of each file, by SOP Instance UID."""
        return {file.sop: file.sha256 for file in self.files.values()}

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(file.size for file in self.files.values())

    def __iter__(self) -> Iterator[Written]:
        return iter(self.files.values())

    def __len__(self) -> int:
        return len(self.files)


def pydicom_test_files() -> list[Path]:
    """All files that pydicom is installed with for its tests: some are broken, some no DICOM."""
    root = Path(pydicom.__file__).parent / "data" / "test_files"
    return sorted(path for path in root.rglob("*") if path.is_file())


def make_uid(*parts: object) -> str:
    """A UID below 2.25 (PS3.5 B.2) that follows from the parts."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def instance_bytes(
    *,
    study: str,
    series: str,
    sop: str,
    patient_id: str = "P1",
    modality: str = "CT",
    payload_bytes: int = 1024,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    sop_class: str = CT_IMAGE_STORAGE,
    instance_number: int = 1,
    seed: int = 0,
) -> bytes:
    """Makes a Part 10 file.

    The pixel data has `payload_bytes` of noise, rounded up to whole rows of 16 bit pixels (128
    bytes, much longer ones from 8 MiB on); for a compressed transfer syntax it is one fragment,
    which no codec could read. 0 leaves the image out.
    """
    encode = Encoder(transfer_syntax)
    columns = next(c for c in (64, 8192, 65535) if payload_bytes <= c * 2 * 65535)
    rows = -(-payload_bytes // (columns * 2))
    noise = random.Random(f"{seed}/{sop}").randbytes(rows * columns * 2)
    elements = [
        encode.text(0x0008, 0x0005, "CS", "ISO_IR 192"),
        encode.text(0x0008, 0x0016, "UI", sop_class),
        encode.text(0x0008, 0x0018, "UI", sop),
        encode.text(0x0008, 0x0020, "DA", "20240229"),
        encode.text(0x0008, 0x0030, "TM", "235959"),
        encode.text(0x0008, 0x0050, "SH", "A" + hashlib.sha256(study.encode()).hexdigest()[:10]),
        encode.text(0x0008, 0x0060, "CS", modality),
        encode.text(0x0008, 0x0090, "PN", ""),
        encode.text(0x0010, 0x0010, "PN", f"Sample^{patient_id}"),
        encode.text(0x0010, 0x0020, "LO", patient_id),
        encode.text(0x0010, 0x0030, "DA", "19700101"),
        encode.text(0x0010, 0x0040, "CS", "O"),
        encode.text(0x0020, 0x000D, "UI", study),
        encode.text(0x0020, 0x000E, "UI", series),
        encode.text(0x0020, 0x0010, "SH", "1"),
        encode.text(0x0020, 0x0011, "IS", "1"),
        encode.text(0x0020, 0x0013, "IS", str(instance_number)),
    ]
    if noise:
        elements += [
            encode.number(0x0028, 0x0002, 1),
            encode.text(0x0028, 0x0004, "CS", "MONOCHROME2"),
            encode.number(0x0028, 0x0010, rows),
            encode.number(0x0028, 0x0011, columns),
            encode.number(0x0028, 0x0100, 16),
            encode.number(0x0028, 0x0101, 16),
            encode.number(0x0028, 0x0102, 15),
            encode.number(0x0028, 0x0103, 0),
            encode.pixels(noise),
        ]
    dataset = b"".join(elements)
    if transfer_syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        deflate = zlib.compressobj(wbits=-15)
        dataset = deflate.compress(dataset) + deflate.flush()
        dataset += b"\0" * (len(dataset) % 2)
    return _meta(sop_class, sop, transfer_syntax) + dataset


def write_instance(
    path: Path,
    *,
    study: str,
    series: str,
    sop: str,
    patient_id: str = "P1",
    modality: str = "CT",
    payload_bytes: int = 1024,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    sop_class: str = CT_IMAGE_STORAGE,
    instance_number: int = 1,
    seed: int = 0,
) -> Written:
    """Writes the file of `instance_bytes`; its directory must be there."""
    data = instance_bytes(
        study=study,
        series=series,
        sop=sop,
        patient_id=patient_id,
        modality=modality,
        payload_bytes=payload_bytes,
        transfer_syntax=transfer_syntax,
        sop_class=sop_class,
        instance_number=instance_number,
        seed=seed,
    )
    path.write_bytes(data)
    return Written(path, study, series, sop, hashlib.sha256(data).hexdigest(), len(data))


def write_study(
    directory: Path,
    n_instances: int,
    *,
    study: str | None = None,
    n_series: int = 1,
    patient_id: str = "P1",
    modality: str = "CT",
    payload_bytes: int = 1024,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
    seed: int = 0,
) -> list[Path]:
    """Writes one study, its instances dealt out to `n_series` series; makes the directory."""
    written = _write_study(
        directory,
        n_instances,
        study=study or make_uid(seed, "study"),
        n_series=n_series,
        patient_id=patient_id,
        modality=modality,
        payload_bytes=payload_bytes,
        transfer_syntax=transfer_syntax,
        seed=seed,
    )
    return [file.path for file in written]


def write_corpus(
    directory: Path,
    studies: int,
    instances_per_study: int,
    payload_bytes: int = 1024,
    seed: int = 0,
    *,
    n_series: int = 1,
    modality: str = "CT",
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
) -> Corpus:
    """Writes studies, each of its own patient, to directories of their own."""
    files: dict[Path, Written] = {}
    for number in range(studies):
        written = _write_study(
            directory / f"study{number:05d}",
            instances_per_study,
            study=make_uid(seed, "study", number),
            n_series=n_series,
            patient_id=f"P{number:05d}",
            modality=modality,
            payload_bytes=payload_bytes,
            transfer_syntax=transfer_syntax,
            seed=seed,
        )
        files.update((file.path, file) for file in written)
    return Corpus(directory, files)


def _write_study(
    directory: Path,
    n_instances: int,
    *,
    study: str,
    n_series: int,
    patient_id: str,
    modality: str,
    payload_bytes: int,
    transfer_syntax: str,
    seed: int,
) -> list[Written]:
    directory.mkdir(parents=True, exist_ok=True)
    return [
        write_instance(
            directory / f"{number:06d}.dcm",
            study=study,
            series=make_uid(study, "series", number * n_series // n_instances),
            sop=make_uid(study, "sop", number),
            patient_id=patient_id,
            modality=modality,
            payload_bytes=payload_bytes,
            transfer_syntax=transfer_syntax,
            instance_number=number + 1,
            seed=seed,
        )
        for number in range(n_instances)
    ]


class Encoder:
    """Writes elements as a transfer syntax asks for."""

    def __init__(self, transfer_syntax: str) -> None:
        self.endian = ">" if transfer_syntax == EXPLICIT_VR_BIG_ENDIAN else "<"
        self.implicit = transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
        self.native = transfer_syntax in _NATIVE

    def element(
        self, group: int, tag: int, vr: str, value: bytes, length: int | None = None
    ) -> bytes:
        size = len(value) if length is None else length
        if self.implicit:
            return struct.pack("<HHI", group, tag, size) + value
        if vr in _LONG:
            head = struct.pack(f"{self.endian}HH2sHI", group, tag, vr.encode(), 0, size)
        else:
            head = struct.pack(f"{self.endian}HH2sH", group, tag, vr.encode(), size)
        return head + value

    def text(self, group: int, tag: int, vr: str, text: str) -> bytes:
        value = text.encode()
        if len(value) % 2:
            value += b"\0" if vr == "UI" else b" "
        return self.element(group, tag, vr, value)

    def number(self, group: int, tag: int, value: int) -> bytes:
        return self.element(group, tag, "US", struct.pack(f"{self.endian}H", value))

    def pixels(self, data: bytes) -> bytes:
        if self.native:
            return self.element(0x7FE0, 0x0010, "OW", data)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)  # an empty basic offset table
        item += struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        item += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return self.element(0x7FE0, 0x0010, "OB", item, 0xFFFF_FFFF)


_EXPLICIT = Encoder(EXPLICIT_VR_LITTLE_ENDIAN)


def _meta(sop_class: str, sop: str, transfer_syntax: str) -> bytes:
    elements = b"".join(
        (
            _EXPLICIT.element(0x0002, 0x0001, "OB", b"\0\1"),
            _EXPLICIT.text(0x0002, 0x0002, "UI", sop_class),
            _EXPLICIT.text(0x0002, 0x0003, "UI", sop),
            _EXPLICIT.text(0x0002, 0x0010, "UI", transfer_syntax),
            _EXPLICIT.text(0x0002, 0x0012, "UI", _IMPLEMENTATION),
        )
    )
    length = _EXPLICIT.element(0x0002, 0x0000, "UL", struct.pack("<I", len(elements)))
    return bytes(128) + b"DICM" + length + elements
