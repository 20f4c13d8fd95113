"""The scanner is right about every file it does not hand over: pydicom is the judge."""

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import UID

from ingester.dicom import HandOver, Header, NeedMore, Problem, inspect_part10, read_header
from tests.unit.dicom.part10 import (
    CT_IMAGE_STORAGE,
    EXPLICIT,
    FIELDS,
    IMPLICIT,
    SOP,
    content,
    fields_by_pydicom,
    header_by_pydicom,
    opener,
    pydicom_files,
    read_by_pydicom,
)

FILES = list(pydicom_files())
PREFIX_BYTES = 65_536

fast = settings(deadline=None, database=None)


def fields(header: Header) -> dict[str, str]:
    return {name: getattr(header, name) for name in FIELDS}


class TestPydicomsOwnFiles:
    @pytest.mark.parametrize("name", FILES)
    def test_a_header_says_what_pydicom_reads(self, name: str) -> None:
        data = content(name)
        header = read_header(data[:PREFIX_BYTES], len(data))
        if isinstance(header, Header):
            meta, data_set, _ = read_by_pydicom(data)
            assert fields(header) == fields_by_pydicom(meta, data_set)

    @pytest.mark.parametrize("name", FILES)
    def test_inspection_finds_the_uids_that_pydicom_reads_wherever_it_gives_a_header(
        self, name: str
    ) -> None:
        data = content(name)
        found = inspect_part10(data[:PREFIX_BYTES], len(data), opener(data))
        if isinstance(found, Header):
            meta, data_set, _ = read_by_pydicom(data)
            assert fields(found) == fields_by_pydicom(meta, data_set)
        else:
            assert isinstance(found, Problem)

    @pytest.mark.parametrize("name", FILES)
    def test_the_data_set_begins_with_the_first_element_after_group_2(self, name: str) -> None:
        data = content(name)
        found = inspect_part10(data[:PREFIX_BYTES], len(data), opener(data))
        if isinstance(found, Header):
            _, data_set, _ = read_by_pydicom(data)
            first = next(data_set.elements())
            if not found.transfer_syntax_uid.endswith(".99"):
                group_and_vr = (8, 12)
                begins = getattr(first, "value_tell", getattr(first, "file_tell", None))
                assert begins is not None
                assert begins - found.data_set_offset in group_and_vr

    def test_at_least_fifty_files_are_understood_without_pydicom(self) -> None:
        kinds: Counter[str] = Counter()
        for name in FILES:
            data = content(name)
            kinds[type(read_header(data[:PREFIX_BYTES], len(data))).__name__] += 1
        assert kinds["Header"] >= 50
        assert kinds["HandOver"] <= 40

    @pytest.mark.parametrize(
        "name", ["test_files/CT_small.dcm", "test_files/MR_small_implicit.dcm"]
    )
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_any_kind_of_buffer_gives_the_same(self, name: str, kind: type) -> None:
        data = content(name)
        assert read_header(kind(data), len(data)) == read_header(data, len(data))


class TestEveryPrefix:
    @pytest.mark.parametrize(
        "name",
        ["test_files/CT_small.dcm", "test_files/reportsi.dcm", "test_files/MR_small_implicit.dcm"],
    )
    def test_asks_for_more_or_says_what_the_whole_file_says(self, name: str) -> None:
        data = content(name)
        whole = read_header(data, len(data))
        assert isinstance(whole, Header)
        view = memoryview(data)
        for size in range(min(len(data), 9_000)):
            found = read_header(view[:size], len(data))
            if isinstance(found, NeedMore):
                assert size < found.size <= len(data)
            else:
                assert found == whole

    def test_following_what_it_asks_for_ends_in_a_few_rounds(self) -> None:
        data = content("test_files/CT_small.dcm")
        size, rounds = 0, 0
        while isinstance(found := read_header(data[:size], len(data)), NeedMore):
            size, rounds = found.size, rounds + 1
        assert isinstance(found, Header)
        assert rounds <= 4


uids = st.lists(st.integers(0, 10**8), min_size=2, max_size=6).map(
    lambda parts: "1.2." + ".".join(map(str, parts))
)
words = st.text(
    st.characters(codec="ascii", min_codepoint=32, exclude_characters="\\"), max_size=16
)

before_and_between = st.dictionaries(
    st.sampled_from(
        [
            (0x00080005, "CS"),
            (0x00080008, "CS"),
            (0x00080012, "DA"),
            (0x00080070, "LO"),
            (0x00081030, "LO"),
            (0x00091001, "UN"),
            (0x00091002, "OB"),
            (0x00100010, "PN"),
            (0x00101010, "AS"),
            (0x00180015, "CS"),
            (0x00189004, "CS"),
            (0x00200010, "SH"),
            (0x00200013, "IS"),
            (0x00280010, "US"),
            (0x00400244, "DA"),
        ]
    ),
    st.integers(0, 300),
    max_size=8,
)


@st.composite
def sequences(draw: st.DrawFn, depth: int = 0) -> Sequence:
    """Items with a UID each, nested, of defined and undefined length."""
    items = []
    for _ in range(draw(st.integers(0, 3))):
        item = Dataset()
        item.add_new(0x00081155, "UI", draw(uids))
        item.add_new(0x00080018, "UI", draw(uids))
        item.add_new(0x0020000D, "UI", draw(uids))
        if depth < 3 and draw(st.booleans()):
            nested = draw(sequences(depth + 1))
            item.add_new(0x0040A170, "SQ", nested)
            item[0x0040A170].is_undefined_length = draw(st.booleans())
        item.is_undefined_length_sequence_item = draw(st.booleans())
        items.append(item)
    return Sequence(items)


