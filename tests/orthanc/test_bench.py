"""``ingester bench`` into a real Orthanc, and out of it again as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.support.dicom_files import instance_bytes, make_uid
from tests.support.orthanc import Orthanc
from tests.support.process import run_ingester


def bench(orthanc: Orthanc, directory: Path) -> dict[str, object]:
    """Runs one, with a password; returns what it says."""
    ((name, password),) = orthanc.users.items()
    completed = run_ingester(
        "bench", f"--url={orthanc.dicomweb_url}", "--server=orthanc", "--auth=basic", "--yes",
        "--tier=small", "--size-mb=1", "--concurrency=2", "--batch-instances=10", "--json",
        "--time-limit-s=600", env={"INGESTER_USERNAME": name, "INGESTER_PASSWORD": password},
        timeout=110, cwd=directory,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stderr
    data: dict[str, object] = json.loads(completed.stdout)
    return data


class TestABenchmarkOfOrthanc:
    def test_can_be_deleted_as_it_says_and_touches_nothing_else(
        self, orthanc_with_users: Orthanc, tmp_path: Path
    ) -> None:
        orthanc = orthanc_with_users
        study, series, other = (make_uid("other", kind) for kind in ("study", "series", "sop"))
        theirs = instance_bytes(study=study, series=series, sop=other)
        assert orthanc.request("POST", "/instances", theirs).status == 200
        data = bench(orthanc, tmp_path)
        sent = orthanc.sop_instance_uids() - {other}
        assert len(sent) == 30
        assert all(sop.startswith(f"{data['uid_root']}.") for sop in sent)
        words = str(data["how_to_delete"])
        lookup = re.search(rf"POST {orthanc.url}(\S+) with its UID", words)
        delete = re.search(rf"DELETE {orthanc.url}(\S+)ID", words)
        assert lookup is not None
        assert delete is not None
        studies = data["studies"]
        assert isinstance(studies, list)
        for each in studies:
            found = json.loads(orthanc.request("POST", lookup[1], each.encode()).body)
            assert [one["Type"] for one in found] == ["Study"]
            assert orthanc.request("DELETE", delete[1] + found[0]["ID"]).status == 200
        assert orthanc.sop_instance_uids() == {other}
