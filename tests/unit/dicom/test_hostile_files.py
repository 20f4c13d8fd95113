"""Files made to harm their reader: each ends as an outcome, in bounded time and memory."""

import struct
import time
import tracemalloc
import zlib

import pytest

from ingester.dicom import HandOver, Header, NeedMore, Problem, inspect_part10, read_header
from tests.unit.dicom.part10 import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SERIES,
    SOP,
    STUDY,
    UNDEFINED,
    deflated,
    element,
    group_2,
    identity,
    inspect,
    opener,
    part10,
    pixels,
    problem,
)


def soon(data: bytes) -> Header | NeedMore | Problem:
    """Inspect a file that is meant to cost much, in a few seconds of CPU: at most one, if idle."""
    began = time.thread_time()
    found = inspect(data)
    assert time.thread_time() - began < 5
    return found


def within_bounds(data: bytes) -> Header | NeedMore | Problem:
    """The same, in a few MiB."""
    found = soon(data)
    tracemalloc.start()
    try:
        assert inspect(data) == found
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    return found


LIES = [0, 1, 3, 0x7F, 0xFFFE, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF]


def is_invalid_or_has_uids_of_the_file(data: bytes) -> bool:
    """A length that is too small cuts a UID: it is what the file says."""
    found = inspect(data)
    if not isinstance(found, Header):
        return isinstance(found, Problem) and found.outcome == "invalid"
    uids = (found.study_instance_uid, found.series_instance_uid, found.sop_instance_uid)
    return all(whole.startswith(uid) for uid, whole in zip(uids, (STUDY, SERIES, SOP), strict=True))


class TestALengthThatLies:
    @pytest.mark.parametrize("lie", LIES)
    @pytest.mark.parametrize("explicit", [True, False])
    @pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x00100020, 0x0020000D, 0x0020000E])
    def test_never_makes_another_uid(self, tag: int, explicit: bool, lie: int) -> None:
        data = identity(explicit=explicit) + pixels(explicit=explicit)
        at = data.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF))
        field = struct.pack("<H", lie & 0xFFFF) if explicit else struct.pack("<I", lie)
        at += 8 - len(field)
        data = data[:at] + field + data[at + len(field) :]
        meta = group_2(EXPLICIT if explicit else IMPLICIT)
        assert is_invalid_or_has_uids_of_the_file(part10(data, meta))

    @pytest.mark.parametrize("lie", LIES)
    def test_of_a_private_element_makes_no_other_uid_either(self, lie: int) -> None:
        first, rest = identity().split(element(0x00100020, "LO", "P1"))
        private = element(0x00091001, "OB", bytes(40), length=lie)
        assert is_invalid_or_has_uids_of_the_file(part10(first + private + rest + pixels()))

    @pytest.mark.parametrize("lie", LIES)
    def test_of_group_2_is_not_needed(self, lie: int) -> None:
        found = inspect(part10(identity() + pixels(), group_2(group_length=lie)))
        assert isinstance(found, Header)
        assert (found.study_instance_uid, found.sop_instance_uid) == (STUDY, SOP)


class TestWhatPydicomRaises:
    """Each of them is an outcome, named by its type: its text would quote the file."""

    @pytest.mark.parametrize(
        ("name", "meta"),
        [
            ("BytesLengthException", element(0x00020000, "UL", b"123", length=3)),
            ("NotImplementedError", element(0x00020010, "ZZ", "1.2.840.10008.1.2.1")),
        ],
    )
    def test_is_told_by_its_type(self, name: str, meta: bytes) -> None:
        found = inspect(part10(identity() + pixels(), meta))
        assert isinstance(found, Problem)
        assert (found.outcome, found.reason_code) == ("invalid", "unreadable_header")
        assert found.reason == f"the header cannot be read: {name}"

    def test_an_os_error_of_its_own_is_not_one_of_the_disk(self) -> None:
        sequence = element(0x00091001, "UN", ITEM + ITEM_END, length=UNDEFINED)
        assert problem(part10(identity(sop="") + sequence)) == ("invalid", "truncated_header")

    @pytest.mark.parametrize("form", ["undefined", "defined"])
    @pytest.mark.parametrize("big_endian", [True, False])
    def test_a_recursion_of_thousands_of_levels_ends(self, form: str, big_endian: bool) -> None:
        order, levels = ">" if big_endian else "<", b""
        length = UNDEFINED
        for level in range(3_000):
            if form == "defined":
                length = len(levels) + 8
            head = struct.pack(f"{order}HH2sHI", 0x0040, 0xA170, b"SQ", 0, length)
            levels = head + struct.pack(f"{order}HHI", 0xFFFE, 0xE000, length - 8) + levels
            length = UNDEFINED
            if level == 1_000 and form == "defined":
                break
        first = struct.pack(f"{order}HH2sHI", 0x0040, 0xA170, b"SQ", 0, UNDEFINED)
        first += struct.pack(f"{order}HHI", 0xFFFE, 0xE000, UNDEFINED)
        meta = group_2("1.2.840.10008.1.2.2" if big_endian else EXPLICIT)
        found = inspect(part10(first + levels + identity() + pixels(), meta))
        assert isinstance(found, Problem)
        assert found.outcome == "invalid"


