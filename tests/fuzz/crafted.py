"""Files built element by element, so that they are hostile where the structure is.

`crafted` builds an instance in one of the transfer syntaxes and then spoils it in up to two ways.
One that is not spoiled is a conforming file, and what must be read from it is known.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from tests.fuzz.mutations import HOSTILE_UIDS, LIES
from tests.support.dicom_files import (
    CT_IMAGE_STORAGE,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    Encoder,
    make_uid,
)

CANARY = "CANARY^PATIENT"
"""The name of every patient here: it may not be in anything that is said of a file."""

UNDEFINED = 0xFFFFFFFF
SOP, STUDY, SERIES, SOP_CLASS = 0x00080018, 0x0020000D, 0x0020000E, 0x00080016
IDENTITY = (SOP_CLASS, SOP, STUDY, SERIES)

_SYNTAXES = (
    *(EXPLICIT_VR_LITTLE_ENDIAN,) * 4,
    *(IMPLICIT_VR_LITTLE_ENDIAN,) * 3,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_2000_LOSSLESS,
    "1.2.3.4.5",
)
_SEQUENCES = (0x00081115, 0x00081140, 0x00082112, 0x00091003, 0x0040A170)


class Element(NamedTuple):
    """One element as it will be written; `length` where it is not the value's own."""

    tag: int
    vr: str
    value: bytes
    length: int | None = None


@dataclass
class Plan:
    """A file that is still in pieces."""

    syntax: str
    meta: list[Element]
    elements: list[Element]
    preamble: bytes = bytes(128) + b"DICM"
    meta_length: int | None = None  # what (0002,0000) says; -1: it is left out
    after: Callable[[bytes], bytes] = lambda data_set: data_set  # to the encoded data set
    spoiled: list[str] = field(default_factory=list)

    def uid(self, tag: int) -> str:
        """What was meant by an identifier."""
        value = next(e.value for e in (*self.meta, *self.elements) if e.tag == tag)
        return value.rstrip(b"\0").decode()


class Crafted(NamedTuple):
    """A file, what was done to it, and its UIDs where it conforms."""

    name: str
    data: bytes
    uids: tuple[str, str, str, str] | None  # study, series, SOP instance, transfer syntax


def crafted(random: Random) -> Crafted:
    """Build a file, and spoil it in most cases."""
    plan = _plan(random)
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        spoil = random.choices(SPOILERS, WEIGHTS)[0]
        spoil(random, plan)
        plan.spoiled.append(spoil.__name__)
    uids = None
    if not plan.spoiled:
        uids = (plan.uid(STUDY), plan.uid(SERIES), plan.uid(SOP), plan.syntax)
    return Crafted("+".join(plan.spoiled) or "conforming", written(plan), uids)


def written(plan: Plan) -> bytes:
    """The bytes of a plan."""
    explicit, encode = Encoder(EXPLICIT_VR_LITTLE_ENDIAN), Encoder(plan.syntax)
    meta = b"".join(_encoded(explicit, element) for element in plan.meta)
    length = len(meta) if plan.meta_length is None else plan.meta_length
    if length >= 0:
        meta = explicit.element(2, 0, "UL", struct.pack("<I", length)) + meta
    data_set = b"".join(_encoded(encode, element) for element in plan.elements)
    if plan.syntax == DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        data_set = deflated(data_set)
    return plan.preamble + meta + plan.after(data_set)


def deflated(data: bytes) -> bytes:
    """A raw deflated stream (PS3.5 A.5)."""
    deflater = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _encoded(encode: Encoder, element: Element) -> bytes:
    group, number = element.tag >> 16, element.tag & 0xFFFF
    length = element.length
    if length is None and len(element.value) > 0xFFFF:
        length = len(element.value) & (UNDEFINED if encode.implicit else 0xFFFF)
    if length is not None and length > 0xFFFF and not encode.implicit and element.vr != "SQ":
        return encode.element(group, number, "UT", element.value, length)
    return encode.element(group, number, element.vr, element.value, length)


