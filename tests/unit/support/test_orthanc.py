"""The real server that other tests rely on."""

import http.client
import os
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.dicom_files import Written, write_instance
from tests.support.orthanc import Orthanc, StoredInstance


def store(orthanc: Orthanc, file: Written) -> int:
    """Posts one file as any other client would, without a password; gives the status."""
    body = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n" + file.path.read_bytes()
    content_type = 'multipart/related; type="application/dicom"; boundary=xyz'
    url = urlsplit(f"{orthanc.dicomweb_url}/studies")
    connection = http.client.HTTPConnection(url.netloc, timeout=60)
    try:
        connection.request("POST", url.path, body + b"\r\n--xyz--", {"Content-Type": content_type})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.fixture
def file(tmp_path: Path) -> Written:
    return write_instance(tmp_path / "a.dcm", study="2.25.1", series="2.25.2", sop="2.25.3")


def test_it_keeps_a_file_through_a_restart_and_ends_when_killed(
    orthanc: Orthanc, file: Written
) -> None:
    assert orthanc.sop_instance_uids() == set()
    assert store(orthanc, file) == 200
    url = orthanc.url
    orthanc.restart()
    assert orthanc.url == url
    [instance] = orthanc.instances()
    assert instance == StoredInstance(instance.id, "2.25.1", "2.25.2", "2.25.3")
    assert orthanc.sop_instance_uids() == {"2.25.3"}
    assert orthanc.instance_bytes("2.25.3") == file.path.read_bytes()
    pid = orthanc.pid
    orthanc.kill()
    assert not orthanc.running
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_one_sop_instance_uid_of_two_patients_is_two_instances(
    orthanc: Orthanc, file: Written, tmp_path: Path
) -> None:
    other = write_instance(
        tmp_path / "b.dcm", study="2.25.1", series="2.25.2", sop="2.25.3", patient_id="P2"
    )
    assert (store(orthanc, file), store(orthanc, other)) == (200, 200)
    assert sorted(orthanc.instance_files("2.25.3")) == sorted(
        [file.path.read_bytes(), other.path.read_bytes()]
    )
    with pytest.raises(LookupError):
        orthanc.instance_bytes("2.25.3")


def test_it_asks_for_a_password_where_it_has_users(
    orthanc_with_users: Orthanc, file: Written
) -> None:
    assert store(orthanc_with_users, file) == 401
    assert orthanc_with_users.sop_instance_uids() == set()


def test_two_at_a_time_have_ports_of_their_own(orthanc: Orthanc, tmp_path: Path) -> None:
    with Orthanc(tmp_path / "second") as second:
        assert second.port != orthanc.port
        assert second.instances() == []
    assert orthanc.running