def made_value(vr: str, size: int) -> Any:
    """A value of about that many bytes."""
    texts = {
        "DA": "20240101",
        "AS": "042Y",
        "IS": "12",
        "US": 1,
        "CS": "ISO_IR 100",
        "PN": "A^B",
        "SH": "S",
    }
    return bytes(size * 2) if vr in {"UN", "OB"} else texts.get(vr, "x" * min(size, 60))


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """A file by pydicom's writer, with any subset of what identifies it."""
    data_set = Dataset()
    for (tag, vr), size in draw(before_and_between).items():
        data_set.add_new(tag, vr, made_value(vr, size))
    for tag in draw(st.sets(st.sampled_from([0x00081115, 0x00081140, 0x00082112, 0x00091003]))):
        data_set.add_new(tag, "SQ", draw(sequences()))
        data_set[tag].is_undefined_length = draw(st.booleans())
    if 0x00091001 in data_set or 0x00091002 in data_set:
        data_set.add_new(0x00090010, "LO", "MAKER")
    for tag in (0x00080016, 0x00080018, 0x0020000D, 0x0020000E):
        if draw(st.integers(0, 9)):
            data_set.add_new(tag, "UI", draw(uids))
    for tag, vr in ((0x00100020, "LO"), (0x00100021, "LO"), (0x00080050, "SH")):
        if draw(st.booleans()):
            data_set.add_new(tag, vr, draw(words))
    transfer_syntax_uid = draw(st.sampled_from([EXPLICIT, IMPLICIT]))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.MediaStorageSOPClassUID = UID(CT_IMAGE_STORAGE)
    meta.MediaStorageSOPInstanceUID = UID(SOP)
    data_set.file_meta = meta
    file = DicomBytesIO()
    file.is_little_endian = True
    file.is_implicit_VR = transfer_syntax_uid == IMPLICIT
    dcmwrite(file, data_set, enforce_file_format=True)
    return file.getvalue()


class TestWrittenDataSets:
    @fast
    @given(written())
    def test_a_header_says_what_pydicom_reads(self, data: bytes) -> None:
        found = read_header(data, len(data))
        assert isinstance(found, Header | HandOver)
        if isinstance(found, Header):
            meta, data_set, _ = read_by_pydicom(data)
            assert fields(found) == fields_by_pydicom(meta, data_set)

    @fast
    @given(written(), st.data())
    def test_a_prefix_asks_for_more_or_gives_the_same(
        self, data: bytes, draw: st.DataObject
    ) -> None:
        size = draw.draw(st.integers(0, len(data)))
        found = read_header(data[:size], len(data))
        assert isinstance(found, NeedMore) or found == read_header(data, len(data))

    @fast
    @given(written(), st.data())
    def test_a_file_that_is_cut_never_gives_another_identity(
        self, data: bytes, draw: st.DataObject
    ) -> None:
        whole = inspect_part10(data, len(data), opener(data))
        cut = data[: draw.draw(st.integers(0, len(data)))]
        found = inspect_part10(cut, len(cut), opener(cut))
        assert not isinstance(found, NeedMore)
        if isinstance(found, Header):
            assert isinstance(whole, Header)
            identity = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
            assert [getattr(found, n) for n in identity] == [getattr(whole, n) for n in identity]


def mutated(random: Random, data: bytes) -> bytes:
    """Like the data, with some bytes changed, inserted, removed or repeated in its head."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(128, min(len(changed), 2_500))
        kind = random.randrange(5)
        if kind == 0:
            changed[at] = random.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            del changed[at : at + random.randint(1, 40)]
        elif kind == 3:
            changed[at:at] = random.randbytes(random.randint(1, 12))
        else:
            length = random.choice((0, 1, 2, 8, 0xFFFF, 0xFFFFFFFE, 0xFFFFFFFF))
            changed[at : at + 4] = length.to_bytes(4, "little")
    return bytes(changed)


MUTATED = [
    "test_files/CT_small.dcm",
    "test_files/MR_small_implicit.dcm",
    "test_files/rtplan.dcm",
    "test_files/reportsi.dcm",
    "test_files/image_dfl.dcm",
    "test_files/MR_small_bigendian.dcm",
    "test_files/SC_rgb_jpeg.dcm",
    "charset_files/chrH31.dcm",
]


class TestMutatedFiles:
    HEADS = tuple(content(name)[:12_000] for name in MUTATED)

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.integers(0, 2**32))
    def test_the_scanner_never_raises_and_pydicom_never_disagrees_unless_it_complains(
        self, seed: int
    ) -> None:
        random = Random(seed)
        for _ in range(50):
            data = mutated(random, random.choice(self.HEADS))
            found = read_header(data, len(data))
            if isinstance(found, Header) and found.sop_instance_uid:
                reading = header_by_pydicom(data)
                assert reading is None or fields(found) == fields_by_pydicom(*reading)

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.integers(0, 2**32))
    def test_inspection_gives_a_header_or_a_problem_for_all_of_them(self, seed: int) -> None:
        random = Random(seed)
        for _ in range(10):
            data = mutated(random, random.choice(self.HEADS))
            found = inspect_part10(data, len(data), opener(data))
            assert isinstance(found, Header | Problem)

    @settings(deadline=None, database=None)
    @given(st.binary(max_size=400), st.integers(0, 2_000))
    def test_any_bytes_after_the_prefix_are_understood_or_not(self, tail: bytes, size: int) -> None:
        data = bytes(128) + b"DICM" + tail
        read_header(data, size)
        found = inspect_part10(data, len(data), opener(data))
        assert isinstance(found, Header | Problem)
