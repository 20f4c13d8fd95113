"""Passwords and addresses: right ones, and wrong ones that must not cost an archive."""

from pathlib import Path

import pydicom
import pytest

from tests.orthanc.command import Command, assert_same_bytes
from tests.support.dicom_files import pydicom_test_files
from tests.support.orthanc import Orthanc

TEST_FILES = Path(pydicom.__file__).resolve().parent / "data" / "test_files"
NOT_SENT = {"pending", "invalid", "not_dicom", "skipped", "duplicate", "conflict"}


def credentials(orthanc: Orthanc, password: str | None = None) -> dict[str, str]:
    """The environment of the only user."""
    ((name, right),) = orthanc.users.items()
    return {"INGESTER_USERNAME": name, "INGESTER_PASSWORD": right if password is None else password}


def basic(orthanc: Orthanc, tmp_path: Path) -> Command:
    """With a password."""
    return Command(TEST_FILES, orthanc.dicomweb_url, tmp_path, ("--auth=basic",))


class TestWithAPassword:
    def test_all_of_pydicoms_files_have_their_outcome(
        self, orthanc_with_users: Orthanc, tmp_path: Path
    ) -> None:
        command = basic(orthanc_with_users, tmp_path)
        run = command.run(env=credentials(orthanc_with_users))
        assert run.ended.returncode == 3
        assert run.summary["files"] == sum(run.outcomes.values()) == len(pydicom_test_files())
        assert run.outcomes["stored"] > 100
        assert run.outcomes.get("pending", 0) == 0
        assert_same_bytes(orthanc_with_users, command)
        again = command.run(env=credentials(orthanc_with_users))
        assert (again.summary["requests"], again.outcomes) == (0, run.outcomes)

    def test_the_wrong_one_leaves_everything_pending_and_the_right_one_completes(
        self, orthanc_with_users: Orthanc, tmp_path: Path
    ) -> None:
        command = basic(orthanc_with_users, tmp_path)
        wrong = command.run(env=credentials(orthanc_with_users, "another:word"))
        assert wrong.ended.returncode == 1
        assert wrong.outcomes["pending"] > 100
        assert wrong.outcomes.keys() <= NOT_SENT
        assert orthanc_with_users.instances() == []
        assert "hint:" in wrong.ended.stderr
        right = command.run(env=credentials(orthanc_with_users))
        assert right.ended.returncode == 3
        assert right.outcomes["stored"] > 100
        assert right.summary["files"] == sum(right.outcomes.values()) == len(pydicom_test_files())
        assert_same_bytes(orthanc_with_users, command)

    def test_it_is_written_nowhere(self, orthanc_with_users: Orthanc, tmp_path: Path) -> None:
        command = basic(orthanc_with_users, tmp_path)
        password = "an-unusual-word"
        run = command.run(env=credentials(orthanc_with_users, password))
        for written in (run.ended.stdout, run.ended.stderr):
            assert password not in written
        for path in tmp_path.glob("*"):
            if path.is_file():
                assert password.encode() not in path.read_bytes(), path

    def test_a_password_changed_in_the_middle_of_a_job_rejects_nothing(
        self, orthanc_with_users: Orthanc, tmp_path: Path
    ) -> None:
        """The journal has stored instances by then: that makes no refusal a verdict on files."""
        command = basic(orthanc_with_users, tmp_path)
        one = Command(TEST_FILES / "CT_small.dcm", command.url, tmp_path, command.options)
        assert one.run(env=credentials(orthanc_with_users)).outcomes == {"stored": 1}
        wrong = command.run(env=credentials(orthanc_with_users, "expired"))
        assert wrong.ended.returncode == 1
        assert wrong.outcomes.keys() <= NOT_SENT | {"stored"}
        assert wrong.outcomes["pending"] > 100


class TestAWrongAddress:
    @pytest.mark.parametrize("path", ["/dicomweb", "/dicom-web/servers", ""])
    def test_leaves_everything_pending_and_stops(
        self, path: str, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        command = Command(TEST_FILES, orthanc.url + path, tmp_path)
        run = command.run()
        assert run.ended.returncode == 1
        assert run.outcomes["pending"] > 100
        assert run.outcomes.keys() <= NOT_SENT
        assert "hint:" in run.ended.stderr
        assert orthanc.instances() == []

    def test_the_right_one_completes_the_same_journal(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        assert Command(TEST_FILES, f"{orthanc.url}/wrong", tmp_path).run().ended.returncode == 1
        command = Command(TEST_FILES, orthanc.dicomweb_url, tmp_path, ("--rebind",))
        run = command.run()
        assert run.ended.returncode == 3
        assert run.outcomes["stored"] > 100
        assert_same_bytes(orthanc, command)

    def test_a_port_where_nobody_listens_leaves_everything_pending(
        self, orthanc: Orthanc, tmp_path: Path
    ) -> None:
        orthanc.kill()
        options = ("--backoff-base-s=0.01",)
        command = Command(TEST_FILES, orthanc.dicomweb_url, tmp_path, options)
        run = command.run()
        assert run.ended.returncode == 1
        assert run.outcomes.keys() <= NOT_SENT
        orthanc.restart()
        assert command.run().ended.returncode == 3
        assert_same_bytes(orthanc, command)
