"""The benchmark's corpora are what their parameters say."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from benchmarks.corpora import TIERS, Corpus, make

CORPUS = Corpus("tiny", files=11, size=6000, studies=3, seed=7)


def read_all(files: str) -> dict[str, bytes]:
    return {
        str(path.relative_to(files)): path.read_bytes()
        for path in sorted(Path(files).rglob("*"))
        if path.is_file()
    }


class TestCorpus:
    def test_holds_the_files_it_names_and_nothing_else(self, tmp_path: Path) -> None:
        written = read_all(make(CORPUS, str(tmp_path)))
        assert sorted(written) == [CORPUS.path(index) for index in range(11)]
        assert {len(content) for content in written.values()} == {6000}
        assert len({os.path.dirname(name) for name in written}) == 3

    def test_is_read_by_pydicom_with_the_uids_it_promises(self, tmp_path: Path) -> None:
        files = make(CORPUS, str(tmp_path))
        for index in range(CORPUS.files):
            dataset = pydicom.dcmread(os.path.join(files, CORPUS.path(index)))
            study = CORPUS.study_of(index)
            assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
            assert dataset.file_meta.MediaStorageSOPClassUID == dataset.SOPClassUID
            assert dataset.SOPInstanceUID == CORPUS.sop_instance_uid(index)
            assert dataset.StudyInstanceUID == CORPUS.study_instance_uid(study)
            assert dataset.SeriesInstanceUID == CORPUS.series_instance_uid(study)
            assert dataset.SOPInstanceUID.is_valid
            assert int(dataset.InstanceNumber) == index + 1
            assert len(dataset.PixelData) == 2 * dataset.Rows * dataset.Columns

    def test_has_unique_uids_in_every_file(self, tmp_path: Path) -> None:
        files = make(CORPUS, str(tmp_path))
        headers = [
            pydicom.dcmread(os.path.join(files, CORPUS.path(index)), stop_before_pixels=True)
            for index in range(CORPUS.files)
        ]
        assert len({header.SOPInstanceUID for header in headers}) == 11
        assert len({header.StudyInstanceUID for header in headers}) == 3
        assert len({header.SeriesInstanceUID for header in headers}) == 3
        assert len({header.PatientID for header in headers}) == 3

    def test_has_other_pixels_in_every_file(self, tmp_path: Path) -> None:
        files = make(replace(CORPUS, files=300, size=2048), str(tmp_path))
        pixels = {content[-800:] for content in read_all(files).values()}
        assert len(pixels) == 300

    def test_is_the_same_for_the_same_parameters(self, tmp_path: Path) -> None:
        first = read_all(make(CORPUS, str(tmp_path / "a")))
        assert first == read_all(make(CORPUS, str(tmp_path / "b")))
        digest = hashlib.sha256(b"".join(first.values())).hexdigest()
        # Changing this digest means raising FORMAT: kept corpora hold the old bytes.
        assert digest == "faeecac9af1bb3dbbc4a84eb1c772e008baedf23077185869d11855167352fcd"

    def test_shares_no_uid_with_another_seed_or_size(self) -> None:
        others = [replace(CORPUS, seed=8), replace(CORPUS, size=6002), replace(CORPUS, files=12)]
        uids = [corpus.sop_instance_uid(0) for corpus in (CORPUS, *others)]
        assert len(set(uids)) == 4
        assert len({corpus.directory for corpus in (CORPUS, *others)}) == 4

    @pytest.mark.parametrize("size", [2048, 2050, 4096, 40_002, 526_336, 9_000_000])
    def test_has_files_of_exactly_the_size_asked_for(self, tmp_path: Path, size: int) -> None:
        corpus = Corpus("one", files=1, size=size, studies=1)
        path = os.path.join(make(corpus, str(tmp_path)), corpus.path(0))
        assert os.path.getsize(path) == size
        dataset = pydicom.dcmread(path)
        assert len(dataset.PixelData) == 2 * dataset.Rows * dataset.Columns

    @pytest.mark.parametrize("change", [{"size": 2047}, {"size": 2}, {"studies": 12}, {"seed": -1}])
    def test_refuses_what_cannot_be_written(self, change: dict[str, int]) -> None:
        with pytest.raises(ValueError, match=r"from|needs"):
            replace(CORPUS, **change)  # type: ignore[arg-type] # figures only


class TestMake:
    def test_leaves_a_complete_corpus_alone(self, tmp_path: Path) -> None:
        files = make(CORPUS, str(tmp_path))
        first = Path(files, CORPUS.path(0))
        before = first.stat().st_mtime_ns
        assert make(CORPUS, str(tmp_path)) == files
        assert first.stat().st_mtime_ns == before

    @pytest.mark.parametrize("damage", ["gone", "short", "unfinished"])
    def test_writes_a_damaged_corpus_again(self, tmp_path: Path, damage: str) -> None:
        files = make(CORPUS, str(tmp_path))
        whole = read_all(files)
        victim = Path(files, CORPUS.path(5))
        if damage == "gone":
            victim.unlink()
        elif damage == "short":
            victim.write_bytes(b"short")
        else:
            Path(files, "..", "corpus.json").unlink()
            victim.write_bytes(b"half")
        assert read_all(make(CORPUS, str(tmp_path))) == whole


def test_the_tiers_are_those_of_the_readme() -> None:
    ct, small = TIERS["ct"], TIERS["small"]
    assert (ct.files, ct.size, ct.studies) == (2048, 525_312, 16)
    assert (small.files, small.size, small.studies) == (20_000, 32_768, 50)
