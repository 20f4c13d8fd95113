"""A job against the scripted server."""

from pathlib import Path

import pytest

from tests.pipeline.job import Job
from tests.support.scripted import ScriptedServer


@pytest.fixture
def job(tmp_path: Path, server: ScriptedServer) -> Job:
    """An empty archive to load to the scripted server."""
    return Job(tmp_path, server)
