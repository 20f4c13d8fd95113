"""All of pydicom's own test files, good and broken, into a real Orthanc."""

import shutil
from collections import Counter
from pathlib import Path

import pydicom
import pytest

from ingester.dicomweb.outcome import Outcome
from tests.orthanc.command import Command, assert_same_bytes, data_set_of, instances_of
from tests.support.dicom_files import pydicom_test_files
from tests.support.orthanc import Orthanc

TEST_FILES = Path(pydicom.__file__).resolve().parent / "data" / "test_files"
REFUSED_ALONE = ["SC_rgb_jpeg.dcm", "MR_truncated.dcm", "rtdose_rle.dcm", "rtplan_truncated.dcm"]
GOOD = "CT_small.dcm"


@pytest.fixture
def command(orthanc: Orthanc, tmp_path: Path) -> Command:
    """All of them, without a password."""
    return Command(TEST_FILES, orthanc.dicomweb_url, tmp_path)


class TestAllOfPydicomsFiles:
    def test_each_has_exactly_one_outcome_and_results_and_journal_agree(
        self, command: Command
    ) -> None:
        run = command.run()
        files = {path.resolve() for path in pydicom_test_files()}
        rows = command.rows()
        assert run.ended.returncode == 3
        assert rows.keys() == files
        assert run.summary["files"] == sum(run.outcomes.values()) == len(files)
        assert Counter(row.outcome.value for row in rows.values()) == Counter(run.outcomes)
        assert run.outcomes.keys() <= {
            "stored", "duplicate", "conflict", "rejected", "invalid", "not_dicom", "skipped",
        }  # fmt: skip
        lines = {line["path"]: line for line in command.lines()}
        assert len(lines) == len(command.lines()) == len(files)
        for path, row in rows.items():
            line = lines[str(path)]
            assert (line["file_id"], line["outcome"]) == (row.file_id, row.outcome.value)
            assert (line["evidence"], line["other_file_id"]) == (row.evidence, row.other_file_id)
            assert line["study_instance_uid"] == row.study_instance_uid
            assert line["series_instance_uid"] == row.series_instance_uid
            assert line["sop_instance_uid"] == row.sop_instance_uid
            assert line["reason_code"] == row.reason_code
            assert line["size"] == path.stat().st_size

    def test_orthanc_has_exactly_what_is_stored_byte_for_byte(
        self, command: Command, orthanc: Orthanc
    ) -> None:
        command.run()
        assert len(command.stored()) > 100
        assert {row.evidence for row in command.stored().values()} == {"manifest"}
        assert_same_bytes(orthanc, command)

    def test_duplicates_and_conflicts_name_the_file_they_meet(self, command: Command) -> None:
        command.run()
        rows = command.rows()
        by_id = {row.file_id: row for row in rows.values()}
        met = [r for r in rows.values() if r.outcome in {Outcome.DUPLICATE, Outcome.CONFLICT}]
        assert len(met) > 20
        for row in met:
            assert row.other_file_id is not None
            other = by_id[row.other_file_id]
            assert other.outcome is Outcome.STORED
            assert other.study_instance_uid == row.study_instance_uid
            assert other.sop_instance_uid == row.sop_instance_uid
            data_sets = [data_set_of(Path(r.path.decode()).read_bytes()) for r in (row, other)]
            same = data_sets[0] == data_sets[1]
            assert row.outcome is (Outcome.DUPLICATE if same else Outcome.CONFLICT), row
            assert row.reason_code == ("same_data_set" if same else "other_data_set"), row

    def test_a_refused_copy_never_blocks_a_good_one(self, command: Command) -> None:
        """Where Orthanc has none of an instance's files, it was asked to take each of them."""
        command.run()
        rows = command.rows().values()
        for row in rows:
            if row.outcome is Outcome.REJECTED:
                others = [r for r in rows if r.sop_instance_uid == row.sop_instance_uid]
                ends = {r.outcome for r in others}
                assert ends == {Outcome.REJECTED} or Outcome.STORED in ends

    def test_a_second_run_sends_nothing_and_ends_alike(
        self, command: Command, orthanc: Orthanc
    ) -> None:
        first = command.run()
        before = instances_of(orthanc)
        second = command.run()
        assert second.summary["requests"] == 0
        assert second.ended.returncode == 3
        assert second.outcomes == first.outcomes
        assert second.summary["files"] == first.summary["files"]
        assert instances_of(orthanc) == before

    @pytest.mark.parametrize("options", [("--max-batch-instances=1",), ("--inline-limit=1",)])
    def test_how_they_are_batched_and_read_makes_no_difference(
        self, options: tuple[str, ...], command: Command, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        other = Command(command.source, command.url, tmp_path, (*options, "--readers=1"))
        run = other.run()
        assert run.ended.returncode == 3
        assert run.summary["files"] == sum(run.outcomes.values()) == len(pydicom_test_files())
        assert_same_bytes(orthanc, other)


class TestAFileThatChangesAfterItIsStored:
    def test_orthanc_keeps_what_it_has_and_no_more_is_claimed(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        file = tmp_path / "archive" / "CT_small.dcm"
        file.parent.mkdir()
        before = (TEST_FILES / GOOD).read_bytes()
        file.write_bytes(before)
        command = Command(file.parent, orthanc.dicomweb_url, tmp_path)
        assert command.run().outcomes == {"stored": 1}
        file.write_bytes(before[:-2] + b"\1\1")
        assert command.run().outcomes == {"already_stored": 1}
        assert command.lines()[-1]["reason_code"] == "earlier_version_kept"
        (there,) = orthanc.instances()
        assert orthanc.request("GET", f"/instances/{there.id}/file").body == before


class TestAFileThatOrthancRefuses:
    @pytest.mark.parametrize("together", [True, False], ids=["with the good one", "by itself"])
    @pytest.mark.parametrize("name", REFUSED_ALONE)
    def test_is_rejected_and_the_good_one_is_stored(
        self, name: str, orthanc: Orthanc, tmp_path: Path, *, together: bool
    ) -> None:
        source = tmp_path / "archive"
        for each in (name, GOOD):
            path = source / ("all" if together else each) / each
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEST_FILES / each, path)
        command = Command(source, orthanc.dicomweb_url, tmp_path)
        run = command.run()
        rows = {path.name: row for path, row in command.rows().items()}
        assert run.outcomes == {"stored": 1, "rejected": 1}
        assert run.ended.returncode == 3
        assert rows[name].outcome is Outcome.REJECTED
        assert rows[name].http_status == 400
        assert rows[GOOD].outcome is Outcome.STORED
        assert_same_bytes(orthanc, command)

    def test_all_of_them_in_one_directory_with_one_good_file(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        source = tmp_path / "archive"
        source.mkdir()
        for name in (*REFUSED_ALONE, GOOD):
            shutil.copy2(TEST_FILES / name, source / name)
        command = Command(source, orthanc.dicomweb_url, tmp_path)
        run = command.run()
        assert run.outcomes == {"stored": 1, "rejected": 4}
        assert run.ended.returncode == 3
        assert_same_bytes(orthanc, command)
        assert command.run().summary["requests"] == 0

    def test_and_nothing_else_is_not_called_rejected_but_stops_the_run(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        """Before anything was stored a refusal says as much about the setting."""
        source = tmp_path / "archive"
        source.mkdir()
        for name in REFUSED_ALONE:
            shutil.copy2(TEST_FILES / name, source / name)
        command = Command(source, orthanc.dicomweb_url, tmp_path)
        run = command.run()
        assert run.ended.returncode == 1
        assert run.outcomes == {"pending": 4}
        assert "hint:" in run.ended.stderr
        shutil.copy2(TEST_FILES / GOOD, source / GOOD)
        assert command.run().outcomes == {"stored": 1, "rejected": 4}
