"""Fixtures for every kind of test: servers and faults, each fresh for its test."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.faults import Faults, compile_library
from tests.support.orthanc import Orthanc, find_orthanc
from tests.support.scripted import ScriptedServer

# A machine under load is no failure: an example may take its time.
settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scripted server that stores everything until it is told otherwise."""
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc."""
    _require_orthanc()
    with Orthanc(tmp_path / "orthanc") as running:
        yield running


@pytest.fixture
def orthanc_with_users(tmp_path: Path) -> Iterator[Orthanc]:
    """An empty Orthanc that asks for a password: see its `users`."""
    _require_orthanc()
    with Orthanc(tmp_path / "orthanc", users={"operator": "s3cret:word"}) as running:
        yield running


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


def _require_orthanc() -> None:
    """Skips where Orthanc is not installed, and fails where it has to be."""
    if find_orthanc() is None:
        reason = "Orthanc with its DICOMweb plugin is not installed"
        if os.environ.get("INGESTER_REQUIRE_ORTHANC") == "1":
            pytest.fail(f"{reason}, but INGESTER_REQUIRE_ORTHANC=1")
        pytest.skip(reason)
