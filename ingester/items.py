"""What travels on the road of the data, from the walk to the journal.

These exist by the million and do not change: NamedTuples. The one thing that changes is a file's
cached bytes (``budget.Buffer``): they are given back as soon as the wire has them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ingester.dicom.values import Header
from ingester.dicomweb.outcome import IN_THE_STORE, Evidence, Outcome

if TYPE_CHECKING:  # it waits for buffers on a loop, and a process that reads has none
    from ingester.budget import Buffer


@dataclass(frozen=True, slots=True)
class Root:
    """One source. Files are known by the root's name and their path below it."""

    root_id: int
    name: bytes  # NAME of --root NAME=DIR, else the path as the file system spells it
    path: bytes  # realpath of a directory
    only: frozenset[bytes] | None = None  # the names to take, where the sources are single files
    device: int | None = None  # st_dev when the run started: another one later is another mount


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory met by the walk."""

    dir_id: int
    root: Root
    rel_path: bytes  # b"" for the root itself
    path: bytes = field(init=False, compare=False, repr=False)  # absolute
    prefix: bytes = field(init=False, compare=False, repr=False)  # of what lies in it

    def __post_init__(self) -> None:
        """Make the paths once: each of its files is asked for its own three times."""
        path = os.path.join(self.root.path, self.rel_path) if self.rel_path else self.root.path
        object.__setattr__(self, "path", path)
        object.__setattr__(self, "prefix", os.path.join(path, b""))


class DirectoryStamp(NamedTuple):
    """What a directory's status says: while none of it changes, no name comes into it or goes.

    With the inode, because where time stamps are coarse two directories may share them.
    """

    ino: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, st: os.stat_result) -> DirectoryStamp:
        """Of a directory that was asked for its status."""
        return cls(st.st_ino, st.st_mtime_ns, st.st_ctime_ns)


class Listing(NamedTuple):
    """A directory without subdirectories that was listed to its end and did not change meanwhile.

    ``stamp`` None: what an earlier listing said does not count any more.
    """

    directory: Directory
    stamp: DirectoryStamp | None
    files: int = 0  # names in it, of files of every kind


class ListedBefore(NamedTuple):
    """The last such listing of a directory, of a run that did not come to its end."""

    run_id: int
    stamp: DirectoryStamp
    files: int


class Skipped(NamedTuple):
    """A directory that is as it was listed, with nothing left to do in it."""

    directory: Directory
    listed_run_id: int
    files: int
    size: int  # bytes of these


class Previous(NamedTuple):
    """What the journal knew of a file when the walk met it."""

    outcome: Outcome
    size: int
    mtime_ns: int
    sha256: bytes | None  # of the whole file, where one was kept
    settled: bool  # not to be sent again while its bytes are the same


class FileRef(NamedTuple):
    """A file met by the walk."""

    file_id: int  # of the journal; what logs and metrics may name
    directory: Directory
    name: bytes
    size: int  # bytes, from lstat
    mtime_ns: int
    previous: Previous | None

    @property
    def path(self) -> bytes:
        """Absolute path."""
        return self.directory.prefix + self.name

    @property
    def in_doubt(self) -> bool:
        """Whether an earlier run may have sent it, as it is now, without an answer."""
        return self._was(Outcome.IN_DOUBT)

    @property
    def failed_before(self) -> bool:
        """Whether an earlier run has met it, as it is now, and left it to a later one."""
        return self._was(Outcome.FAILED)

    def _was(self, outcome: Outcome) -> bool:
        previous = self.previous
        return (
            previous is not None
            and previous.outcome is outcome
            and (previous.size, previous.mtime_ns) == (self.size, self.mtime_ns)
        )


class FileIdentity(NamedTuple):
    """What an open descriptor says it is: if any of it changed, it is not the same file."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int | bytes) -> FileIdentity:
        """Identity of an open file descriptor, or of what a path leads to. Raises OSError."""
        return cls.from_status(os.stat(fd))

    @classmethod
    def from_status(cls, st: os.stat_result) -> FileIdentity:
        """Identity of what was asked for its status already."""
        return cls(st.st_dev, st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns)


class Instance(NamedTuple):
    """A DICOM instance in a file, ready to be sent."""

    file: FileRef
    identity: FileIdentity
    header: Header
    buffer: Buffer | None  # the file's bytes, as long as they are cached
    sha256: bytes | None  # of the whole file, where it was read whole
    mtime_trusted: bool  # False: changed within 2 s of the read, compare next time
    findings: tuple[str, ...] = ()
    earlier: Holder | None = None  # what the journal says was sent under its UIDs before
    known_as: int | None = None  # file_id of its row, where that is below another root

    def sent_before(self, holder: Holder) -> Instance:
        """The same, of a file that an earlier run sent as ``holder`` says."""
        known_as = None if holder.file_id == self.file.file_id else holder.file_id
        return self._replace(earlier=holder, known_as=known_as)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.identity.size

    @property
    def key(self) -> InstanceKey:
        """What a claim is made on."""
        return InstanceKey(self.header.study_instance_uid, self.header.sop_instance_uid)


