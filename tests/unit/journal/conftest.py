from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a journal will be."""
    return str(tmp_path / "ingester.db")