def _plan(random: Random) -> Plan:
    syntax = random.choice(_SYNTAXES)
    number = random.getrandbits(60)
    sop = _padded(make_uid(number, "sop"))
    elements = [
        Element(SOP_CLASS, "UI", _padded(CT_IMAGE_STORAGE)),
        Element(SOP, "UI", sop),
        Element(0x00080020, "DA", b"20240229"),
        Element(0x00080060, "CS", b"CT"),
        Element(0x00100010, "PN", CANARY.encode()),
        Element(0x00100020, "LO", b"P1"),
        Element(STUDY, "UI", _padded(make_uid(number, "study"))),
        Element(SERIES, "UI", _padded(make_uid(number, "series"))),
        Element(0x00200011, "IS", b"7 "),
    ]
    for tag, vr in random.sample(_OTHERS, random.randrange(5)):
        elements.append(Element(tag, vr, b"42" * random.randrange(40)))
    encode = Encoder(syntax)
    elements += [
        sequence(random, encode, tag, random.randrange(4))
        for tag in random.sample(_SEQUENCES, random.randrange(3))
    ]
    if random.randrange(2):
        elements.append(Element(0x7FE00010, "OW", bytes(64)))
    elements.sort(key=lambda element: element.tag)
    meta = [
        Element(0x00020001, "OB", b"\0\1"),
        Element(0x00020002, "UI", _padded(CT_IMAGE_STORAGE)),
        Element(0x00020003, "UI", sop),
        Element(0x00020010, "UI", _padded(syntax)),
    ]
    return Plan(syntax, meta, elements)


_OTHERS = [
    (0x00080008, "CS"), (0x00080070, "LO"), (0x00091001, "UN"), (0x00091002, "OB"),
    (0x00101010, "LO"), (0x00180015, "CS"), (0x00200010, "SH"), (0x00280010, "US"),
]  # fmt: skip


def _padded(uid: str) -> bytes:
    return uid.encode() + b"\0" * (len(uid) % 2)


def sequence(random: Random, encode: Encoder, tag: int, depth: int) -> Element:
    """Items with UIDs that are not the instance's, nested, of defined and undefined length."""
    value = b""
    for _ in range(random.randrange(3)):
        decoys = sorted(random.sample((SOP, STUDY, SERIES), random.randrange(4)))
        inner = [Element(decoy, "UI", b"1.9.9.9\0") for decoy in decoys]
        if depth:
            inner.append(sequence(random, encode, 0x0040A170, depth - 1))
        item = b"".join(_encoded(encode, element) for element in inner)
        if random.randrange(2):
            value += _marker(encode, 0xE000, UNDEFINED) + item + _marker(encode, 0xE00D, 0)
        else:
            value += _marker(encode, 0xE000, len(item)) + item
    if random.randrange(2):
        return Element(tag, "SQ", value + _marker(encode, 0xE0DD, 0), UNDEFINED)
    return Element(tag, "SQ", value, len(value))


def _marker(encode: Encoder, number: int, length: int) -> bytes:
    return struct.pack(f"{encode.endian}HHI", 0xFFFE, number, length)


# What spoils a file.


def a_hostile_uid(random: Random, plan: Plan) -> None:
    uid = b"1." * 500_000 if random.randrange(40) == 0 else random.choice(HOSTILE_UIDS)
    tag = random.choice(IDENTITY)
    plan.elements[:] = [e._replace(value=uid) if e.tag == tag else e for e in plan.elements]


def a_hostile_meta_uid(random: Random, plan: Plan) -> None:
    uid, tag = random.choice(HOSTILE_UIDS), random.choice((0x00020002, 0x00020003, 0x00020010))
    plan.meta[:] = [e._replace(value=uid) if e.tag == tag else e for e in plan.meta]


def a_lying_length(random: Random, plan: Plan) -> None:
    where = plan.meta if plan.meta and random.randrange(4) == 0 else plan.elements
    at = random.randrange(len(where))
    near = len(where[at].value) + random.choice((-2, -1, 1, 2))
    wide = Encoder(plan.syntax).implicit or where[at].vr in {"SQ", "OB", "OW", "UN"}
    lie = random.choice((*LIES, max(0, near))) & (UNDEFINED if wide else 0xFFFF)
    where[at] = where[at]._replace(length=lie)


def an_element_twice(random: Random, plan: Plan) -> None:
    again = random.choice([e for e in plan.elements if e.tag in IDENTITY] or plan.elements)
    other = again._replace(value=_padded(make_uid(random.random())))
    plan.elements.insert(random.randrange(len(plan.elements) + 1), other)


def elements_missing(random: Random, plan: Plan) -> None:
    for _ in range(random.randint(1, 3)):
        where = random.choice((plan.meta, plan.elements, plan.elements))
        if len(where) > 1:
            del where[random.randrange(len(where))]


def out_of_order(random: Random, plan: Plan) -> None:
    random.shuffle(plan.elements)


def another_vr(random: Random, plan: Plan) -> None:
    where = plan.meta if plan.meta and random.randrange(3) == 0 else plan.elements
    at = random.randrange(len(where))
    vr = random.choice(("LO", "UI", "SQ", "UN", "OB", "UT", "UC", "SV", "US", "DS", "IS", "AT"))
    where[at] = where[at]._replace(vr=vr)


