"""What the journal's files are called: nothing else may be written there, or read as a source."""

from __future__ import annotations

from ingester.journal.schema import MIGRATIONS
from ingester.real_path import real_path


def journal_files(path: str) -> frozenset[str]:
    """Absolute names of all files that the journal at this path has now or may come to have.

    Raises UsageError: the path is relative to a directory that is gone.
    """
    journal = real_path(path)
    databases = [journal, *(copy_before_migration(journal, version) for version in MIGRATIONS)]
    beside = {name + end for name in databases for end in ("", "-wal", "-shm", "-journal")}
    return frozenset({*beside, f"{journal}.lock", announced_file(journal)})


def announced_file(path: str) -> str:
    """What is about to be sent; there while a run is going, and after one that was killed."""
    return f"{path}.announced"


def copy_before_migration(path: str, version: int) -> str:
    """The copy of a journal of an earlier schema, made before it is brought forward."""
    return f"{path}.schema{version}"
