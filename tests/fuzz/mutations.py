"""Files that were good once: bytes of pydicom's own files, damaged.

Each mutation takes the bytes and gives other ones; all of them are small changes where a header is,
so that most files still look like DICOM to whoever reads them.
"""

import re
from collections.abc import Callable
from random import Random

from tests.support.dicom_files import EXPLICIT_VR_LITTLE_ENDIAN, Encoder, instance_bytes
from tests.unit.dicom.part10 import ITEM, ITEM_END, SEQUENCE_END, content, pydicom_files

HEAD_BYTES = 24 << 10
"""Enough for every header of these files; what follows are pixels."""

LIES = (0xFFFFFFFF, 0xFFFFFFFE, 0x7FFFFFFF, 0xFFFF, 0xFFFE, 0, 1, 2, 7, 9, 64, 65, 8192, 8193)

HOSTILE_UIDS = (
    b"", b" ", b"\0", b".", b"..", b"../../etc", b"1/2", b"1.2\0.3", b"1.2\n.3", b"1.2\r\nX: y",
    "1.2.é".encode(), b"1.2\\1.3", b"1 2", b" 1.2", b"1.2 ", b"9" * 65, b"9" * 256, b"9" * 257,
    b"1.2.3" + bytes(1_100) + b"4", b"1.2.3" + b" " * 1_100 + b"/..", b"%2e%2e", b"1.2?x=1#f",
    b"1.2;a=b", b"1.2*", b"1.2,1.3", b"\x1b[2J", b"\xff\xfe\xfd", b"1.02.003", b"1..2", b"1" * 65_000,
)  # fmt: skip
"""Values of UI elements: empty, too long, several, and what has a meaning in a path or a header."""

VRS = (b"UI", b"LO", b"SQ", b"UN", b"OB", b"UT", b"UC", b"SV", b"US", b"??", b"\0\0", b"ui", b"ZZ")

_ELEMENT = re.compile(rb"[\x02\x08\x10\x20]\0.\0|\0[\x02\x08\x10\x20]\0.|\xfe\xff[\0\x0d\xdd]\xe0")
_UID_ELEMENT = re.compile(rb"(?:\x08\0[\x16\x18]\0|\x20\0[\x0d\x0e]\0|\x02\0[\x02\x03\x10]\0)UI")

EXPLICIT = Encoder(EXPLICIT_VR_LITTLE_ENDIAN)

Mutation = Callable[[Random, bytes], bytes]


def corpus() -> list[bytes]:
    """The heads of all of pydicom's own files, and a few small ones made here."""
    heads = [content(name)[:HEAD_BYTES] for name in pydicom_files()]
    made = [
        instance_bytes(study="1.2.3", series="1.2.3.4", sop=f"1.2.3.4.{n}", transfer_syntax=syntax)
        for n, syntax in enumerate(
            "1.2.840.10008.1.2" + suffix for suffix in ("", ".1", ".1.99", ".2", ".4.90")
        )
    ]
    return heads + made * 4