def deep_nesting(random: Random, plan: Plan) -> None:
    encode = Encoder(plan.syntax)
    depth = random.choice((17, 50, 100, 150, 200, 300, 1_000, 5_000))
    kind = random.choice(("defined", "undefined", "not closed"))
    if kind == "defined":
        heads, length = [], 0
        for _ in range(depth):
            head = encode.element(0x0040, 0xA170, "SQ", _marker(encode, 0xE000, length), length + 8)
            heads.append(head)
            length += len(head)
        value = b"".join(reversed(heads))
        value = _marker(encode, 0xE000, random.choice((len(value), UNDEFINED))) + value
    else:
        value = _marker(encode, 0xE000, UNDEFINED)
        value += encode.element(0x0040, 0xA170, "SQ", value, UNDEFINED) * depth
        closed = _marker(encode, 0xE00D, 0) + _marker(encode, 0xE0DD, 0)
        value += closed * (depth + 1) if kind == "undefined" else b""
    _insert(random, plan, Element(random.choice(_SEQUENCES), "SQ", value, UNDEFINED))


def many_items(random: Random, plan: Plan) -> None:
    encode = Encoder(plan.syntax)
    item = random.choice(
        (
            _marker(encode, 0xE000, 0),
            _marker(encode, 0xE000, UNDEFINED) + _marker(encode, 0xE00D, 0),
            _marker(encode, 0xE000, UNDEFINED) + encode.element(9, 0x1002, "OB", b"", UNDEFINED),
            _marker(encode, 0xE000, 16) + encode.element(8, 5, "CS", b"\\A\\B\\C\\D")[:16],
        )
    )
    value = item * random.choice((10, 300, 300, 3_000, 20_000)) + _marker(encode, 0xE0DD, 0)
    _insert(
        random,
        plan,
        Element(random.choice(_SEQUENCES), random.choice(("SQ", "UN")), value, UNDEFINED),
    )


def many_values(random: Random, plan: Plan) -> None:
    value = random.choice((b"\\", b"A\\", b"ISO_IR 100\\", b"ISO 2022 IR 999\\"))
    value *= random.choice((2, 50, 2_000, 30_000, 30_000_000 // len(value) // 8))
    tag = random.choice((0x00080005, 0x00080005, SOP, 0x00020002, 0x00020010))
    where = plan.meta if tag >> 16 == 2 else plan.elements
    where[:] = sorted([e for e in where if e.tag != tag] + [Element(tag, "CS", value)])


def wrong_group_2_length(random: Random, plan: Plan) -> None:
    plan.meta_length = random.choice((-1, 0, 7, 12, 1_000_000, UNDEFINED))


def no_part_10_header(random: Random, plan: Plan) -> None:
    plan.preamble = random.choice((b"", bytes(128), b"DICM", bytes(128) + b"DICN"))
    if random.randrange(2):
        plan.meta, plan.meta_length = [], -1


def a_damaged_stream(random: Random, plan: Plan) -> None:
    """Says deflated and is not, or is cut or changed, or inflates to much more."""
    kind, at = random.randrange(4), random.random()
    plan.syntax = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN
    plan.meta = [e for e in plan.meta if e.tag != 0x00020010]
    plan.meta.append(Element(0x00020010, "UI", _padded(plan.syntax)))
    if kind == 0:
        plan.after = lambda data_set: data_set[: int(len(data_set) * at)]
    elif kind == 1:
        plan.after = lambda data_set: data_set[int(len(data_set) * at) :]
    elif kind == 2:
        noise = random.randbytes(3)
        plan.after = lambda data_set: data_set[: int(len(data_set) * at)] + noise + data_set
    else:
        _insert(
            random, plan, Element(0x00091002, "OB", bytes(random.choice((1, 1, 1, 1, 8)) << 20))
        )


def cut_short(random: Random, plan: Plan) -> None:
    at, after = random.random(), plan.after
    plan.after = lambda data_set: after(data_set)[: int(len(data_set) * at)]


def _insert(random: Random, plan: Plan, element: Element) -> None:
    """In its place, or anywhere."""
    plan.elements.insert(random.randrange(len(plan.elements) + 1), element)
    if random.randrange(2):
        plan.elements.sort(key=lambda element: element.tag)


Spoiler = Callable[[Random, Plan], None]
_WEIGHTED: dict[Spoiler, float] = {
    a_hostile_uid: 3, a_hostile_meta_uid: 2, a_lying_length: 4, an_element_twice: 2,
    elements_missing: 2, out_of_order: 1, another_vr: 3, deep_nesting: 1, many_items: 0.2,
    many_values: 0.3, wrong_group_2_length: 2, no_part_10_header: 1, a_damaged_stream: 1,
    cut_short: 2,
}  # fmt: skip
SPOILERS, WEIGHTS = tuple(_WEIGHTED), tuple(_WEIGHTED.values())
