"""What a walk is told of the files below a root, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

from ingester.items import (
    Directory,
    FileRef,
    ListedBefore,
    Listing,
    Previous,
    Result,
    Root,
    Skipped,
)


@dataclass(frozen=True, slots=True)
class WalkOptions:
    """``exclude``: absolute paths that are not met: the journal, its sidecars, the results.

    ``recheck``: skip no directory.
    """

    follow_symlinks: bool = False
    exclude: frozenset[bytes] = frozenset()
    recheck: bool = False


class KnownFile(Protocol):
    """What the catalog has for a name: at least a number."""

    @property
    def file_id(self) -> int: ...  # noqa: D102 - see FileRef
    @property
    def previous(self) -> Previous | None: ...  # noqa: D102 - see FileRef
    @property
    def mtime_trusted(self) -> bool: ...  # noqa: D102 - see Instance


class Catalog(Protocol):
    """The journal as the walk sees it; called in the walk's thread."""

    def directory(self, root: Root, rel_path: bytes) -> Directory:
        """The directory with its id, known or new."""
        ...

    def listed_before(self, directory: Directory) -> ListedBefore | None:
        """How it was listed by a run that this one resumes, if to its end."""
        ...

    def skipped(self, directory: Directory, before: ListedBefore) -> Skipped | None:
        """What is in it, if that is all that was listed and nothing of it needs work."""
        ...

    def files(self, directory: Directory, names: Sequence[bytes]) -> Mapping[bytes, KnownFile]:
        """What is known of each of these names."""
        ...


class UnreadableDirectory(NamedTuple):
    """A directory that could not be listed, or not to its end."""

    path: bytes
    reason: str


class WalkChunk(NamedTuple):
    """What one step found."""

    files: list[FileRef]  # to be scanned
    decided: list[Result]  # special files, links, names that could not be asked
    seen: list[FileRef]  # unchanged and settled: nothing to do
    unreadable: list[UnreadableDirectory]
    skipped: list[Skipped]  # with all that is in them: nothing to do
    forgotten: list[Listing]  # what was known of directories that are being listed again
    listings: list[Listing]  # that came to their end with these files

    @classmethod
    def empty(cls) -> Self:
        """Nothing yet."""
        return cls([], [], [], [], [], [], [])
