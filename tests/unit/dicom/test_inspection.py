"""What a file is, by inspect_part10: every reason code, and what is never refused."""

import errno
import io
from typing import BinaryIO

import pytest

from ingester.dicom import HandOver, Header, NeedMore, Problem, inspect_part10, read_header
from ingester.dicom.values import MAX_TEXT_CHARACTERS
from tests.unit.dicom.part10 import (
    BIG_ENDIAN,
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
    content,
    deflated,
    element,
    group_2,
    identity,
    identity_but,
    inspect,
    no_file,
    opener,
    part10,
    pixels,
    problem,
)


class TestAFileThatIsSent:
    @pytest.mark.parametrize("explicit", [True, False])
    def test_has_all_its_values(self, explicit: bool) -> None:
        meta = group_2(EXPLICIT if explicit else IMPLICIT)
        data = part10(identity(explicit=explicit) + pixels(explicit=explicit), meta)
        assert inspect(data) == Header(
            study_instance_uid=STUDY,
            series_instance_uid=SERIES,
            sop_instance_uid=SOP,
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid=EXPLICIT if explicit else IMPLICIT,
            media_storage_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            media_storage_sop_instance_uid=SOP,
            patient_id="P1",
            issuer_of_patient_id="HOSPITAL",
            study_date="20240229",
            accession_number="A1",
            modality="CT",
            data_set_offset=132 + len(meta),
        )

    def test_is_identified_by_its_data_set_not_by_group_2(self) -> None:
        found = inspect(part10(identity(sop="1.2.3") + pixels()))
        assert isinstance(found, Header)
        assert found.sop_instance_uid == "1.2.3"
        assert found.media_storage_sop_instance_uid == SOP

    def test_may_lack_its_sop_class(self) -> None:
        found = inspect(part10(identity(sop_class="") + pixels()))
        assert isinstance(found, Header)
        assert found.sop_class_uid == ""

    def test_may_have_a_sop_class_that_is_not_a_uid(self) -> None:
        found = inspect(part10(identity(sop_class="a b/c") + pixels()))
        assert isinstance(found, Header)
        assert found.sop_class_uid == ""

    @pytest.mark.parametrize("uid", ["1.2.abc-D_4", "1.02.003", "9" * 256, "1." + "2" * 100])
    def test_may_have_a_uid_that_is_only_nearly_one(self, uid: str) -> None:
        found = inspect(part10(identity(study=uid) + pixels()))
        assert isinstance(found, Header)
        assert found.study_instance_uid == uid

    def test_keeps_text_in_any_character_set_byte_for_byte(self) -> None:
        name = "Müller"
        data = identity().replace(b"P1", name.encode() + b" ").replace(b"LO\2\0M", b"LO\10\0M", 1)
        found = inspect(part10(data + pixels()))
        assert isinstance(found, Header)
        assert found.patient_id == name.encode().decode("latin-1")

    def test_cuts_text_that_is_too_long_to_be_kept(self) -> None:
        data = identity().replace(
            element(0x00100020, "LO", "P1"), element(0x00100020, "LO", "P" * 3_000)
        )
        found = inspect(part10(data + pixels()))
        assert isinstance(found, Header)
        assert found.patient_id == "P" * MAX_TEXT_CHARACTERS

    def test_may_have_its_elements_out_of_order(self) -> None:
        late = element(0x00080018, "UI", SOP)
        found = inspect(part10(identity(sop="") + element(0x00280010, "US", b"\1\0") + late))
        assert isinstance(found, Header)
        assert found.sop_instance_uid == SOP

    def test_may_be_big_endian(self) -> None:
        found = inspect(content("test_files/MR_small_bigendian.dcm"))
        assert isinstance(found, Header)
        assert found.transfer_syntax_uid == BIG_ENDIAN
        assert found.data_set_offset == 350

    def test_may_be_deflated(self) -> None:
        found = inspect(deflated(identity() + pixels()))
        assert isinstance(found, Header)
        assert found.sop_instance_uid == SOP
        assert found.data_set_offset == 132 + len(group_2(DEFLATED))

    def test_may_be_encoded_otherwise_than_its_transfer_syntax_says(self) -> None:
        found = inspect(part10(identity(explicit=False) + pixels(explicit=False)))
        assert isinstance(found, Header)
        assert (found.study_instance_uid, found.sop_instance_uid) == (STUDY, SOP)

    @pytest.mark.parametrize("declared", [0, 7, 1_000_000])
    def test_may_have_a_wrong_group_length(self, declared: int) -> None:
        meta = group_2(group_length=declared)
        found = inspect(part10(identity() + pixels(), meta))
        assert isinstance(found, Header)
        assert found.data_set_offset == 132 + len(meta)

    def test_may_lack_its_group_length(self) -> None:
        meta = group_2()[12:]
        found = inspect(part10(identity() + pixels(), meta))
        assert isinstance(found, Header)
        assert found.data_set_offset == 132 + len(meta)

    def test_may_have_an_unknown_transfer_syntax(self) -> None:
        found = inspect(part10(identity() + pixels(), group_2("1.2.3.4.5")))
        assert isinstance(found, Header)
        assert found.transfer_syntax_uid == "1.2.3.4.5"

    def test_may_have_a_value_of_undefined_length(self) -> None:
        modality = element(0x00080060, "CS", "CT", explicit=False)
        undefined = element(
            0x00080060, "CS", b"CT" + SEQUENCE_END, length=UNDEFINED, explicit=False
        )
        data = identity(explicit=False).replace(modality, undefined)
        found = inspect(part10(data + pixels(explicit=False), group_2(IMPLICIT)))
        assert isinstance(found, Header)
        assert (found.modality, found.study_instance_uid) == ("CT", STUDY)

    @pytest.mark.parametrize("other", ["Doe^Jane", "CT\\MR", "A CODE OF 17 CHAR", "ct"])
    def test_has_no_modality_where_that_is_no_code(self, other: str) -> None:
        """(0008,0060) is shown where patients' data is not."""
        modality, wrong = (element(0x00080060, "CS", value) for value in ("CT", other))
        found = inspect(part10(identity().replace(modality, wrong) + pixels()))
        assert isinstance(found, Header)
        assert (found.modality, found.study_instance_uid) == ("", STUDY)

    def test_may_end_behind_its_identity(self) -> None:
        assert isinstance(inspect(part10(identity())), Header)

    def test_may_be_cut_in_its_pixels(self) -> None:
        assert isinstance(inspect(part10(identity() + pixels())[:-9]), Header)

    def test_may_have_a_long_value_before_its_identity_ends(self) -> None:
        filler = element(0x00091001, "OB", bytes(5 << 20))
        first, second = identity().split(element(0x0020000D, "UI", STUDY))
        data = part10(
            first.split(element(0x00100020, "LO", "P1"))[0]
            + filler
            + element(0x0020000D, "UI", STUDY)
            + second
            + pixels()
        )
        file = opener(data)
        assert isinstance(inspect_part10(data[:65_536], len(data), file), Header)
        assert file.opened == 1

    def test_is_not_opened_when_the_prefix_is_the_whole_file(self) -> None:
        assert isinstance(inspect(content("test_files/priv_SQ.dcm")), Problem)


