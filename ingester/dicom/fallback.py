"""pydicom reads what the scanner does not understand: bounded, quiet, and without its exceptions.

Takes a binary file, gives a Reading: the wanted values as they stand in the file, and how the
reading ended. pydicom is imported here, when the first such file is met: it takes 460 ms.
"""

import struct
import zlib
from collections.abc import Collection
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, cast

from ingester.dicom.bounded import MAX_VALUE_BYTES, BoundedReader
from ingester.dicom.elements import WANTED
from ingester.dicom.encoding import UNDEFINED_LENGTH
from ingester.dicom.quiet import quiet
from ingester.dicom.values import text_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

HOSTILE_INPUT: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NameError,
    OSError,
    RuntimeError,
    StopIteration,
    TypeError,
    ValueError,
    Warning,
    struct.error,
    zlib.error,
)
"""What pydicom raises on bytes that are not what it expects, beside its own two exceptions."""

UNREAD: Final = "?"
"""Stands for a value that is too long to be read, and is no UID."""

_PIXELS_FROM: Final = 0x7FE00000


class Reading(NamedTuple):
    """What pydicom found, and what became of the reading."""

    values: dict[int, str]  # by tag, WANTED ones that are present
    is_cut: bool  # the file ends before what is wanted was read
    is_exhausted: bool  # the same, by our bounds
    failure: str  # name of the type of what was raised; '' when nothing was


def read_with_pydicom(
    stream: BinaryIO, file_size: int, needed: Collection[int], last_tag: int
) -> Reading:
    """Read the wanted elements of a file, with or without its preamble.

    Reading stops at the first tag beyond `last_tag` once all `needed` ones have been met, and at
    the pixel data. The tags need not be in order.

    Raises:
        OSError: The file itself cannot be read (EIO, ESTALE and such, with `errno` set).
    """
    with quiet():
        # First, since it waits for a thread that is importing it. Its modules import each other in
        # a circle: one of them, asked for meanwhile, may be there and lack half of its names.
        import pydicom  # noqa: F401, PLC0415
        from pydicom.errors import BytesLengthException, InvalidDicomError  # noqa: PLC0415

        reader = BoundedReader(stream, file_size)
        stop = _StopRule(needed, last_tag)
        values: dict[int, str] = {}
        is_short, failure = False, ""
        try:
            values, is_short = _wanted_values(*_groups_of(reader, stop))
        except (*HOSTILE_INPUT, BytesLengthException, InvalidDicomError) as exc:
            failure = type(exc).__name__
        if reader.error:
            raise reader.error
    is_cut = is_short or (reader.cut and not stop.stopped) or bool(failure and reader.at_end)
    return Reading(values, is_cut, reader.exhausted and not stop.stopped, failure)


def _groups_of(reader: BoundedReader, stop: "_StopRule") -> "tuple[Dataset, Dataset]":
    """Group 2 and the data set, as pydicom reads them."""
    from pydicom.filereader import read_dataset, read_partial  # noqa: PLC0415

    stream = cast("BinaryIO", reader)
    file = read_partial(stream, stop, defer_size=MAX_VALUE_BYTES, force=True)
    data_set: Dataset = file
    if reader.is_inflated:
        data_set = read_dataset(
            stream, is_implicit_VR=False, is_little_endian=True, stop_when=stop,
            defer_size=MAX_VALUE_BYTES,
        )  # fmt: skip
    return file.file_meta, data_set


class _StopRule:
    """Tells pydicom when to stop, before each element of the data set."""

    def __init__(self, needed: Collection[int], last_tag: int) -> None:
        self._missing = set(needed)
        self._last_tag = last_tag
        self.stopped = False

    def __call__(self, tag: "BaseTag", _vr: str | None, _length: int) -> bool:
        self.stopped = tag >= _PIXELS_FROM or (tag > self._last_tag and not self._missing)
        self._missing.discard(tag)
        return self.stopped


def _wanted_values(meta: "Dataset", data_set: "Dataset") -> tuple[dict[int, str], bool]:
    """Return the wanted values by tag, and whether one is shorter than it says."""
    values: dict[int, str] = {}
    is_short = False
    for tag in WANTED:
        group = meta if tag >> 16 == 2 else data_set
        if tag not in group:
            continue
        # It may also be one that pydicom has converted, or a sequence.
        element = group.get_item(tag, keep_deferred=True)
        value: object = element.value
        length = getattr(element, "length", 0)
        if length > MAX_VALUE_BYTES and (value is None or length < UNDEFINED_LENGTH):
            values[tag] = UNREAD
        elif isinstance(value, bytes):
            is_short = is_short or len(value) < length < UNDEFINED_LENGTH
            values[tag] = text_of(value)
        elif isinstance(value, str):
            values[tag] = text_of(value.encode("latin-1", "replace"))
        else:
            values[tag] = ""
    return values, is_short
