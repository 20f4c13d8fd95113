"""Files that follow each other mostly differ in values, not in where their elements lie.

`Layouts` remembers how the last headers were laid out. Where the head of every element of a file
(its tag, VR and length) is what it was in one of those, a walk would meet the same elements at the
same places, so their values are read right there, by struct. Everything else `read_header` walks.
Gives what `read_header` gives, always. For one thread.

Why: a third of what a walk costs, and a walk is a third of what a small file costs the process that
reads it (benchmarks/README.md, what the moments are lost to).
"""

from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Final

from ingester.dicom.elements import WANTED, value_of
from ingester.dicom.encoding import (
    LONG_VRS,
    Buffer,
    explicit_element,
    implicit_element,
    length_32,
)
from ingester.dicom.scanner import (
    DICOMDIR_SOP_CLASS_UID,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LAST_TAG,
    META_OFFSET,
    NEEDED,
    header_of,
    read_header,
)
from ingester.dicom.values import HandOver, Header, NeedMore, NotPart10

REMEMBERED: Final = 2
"""UIDs that count become longer at 10 and 100, and two readers may share a series."""
MOST_PASSED_OVER: Final = 64

_DICM_AND_GROUP_2_LENGTH: Final = (META_OFFSET - 4, 4 + 12)
_DECIDING: Final = (0x00020002, 0x00020010)
"""The values on which the way of a walk depends: they must be the same as well."""

Span = tuple[int, int]  # offset in the file and length, in bytes


class Layouts:
    """The last layouts that were met, and a walk for what has none of them."""

    def __init__(self) -> None:
        self._layouts: list[Layout] = []  # the one that was used last is the first
        self._pass_over = self._passed_over = 0

    def read_header(
        self, prefix: Buffer, file_size: int
    ) -> Header | NeedMore | HandOver | NotPart10:
        """See ``scanner.read_header``."""
        for layout in self._layouts:
            header = layout.read(prefix)
            if header is not None:
                if layout is not self._layouts[0]:
                    self._layouts.reverse()  # there are two
                return header
        walked = read_header(prefix, file_size)
        if isinstance(walked, Header):
            self._remember(prefix, walked)
        return walked

    def _remember(self, prefix: Buffer, header: Header) -> None:
        """Making one costs as much as a walk: where none comes again, ever fewer are made."""
        self._passed_over += 1
        if self._passed_over <= self._pass_over:
            return
        self._passed_over = 0
        layout = _layout_of(prefix, header)
        is_full = len(self._layouts) == REMEMBERED
        is_worth_it = layout is not None and (not is_full or self._layouts.pop().used)
        self._pass_over = 0 if is_worth_it else min(2 * self._pass_over + 1, MOST_PASSED_OVER)
        if layout is not None:
            self._layouts.insert(0, layout)


class Layout:
    """Where the elements of one header lie, and which bytes say so."""

    def __init__(
        self,
        prefix: Buffer,
        data_set_offset: int,
        same: Sequence[Span],
        values: Mapping[int, Span],
    ) -> None:
        """``same``: those bytes, up to the tag that ends a walk. ``values`` are wanted, by tag."""
        self._end = same[-1][0] + 8  # a walk wants to see so much of an element
        self._data_set_offset = data_set_offset
        self._pick_same = _picking(same)
        self._same = self._pick_same(prefix)
        self._pick_values = _picking(list(values.values()))
        self._tags = tuple(values)
        self._raw: tuple[bytes, ...] = (b"",) * len(values)  # of the file before
        self._found = dict.fromkeys(values, "")
        self.used = False

    def read(self, prefix: Buffer) -> Header | None:
        """The header of a file that is laid out so; None where it is not, or a walk must say."""
        if len(prefix) < self._end or self._pick_same(prefix) != self._same:
            return None
        raw = self._pick_values(prefix)
        found = self._found.copy()
        for tag, new, old in zip(self._tags, raw, self._raw, strict=True):
            if new != old:
                value = value_of(tag, new)
                if value is None or (tag in NEEDED and not value):
                    return None
                found[tag] = value
        self._raw, self._found = raw, found
        self.used = True
        return header_of(found, self._data_set_offset)


def _layout_of(prefix: Buffer, header: Header) -> Layout | None:
    """How a file is laid out that was walked; None where heads alone do not say it."""
    if header.media_storage_sop_class_uid == DICOMDIR_SOP_CLASS_UID:
        return None
    explicit = header.transfer_syntax_uid != IMPLICIT_VR_LITTLE_ENDIAN
    same, values = [_DICM_AND_GROUP_2_LENGTH], dict[int, Span]()
    position = sum(_DICM_AND_GROUP_2_LENGTH)
    while position + 8 <= len(prefix):
        if explicit or position < header.data_set_offset:
            group, element, vr, length = explicit_element(prefix, position)
        else:
            group, element, length = implicit_element(prefix, position)
            vr = b""
        tag = group << 16 | element
        if tag > LAST_TAG:  # of this one no more may be there
            same.append((position, 4))
            return Layout(prefix, header.data_set_offset, same, values)
        value_offset = position + 8
        if vr in LONG_VRS:
            (length,) = length_32(prefix, value_offset)
            value_offset += 4
        same.append((position, value_offset - position))
        if tag in _DECIDING:
            same.append((value_offset, length))
        if tag in WANTED:
            values[tag] = value_offset, length
        position = value_offset + length  # far beyond the end, where the length is undefined
    return None


def _picking(spans: Sequence[Span]) -> Callable[[Buffer], tuple[bytes, ...]]:
    """What takes these bytes out of a buffer; they are given in the order in which they lie."""
    parts, position = ["<"], 0
    for offset, length in spans:
        parts.append(f"{offset - position}x{length}s")
        position = offset + length
    return Struct("".join(parts)).unpack_from