class TestAFileThatIsNotSent:
    def test_is_empty(self) -> None:
        assert problem(b"") == ("not_dicom", "empty")

    @pytest.mark.parametrize(
        "data",
        [
            b"x",
            b"a letter to a colleague, " * 4_000,
            bytes(200_000),
            b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(range(256)) * 300,
            bytes(128) + b"DICOM",
            part10(pixels(), group_2(media_storage_sop_instance_uid="")),
            b"\x08\0\x18\0" * 5_000,
        ],
    )
    def test_has_no_sop_instance_uid_and_is_not_dicom(self, data: bytes) -> None:
        head = data[: 1 << 16]
        found = inspect_part10(head, len(data), no_file)
        assert isinstance(found, Problem)
        assert (found.outcome, found.reason_code) == ("not_dicom", "not_dicom")

    @pytest.mark.parametrize("explicit", [True, False])
    def test_has_a_uid_but_neither_preamble_nor_group_2(self, explicit: bool) -> None:
        data = identity(explicit=explicit) + pixels(explicit=explicit)
        assert problem(data) == ("invalid", "no_part10_header")

    @pytest.mark.parametrize(
        "name", ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "rtstruct.dcm"]
    )
    def test_has_no_preamble_in_pydicoms_data_either(self, name: str) -> None:
        assert problem(content("test_files/" + name)) == ("invalid", "no_part10_header")

    def test_begins_with_group_2(self) -> None:
        data = group_2() + identity() + pixels()
        assert problem(data) == ("invalid", "no_part10_header")

    def test_has_its_sop_instance_uid_in_group_2_only(self) -> None:
        data = part10(identity(sop="") + pixels())
        assert problem(data) == ("invalid", "missing_sop_instance_uid")

    def test_has_no_study_instance_uid(self) -> None:
        data = part10(identity(study="") + pixels())
        assert problem(data) == ("invalid", "missing_study_instance_uid")

    def test_has_an_empty_study_instance_uid(self) -> None:
        data = part10(
            identity().replace(element(0x0020000D, "UI", STUDY), element(0x0020000D, "UI", ""))
        )
        assert problem(data) == ("invalid", "missing_study_instance_uid")

    def test_has_no_series_instance_uid(self) -> None:
        data = part10(identity(series="") + pixels())
        assert problem(data) == ("invalid", "missing_series_instance_uid")

    def test_has_no_transfer_syntax_uid(self) -> None:
        data = part10(identity() + pixels(), group_2(transfer_syntax_uid=""))
        assert problem(data) == ("invalid", "missing_transfer_syntax_uid")

    @pytest.mark.parametrize(
        "uid",
        [
            "..",
            ".",
            "1/2",
            "1 2",
            " 1.2",
            "1.2\\1.3",
            "1?2",
            "1#2",
            "1%2",
            '1"2',
            "1\n2",
            "é.1",
            "1" * 257,
            "1.2.3" + "\0" * 2_000 + "4",
            "1." * 30_000,
        ],
    )
    @pytest.mark.parametrize("name", ["study", "series", "sop"])
    def test_has_a_uid_that_cannot_be_used(self, name: str, uid: str) -> None:
        assert problem(part10(identity_but({name: uid}) + pixels())) == ("invalid", "bad_uid")

    @pytest.mark.parametrize("name", ["study", "series", "sop"])
    @pytest.mark.parametrize("meta_uid", [SOP, ""])
    def test_has_a_uid_of_a_megabyte(self, name: str, meta_uid: str) -> None:
        meta = group_2(IMPLICIT, media_storage_sop_instance_uid=meta_uid)
        long = identity_but({name: "1." * 500_000}, explicit=False)
        assert problem(part10(long + pixels(explicit=False), meta)) == ("invalid", "bad_uid")

    def test_has_a_long_uid_of_undefined_length(self) -> None:
        uid = element(
            0x00080018, "UI", b"1." * 9_000 + SEQUENCE_END, length=UNDEFINED, explicit=False
        )
        meta = group_2(IMPLICIT, media_storage_sop_instance_uid="")
        data_set = uid + identity(explicit=False, sop="", sop_class="")
        assert problem(part10(data_set + pixels(explicit=False), meta)) == ("invalid", "bad_uid")

    def test_is_a_dicomdir(self) -> None:
        meta = group_2(media_storage_sop_class_uid="1.2.840.10008.1.3.10")
        records = element(0x00041130, "CS", "DISC") + bytes(100_000)
        assert problem(part10(records, meta)) == ("skipped", "dicomdir")

    @pytest.mark.parametrize("name", ["DICOMDIR", "DICOMDIR-bigEnd", "DICOMDIR-implicit"])
    def test_is_a_dicomdir_of_pydicoms(self, name: str) -> None:
        data = content("test_files/dicomdirtests/" + name)
        assert problem(data) == ("skipped", "dicomdir")

    @pytest.mark.parametrize("cut_behind", [b"1.2.826.0.1", b"CT", b"P", b"\x20\0\x0d\0"])
    def test_is_cut_inside_its_header(self, cut_behind: bytes) -> None:
        data = part10(identity() + pixels())
        cut = data[: data.index(cut_behind, 250) + len(cut_behind)]
        found = inspect(cut)
        assert isinstance(found, Problem)
        assert (found.outcome, found.reason_code) == ("invalid", "truncated_header")
        assert found.offset is not None
        assert 132 < found.offset <= len(cut)

    def test_ends_with_its_preamble(self) -> None:
        assert problem(bytes(128) + b"DICM") == ("invalid", "truncated_header")

    def test_is_cut_inside_group_2(self) -> None:
        assert problem(part10(b"", group_2()[:50])) == ("invalid", "truncated_header")

    def test_is_cut_inside_a_sequence(self) -> None:
        sequence = element(0x00081115, "SQ", ITEM, length=UNDEFINED)
        data = part10(identity().split(element(0x00100020, "LO", "P1"))[0] + sequence)
        assert problem(data) == ("invalid", "truncated_header")

    def test_is_cut_in_a_uid_that_would_still_look_like_one(self) -> None:
        data = content("test_files/MR_small_bigendian.dcm")
        at = data.index(b"\0\x20\0\x0eUI")
        assert problem(data[: at + 20]) == ("invalid", "truncated_header")

    def test_cannot_be_read(self) -> None:
        nonsense = part10(b"\xff" * 200, group_2(DEFLATED))
        found = inspect(nonsense)
        assert isinstance(found, Problem)
        assert (found.outcome, found.reason_code) == ("invalid", "unreadable_header")
        assert found.reason == "the header cannot be read: error"

    def test_has_a_header_larger_than_is_read(self) -> None:
        item = ITEM + element(0x00081155, "UI", "1.2") * 8 + ITEM_END
        items = item * 40_000
        sequence = element(0x00091001, "UN", items + SEQUENCE_END, length=UNDEFINED)
        data = part10(sequence + identity() + pixels())
        found = inspect_part10(data[:65_536], len(data), opener(data))
        assert isinstance(found, Problem)
        assert (found.outcome, found.reason_code) == ("invalid", "header_too_large")

    def test_is_told_without_any_value_of_it(self) -> None:
        secret = "SECRET^NAME"
        named = element(0x00100010, "PN", secret)
        for data in (
            part10(named + identity(study="") + pixels()),
            part10(named + b"\xff" * 99),
            part10(identity(sop="SECRET^NAME 7")),
            named + identity(),
        ):
            assert secret not in repr(inspect(data))


