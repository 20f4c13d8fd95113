from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.emulator.wire import Client, running


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of an emulator whose store directory is tmp_path."""
    async with running(tmp_path) as it:
        yield it
