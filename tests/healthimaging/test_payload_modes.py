"""The real command into the emulator over TLS, signed in each of the four ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest

from tests.healthimaging.emulated import (
    KEYS,
    TEMPORARY,
    Command,
    Running,
    assert_same_bytes,
    command,
    emulator,
    environment_of,
)
from tests.support.dicom_files import Corpus, pydicom_test_files
from tests.support.scripted import ScriptedServer

MODES = ["literal", "sha256", "unsigned", "aws-chunked"]
TEST_FILES = Path(pydicom.__file__).resolve().parent / "data" / "test_files"


@pytest.fixture(scope="module")
def generic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Path, str]]:
    """What becomes of each of pydicom's files in a server of no kind, without signatures."""
    with emulator(tmp_path_factory.mktemp("generic"), credentials=None, tls=False) as running:
        kept = tmp_path_factory.mktemp("kept")
        loaded = Command(TEST_FILES, running.url, kept, server=())
        assert loaded.run().exit_code == 3
        assert_same_bytes(running, loaded)
        yield loaded.outcomes_by_path()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """An emulator over TLS that verifies signatures and knows all four ways."""
    with emulator(tmp_path / "store") as made:
        yield made


class TestAllOfPydicomsFiles:
    @pytest.mark.parametrize("mode", MODES)
    def test_end_as_in_a_generic_server_and_come_back_byte_for_byte(
        self, mode: str, generic: dict[Path, str], running: Running, directory: Path
    ) -> None:
        loaded = command(TEST_FILES, running, directory, f"--payload-signing={mode}")
        run = loaded.run()
        assert run.exit_code == 3
        assert run.summary["retries"] == 0
        outcomes = loaded.outcomes_by_path()
        assert outcomes.keys() == {path.resolve() for path in pydicom_test_files()}
        assert outcomes == generic
        assert Counter(outcomes.values()) == Counter(run.outcomes)
        assert assert_same_bytes(running, loaded) == run.outcomes["stored"] + run.outcomes.get(
            "stored_with_warning", 0
        )
        requests = running.emulator.requests
        assert loaded.run().outcomes == run.outcomes
        assert running.emulator.requests == requests


class TestAMadeArchive:
    @pytest.mark.parametrize("mode", MODES)
    def test_is_stored_byte_for_byte_however_it_is_read(
        self, mode: str, archive: Corpus, running: Running, directory: Path
    ) -> None:
        loaded = command(archive.root, running, directory, f"--payload-signing={mode}")
        run = loaded.run("--inline-limit=2300", "--max-batch-instances=3")
        assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})
        assert run.summary["retries"] == 0
        assert assert_same_bytes(running, loaded) == len(archive)

    def test_by_study_with_a_session_token(self, archive: Corpus, tmp_path: Path) -> None:
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            loaded = command(
                archive.root, running, tmp_path / "kept", "--operation=StoreDICOMStudy",
                keys=TEMPORARY,
            )  # fmt: skip
            assert loaded.run().outcomes == {"stored": len(archive)}
            assert_same_bytes(running, loaded)

    def test_a_session_token_that_is_missing_is_refused(
        self, archive: Corpus, tmp_path: Path
    ) -> None:
        with emulator(tmp_path / "store", credentials=TEMPORARY) as running:
            without = replace(TEMPORARY, session_token=None)
            loaded = command(archive.root, running, tmp_path / "kept", keys=without)
            run = loaded.run()
            assert (run.exit_code, run.outcomes) == (1, {"pending": len(archive)})

    def test_without_the_ca_nothing_is_sent(
        self, archive: Corpus, running: Running, directory: Path
    ) -> None:
        loaded = command(archive.root, running, directory)
        run = replace(loaded, environment={}).run(env=environment_of(KEYS))
        assert (run.exit_code, run.outcomes) == (1, {"pending": len(archive)})
        assert "--ca-bundle" in run.ended.stderr
        assert running.emulator.requests == 0
        assert loaded.run(f"--ca-bundle={running.ca}").outcomes == {"stored": len(archive)}

    @pytest.mark.parametrize("variable", ["AWS_CA_BUNDLE", "SSL_CERT_FILE"])
    def test_the_ca_may_come_from_the_environment(
        self, variable: str, archive: Corpus, running: Running, directory: Path
    ) -> None:
        keys = environment_of(KEYS)
        loaded = replace(command(archive.root, running, directory), environment=keys)
        run = loaded.run(env={variable: running.ca})
        assert (run.exit_code, run.outcomes) == (0, {"stored": len(archive)})


class TestStoreDICOMStudy:
    def test_posts_to_the_study_of_its_instances(
        self, archive: Corpus, server: ScriptedServer, directory: Path
    ) -> None:
        options = ("--operation=StoreDICOMStudy",)
        loaded = Command(archive.root, server.url, directory, options, server=())
        assert loaded.run().exit_code == 0
        studies = {file.study for file in archive}
        assert {post.path for post in server.posts} == {f"/studies/{uid}" for uid in studies}
