"""How data elements are laid out (PS3.5 7.1), and what is at hand of a file to read them from.

Shared by the two walks over a header: the top level (scanner) and undefined lengths (sequences).
"""

from struct import Struct
from typing import Final, NamedTuple, TypeAlias

from ingester.dicom.values import HandOver, NeedMore

Buffer: TypeAlias = bytes | bytearray | memoryview

MAX_PREFIX_BYTES: Final = 4 << 20
"""The scanner never asks for more: what lies further in, pydicom finds by seeking."""

MIN_PREFIX_BYTES: Final = 4_096

FILE_ENDS: Final = "the file ends inside its header"

UNDEFINED_LENGTH: Final = 0xFFFFFFFF

explicit_element: Final = Struct("<HH2sH").unpack_from
"""Group, element, VR, 16-bit length: the first 8 bytes (PS3.5 7.1.2)."""

implicit_element: Final = Struct("<HHI").unpack_from
"""Group, element, 32-bit length: 8 bytes (PS3.5 7.1.3); items look the same (7.5)."""

length_32: Final = Struct("<I").unpack_from

SHORT_VRS: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
)
"""Value representations with a 16-bit length."""

LONG_VRS: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
"""Value representations with two reserved bytes and a 32-bit length."""

KNOWN_SEQUENCES: Final = frozenset(
    {
        *(0x00080006, 0x00080051, 0x00080082, 0x00080096, 0x00080110, 0x00080121),
        *(0x00081032, 0x0008103F, 0x00081049, 0x00081062, 0x00081072, 0x00081084),
        *(0x00081110, 0x00081111, 0x00081115, 0x00081120, 0x00081125, 0x00081140),
        *(0x0008114A, 0x00081199, 0x00081200, 0x00081250, 0x00082112, 0x00082218),
        *(0x00082220, 0x00082228, 0x00082230, 0x00089092, 0x00089121, 0x00089124),
        *(0x00089154, 0x00089215, 0x00089237, 0x00100024, 0x00100101, 0x00101002),
        *(0x00102202, 0x00102293, 0x00102294, 0x00180012, 0x00180026, 0x00180029),
        *(0x00186011, 0x0040A168, 0x0040A170),
    }
)
"""Sequences common before (0020,0011). Implicit VR does not say that an element is one, and of
an undefined length that is not one pydicom seeks the end differently: the rest is its own."""


class Window(NamedTuple):
    """The part of a file that has been read, from its first byte, and how long the file is."""

    buffer: Buffer
    end: int  # bytes in the buffer
    file_size: int  # bytes; never less than `end`

    def wait_for(self, offset: int, needed: int) -> NeedMore | HandOver:
        """Say what an element at `offset` means whose bytes up to `needed` are not here.

        Asks for at least twice of what was read, so that a long header takes few rounds.
        """
        if needed > self.file_size:
            return HandOver(offset, FILE_ENDS)
        if needed > MAX_PREFIX_BYTES:
            return HandOver(offset, "the header is longer than is read at once")
        wanted = max(needed, 2 * self.end, MIN_PREFIX_BYTES)
        return NeedMore(min(wanted, MAX_PREFIX_BYTES, self.file_size))
