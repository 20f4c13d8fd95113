"""Seeds: more of them, or others, by the environment.

INGESTER_CRASH_SEEDS=300 kills with so many, and tries the other kinds in proportion;
INGESTER_CRASH_FIRST_SEED=1000 begins there.
"""

import math
import os
from pathlib import Path

import pytest

from tests.crash.job import Job
from tests.support.scripted import ScriptedServer

SEEDS = {
    "kill_seed": 60,
    "kills_seed": 5,
    "commit_seed": 8,
    "signal_seed": 6,
    "fault_seed": 5,
    "server_seed": 5,
    "some_seed": 2,
}
"""Of each kind, as often as in CI."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test that takes one of these names a run with each seed."""
    first = int(os.environ.get("INGESTER_CRASH_FIRST_SEED", "0"))
    wanted = os.environ.get("INGESTER_CRASH_SEEDS")
    for name, count in SEEDS.items():
        if name in metafunc.fixturenames:
            times = int(wanted) / SEEDS["kill_seed"] if wanted else 1
            last = first + math.ceil(count * times)
            metafunc.parametrize(name, range(first, last), indirect=True)


@pytest.fixture
def kill_seed(request: pytest.FixtureRequest) -> int:
    """For one SIGKILL."""
    return _told(request)


@pytest.fixture
def kills_seed(request: pytest.FixtureRequest) -> int:
    """For several SIGKILLs on one journal."""
    return _told(request)


@pytest.fixture
def commit_seed(request: pytest.FixtureRequest) -> int:
    """For a SIGKILL inside a commit."""
    return _told(request)


@pytest.fixture
def server_seed(request: pytest.FixtureRequest) -> int:
    """For a server that is killed."""
    return _told(request)


@pytest.fixture
def signal_seed(request: pytest.FixtureRequest) -> int:
    """For SIGTERM."""
    return _told(request)


@pytest.fixture
def fault_seed(request: pytest.FixtureRequest) -> int:
    """For a server with faults of its own."""
    return _told(request)


@pytest.fixture
def some_seed(request: pytest.FixtureRequest) -> int:
    """For what is tried with a few."""
    return _told(request)


@pytest.fixture
def job(request: pytest.FixtureRequest, tmp_path: Path, server: ScriptedServer) -> Job:
    """The job of the test's seed."""
    names = [name for name in SEEDS if name in request.fixturenames]
    seed: int = request.getfixturevalue(names[0]) if names else 0
    return Job(seed, tmp_path, server)


def _told(request: pytest.FixtureRequest) -> int:
    seed: int = request.param
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    return seed
