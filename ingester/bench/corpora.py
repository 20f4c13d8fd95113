"""Seeded corpora of Part 10 files: what they are. `corpus_files` writes them.

Takes: how many files, of what size, in how many studies, and a seed.
Gives: paths and UIDs of every file, by its number.

The same parameters give the same bytes on every machine. Other parameters give other UIDs, so that
two corpora can go to one store; `scattered` only moves the files of another corpus. With a UID root
all UIDs lie below it, and the patients are named so that nobody takes them for real.
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from ingester.bench.part10 import FRAME_MAX_BYTES

SIZE_MIN_BYTES: Final = 1024
UID_ROOT_MAX_LENGTH: Final = 54  # a UID has 64 characters, PS3.5 9.1; below the root are two arcs
_ARCS: Final = {"study": 1, "series": 2, "instance": 3}
_FIRST_NUMBER: Final = 1_000_000  # so that all UIDs are of one length


@dataclass(frozen=True, slots=True)
class Corpus:
    """What a corpus is made of; equal values are equal bytes."""

    name: str
    files: int
    size: int  # bytes of a whole file, even
    studies: int  # each with one series; files are spread over them evenly, in order
    seed: int = 1  # 0 to 999,999
    frames: int = 1  # more than one: encapsulated, a fragment a frame; no codec reads them
    scattered: bool = False  # every study lies in all directories
    uid_root: str = ""  # what every UID begins with; "": UIDs follow from the other parameters

    def __post_init__(self) -> None:
        """Refuses what cannot be written.

        Raises:
            ValueError: a figure is out of its range.
        """
        if not 1 <= self.studies <= self.files <= 9_999_999:
            raise ValueError("a corpus needs 1 <= studies <= files <= 9,999,999")
        if not 0 <= self.seed <= 999_999:
            raise ValueError("a seed is from 0 to 999,999")
        if len(self.uid_root) > UID_ROOT_MAX_LENGTH or (
            self.uid_root and self.files + _FIRST_NUMBER > 9_999_999
        ):
            raise ValueError("a UID root is too long, or has too many files below it")
        if not 1 <= self.frames <= 9_999:
            raise ValueError("frames are from 1 to 9,999")
        largest = self.frames * FRAME_MAX_BYTES
        if self.size % 2 or not SIZE_MIN_BYTES * self.frames <= self.size <= largest:
            raise ValueError(f"a frame's size is even, from {SIZE_MIN_BYTES} to {FRAME_MAX_BYTES}")

    @property
    def bytes(self) -> int:
        """Bytes of all files together."""
        return self.files * self.size

    @property
    def directory(self) -> str:
        """A directory name that no other corpus has."""
        frames = f"-{self.frames}frames" if self.frames > 1 else ""
        root = f"-{self.uid_root}" if self.uid_root else ""
        return f"{self.name}-{self.files}x{self.size}{frames}-{self.studies}-seed{self.seed}{root}"

    def scaled(self, factor: float) -> "Corpus":
        """The same kind of corpus, larger or smaller: files and studies, or a file's frames."""
        if self.frames > 1:
            frames = max(2, round(self.frames * factor))
            return replace(self, frames=frames, size=self.size // self.frames * frames & ~1)
        files = max(1, round(self.files * factor))
        return replace(self, files=files, studies=min(files, max(1, round(self.studies * factor))))

    def study_of(self, index: int) -> int:
        """The study that file `index` belongs to, counted from 0."""
        return index * self.studies // self.files

    def sop_instance_uid(self, index: int) -> str:
        """The SOP Instance UID of file `index`."""
        return self._uid("instance", index)

    def study_instance_uid(self, study: int) -> str:
        """The Study Instance UID of study number `study`."""
        return self._uid("study", study)

    def series_instance_uid(self, study: int) -> str:
        """The Series Instance UID of the one series in study number `study`."""
        return self._uid("series", study)

    def path(self, index: int) -> str:
        """Where file `index` is, below the directory of the corpus's files."""
        if self.scattered:
            return f"part-{index % self.studies:04d}/{index + 1:07d}.dcm"
        return f"study-{self.study_of(index):04d}/{index + 1:07d}.dcm"

    def paths(self, files: str) -> Iterator[str]:
        """Where all files are, in their order; `files` is the directory of the corpus's files."""
        return (os.path.join(files, self.path(index)) for index in range(self.files))

    def _uid(self, kind: str, number: int) -> str:
        """Below the root; or UUID-derived, PS3.5 B.2, of 44 characters so that none is padded."""
        if self.uid_root:
            return f"{self.uid_root}.{_ARCS[kind]}.{_FIRST_NUMBER + number}"
        frames = f"{self.frames}/" if self.frames > 1 else ""
        source = f"{self.seed}/{self.files}/{self.size}/{self.studies}/{frames}{kind}/{number}"
        value = int.from_bytes(hashlib.sha256(source.encode()).digest()[:16], "big")
        return f"2.25.{10**38 + value % (2 * 10**38)}"
