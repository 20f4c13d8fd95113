"""Seeded corpora of Part 10 files, written by a byte template.

Takes: how many files, of what size, in how many studies, and a seed.
Gives: a directory `files/study-NNNN/NNNNNNN.dcm` of CT images in Explicit VR Little Endian that
pydicom reads, and beside it `corpus.json`, which is written last: a corpus without it, or with
files missing, is written again over itself.
Bounds: memory is a few MiB, whatever the size of a file.

The same parameters give the same bytes on every machine. Other parameters give other UIDs, so that
two corpora can go to one store.
"""

import argparse
import hashlib
import json
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final

FORMAT: Final = 1  # raised when the same parameters give other bytes
SIZE_MIN_BYTES: Final = 2048
SIZE_MAX_BYTES: Final = 4_000_000_000  # native Pixel Data has a 32-bit length, PS3.5 7.1
_POOL_BYTES: Final = 4 * 1024 * 1024
_POOL_SHIFTS: Final = 8191  # prime, so that near files take the pool from different offsets
_STAMP_BYTES: Final = 16
_UID_PLACE: Final = b"#" * 44
_NUMBER_PLACE: Final = b"@" * 8
_CT_IMAGE_STORAGE: Final = b"1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT_VR_LITTLE_ENDIAN: Final = b"1.2.840.10008.1.2.1"
_IMPLEMENTATION: Final = b"2.25.264120734310914520926170281045870915733"
_LONG_VRS: Final = frozenset({b"OB", b"OW"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a corpus is made of; equal values are equal bytes."""

    name: str
    files: int
    size: int  # bytes of a whole file, even
    studies: int  # each with one series; files are spread over them evenly, in order
    seed: int = 1  # 0 to 999,999

    def __post_init__(self) -> None:
        """Refuses what cannot be written.

        Raises:
            ValueError: a figure is out of its range.
        """
        if not 1 <= self.studies <= self.files <= 9_999_999:
            raise ValueError("a corpus needs 1 <= studies <= files <= 9,999,999")
        if not 0 <= self.seed <= 999_999:
            raise ValueError("a seed is from 0 to 999,999")
        if self.size % 2 or not SIZE_MIN_BYTES <= self.size <= SIZE_MAX_BYTES:
            raise ValueError(f"a file's size is even, from {SIZE_MIN_BYTES} to {SIZE_MAX_BYTES}")

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return self.files * self.size

    @property
    def directory(self) -> str:
        """A directory name that no other corpus has."""
        return f"{self.name}-{self.files}x{self.size}-{self.studies}-seed{self.seed}"

    def study_of(self, index: int) -> int:
        """The study that file `index` belongs to, counted from 0."""
        return index * self.studies // self.files

    def sop_instance_uid(self, index: int) -> str:
        """The SOP Instance UID of file `index`."""
        return self._uid("instance", index)

    def study_instance_uid(self, study: int) -> str:
        """The Study Instance UID of study number `study`."""
        return self._uid("study", study)

    def series_instance_uid(self, study: int) -> str:
        """The Series Instance UID of the one series in study number `study`."""
        return self._uid("series", study)

    def path(self, index: int) -> str:
        """Where file `index` is, below the directory of the corpus's files."""
        return f"study-{self.study_of(index):04d}/{index + 1:07d}.dcm"

    def _uid(self, kind: str, number: int) -> str:
        """A UUID-derived UID, PS3.5 B.2, of always 44 characters so that nothing needs padding."""
        source = f"{self.seed}/{self.files}/{self.size}/{self.studies}/{kind}/{number}"
        value = int.from_bytes(hashlib.sha256(source.encode()).digest()[:16], "big")
        return f"2.25.{10**38 + value % (2 * 10**38)}"


TIERS: Final = {
    # 512 x 512 x 16 bit and 1 KiB of header: a CT slice.
    "ct": Corpus("ct", files=2048, size=512 * 1024 + 1024, studies=16),
    # Per-file cost decides in real archives, whose mean file is near 100 KB.
    "small": Corpus("small", files=20_000, size=32 * 1024, studies=50),
}


def _element(tag: int, vr: bytes, value: bytes) -> bytes:
    """One explicit VR element, its value padded to an even length, PS3.5 7.1.2."""
    value += (b"\0" if vr == b"UI" else b" ") * (len(value) % 2)
    return _start(tag, vr, len(value)) + value


def _start(tag: int, vr: bytes, length: int) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", tag >> 16, tag & 0xFFFF, vr, 0, length)
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr, length)


def _header(corpus: Corpus, study: int, rows: int, columns: int) -> bytes:
    """All before Pixel Data, with places for what is a file's own; its length never varies."""
    meta = b"".join(
        (
            _element(0x00020001, b"OB", b"\0\1"),
            _element(0x00020002, b"UI", _CT_IMAGE_STORAGE),
            _element(0x00020003, b"UI", _UID_PLACE),
            _element(0x00020010, b"UI", _EXPLICIT_VR_LITTLE_ENDIAN),
            _element(0x00020012, b"UI", _IMPLEMENTATION),
        )
    )
    label = f"{corpus.seed:06d}-{study:07d}".encode()
    return b"".join(
        (
            b"\0" * 128 + b"DICM",
            _element(0x00020000, b"UL", struct.pack("<I", len(meta))),
            meta,
            _element(0x00080008, b"CS", b"ORIGINAL\\PRIMARY\\AXIAL"),
            _element(0x00080016, b"UI", _CT_IMAGE_STORAGE),
            _element(0x00080018, b"UI", _UID_PLACE),
            _element(0x00080020, b"DA", b"20200102"),
            _element(0x00080030, b"TM", b"101112"),
            _element(0x00080050, b"SH", b"A" + label),
            _element(0x00080060, b"CS", b"CT"),
            _element(0x00080070, b"LO", b"Benchmark"),
            _element(0x00080090, b"PN", b""),
            _element(0x00100010, b"PN", b"Benchmark^" + label),
            _element(0x00100020, b"LO", b"P" + label),
            _element(0x00100030, b"DA", b"19700101"),
            _element(0x00100040, b"CS", b"O"),
            _element(0x0020000D, b"UI", corpus.study_instance_uid(study).encode()),
            _element(0x0020000E, b"UI", corpus.series_instance_uid(study).encode()),
            _element(0x00200010, b"SH", label),
            _element(0x00200011, b"IS", b"1"),
            _element(0x00200013, b"IS", _NUMBER_PLACE),
            _element(0x00280002, b"US", struct.pack("<H", 1)),
            _element(0x00280004, b"CS", b"MONOCHROME2"),
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


def _geometry(room: int) -> tuple[int, int]:
    """The rows and columns of the largest 16-bit image whose element fits `room` bytes.

    What is left is nothing, or enough for Data Set Trailing Padding.
    """
    pixels = room - 12
    columns = 1
    while 2 * (2 * columns) ** 2 <= pixels:
        columns *= 2
    rows = pixels // (2 * columns)
    if 0 < pixels - 2 * columns * rows < 12:
        rows -= 1
    return rows, columns


def _pixels(pool: memoryview, index: int, length: int) -> Iterator[memoryview | bytes]:
    """`length` bytes that no other file has: a stamp, then the pool from an offset of its own."""
    yield hashlib.sha256(index.to_bytes(8, "big")).digest()[:_STAMP_BYTES]
    length -= _STAMP_BYTES
    at = index * 64 % _POOL_SHIFTS
    while length:
        piece = pool[at : at + length]
        yield piece
        length -= len(piece)
        at = 0


def _write_files(corpus: Corpus, directory: str) -> None:
    pool = memoryview(random.Random(corpus.seed).randbytes(_POOL_BYTES))
    room = corpus.size - len(_header(corpus, 0, 0, 0))
    rows, columns = _geometry(room)
    pixel_bytes = 2 * rows * columns
    padding = room - 12 - pixel_bytes
    tail = _start(0xFFFCFFFC, b"OB", padding - 12) + bytes(padding - 12) if padding else b""
    header, header_of = b"", -1
    for index in range(corpus.files):
        study = corpus.study_of(index)
        if study != header_of:
            header_of = study
            header = _header(corpus, study, rows, columns)
            header += _start(0x7FE00010, b"OW", pixel_bytes)
            os.makedirs(os.path.join(directory, f"study-{study:04d}"), exist_ok=True)
        own = header.replace(_UID_PLACE, corpus.sop_instance_uid(index).encode())
        own = own.replace(_NUMBER_PLACE, b"%08d" % (index + 1))
        with open(os.path.join(directory, corpus.path(index)), "wb", buffering=0) as out:
            for piece in (own, *_pixels(pool, index, pixel_bytes), tail):
                if out.write(piece) != len(piece):
                    raise OSError("a corpus file was written short: is the disk full?")


def _is_complete(corpus: Corpus, root: str) -> bool:
    """Whether the corpus is there, by its record and by each file's size."""
    try:
        with open(os.path.join(root, "corpus.json"), encoding="ascii") as record:
            if json.load(record) != _record(corpus):
                return False
        return all(
            os.stat(os.path.join(root, "files", corpus.path(index))).st_size == corpus.size
            for index in range(corpus.files)
        )
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _record(corpus: Corpus) -> dict[str, str | int]:
    return {**asdict(corpus), "format": FORMAT}


def make(corpus: Corpus, work: str) -> str:
    """Makes `corpus` under the directory `work`, unless it is there complete.

    Returns:
        The directory that holds nothing but the corpus's files.

    Raises:
        OSError: the files cannot be written.
    """
    root = os.path.join(work, corpus.directory)
    files = os.path.join(root, "files")
    if not _is_complete(corpus, root):
        os.makedirs(files, exist_ok=True)
        _write_files(corpus, files)
        with open(os.path.join(root, "corpus.json"), "w", encoding="ascii") as record:
            json.dump(_record(corpus), record)
    return files


def add_corpus_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `chosen` reads."""
    parser.add_argument("--tier", action="append", choices=sorted(TIERS), help="default: all")
    parser.add_argument("--files", type=int, help="a corpus of your own instead of the tiers")
    parser.add_argument("--size", type=int, help="its bytes a file (even)")
    parser.add_argument("--studies", type=int, default=1, help="its studies")
    parser.add_argument("--seed", type=int, default=1)


def chosen(options: argparse.Namespace) -> list[Corpus]:
    """The corpora that the options ask for.

    Raises:
        ValueError: they ask for what cannot be made.
    """
    if options.files is None and options.size is None:
        names = dict.fromkeys(options.tier or TIERS)
        return [replace(TIERS[name], seed=options.seed) for name in names]
    if options.tier or options.files is None or options.size is None:
        raise ValueError("--files and --size go together, and not with --tier")
    return [Corpus("custom", options.files, options.size, options.studies, options.seed)]


def main() -> None:
    """Makes corpora and prints where they are, a JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.corpora", description=__doc__)
    parser.add_argument("directory")
    add_corpus_options(parser)
    options = parser.parse_args()
    try:
        corpora = chosen(options)
    except ValueError as error:
        parser.error(str(error))
    for corpus in corpora:
        print(json.dumps({"path": make(corpus, options.directory), **_record(corpus)}), flush=True)


if __name__ == "__main__":
    main()
