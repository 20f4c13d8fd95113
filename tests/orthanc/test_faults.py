"""A large made archive, an Orthanc that is killed, a run that is killed."""

import json
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Outcome
from tests.orthanc.command import Command, assert_same_bytes, instances_of
from tests.support.command import read_run
from tests.support.dicom_files import Corpus, instance_bytes, make_uid, write_corpus
from tests.support.orthanc import Orthanc
from tests.support.process import Process
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """2,000 instances of 20 KB in 40 studies; nothing writes to them."""
    return write_corpus(tmp_path_factory.mktemp("archive"), 40, 50, 20_000, n_series=2)


def count_of(orthanc: Orthanc) -> int:
    """How many instances it has."""
    count: int = json.loads(orthanc.request("GET", "/statistics").body)["CountInstances"]
    return count


def wait_for(orthanc: Orthanc, instances: int, process: Process) -> None:
    """Returns when it has so many."""
    wait_until(lambda: count_of(orthanc) >= instances, process)


def assert_exactly(orthanc: Orthanc, corpus: Corpus, command: Command) -> None:
    """Orthanc has the corpus, each instance once, and so does the journal."""
    expected = Counter((file.study, file.sop) for file in corpus)
    assert instances_of(orthanc) == expected
    assert Counter(command.stored().keys()) == expected
    for file in list(corpus)[:: len(corpus) // 100]:
        assert orthanc.instance_bytes(file.sop) == file.path.read_bytes()


class TestAnArchiveOfManyStudies:
    def test_is_stored_and_read_back_byte_for_byte(
        self, orthanc: Orthanc, corpus: Corpus, tmp_path: Path
    ) -> None:
        command = Command(corpus.root, orthanc.dicomweb_url, tmp_path)
        run = command.run()
        assert run.ended.returncode == 0, run.ended.stderr
        assert run.outcomes == {"stored": 2000}
        assert run.summary["requests"] == 40
        assert_same_bytes(orthanc, command)


class TestOrthancKilled:
    @pytest.mark.parametrize(("instances", "away_s"), [(1, 0), (310, 0), (310, 3), (1110, 0)])
    def test_in_mid_post_and_started_again_is_waited_for_and_has_the_corpus(
        self, instances: int, away_s: int, orthanc: Orthanc, corpus: Corpus, tmp_path: Path
    ) -> None:
        options = ("--max-batch-instances=25", "--max-concurrency=4", "--backoff-base-s=0.2")
        command = Command(corpus.root, orthanc.dicomweb_url, tmp_path, options)
        with command.start() as process:
            wait_for(orthanc, instances, process)
            orthanc.kill()
            time.sleep(away_s)
            orthanc.restart()
            ended = process.wait(90)
        assert ended.returncode == 0, ended.stderr
        assert read_run(ended).outcomes == {"stored": 2000}
        assert_exactly(orthanc, corpus, command)

    @pytest.mark.parametrize("instances", [1, 700])
    def test_and_gone_the_run_stops_and_the_same_command_completes(
        self, instances: int, orthanc: Orthanc, corpus: Corpus, tmp_path: Path
    ) -> None:
        options = ("--max-batch-instances=25", "--backoff-base-s=0.02", "--max-outage-s=2")
        command = Command(corpus.root, orthanc.dicomweb_url, tmp_path, options)
        with command.start() as process:
            wait_for(orthanc, instances, process)
            orthanc.kill()
            ended = process.wait(60)
        assert ended.returncode == 1, ended.stderr
        assert "hint:" in ended.stderr
        outcomes = {k: n for k, n in json.loads(ended.stdout)["outcomes"].items() if n}
        assert outcomes.keys() <= {"stored", "pending", "in_doubt"}
        orthanc.restart()
        assert Counter(command.stored().keys()) <= instances_of(orthanc)
        run = command.run()
        assert run.ended.returncode == 0, run.ended.stderr
        assert run.outcomes == {"stored": 2000}
        assert_exactly(orthanc, corpus, command)


class TestTheRunKilled:
    @pytest.mark.parametrize("instances", [1, 400, 1500])
    def test_the_same_command_completes_the_job(
        self, instances: int, orthanc: Orthanc, corpus: Corpus, tmp_path: Path
    ) -> None:
        options = ("--max-batch-instances=25",)
        command = Command(corpus.root, orthanc.dicomweb_url, tmp_path, options)
        with command.start() as process:
            wait_for(orthanc, instances, process)
            process.kill()
            assert process.wait().returncode == -signal.SIGKILL
        assert Counter(command.stored().keys()) <= instances_of(orthanc)
        run = command.run()
        assert run.ended.returncode == 0, run.ended.stderr
        assert run.outcomes == {"stored": 2000}
        assert_exactly(orthanc, corpus, command)


def nested(depth: int) -> bytes:
    """An instance with sequences within sequences (PS3.5 7.5), all of undefined length."""
    sequence = b"\x40\x00\x30\xa7SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    study = make_uid("nested")
    whole = instance_bytes(
        study=study, series=make_uid(study, 1), sop=make_uid(study, 2), payload_bytes=0
    )
    return whole + sequence * depth + end * depth


class TestAFileThatCrashesTheServer:
    def test_sinks_only_itself(self, orthanc: Orthanc, tmp_path: Path) -> None:
        """Somebody starts Orthanc again whenever it has died."""
        corpus = write_corpus(tmp_path / "archive", 6, 10, 2_000)
        killer = corpus.root / "study00002" / "000005x.dcm"
        killer.write_bytes(nested(20_000))
        over, crashes = threading.Event(), []

        def supervise() -> None:
            while not over.is_set():
                if not orthanc.running:
                    crashes.append(orthanc.log())
                    orthanc.restart()
                time.sleep(0.01)

        options = ("--backoff-base-s=0.3", "--max-concurrency=2", "--max-attempts=4")
        command = Command(corpus.root, orthanc.dicomweb_url, tmp_path, options)
        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            runs = [command.run()]
            while runs[-1].ended.returncode == 1 and len(runs) < 4:
                runs.append(command.run())
        finally:
            over.set()
            supervisor.join()
        assert crashes, "this Orthanc takes it"
        rows = command.rows()
        assert runs[-1].ended.returncode == 3, runs[-1].ended.stderr
        assert rows.pop(killer).outcome is Outcome.IN_DOUBT
        assert {row.outcome for row in rows.values()} == {Outcome.STORED}
        assert set(instances_of(orthanc)) >= {(file.study, file.sop) for file in corpus}
