"""Credentials that change while a run is going: nothing fails, nothing waits.

INGESTER_ROTATION_S=60 makes the long run of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from ingester.config import load_config
from ingester.pipeline import ingest
from ingester.report.summary import RunSummary
from ingester.sources import Source
from tests.healthimaging.emulated import KEYS, ActingClock, assert_same_bytes, command, emulator
from tests.healthimaging.rotating import Schedule
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.process import clean_environment
from tests.support.waiting import wait_until

LENGTH_S = float(os.environ.get("INGESTER_ROTATION_S", "8"))
PERIOD_S = 3.0
OVERLAP_S = 4.0  # so every renewal has 2 s or more
LATENCY_S = 0.05
IN_MID_RUN = 150
"""Questions for the time: between a third and the whole of 100 requests."""

_GIVE = """
import json, sys, time
from datetime import datetime, timezone
begin, period_s, overlap_s = map(float, sys.argv[1:])
number = int((time.time() - begin) // period_s)
end = begin + (number + 1) * period_s + overlap_s
print(json.dumps({
    "Version": 1, "AccessKeyId": f"KEY{number}", "SecretAccessKey": f"secret-canary-{number}",
    "SessionToken": f"token-canary-{number}",
    "Expiration": datetime.fromtimestamp(end, timezone.utc).isoformat(),
}))
"""

_HANG = """
import json, os, sys, time
from datetime import datetime, timezone
here = os.path.dirname(os.path.abspath(__file__))
with open(os.path.join(here, "calls"), "a") as calls:
    calls.write("x")
while os.path.getsize(os.path.join(here, "calls")) > 2 and not os.path.exists(os.path.join(here, "end")):
    time.sleep(0.02)
end = datetime.fromtimestamp(time.time() + 4, timezone.utc).isoformat()
print(json.dumps({
    "Version": 1, "AccessKeyId": sys.argv[1], "SecretAccessKey": sys.argv[2],
    "SessionToken": sys.argv[3], "Expiration": end,
}))
"""


@dataclass
class Served:
    """A rotating emulator in a process, and what it says at its end."""

    base_url: str
    ca: str
    region: str
    report: dict[str, object] = field(default_factory=dict)


@contextmanager
def rotating(store: Path, schedule: Schedule) -> Iterator[Served]:
    """Runs it; its report is there after the block."""
    numbers = (schedule.begin, schedule.period_s, schedule.overlap_s, LATENCY_S)
    arguments = ["-m", "tests.healthimaging.rotating", str(store), *map(str, numbers)]
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=clean_environment(),
        cwd=Path(__file__).parents[2],
        text=True,
    ) as process:
        try:
            ready = json.loads(_line(process.stdout))
            served = Served(ready["base_url"], ready["ca"], ready["region"])
            yield served
            assert process.stdin is not None
            process.stdin.close()
            served.report = json.loads(_line(process.stdout))
        finally:
            process.kill()


def _line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


def give_by(folder: Path, script: str, *arguments: object) -> Path:
    """An AWS configuration whose default profile has a credential_process."""
    folder.mkdir()
    file = folder / "give.py"
    file.write_text(script)
    config = folder / "config"
    words = " ".join(f"'{argument}'" for argument in arguments)
    config.write_text(
        f"[default]\ncredential_process = '{sys.executable}' -I -S '{file}' {words}\n"
    )
    return config


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Nothing of this machine's AWS configuration is met."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


async def load(archive: Corpus, url: str, ca: str, region: str, kept: Path) -> RunSummary:
    """Loads it in this process, by single files."""
    config = load_config(
        {
            "url": url, "server": "healthimaging", "auth": "sigv4", "region": region,
            "ca_bundle": ca, "journal": str(kept / "journal.db"), "max_batch_instances": 1,
            "max_concurrency": 2, "readers": 1, "results": str(kept / "results.jsonl"),
        },
        {},
    )  # fmt: skip
    return await ingest(config, [Source(os.fsencode(archive.root))])


class TestCredentialsThatRotateEvery3Seconds:
    @pytest.mark.timeout(60 + 3 * LENGTH_S)
    async def test_fail_no_request(self, tmp_path: Path, aws: pytest.MonkeyPatch) -> None:
        count = int(LENGTH_S / LATENCY_S * 2 * 0.9)  # two at a time
        archive = write_corpus(tmp_path / "archive", count // 10, 10, 2000, seed=5)
        schedule = Schedule(time.time() - 0.5, PERIOD_S, OVERLAP_S)
        numbers = (schedule.begin, schedule.period_s, schedule.overlap_s)
        aws.setenv("AWS_CONFIG_FILE", str(give_by(tmp_path / "aws", _GIVE, *numbers)))
        with rotating(tmp_path / "store", schedule) as served:
            (tmp_path / "kept").mkdir()
            summary = await load(
                archive, served.base_url, served.ca, served.region, tmp_path / "kept"
            )
        print(f"\n{summary.elapsed_s} s, {served.report}")  # noqa: T201 - shown with a failure
        assert summary.exit_code == 0
        assert summary.outcomes["stored"] == summary.files == len(archive)
        assert summary.retries == 0
        assert served.report["refused"] == 0
        assert served.report["requests"] == len(archive)
        used = served.report["keys"]
        assert isinstance(used, list)
        assert len(used) >= 2


class TestASourceThatHangs:
    async def test_stops_no_upload_that_has_keys(
        self, tmp_path: Path, aws: pytest.MonkeyPatch
    ) -> None:
        """It hangs from its third call on, after 2 s; its keys are good by the server's clock.

        The server waits for that call. If the loop waited for its end, nothing would end.
        """
        archive = write_corpus(tmp_path / "archive", 10, 10, 2000, seed=6)
        folder = tmp_path / "aws"
        token = "token-canary"
        config = give_by(folder, _HANG, KEYS.access_key, KEYS.secret_key, token)
        aws.setenv("AWS_CONFIG_FILE", str(config))
        keys = type(KEYS)(KEYS.access_key, KEYS.secret_key, token)

        def hangs() -> None:
            wait_until(lambda: (folder / "calls").stat().st_size >= 3)

        clock = ActingClock(IN_MID_RUN, hangs)
        with emulator(tmp_path / "store", credentials=keys, clock=clock) as running:
            (tmp_path / "kept").mkdir()
            region = running.emulator.region
            try:
                summary = await load(archive, running.url, running.ca, region, tmp_path / "kept")
            finally:
                (folder / "end").touch()
            assert (folder / "calls").stat().st_size >= 3
            assert summary.exit_code == 0
            assert summary.outcomes["stored"] == len(archive)
            assert summary.retries == 0
            loaded = command(archive.root, running, tmp_path / "kept", keys=keys)
            assert_same_bytes(running, loaded)
