"""Part 10 files by a byte template: a native image, or an encapsulated multi-frame one.

Takes: what is common to the files of a study.
Gives: all bytes of a header, with places for what is a file's own, and pixels that no other file
has.
Bounds: a pool of `POOL_BYTES` that all pixels are taken from.
"""

import hashlib
import random
import struct
from collections.abc import Iterator
from typing import Final

POOL_BYTES: Final = 4 * 1024 * 1024
NUMBER_PLACE: Final = b"@" * 8
FRAME_MAX_BYTES: Final = 4_000_000_000  # both kinds of Pixel Data have 32-bit lengths, PS3.5 7.1
_POOL_SHIFTS: Final = 8191  # prime, so that near files take the pool from different offsets
_STAMP_BYTES: Final = 16
_CT_IMAGE_STORAGE: Final = b"1.2.840.10008.5.1.4.1.1.2"
_ENHANCED_CT_IMAGE_STORAGE: Final = b"1.2.840.10008.5.1.4.1.1.2.1"
_EXPLICIT_VR_LITTLE_ENDIAN: Final = b"1.2.840.10008.1.2.1"
_JPEG_2000_LOSSLESS: Final = b"1.2.840.10008.1.2.4.90"
_IMPLEMENTATION: Final = b"2.25.264120734310914520926170281045870915733"
_LONG_VRS: Final = frozenset({b"OB", b"OW"})
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_SEQUENCE_DELIMITATION: Final = 0xFFFEE0DD
_FRAME_SIDE: Final = 4096  # rows and columns that a fragment of 16 MiB is plausible for


def pool_of(seed: int) -> memoryview:
    """The random bytes that the pixels of a corpus are made of."""
    return memoryview(random.Random(seed).randbytes(POOL_BYTES))  # noqa: S311 - pixels


def pixels(pool: memoryview, number: int, length: int) -> Iterator[memoryview | bytes]:
    """`length` bytes that no other number has: a stamp, then the pool from an offset of its own."""
    yield hashlib.sha256(number.to_bytes(8, "big")).digest()[:_STAMP_BYTES]
    length -= _STAMP_BYTES
    at = number * 64 % _POOL_SHIFTS
    while length:
        piece = pool[at : at + length]
        yield piece
        length -= len(piece)
        at = 0


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One explicit VR element, its value padded to an even length, PS3.5 7.1.2."""
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return _start(tag, vr, len(value)) + value


def _start(tag: int, vr: bytes, length: int) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


def item(length: int) -> bytes:
    """The start of a fragment, PS3.5 A.4."""
    return struct.pack("<HHI", _ITEM >> 16, _ITEM & 0xFFFF, length)


ENCAPSULATED_START: Final = _start(0x7FE00010, b"OB", _UNDEFINED) + item(0)  # no offset table
ENCAPSULATED_END: Final = struct.pack(
    "<HHI", _SEQUENCE_DELIMITATION >> 16, _SEQUENCE_DELIMITATION & 0xFFFF, 0
)


def native_start(length: int) -> bytes:
    """The start of native Pixel Data."""
    return _start(0x7FE00010, b"OW", length)


def trailing_padding(length: int) -> bytes:
    """A Data Set Trailing Padding element of `length` bytes as a whole, 12 or more; or nothing."""
    return _start(0xFFFCFFFC, b"OB", length - 12) + bytes(length - 12) if length else b""


def uid_place(length: int) -> bytes:
    """Where a SOP Instance UID of so many characters will be."""
    return b"#" * length


def header(
    label: bytes,
    patient_name: bytes,
    patient_id: bytes,
    study: bytes,
    series: bytes,
    sop_instance: bytes,
    rows: int,
    columns: int,
    frames: int,
) -> bytes:
    """All before Pixel Data, with places for what is a file's own; its length never varies.

    Args:
        label: 14 characters that name the study to a person.
        patient_name: of the study's patient.
        patient_id: the same.
        study: Study Instance UID.
        series: Series Instance UID.
        sop_instance: the place of the SOP Instance UID.
        rows: of a native image; not looked at for several frames.
        columns: the same.
        frames: 1 for a native image, more for an encapsulated one.
    """
    sop_class = _CT_IMAGE_STORAGE if frames == 1 else _ENHANCED_CT_IMAGE_STORAGE
    number_of_frames = b""
    if frames > 1:
        rows = columns = _FRAME_SIDE
        number_of_frames = _element(0x00280008, b"IS", b"%d" % frames)
    transfer_syntax = _EXPLICIT_VR_LITTLE_ENDIAN if frames == 1 else _JPEG_2000_LOSSLESS
    meta = b"".join(
        (
            _element(0x00020001, b"OB", b"\0\1"),
            _element(0x00020002, b"UI", sop_class),
            _element(0x00020003, b"UI", sop_instance),
            _element(0x00020010, b"UI", transfer_syntax),
            _element(0x00020012, b"UI", _IMPLEMENTATION),
        )
    )
    return b"".join(
        (
            b"\0" * 128 + b"DICM",
            _element(0x00020000, b"UL", struct.pack("<I", len(meta))),
            meta,
            _element(0x00080008, b"CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
            _element(0x00080016, b"UI", sop_class),
            _element(0x00080018, b"UI", sop_instance),
            _element(0x00080020, b"DA", b"20200102"),
            _element(0x00080030, b"TM", b"101112"),
            _element(0x00080050, b"SH", b"A" + label),
            _element(0x00080060, b"CS", b"CT"),
            _element(0x00080070, b"LO", b"Benchmark"),
            _element(0x00080090, b"PN", b""),
            _element(0x00100010, b"PN", patient_name),
            _element(0x00100020, b"LO", patient_id),
            _element(0x00100030, b"DA", b"19700101"),
            _element(0x00100040, b"CS", b"O"),
            _element(0x0020000D, b"UI", study),
            _element(0x0020000E, b"UI", series),
            _element(0x00200010, b"SH", label),
            _element(0x00200011, b"IS", b"1"),
            _element(0x00200013, b"IS", NUMBER_PLACE),
            _element(0x00280002, b"US", struct.pack("<H", 1)),
            _element(0x00280004, b"CS", b"MONOCHROME2"),
            number_of_frames,
            _element(0x00280010, b"US", struct.pack("<H", rows)),
            _element(0x00280011, b"US", struct.pack("<H", columns)),
            _element(0x00280100, b"US", struct.pack("<H", 16)),
            _element(0x00280101, b"US", struct.pack("<H", 16)),
            _element(0x00280102, b"US", struct.pack("<H", 15)),
            _element(0x00280103, b"US", struct.pack("<H", 0)),
            _element(0x00281052, b"DS", b"-1024"),
            _element(0x00281053, b"DS", b"1"),
        )
    )


def geometry(room: int) -> tuple[int, int]:
    """The rows and columns of the largest 16-bit image whose element fits `room` bytes.

    What is left is nothing, or enough for Data Set Trailing Padding.
    """
    pixel_bytes = room - 12
    columns = 1
    while 2 * (2 * columns) ** 2 <= pixel_bytes:
        columns *= 2
    rows = pixel_bytes // (2 * columns)
    if 0 < pixel_bytes - 2 * columns * rows < 12:
        rows -= 1
    return rows, columns