def flipped_bits(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[_somewhere(random, data)] ^= 1 << random.randrange(8)
    return bytes(changed)


def other_bytes(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    at = _somewhere(random, data)
    changed[at : at + random.randrange(40)] = random.randbytes(random.randrange(40))
    return bytes(changed)


def lying_length(random: Random, data: bytes) -> bytes:
    """One or a few length fields say something else, in any of the forms that a length has."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 3)):
        at = _element(random, data)
        width, offset = random.choice(((2, 6), (4, 4), (4, 8)))
        lie = random.choice((*LIES, random.getrandbits(32), random.randrange(300)))
        lie &= (1 << 8 * width) - 1
        is_big_endian = data[at : at + 1] == b"\0"
        field = lie.to_bytes(width, "big" if is_big_endian else "little")
        changed[at + offset : at + offset + width] = field
    return bytes(changed)


def other_vr(random: Random, data: bytes) -> bytes:
    at = _element(random, data) + 4
    return data[:at] + random.choice(VRS) + data[at + 2 :]


def truncated(random: Random, data: bytes) -> bytes:
    return data[: random.choice((random.randrange(len(data) + 1), _somewhere(random, data)))]


def repeated(random: Random, data: bytes) -> bytes:
    """A stretch from one element to another stands twice, the second time perhaps elsewhere."""
    start, end = sorted((_element(random, data), _element(random, data)))
    at = random.choice((end, _element(random, data)))
    return data[:at] + data[start:end] + data[at:]


def left_out(random: Random, data: bytes) -> bytes:
    start, end = sorted((_element(random, data), _element(random, data)))
    return data[:start] + data[end:]


def hostile_uid(random: Random, data: bytes) -> bytes:
    """A UID in Explicit VR Little Endian gets another value, of the length it says."""
    found = [match.start() for match in _UID_ELEMENT.finditer(data)]
    if not found:
        return other_bytes(random, data)
    at = random.choice(found)
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    uid = random.choice(HOSTILE_UIDS)
    group, number = (int.from_bytes(data[at + n : at + n + 2], "little") for n in (0, 2))
    return data[:at] + EXPLICIT.element(group, number, "UI", uid) + data[at + 8 + length :]


def nested(random: Random, data: bytes) -> bytes:
    """Sequences in sequences before some element, most of them not closed as they should be."""
    at, depth = _element(random, data), random.choice((1, 3, 17, 60, 150, 300, 900))
    opened = EXPLICIT.element(0x0040, 0xA170, "SQ", ITEM, 0xFFFFFFFF) * depth
    closed = (ITEM_END + SEQUENCE_END) * random.choice((depth, depth, depth - 1, 0))
    return data[:at] + opened + closed + data[at:]


def group_2_damaged(random: Random, data: bytes) -> bytes:
    """The length of group 2 is wrong or missing, or its transfer syntax is another or none."""
    kind = random.randrange(4)
    if kind == 0:
        return data[:132] + data[144:]
    if kind == 1:
        lie = random.choice((*LIES, random.randrange(400)))
        return data[:140] + lie.to_bytes(4, "little") + data[144:]
    at = data.find(b"\x02\0\x10\0UI", 132)
    if at < 0:
        return data[:132]
    length = int.from_bytes(data[at + 6 : at + 8], "little")
    suffix = random.choice(("", ".1", ".1.99", ".2", ".4.95", ".4.50", ".1.98"))
    other = b"" if kind == 2 else EXPLICIT.text(2, 0x10, "UI", "1.2.840.10008.1.2" + suffix)
    return data[:at] + other + data[at + 8 + length :]


def without_preamble(random: Random, data: bytes) -> bytes:
    return data[random.choice((132, 128, random.randrange(400))) :]


MUTATIONS: tuple[Mutation, ...] = (
    flipped_bits, other_bytes, lying_length, other_vr, truncated, repeated, left_out, hostile_uid,
    nested, group_2_damaged, without_preamble,
)  # fmt: skip


def spliced(random: Random, first: bytes, second: bytes) -> bytes:
    """The beginning of one file and the end of another."""
    if not first or not second:
        return first + second
    return first[: _element(random, first)] + second[_element(random, second) :]


def mutated(random: Random, files: list[bytes]) -> tuple[str, bytes]:
    """One of the files with one to three mutations, and their names."""
    data, names = random.choice(files), []
    if random.randrange(8) == 0:
        data = spliced(random, data, random.choice(files))
        names.append("spliced")
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        mutation = random.choice(MUTATIONS)
        names.append(mutation.__name__)
        data = mutation(random, data) if data else random.randbytes(random.randrange(200))
    return "+".join(names), data


def _somewhere(random: Random, data: bytes) -> int:
    """An offset, nearly always in the first kilobytes."""
    return random.randrange(min(len(data), random.choice((200, 600, 2_500, HEAD_BYTES))))


def _element(random: Random, data: bytes) -> int:
    """Where an element may begin, of group 2, 8, 10 or 20, or an item or its end."""
    match = _ELEMENT.search(data, _somewhere(random, data))
    return match.start() if match else _somewhere(random, data)
