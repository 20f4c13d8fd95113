"""Where the data set begins, in files whose group 2 is not as PS3.10 7.1 wants it.

Two files are compared from there on, so that a group 2 written by another program does not make
one instance look like two. The scanner finds the offset itself; this is for what it hands over.
"""

from typing import Final

from ingester.dicom.encoding import (
    LONG_VRS,
    UNDEFINED_LENGTH,
    Buffer,
    explicit_element,
    implicit_element,
    length_32,
)

_PREFIX_END: Final = 132


def data_set_offset(prefix: Buffer) -> int | None:
    """Return the first byte after group 2, or None where the prefix does not reach it.

    Goes element by element, as pydicom does: (0002,0000) may be absent or wrong, and where no VR
    is written the length is taken as of Implicit VR. The prefix has 'DICM' at byte 128.
    """
    position = _PREFIX_END
    while position + 8 <= len(prefix):
        group, _, vr, length = explicit_element(prefix, position)
        if group != 2:
            return position
        value_offset = position + 8
        if not b"AA" <= vr <= b"ZZ":
            _, _, length = implicit_element(prefix, position)
        elif vr in LONG_VRS:
            if position + 12 > len(prefix):
                return None
            (length,) = length_32(prefix, position + 8)
            value_offset += 4
        if length == UNDEFINED_LENGTH:
            return None
        position = value_offset + length
    return None
