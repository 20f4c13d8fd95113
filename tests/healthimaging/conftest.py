"""Archives that every test of this folder may load."""

import shutil
from pathlib import Path

import pytest

from tests.support.dicom_files import Corpus, write_corpus


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Six studies of four files, and one file of 3 MB, which is more than is cached or in a chunk."""
    root = tmp_path_factory.mktemp("archive")
    small = write_corpus(root / "small", 6, 4, 2048, seed=1)
    large = write_corpus(root / "large", 1, 1, 3_000_000, seed=2)
    return Corpus(root, {**small.files, **large.files})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where a command keeps its journal and results."""
    made = tmp_path / "kept"
    made.mkdir()
    return made


@pytest.fixture
def copied(archive: Corpus, tmp_path: Path) -> Path:
    """The archive, for a test that adds to it."""
    return Path(shutil.copytree(archive.root, tmp_path / "copied"))
