"""The top level of group 2 and of the data set: element by element, keeping the wanted values.

Takes a window, an offset and a range of tags; puts the values into `found`, by tag; gives the
offset where it stopped, or what stands in the way. The two loops are the hot path of the whole
program, half a microsecond an element: they are written out, and check only what they must.
"""

from typing import Final

from ingester.dicom.encoding import (
    FILE_ENDS,
    KNOWN_SEQUENCES,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Window,
    explicit_element,
    implicit_element,
    length_32,
)
from ingester.dicom.sequences import skip_sequence
from ingester.dicom.values import HandOver, NeedMore, text_of, uid_of

WANTED: Final = {
    0x00020002: b"UI",
    0x00020003: b"UI",
    0x00020010: b"UI",
    0x00080016: b"UI",
    0x00080018: b"UI",
    0x00080020: b"DA",
    0x00080050: b"SH",
    0x00080060: b"CS",
    0x00100020: b"LO",
    0x00100021: b"LO",
    0x0020000D: b"UI",
    0x0020000E: b"UI",
}
"""The elements that are returned, each with its VR (PS3.6)."""


def read_explicit(
    window: Window, position: int, previous: int, last: int, found: dict[int, str]
) -> int | NeedMore | HandOver:
    """Read elements in Explicit VR Little Endian while their tags are in (previous, last].

    Returns the offset of the first element after `last`, or of the end of the file.
    """
    buffer, end, file_size = window
    last_start = end - 8
    while position <= last_start:
        group, element, vr, length = explicit_element(buffer, position)
        tag = group << 16 | element
        if tag > last:
            return position
        if tag <= previous:
            return HandOver(position, "elements are not in ascending order")
        previous = tag
        if vr in SHORT_VRS:
            after = position + 8 + length
            if length & 1:
                return HandOver(position, "odd length")
            if after > file_size:
                return HandOver(position, FILE_ENDS)
            if tag in WANTED:
                if vr != WANTED[tag]:
                    return HandOver(position, "unexpected value representation")
                if after > end:
                    return window.wait_for(position, after)
                value = value_of(tag, bytes(buffer[position + 8 : after]))
                if value is None:
                    return HandOver(position, "not a valid UID")
                found[tag] = value
            position = after
        else:
            skipped = _skip_long(window, position, tag, vr, length)
            if not isinstance(skipped, int):
                return skipped
            position = skipped
    return position if position == file_size else window.wait_for(position, position + 8)


def _skip_long(
    window: Window, position: int, tag: int, vr: bytes, reserved: int
) -> int | NeedMore | HandOver:
    """Return the offset after an element with a 32-bit length (PS3.5 7.1.2)."""
    if vr not in LONG_VRS:
        return HandOver(position, "unknown value representation")
    if tag in WANTED:
        return HandOver(position, "unexpected value representation")
    if reserved:
        return HandOver(position, "reserved bytes are not zero")
    value_offset = position + 12
    if value_offset > window.end:
        return window.wait_for(position, value_offset)
    (length,) = length_32(window.buffer, position + 8)
    after: int = value_offset + length
    if length == UNDEFINED_LENGTH:
        if vr != b"SQ":
            return HandOver(position, "an undefined length that is not a sequence")
        return skip_sequence(window, value_offset, explicit=True)
    if length & 1:
        return HandOver(position, "odd length")
    if after > window.file_size:
        return HandOver(position, FILE_ENDS)
    return after


def read_implicit(
    window: Window, position: int, previous: int, last: int, found: dict[int, str]
) -> int | NeedMore | HandOver:
    """Read elements in Implicit VR Little Endian; the rest is as in `read_explicit`."""
    buffer, end, file_size = window
    if position + 6 <= end and bytes(buffer[position + 4 : position + 6]).isalpha():
        return HandOver(position, "implicit VR is declared, explicit VR found")
    last_start = end - 8
    while position <= last_start:
        group, element, length = implicit_element(buffer, position)
        tag = group << 16 | element
        if tag > last:
            return position
        if tag <= previous:
            return HandOver(position, "elements are not in ascending order")
        previous = tag
        after = position + 8 + length
        if length == UNDEFINED_LENGTH:
            if tag not in KNOWN_SEQUENCES:
                return HandOver(position, "an undefined length that may not be a sequence")
            skipped = skip_sequence(window, position + 8, explicit=False)
            if not isinstance(skipped, int):
                return skipped
            after = skipped
        elif length & 1:
            return HandOver(position, "odd length")
        elif after > file_size:
            return HandOver(position, FILE_ENDS)
        elif tag in WANTED:
            if after > end:
                return window.wait_for(position, after)
            value = value_of(tag, bytes(buffer[position + 8 : after]))
            if value is None:
                return HandOver(position, "not a valid UID")
            found[tag] = value
        position = after
    return position if position == file_size else window.wait_for(position, position + 8)


def value_of(tag: int, raw: bytes) -> str | None:
    """A wanted value as it is returned; None for a UID that breaks PS3.5 9.1."""
    return uid_of(raw) if WANTED[tag] == b"UI" else text_of(raw)
