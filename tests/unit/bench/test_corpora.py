"""The benchmark's corpora are what their parameters say."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom.encaps import generate_frames

from benchmarks.tiers import TIERS
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import Writer, make

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

    @pytest.mark.parametrize("size", [1024, 1026, 2050, 4096, 40_002, 526_336, 9_000_000])
    def test_has_files_of_exactly_the_size_asked_for(self, tmp_path: Path, size: int) -> None:
        corpus = Corpus("one", files=1, size=size, studies=1)
        path = os.path.join(make(corpus, str(tmp_path)), corpus.path(0))
        assert os.path.getsize(path) == size
        dataset = pydicom.dcmread(path)
        assert len(dataset.PixelData) == 2 * dataset.Rows * dataset.Columns

    @pytest.mark.parametrize(
        "change",
        [{"size": 2047}, {"size": 1022}, {"frames": 6}, {"size": 2}, {"studies": 12}, {"seed": -1}],
    )
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


class TestScattered:
    def test_is_the_same_files_with_every_study_in_all_directories(self, tmp_path: Path) -> None:
        scattered = replace(CORPUS, name="scattered", scattered=True)
        written = read_all(make(scattered, str(tmp_path)))
        assert sorted(written.values()) == sorted(read_all(make(CORPUS, str(tmp_path))).values())
        places = {
            (os.path.dirname(scattered.path(index)), scattered.study_of(index))
            for index in range(scattered.files)
        }
        assert len(places) == 3 * 3


class TestFrames:
    CORPUS = Corpus("frames", files=2, size=1_000_000, studies=1, frames=7)

    def test_are_fragments_of_an_encapsulated_file(self, tmp_path: Path) -> None:
        files = make(self.CORPUS, str(tmp_path))
        seen = set()
        for index in range(2):
            path = os.path.join(files, self.CORPUS.path(index))
            assert os.path.getsize(path) == 1_000_000
            dataset = pydicom.dcmread(path)
            assert dataset.NumberOfFrames == 7
            assert dataset.file_meta.TransferSyntaxUID.is_encapsulated
            frames = list(generate_frames(dataset.PixelData, number_of_frames=7))
            assert len(frames) == 7
            assert min(map(len, frames)) > 140_000
            seen.update(frames)
        assert len(seen) == 14

    def test_can_be_holes(self, tmp_path: Path) -> None:
        corpus = replace(self.CORPUS, files=1, size=50_000_000)
        path = tmp_path / "holes.dcm"
        Writer(corpus, holes=True).write(0, str(path))
        assert path.stat().st_size == 50_000_000
        assert path.stat().st_blocks * 512 < 1_000_000
        dataset = pydicom.dcmread(path)
        assert dataset.SOPInstanceUID == corpus.sop_instance_uid(0)
        assert len(list(generate_frames(dataset.PixelData, number_of_frames=7))) == 7


class TestScaled:
    def test_has_so_many_times_the_files_and_studies(self) -> None:
        assert replace(CORPUS, files=22, studies=6) == CORPUS.scaled(2)
        assert replace(CORPUS, files=1, studies=1) == CORPUS.scaled(0.001)

    def test_has_fewer_frames_of_the_same_size_where_there_are_frames(self) -> None:
        small = TIERS["huge"].scaled(0.01)
        assert (small.files, small.frames, small.size) == (1, 3, 3 * 16 * 1024**2)


@pytest.mark.parametrize("name", sorted(TIERS))
def test_every_tier_can_be_made_at_a_small_scale(name: str, tmp_path: Path) -> None:
    corpus = TIERS[name].scaled(0.0001 if name == "million" else 0.002)
    files = make(corpus, str(tmp_path))
    written = read_all(files)
    assert sum(map(len, written.values())) == corpus.bytes
    for index in range(corpus.files):
        header = pydicom.dcmread(os.path.join(files, corpus.path(index)), stop_before_pixels=True)
        assert header.SOPInstanceUID == corpus.sop_instance_uid(index)


def test_the_tiers_are_those_of_the_readme() -> None:
    tiers = {name: (tier.files, tier.size, tier.studies) for name, tier in TIERS.items()}
    assert tiers == {
        "ct": (2048, 525_312, 16),
        "archive": (20_000, 100_000, 50),
        "scattered": (20_000, 100_000, 50),
        "small": (20_000, 32_768, 50),
        "cr": (200, 6_000_000, 200),
        "huge": (1, 4 * 1024**3, 1),
        "million": (1_000_000, 1024, 1000),
    }


class TestAUidRoot:
    CORPUS = replace(CORPUS, uid_root="2.25.123456789012345678901234567890123456789.101")

    def test_is_what_every_uid_begins_with(self, tmp_path: Path) -> None:
        files = make(self.CORPUS, str(tmp_path))
        uids: set[str] = set()
        for index in range(self.CORPUS.files):
            data_set = pydicom.dcmread(os.path.join(files, self.CORPUS.path(index)))
            ours = (data_set.SOPInstanceUID, data_set.StudyInstanceUID, data_set.SeriesInstanceUID)
            assert data_set.file_meta.MediaStorageSOPInstanceUID == ours[0]
            assert ours[0] == self.CORPUS.sop_instance_uid(index)
            assert all(uid.startswith(f"{self.CORPUS.uid_root}.") for uid in ours)
            assert all(uid.is_valid for uid in ours)
            assert len(data_set.PixelData) == 2 * data_set.Rows * data_set.Columns
            uids.update(ours)
        assert len(uids) == 11 + 3 + 3

    def test_goes_with_patients_that_nobody_takes_for_real(self, tmp_path: Path) -> None:
        files = make(self.CORPUS, str(tmp_path))
        patients = set()
        for index in range(self.CORPUS.files):
            data_set = pydicom.dcmread(os.path.join(files, self.CORPUS.path(index)))
            assert data_set.PatientName == "INGESTER^BENCH"
            assert data_set.PatientID.startswith("INGESTER-BENCH-")
            patients.add(data_set.PatientID)
        assert len(patients) == 3

    def test_of_a_file_makes_it_no_larger(self, tmp_path: Path) -> None:
        files = make(self.CORPUS, str(tmp_path))
        assert {len(content) for content in read_all(files).values()} == {6000}

    def test_is_refused_when_uids_would_be_too_long(self) -> None:
        with pytest.raises(ValueError, match="UID root"):
            replace(CORPUS, uid_root="2.25." + "1" * 50)
