"""The scanner understands what conforming writers write, and hands everything else over."""

import struct

import pytest

from ingester.dicom import HandOver, Header, NeedMore, NotPart10, data_set_offset, read_header
from tests.unit.dicom.part10 import (
    BIG_ENDIAN,
    DEFLATED,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    SOP,
    UNDEFINED,
    content,
    element,
    group_2,
    identity,
    identity_but,
    part10,
    pixels,
)

OTHER = element(0x00080018, "UI", "1.9.9.9")
PATIENT = element(0x00100020, "LO", "P1")


def scan(data: bytes) -> Header | NeedMore | HandOver | NotPart10:
    return read_header(data, len(data))


def with_element(extra: bytes, *, explicit: bool = True) -> bytes:
    """A file with an element before (0010,0020)."""
    before = element(0x00100020, "LO", "P1", explicit=explicit)
    first, rest = identity(explicit=explicit).split(before)
    meta = group_2() if explicit else group_2(IMPLICIT)
    return part10(first + extra + before + rest + pixels(explicit=explicit), meta)


def defined_item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


class TestSequences:
    @pytest.mark.parametrize(
        "items",
        [
            b"",
            ITEM + ITEM_END,
            ITEM + OTHER + ITEM_END,
            defined_item(OTHER) + defined_item(b"") + ITEM + OTHER + ITEM_END,
            ITEM
            + element(0x0040A170, "SQ", ITEM + OTHER + ITEM_END + SEQUENCE_END, length=UNDEFINED)
            + OTHER
            + ITEM_END,
            defined_item(
                element(0x0040A170, "SQ", defined_item(OTHER) + SEQUENCE_END, length=UNDEFINED)
            ),
            ITEM + element(0x0040A170, "SQ", defined_item(OTHER)) + ITEM_END,
        ],
    )
    def test_of_any_form_are_skipped_with_the_uids_inside(self, items: bytes) -> None:
        undefined = element(0x00081115, "SQ", items + SEQUENCE_END, length=UNDEFINED)
        for sequence in (undefined, element(0x00081115, "SQ", items)):
            found = scan(with_element(sequence))
            assert isinstance(found, Header)
            assert (found.sop_instance_uid, found.patient_id) == (SOP, "P1")

    def test_in_implicit_vr_are_skipped_too(self) -> None:
        other = element(0x00080018, "UI", "1.9.9.9", explicit=False)
        nested = ITEM + other + ITEM_END + defined_item(other) + SEQUENCE_END
        inner = element(0x0040A170, "SQ", nested, length=UNDEFINED, explicit=False)
        outer = ITEM + inner + ITEM_END + SEQUENCE_END
        sequence = element(0x00081115, "SQ", outer, length=UNDEFINED, explicit=False)
        found = scan(with_element(sequence, explicit=False))
        assert isinstance(found, Header)
        assert found.sop_instance_uid == SOP

    @pytest.mark.parametrize(
        ("items", "reason"),
        [
            (OTHER, "a sequence holds something that is not an item"),
            (ITEM + ITEM, "an item stands where an element should"),
            (ITEM_END, "an item is delimited that is not open"),
            (ITEM + SEQUENCE_END, "a delimiter stands where it should not"),
            (ITEM[:4] + b"\4\0\0\0" + OTHER, "an item does not end where it says"),
            (defined_item(ITEM_END), "an item is delimited that is not open"),
            (ITEM_END[:4] + b"\2\0\0\0", "a delimiter has a length"),
            (ITEM + element(0x00091001, "UN", b"", length=UNDEFINED),
             "an undefined length that is not a sequence"),
            (ITEM + b"\x08\0\x18\0??\0\0", "unknown value representation"),
            (element(0x0040A170, "SQ", ITEM, length=UNDEFINED)[12:] * 1
             + element(0x0040A170, "SQ", ITEM, length=UNDEFINED) * 20,
             "sequences are nested too deep"),
        ],
    )  # fmt: skip
    def test_that_are_odd_are_handed_over(self, items: bytes, reason: str) -> None:
        found = scan(
            with_element(element(0x00081115, "SQ", items + SEQUENCE_END, length=UNDEFINED))
        )
        assert isinstance(found, HandOver)
        assert found.reason == reason
        assert 132 + len(group_2()) < found.offset