class FailingFile(io.BytesIO):
    """Reads well for a while; then the disk does not answer any more."""

    def __init__(self, data: bytes, good_bytes: int) -> None:
        super().__init__(data)
        self._good_bytes = good_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() >= self._good_bytes:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


class TestAFileThatCannotBeRead:
    # Where pydicom reads items it turns any exception into its own OSError without an errno.
    @pytest.mark.parametrize("good_bytes", [0, 140, 350, 420, 470, 480, 490])
    def test_the_error_is_the_callers(self, good_bytes: int) -> None:
        sequence = element(0x00091001, "UN", (ITEM + ITEM_END) * 9 + SEQUENCE_END, length=UNDEFINED)
        data = part10(sequence + identity() + pixels() + bytes(99))
        with pytest.raises(OSError, match="Input/output error") as caught:
            inspect_part10(data[:450], len(data), lambda: FailingFile(data, good_bytes))
        assert caught.value.errno == errno.EIO

    def test_an_open_that_fails_is_the_callers_too(self) -> None:
        data = content("test_files/priv_SQ.dcm")

        def gone() -> BinaryIO:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

        with pytest.raises(FileNotFoundError):
            inspect_part10(data[:500], len(data), gone)


class TestAPrefix:
    def test_of_a_file_without_magic_is_asked_for_up_to_64_kib(self) -> None:
        assert inspect_part10(bytes(200), 10**10, no_file) == NeedMore(65_536)
        assert inspect_part10(bytes(200), 1_000, no_file) == NeedMore(1_000)

    def test_of_ten_gigabytes_without_magic_is_enough(self) -> None:
        found = inspect_part10(b"2024-01-01 line\n" * 4_096, 10**10, no_file)
        assert isinstance(found, Problem)
        assert found.reason_code == "not_dicom"

    def test_is_never_asked_for_beyond_one_mebibyte(self) -> None:
        filler = element(0x00091001, "OB", bytes(5 << 20))
        data = part10(filler + identity() + pixels())
        assert isinstance(read_header(data[:65_536], len(data)), HandOver)
