"""Reading by a remembered layout gives what a walk gives, whatever a file is like."""

from itertools import product
from random import Random
from typing import NoReturn

import pytest

from ingester.dicom import Header, read_header
from ingester.dicom.layouts import REMEMBERED, Layouts
from tests.fuzz.cases import case
from tests.unit.dicom.part10 import (
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    content,
    element,
    group_2,
    identity,
    part10,
    pixels,
    pydicom_files,
)

HEAD_BYTES = 65_536
DICOMDIR = "1.2.840.10008.1.3.10"


def image(syntax: str = EXPLICIT, meta_sop: str = "1.2.3", **values: str) -> bytes:
    explicit = syntax != IMPLICIT
    data_set = identity(explicit=explicit, **values) + pixels(explicit=explicit)
    return part10(data_set, group_2(syntax, media_storage_sop_instance_uid=meta_sop))


def that_know(*files: bytes) -> Layouts:
    """Layouts that have met these files, each twice: once walked, once read."""
    layouts = Layouts()
    for data in (*files, *files):
        layouts.read_header(data, len(data))
    return layouts


def walked(*_: object) -> NoReturn:
    raise AssertionError("a walk over the header")


class TestAFileOfAKnownLayout:
    @pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
    def test_is_read_with_its_own_values(self, syntax: str) -> None:
        layouts = that_know(image(syntax))
        for sop, study, meta_sop in product(("1.9.9", "1.8.8"), repeat=3):
            data = image(syntax, meta_sop=meta_sop, sop=sop, study=study)
            found = layouts.read_header(data, len(data))
            assert isinstance(found, Header)
            assert found.sop_instance_uid == sop
            assert found.study_instance_uid == study
            assert found.media_storage_sop_instance_uid == meta_sop
            assert found == read_header(data, len(data))

    @pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
    def test_is_read_without_a_walk(self, syntax: str, monkeypatch: pytest.MonkeyPatch) -> None:
        layouts = that_know(image(syntax), image(syntax, study="1.2.840.99999.12345"))
        monkeypatch.setattr("ingester.dicom.layouts.read_header", walked)
        for study in ("1.2.840.99999.54321", "1.2.826.0.9.9"):
            found = layouts.read_header(memoryview(image(syntax, study=study)), 10_000)
            assert isinstance(found, Header)
            assert found.study_instance_uid == study

    @pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
    def test_with_any_byte_changed_is_what_a_walk_says(self, syntax: str) -> None:
        known = image(syntax)
        layouts = that_know(known)
        for position in range(len(known)):
            for value in (0, 1, 2, 8, 32, 0x2E, 0x30, 0x41, 0x7F, 0xFF, known[position] ^ 1):
                data = bytearray(known)
                data[position] = value
                assert layouts.read_header(data, len(data)) == read_header(data, len(data))
                assert layouts.read_header(known, len(known)) == read_header(known, len(known))

    @pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
    def test_of_which_only_so_much_is_there_is_what_a_walk_says(self, syntax: str) -> None:
        known = image(syntax)
        layouts = that_know(known)
        for end, cut in product(range(len(known)), (False, True)):
            size = end if cut else len(known)
            assert layouts.read_header(known[:end], size) == read_header(known[:end], size)

    @pytest.mark.parametrize("uid", ["1.2.x", "\0\0\0\0\0", ".2.33", "     "])
    @pytest.mark.parametrize("name", ["sop", "study", "series", "sop_class"])
    def test_with_a_uid_that_is_none_is_what_a_walk_says(self, name: str, uid: str) -> None:
        layouts = that_know(image(**{name: "1.2.3"}))
        data = image(**{name: uid})
        expected = read_header(data, len(data))
        assert layouts.read_header(data, len(data)) == expected

    def test_leaves_nothing_behind_where_it_was_no_good(self) -> None:
        known = image(sop="1.2.3", series="1.2.5")
        layouts = that_know(known)
        bad = image(sop="1.2.4", series="1.2.x")
        assert not isinstance(layouts.read_header(bad, len(bad)), Header)
        assert layouts.read_header(known, len(known)) == read_header(known, len(known))


class TestAnyFiles:
    def test_of_pydicom_by_turns_are_what_a_walk_says(self) -> None:
        files = [content(name) for name in pydicom_files()]
        layouts, random = Layouts(), Random(1)
        for _ in range(5 * len(files)):
            data = random.choice(files)
            for _ in range(random.randrange(1, 4)):
                head = data[:HEAD_BYTES]
                assert layouts.read_header(head, len(data)) == read_header(head, len(data))

    def test_that_were_crafted_to_be_difficult_are_what_a_walk_says(self) -> None:
        layouts = Layouts()
        for number in range(1500):
            data = case(7, number).data[:HEAD_BYTES]
            for _ in range(2):
                assert layouts.read_header(data, len(data)) == read_header(data, len(data))

    @pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
    @pytest.mark.parametrize("vr", ["US", "OW", "SQ", "UN"])
    def test_of_which_the_first_is_cut_anywhere_are_what_a_walk_says(
        self, syntax: str, vr: str
    ) -> None:
        explicit = syntax != IMPLICIT
        after = element(0x7FE00010, vr, bytes(64), explicit=explicit)
        whole = part10(identity(explicit=explicit) + after, group_2(syntax))
        for end in range(len(whole)):
            head = memoryview(whole)[:end]
            for size in (end, len(whole)):
                assert Layouts().read_header(head, size) == read_header(head, size)

    def test_with_sequences_are_what_a_walk_says(self) -> None:
        inner = element(0x00080018, "UI", "1.9.9.9")
        for items in (b"", ITEM + inner + ITEM_END, ITEM + inner + inner + ITEM_END):
            undefined = element(0x00081115, "SQ", items + SEQUENCE_END, length=UNDEFINED)
            for sequence in (undefined, element(0x00081115, "SQ", items)):
                first, rest = identity().split(element(0x00100020, "LO", "P1"))
                patient = element(0x00100020, "LO", "P1")
                data = part10(first + sequence + patient + rest + pixels())
                layouts = that_know(data)
                assert layouts.read_header(data, len(data)) == read_header(data, len(data))

    def test_that_are_media_directories_are_what_a_walk_says(self) -> None:
        data = part10(identity() + pixels(), group_2(EXPLICIT, DICOMDIR))
        layouts = that_know(data)
        assert layouts.read_header(data, len(data)) == read_header(data, len(data))

    def test_of_which_none_is_laid_out_as_another_are_what_a_walk_says(self) -> None:
        layouts = Layouts()
        for number in range(20 * REMEMBERED):
            data = image(study="1." + "2" * (1 + number % 60))
            assert layouts.read_header(data, len(data)) == read_header(data, len(data))
        for number in range(300):  # and then come many that are
            data = image(sop=f"1.2.{number + 100}")
            assert layouts.read_header(data, len(data)) == read_header(data, len(data))