class TestHandedOver:
    @pytest.mark.parametrize(
        ("extra", "reason"),
        [
            (element(0x00080005, "CS", "ISO_IR 6"), "elements are not in ascending order"),
            (element(0x00080060, "CS", "MR"), "elements are not in ascending order"),
            (element(0x00090010, "LO", "ABC", length=3), "odd length"),
            (element(0x00091001, "OB", b"abc", length=3), "odd length"),
            (element(0x00091001, "ZZ", b"ab"), "unknown value representation"),
            (
                element(0x00091001, "UN", b"", length=UNDEFINED),
                "an undefined length that is not a sequence",
            ),
            (element(0x00090010, "LO", b"", length=0xFFFE), "the file ends inside its header"),
            (element(0x00091001, "OB", b"", length=1 << 31), "the file ends inside its header"),
            (b"\x09\0\x01\x10OB\1\0\0\0\0\0", "reserved bytes are not zero"),
        ],
    )
    def test_for_an_element_that_is_odd(self, extra: bytes, reason: str) -> None:
        data = with_element(extra)
        assert scan(data) == HandOver(data.index(extra, 250), reason)

    @pytest.mark.parametrize(
        "uid", ["1.2.x", "1.2\\1.3", "1 2", ".1.2", "..", "1" * 65, " 1.2", "1.2\0.3", "é"]
    )
    def test_for_a_uid_that_is_not_one(self, uid: str) -> None:
        found = scan(part10(identity(series=uid) + pixels()))
        assert isinstance(found, HandOver)
        assert found.reason == "not a valid UID"

    @pytest.mark.parametrize(
        "uid",
        [BIG_ENDIAN, DEFLATED, "1.2.3.4", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205",
         "1.2.840.10008.1.20", "1.2.840.113619.5.2", ""],
    )  # fmt: skip
    def test_for_a_transfer_syntax_it_does_not_read(self, uid: str) -> None:
        found = scan(part10(identity() + pixels(), group_2(uid)))
        assert isinstance(found, HandOver)
        assert found.reason == "the transfer syntax is not one the scanner reads"

    @pytest.mark.parametrize("declared", [0, 11, 13, 100, 500])
    def test_for_a_wrong_length_of_group_2(self, declared: int) -> None:
        assert isinstance(
            scan(part10(identity() + pixels(), group_2(group_length=declared))), HandOver
        )

    def test_for_a_wanted_element_of_another_representation(self) -> None:
        data = part10(identity().replace(PATIENT, element(0x00100020, "UN", "P1")) + pixels())
        assert scan(data) == HandOver(
            data.index(b"\x10\0\x20\0"), "unexpected value representation"
        )

    def test_for_explicit_vr_where_implicit_is_declared(self) -> None:
        found = scan(part10(identity() + pixels(), group_2(IMPLICIT)))
        assert isinstance(found, HandOver)
        assert found.reason == "implicit VR is declared, explicit VR found"

    def test_for_an_unknown_implicit_element_of_undefined_length(self) -> None:
        extra = element(0x00091001, "UN", SEQUENCE_END, length=UNDEFINED, explicit=False)
        found = scan(with_element(extra, explicit=False))
        assert isinstance(found, HandOver)
        assert found.reason == "an undefined length that may not be a sequence"

    @pytest.mark.parametrize("name", ["study", "series", "sop"])
    def test_for_an_identifier_that_is_not_in_its_place(self, name: str) -> None:
        found = scan(part10(identity_but({name: ""}) + pixels()))
        assert isinstance(found, HandOver)
        assert found.reason == "an identifier is not where it should be"


class TestUnderstood:
    @pytest.mark.parametrize(
        "uid", ["1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.5"]
    )
    def test_is_every_encapsulated_transfer_syntax(self, uid: str) -> None:
        found = scan(part10(identity() + pixels(), group_2(uid)))
        assert isinstance(found, Header)
        assert found.transfer_syntax_uid == uid

    def test_is_a_uid_padded_with_a_space_or_with_many_nuls(self) -> None:
        for padded in ("1.2.3 ", "1.2.3\0\0\0", "1.2.3"):
            found = scan(part10(identity(series=padded) + pixels()))
            assert isinstance(found, Header)
            assert found.series_instance_uid == "1.2.3"

    def test_is_a_dicomdir_without_its_records(self) -> None:
        data = content("test_files/dicomdirtests/DICOMDIR")
        found = read_header(data[:500], len(data))
        assert isinstance(found, Header)
        assert found.media_storage_sop_class_uid == "1.2.840.10008.1.3.10"


class TestNotPart10:
    @pytest.mark.parametrize("size", [0, 1, 131])
    def test_is_a_file_that_is_too_short(self, size: int) -> None:
        assert scan(bytes(size)) == NotPart10()

    def test_is_a_file_without_magic(self) -> None:
        assert scan(bytes(500)) == NotPart10()

    def test_is_not_yet_known_of_a_prefix_that_is_too_short(self) -> None:
        assert read_header(b"", 10**9) == NeedMore(4_096)
        assert read_header(bytes(100), 200) == NeedMore(200)


class TestTheOffsetOfTheDataSet:
    @pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small_implicit.dcm", "ExplVR_BigEnd.dcm"])
    def test_is_found_without_the_group_length(self, name: str) -> None:
        data = content("test_files/" + name)
        (length,) = struct.unpack_from("<I", data, 140)
        assert data_set_offset(data) == 144 + length

    def test_is_not_known_of_a_prefix_that_ends_in_group_2(self) -> None:
        data = part10(identity())
        for size in range(132, 132 + len(group_2())):
            assert data_set_offset(data[:size]) is None

    def test_counts_elements_written_without_a_representation(self) -> None:
        meta = element(0x00020010, "UI", "1.2", explicit=False)
        assert data_set_offset(part10(identity(), meta)) == 132 + len(meta)

    def test_is_not_looked_for_behind_an_undefined_length(self) -> None:
        meta = element(0x00020102, "OB", b"", length=UNDEFINED)
        assert data_set_offset(part10(identity(), meta)) is None