class TestAFileThatCostsMuch:
    def test_a_deflated_bomb_is_not_inflated(self) -> None:
        deflater = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
        filler = element(0x00091001, "OB", b"", length=1 << 30)
        parts = [deflater.compress(identity(study="", series="") + filler)]
        parts += [deflater.compress(bytes(1 << 20)) for _ in range(200)]
        data = part10(b"".join(parts) + deflater.flush(), group_2(DEFLATED))
        tracemalloc.start()
        try:
            assert problem(data) == ("invalid", "header_too_large")
            assert tracemalloc.get_traced_memory()[1] < 16 << 20
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("depth", [17, 60, 5_000])
    def test_deep_nesting_ends_as_an_outcome(self, depth: int) -> None:
        opened = element(0x0040A170, "SQ", ITEM, length=UNDEFINED) * depth
        closed = (ITEM_END + SEQUENCE_END) * depth
        data = part10(identity().replace(element(0x00100020, "LO", "P1"), opened + closed))
        assert isinstance(read_header(data, len(data)), HandOver)
        found = inspect(data)
        if depth == 5_000:
            assert isinstance(found, Problem)
            assert found.reason == "the header cannot be read: RecursionError"
        else:
            assert isinstance(found, Header)

    def test_a_length_of_four_gigabytes_is_not_believed(self) -> None:
        filler = element(0x00091001, "OB", b"", length=0xFFFFFFFE)
        data = part10(filler + identity() + pixels())
        assert problem(data) == ("invalid", "truncated_header")

    @pytest.mark.parametrize("values", [b"\\" * 3_900_000, b"\\A" * 1_900_000])
    def test_a_character_set_of_millions_of_values_is_not_taken_apart(self, values: bytes) -> None:
        character_set = element(0x00080005, "UT", values)
        data = part10(character_set + identity() + pixels(), group_2()[12:])
        assert isinstance(within_bounds(data), Header)

    def test_character_sets_of_many_items_are_not_all_looked_up(self) -> None:
        item = ITEM + element(0x00080005, "CS", b"\\B" * 4_000) + ITEM_END
        sequence = element(0x00091001, "UN", item * 400 + SEQUENCE_END, length=UNDEFINED)
        found = soon(part10(sequence + identity() + pixels()))
        assert isinstance(found, Problem)
        assert found.reason_code == "header_too_large"

    def test_a_character_set_in_a_deflated_data_set_is_not_taken_apart_either(self) -> None:
        character_set = element(0x00080005, "UT", b"\\A" * 110_000)
        assert isinstance(within_bounds(deflated(character_set + identity() + pixels())), Header)

    @pytest.mark.parametrize("vr", ["UI", "UC"])
    def test_millions_of_values_in_group_2_are_not_taken_apart(self, vr: str) -> None:
        millions = element(0x00020002, vr, b"1\\" * 1_900_000, explicit=vr == "UC")
        assert isinstance(within_bounds(part10(identity() + pixels(), millions)), Problem)

    def test_many_empty_items_are_not_kept(self) -> None:
        item = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
        sequence = element(0x00091001, "UN", item * 500_000 + SEQUENCE_END, length=UNDEFINED)
        data = part10(sequence + identity() + pixels())
        tracemalloc.start()
        try:
            found = inspect_part10(data[:65_536], len(data), opener(data))
            assert isinstance(found, Problem)
            assert found.reason_code == "header_too_large"
            assert tracemalloc.get_traced_memory()[1] < 96 << 20
        finally:
            tracemalloc.stop()
