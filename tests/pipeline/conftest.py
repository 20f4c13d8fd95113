"""A job against the scripted server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pipeline.job import Job
from tests.support.faults import Faults, compile_library
from tests.support.scripted import ScriptedServer


@pytest.fixture
def job(tmp_path: Path, server: ScriptedServer) -> Job:
    """An empty archive to load to the scripted server."""
    return Job(tmp_path, server)


@pytest.fixture(scope="session")
def faults_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that makes a file system fail, compiled once."""
    try:
        return compile_library(tmp_path_factory.mktemp("faults"))
    except RuntimeError as error:
        pytest.skip(str(error))


@pytest.fixture
def faults(faults_library: Path, tmp_path: Path) -> Iterator[Faults]:
    """No faults at first; what hangs in the end is let go."""
    made = Faults(faults_library, tmp_path / "faults")
    yield made
    made.rule()