class Scanned(NamedTuple):
    """The instances in a list of files of one root, or in a part of it; perhaps none."""

    instances: Sequence[Instance]
    root_id: int
    list_number: int  # of the root, as readers took them, from 1
    whole: bool  # nothing more comes of the list


class InstanceKey(NamedTuple):
    """Study and SOP Instance UID, trailing NUL and space stripped."""

    study_instance_uid: str
    sop_instance_uid: str


class Holder(NamedTuple):
    """The file that holds the claim on an instance's UIDs, as the journal has it."""

    file_id: int
    path: bytes  # absolute
    outcome: Outcome
    size: int
    mtime_ns: int
    sha256: bytes | None  # of the bytes that were sent
    current: bool  # False: the file at that path has other content or UIDs by now
    decided_now: bool = False  # by this run: it will not be met again
    frozen: bool = False  # of a doubt: other bytes than these may have been sent under the UIDs
    overtaken: bool = False  # its file was sent with later bytes, and they are in doubt
    row: tuple[int, int] | None = None  # size and time stamp of what its file is by now

    def is_of(self, file: FileRef) -> bool:
        """Whether it is about this very file, perhaps as it was known below another root."""
        return self.file_id == file.file_id or (self.path == file.path and not self.decided_now)

    @property
    def is_there(self) -> bool:
        """Whether the store has these bytes, and no others under the UIDs."""
        return self.outcome in IN_THE_STORE and not self.overtaken


class StudyBatch(NamedTuple):
    """Instances of one study that make one request."""

    study_instance_uid: str
    instances: tuple[Instance, ...]
    batch_id: int  # whole batches of the grouping; its splits keep it
    ticket: int = 0  # of its announcement in the journal

    @property
    def size(self) -> int:
        """Bytes of the files, without part headers."""
        return sum(instance.identity.size for instance in self.instances)


class InputEnded(NamedTuple):
    """All there is was grouped; what is still to come waits for decisions of the upload."""


ToUpload = StudyBatch | InputEnded


class Result(NamedTuple):
    """What became of one file: what the journal records."""

    file: FileRef
    outcome: Outcome
    reason_code: str = ""  # snake_case, stable
    reason: str = ""  # words for a person; may hold the server's words
    evidence: Evidence | None = None
    size: int | None = None  # of the bytes that were read, where they were
    mtime_ns: int | None = None
    mtime_trusted: bool = True
    header: Header | None = None
    sha256: bytes | None = None
    other_file_id: int | None = None  # the file that a duplicate or a conflict meets
    moved_from: int | None = None  # file_id of the row that this file takes along
    findings: tuple[str, ...] = ()
    warning_code: int | None = None  # (0008,1196)
    failure_code: int | None = None  # (0008,1197)
    http_status: int | None = None
    attempts: int = 0
    request_id: str = ""
    elapsed_s: float = 0.0
    unchanged: bool = False  # read again and found to be what was recorded before
    known_as: int | None = None  # file_id of its row, which comes here from below another root
    over_another: bool = False  # an earlier run sent something under its UIDs, perhaps of another

    @property
    def row_id(self) -> int:
        """The file_id of the row that says this."""
        if self.moved_from is not None:
            return self.moved_from
        return self.file.file_id if self.known_as is None else self.known_as


def pending(file: FileRef, reason_code: str) -> Result:
    """The end of a file that was met and not finished.

    What an earlier run settled, or left in doubt, stays so for the bytes that it speaks of: a file
    with a new time stamp may hold the same, so the next run compares it, and does not just send.
    """
    previous = file.previous
    if previous is not None and (previous.settled or previous.outcome is Outcome.IN_DOUBT):
        return Result(
            file, previous.outcome, size=previous.size, mtime_ns=previous.mtime_ns,
            mtime_trusted=False, unchanged=True,
        )  # fmt: skip
    return Result(file, Outcome.PENDING, reason_code)


def ended(instance: Instance, outcome: Outcome, reason_code: str, reason: str = "") -> Result:
    """The result of an instance that ends without an answer of the server."""
    return Result(
        instance.file, outcome, reason_code, reason,
        size=instance.identity.size, mtime_ns=instance.identity.mtime_ns,
        mtime_trusted=instance.mtime_trusted, header=instance.header, sha256=instance.sha256,
        findings=instance.findings, known_as=instance.known_as,
    )  # fmt: skip
