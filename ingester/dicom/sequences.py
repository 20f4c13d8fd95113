"""Sequences and items of undefined length (PS3.5 7.5): found by walking, as nothing says how long.

Takes a window and the offset of a sequence's first byte, gives the offset after its delimiter.
An item of defined length is walked too, and must end where it says: pydicom reads its elements
one by one, and where the two disagree the file is pydicom's.
"""

from typing import Final, NamedTuple

from ingester.dicom.encoding import (
    KNOWN_SEQUENCES,
    LONG_VRS,
    SHORT_VRS,
    UNDEFINED_LENGTH,
    Window,
    explicit_element,
    implicit_element,
    length_32,
)
from ingester.dicom.values import HandOver, NeedMore

MAX_DEPTH: Final = 16
"""Real headers nest 3 or 4 deep; at 50 a common server dies, so pydicom looks at those."""

ITEM: Final = 0xE000
ITEM_DELIMITATION: Final = 0xE00D
SEQUENCE_DELIMITATION: Final = 0xE0DD

_OPEN_END: Final = 1 << 62


class _Element(NamedTuple):
    value_offset: int  # bytes from the start of the file
    length: int  # bytes; UNDEFINED_LENGTH only for what is known to be a sequence


def skip_sequence(window: Window, position: int, *, explicit: bool) -> int | NeedMore | HandOver:
    """Walk a sequence of undefined length and return the offset after it.

    Iterative: `item_ends` holds the end of each open item, _OPEN_END where it has a delimiter.
    Every open item stands in an open sequence, so `in_item` says which of the two comes next.
    """
    element_at = _explicit_element if explicit else _implicit_element
    item_ends: list[int] = []
    in_item = False
    while True:
        if in_item and item_ends[-1] <= position:
            if item_ends.pop() != position:
                return HandOver(position, "an item does not end where it says")
            in_item = False
        if position + 8 > window.end:
            return window.wait_for(position, position + 8)
        group, marker, length = implicit_element(window.buffer, position)
        if group == 0xFFFE:
            problem = _marker_problem(marker, length, item_ends, in_item=in_item)
            if problem:
                return HandOver(position, problem)
            position += 8
            if marker == ITEM:
                item_ends.append(_OPEN_END if length == UNDEFINED_LENGTH else position + length)
                in_item = True
            elif marker == ITEM_DELIMITATION:
                item_ends.pop()
                in_item = False
            elif item_ends:
                in_item = True
            else:
                return position
        elif in_item:
            found = element_at(window, position)
            if not isinstance(found, _Element):
                return found
            in_item = found.length != UNDEFINED_LENGTH
            position = found.value_offset + (found.length if in_item else 0)
        else:
            return HandOver(position, "a sequence holds something that is not an item")


def _marker_problem(marker: int, length: int, item_ends: list[int], *, in_item: bool) -> str:
    """Say what is wrong with an element of group FFFE in this place, or ''."""
    if marker == ITEM:
        if in_item:
            return "an item stands where an element should"
        if len(item_ends) >= MAX_DEPTH:
            return "sequences are nested too deep"
        return ""
    if length:
        return "a delimiter has a length"
    if marker == ITEM_DELIMITATION:
        is_open = in_item and item_ends[-1] == _OPEN_END
        return "" if is_open else "an item is delimited that is not open"
    if marker == SEQUENCE_DELIMITATION and not in_item:
        return ""
    return "a delimiter stands where it should not"


def _explicit_element(window: Window, position: int) -> _Element | NeedMore | HandOver:
    """Read one element of an item in Explicit VR (PS3.5 7.1.2)."""
    _, _, vr, length = explicit_element(window.buffer, position)
    value_offset = position + 8
    if vr in LONG_VRS:
        value_offset += 4
        if length:
            return HandOver(position, "reserved bytes are not zero")
        if value_offset > window.end:
            return window.wait_for(position, value_offset)
        (length,) = length_32(window.buffer, position + 8)
        if length == UNDEFINED_LENGTH:
            if vr != b"SQ":
                return HandOver(position, "an undefined length that is not a sequence")
            return _Element(value_offset, length)
    elif vr not in SHORT_VRS:
        return HandOver(position, "unknown value representation")
    if value_offset + length > window.file_size:
        return window.wait_for(position, value_offset + length)
    return _Element(value_offset, length)


def _implicit_element(window: Window, position: int) -> _Element | NeedMore | HandOver:
    """Read one element of an item in Implicit VR (PS3.5 7.1.3)."""
    group, element, length = implicit_element(window.buffer, position)
    value_offset = position + 8
    if length == UNDEFINED_LENGTH:
        if group << 16 | element not in KNOWN_SEQUENCES:
            return HandOver(position, "an undefined length that may not be a sequence")
        return _Element(value_offset, length)
    if value_offset + length > window.file_size:
        return window.wait_for(position, value_offset + length)
    return _Element(value_offset, length)
