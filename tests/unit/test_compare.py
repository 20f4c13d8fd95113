from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from ingester.budget import Budget
from ingester.compare import Sameness, look_here, look_there, without_the_other
from ingester.dicomweb.outcome import Outcome
from ingester.files import SourceChanged
from ingester.items import Holder, Instance, Previous
from ingester.look import HEAD_BYTES
from ingester.scan import Scanner, ScanOptions
from tests.support.dicom_files import instance_bytes
from tests.support.privileges import without_privileges
from tests.unit.dicom.part10 import element, group_2, identity, part10, pixels
from tests.unit.road import ref_of, scanned_by

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, data: bytes, *, old: bool = True) -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        if old:
            os.utime(path, ns=(10**18, 10**18))
        return path

    return written


def scanned(path: Path, file_id: int = 2, *, checksums: bool = True) -> Instance:
    scanner = Scanner(ScanOptions(checksums=checksums), Budget(1 << 24))
    (found,) = scanned_by(scanner, [ref_of(os.fsencode(path), file_id)])
    assert isinstance(found, Instance), found
    if found.buffer is not None:
        found.buffer.give_back()
    return found._replace(buffer=None)


def holder(path: Path, *, digest: bool = True, current: bool = True) -> Holder:
    """The file as it was when it was stored."""
    status = path.stat()
    sha256 = hashlib.sha256(path.read_bytes()).digest() if digest else None
    return Holder(
        1, os.fsencode(path), Outcome.STORED, status.st_size, status.st_mtime_ns, sha256, current
    )


def compare(instance: Instance, holder: Holder) -> Sameness:
    """All steps, in one thread."""
    here = look_here(instance, holder)
    if isinstance(here, Sameness):
        return here
    there = look_there(holder, here)
    return there.sameness or without_the_other(instance, holder, there)


DATA = part10(identity() + pixels())
OTHER_GROUP_2 = part10(identity() + pixels(), group_2(media_storage_sop_instance_uid="1.2.3.4.5.6"))
OTHER_DATA_SET = part10(identity() + pixels()[:-2] + b"\1\1")


class TestTheSameUids:
    def test_with_the_same_bytes_are_the_same(self, write: Write) -> None:
        there = holder(write("a", DATA))
        assert compare(scanned(write("b", DATA)), there) is Sameness.SAME

    @pytest.mark.parametrize("digest", [True, False])
    def test_with_another_group_2_are_the_same(self, write: Write, digest: bool) -> None:
        there = holder(write("a", DATA), digest=digest)
        here = scanned(write("b", OTHER_GROUP_2), checksums=digest)
        assert compare(here, there) is Sameness.SAME

    @pytest.mark.parametrize("digest", [True, False])
    def test_with_another_data_set_are_different(self, write: Write, digest: bool) -> None:
        there = holder(write("a", DATA), digest=digest)
        here = scanned(write("b", OTHER_DATA_SET), checksums=digest)
        assert compare(here, there) is Sameness.DIFFERENT

    def test_with_a_data_set_that_only_begins_alike_are_different(self, write: Write) -> None:
        there = holder(write("a", DATA + b"more"))
        assert compare(scanned(write("b", DATA)), there) is Sameness.DIFFERENT

    def test_of_large_files_are_compared_to_the_end(self, write: Write) -> None:
        data = instance_bytes(study="1.2", series="1.3", sop="1.4", payload_bytes=3 << 20)
        there = holder(write("a", data))
        assert compare(scanned(write("b", data)), there) is Sameness.SAME
        changed = data[:-1] + bytes([data[-1] ^ 1])
        assert compare(scanned(write("c", changed)), there) is Sameness.DIFFERENT


def long_group_2(size: int, *, group_length: int | None = None) -> bytes:
    """Group 2 with private information (0002,0102) of so many bytes; its length may be wrong."""
    private = element(0x00020100, "UI", "1.2.3") + element(0x00020102, "OB", bytes(size))
    length = len(group_2()) - 12 + len(private) if group_length is None else group_length
    return group_2(group_length=length) + private


class TestALongGroup2:
    @pytest.mark.parametrize("size", [HEAD_BYTES, 300_000, 3_000_000])
    @pytest.mark.parametrize("group_length", [None, 0])
    def test_is_passed_over(self, write: Write, size: int, group_length: int | None) -> None:
        meta = long_group_2(size, group_length=group_length)
        short, long = write("a", DATA), write("b", part10(identity() + pixels(), meta))
        other = write("c", OTHER_DATA_SET)
        assert compare(scanned(short), holder(long)) is Sameness.SAME
        assert compare(scanned(long), holder(short)) is Sameness.SAME
        assert compare(scanned(other), holder(long)) is Sameness.DIFFERENT
        assert compare(scanned(long), holder(other)) is Sameness.DIFFERENT

    def test_is_compared_with_the_rest_where_it_has_no_end(self, write: Write) -> None:
        """That finds a difference too many at worst, and does not leave it open for ever."""
        data = part10(identity() + pixels(), long_group_2(5_000_000))
        same, other = scanned(write("b", data)), scanned(write("c", DATA))
        there = holder(write("a", data), digest=False)
        assert compare(same._replace(sha256=None), there) is Sameness.SAME
        assert compare(other, there) is Sameness.DIFFERENT


class TestWhereTheOtherFileIsGone:
    def test_equal_digests_mean_it_moved(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        path.unlink()
        assert compare(scanned(write("b", DATA)), there) is Sameness.MOVED

    def test_other_digests_mean_it_is_another_when_it_is_gone_twice(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        path.unlink()
        here = scanned(write("b", OTHER_DATA_SET))
        assert compare(here, there) is Sameness.CHANGED
        before = Previous(Outcome.FAILED, here.file.size, here.file.mtime_ns, None, settled=False)
        again = here._replace(file=here.file._replace(previous=before))
        assert compare(again, there) is Sameness.DIFFERENT

    def test_without_a_digest_nobody_knows(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path, digest=False)
        path.unlink()
        assert compare(scanned(write("b", DATA)), there) is Sameness.UNKNOWN

    def test_its_directory_too(self, write: Write, tmp_path: Path) -> None:
        there = holder(write("a", DATA))._replace(path=os.fsencode(tmp_path / "gone" / "a"))
        assert compare(scanned(write("b", DATA)), there) is Sameness.MOVED

    def test_in_its_place_a_fifo_is_nothing_to_read(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        path.unlink()
        os.mkfifo(path)
        assert compare(scanned(write("b", DATA)), there) is Sameness.SAME

    def test_of_a_large_file_the_whole_is_hashed_now(self, write: Write) -> None:
        data = instance_bytes(study="1.2", series="1.3", sop="1.4", payload_bytes=2 << 20)
        path = write("a", data)
        there = holder(path)
        path.unlink()
        here = scanned(write("b", data))
        assert here.sha256 is None
        assert compare(here, there) is Sameness.MOVED


class TestWhereTheOtherFileCannotBeAsked:
    """Its directory may not be entered, or its file system does not know it for a while."""

    @pytest.fixture
    def closed(self, write: Write, tmp_path: Path) -> Iterator[Holder]:
        (tmp_path / "closed").mkdir()
        there = holder(write("closed/a", DATA))
        (tmp_path / "closed").chmod(0)
        with without_privileges():
            yield there
        (tmp_path / "closed").chmod(0o700)

    def test_it_did_not_move(self, write: Write, closed: Holder) -> None:
        assert compare(scanned(write("b", DATA)), closed) is Sameness.SAME
        here = scanned(write("c", DATA), checksums=False)
        assert compare(here, closed) is Sameness.SAME

    def test_another_is_not_compared_yet(self, write: Write, closed: Holder) -> None:
        assert compare(scanned(write("b", OTHER_GROUP_2)), closed) is Sameness.CHANGED
        here = scanned(write("c", OTHER_DATA_SET))
        failed = Previous(Outcome.FAILED, here.size, here.file.mtime_ns, None, settled=False)
        here = here._replace(file=here.file._replace(previous=failed))
        earlier = closed._replace(current=False, row=(closed.size, closed.mtime_ns))
        assert compare(here, earlier) is Sameness.CHANGED

    @pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
    def test_nor_where_it_gives_an_error_that_may_pass(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, number: int
    ) -> None:
        there = holder(write("a", DATA))
        here = scanned(write("b", DATA))

        def refuses(path: bytes) -> os.stat_result:
            raise OSError(number, os.strerror(number), path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "lstat", refuses)
            found = look_there(there, None)
        assert found.exists
        assert (found.sameness or without_the_other(here, there, found)) is Sameness.SAME


class TestWhereTheOtherFileChanged:
    def test_what_was_sent_is_known_by_its_digest(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        write("a", OTHER_DATA_SET, old=False)
        assert compare(scanned(write("b", DATA)), there) is Sameness.SAME

    @pytest.mark.parametrize("digest", [True, False])
    @pytest.mark.parametrize("now", [OTHER_DATA_SET, OTHER_DATA_SET + b"more", b"no DICOM"])
    def test_what_else_was_not_sent_is_not_compared_yet(
        self, write: Write, now: bytes, digest: bool
    ) -> None:
        path = write("a", DATA)
        there = holder(path, digest=digest)
        write("a", now, old=False)
        assert compare(scanned(write("c", OTHER_DATA_SET)), there) is Sameness.CHANGED

    def test_but_cannot_be_read_another_is_a_conflict(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        path.unlink()
        path.mkdir()
        assert compare(scanned(write("b", OTHER_DATA_SET)), there) is Sameness.DIFFERENT

    @pytest.mark.parametrize("error", [errno.EACCES, errno.EIO, errno.ESTALE])
    def test_and_cannot_be_read_now_is_not_compared_yet(
        self, write: Write, monkeypatch: pytest.MonkeyPatch, error: int
    ) -> None:
        there = holder(write("a", DATA))

        def refuses(_path: bytes) -> NoReturn:
            raise OSError(error, os.strerror(error))

        here = scanned(write("b", OTHER_GROUP_2))
        at = look_here(here, there)
        assert isinstance(at, bytes)
        with monkeypatch.context() as patch:
            patch.setattr("ingester.compare.opened", refuses)
            found = look_there(there, at)
        assert without_the_other(here, there, found) is Sameness.CHANGED

    def test_and_is_what_the_journal_has_of_it_since_is_not_compared_again(
        self, write: Write
    ) -> None:
        path = write("a", DATA)
        there = holder(path, current=False)
        size, mtime_ns = path.stat().st_size, path.stat().st_mtime_ns
        here = scanned(write("b", OTHER_DATA_SET))
        assert compare(here, there._replace(row=(size, mtime_ns))) is Sameness.DIFFERENT
        for row in ((size + 1, mtime_ns), (size, mtime_ns + 1)):
            assert compare(here, there._replace(row=row)) is Sameness.CHANGED
        link = path.with_name("link")
        link.symlink_to(path)
        there = there._replace(path=os.fsencode(link))
        for status in (link.stat(), link.lstat()):
            as_met = there._replace(row=(status.st_size, status.st_mtime_ns))
            assert compare(here, as_met) is Sameness.DIFFERENT

    def test_that_the_journal_knows_it_did_is_enough(self, write: Write) -> None:
        there = holder(write("a", DATA), current=False)
        assert compare(scanned(write("b", OTHER_GROUP_2)), there) is Sameness.DIFFERENT
        assert compare(scanned(write("c", DATA)), there) is Sameness.SAME

    def test_only_in_its_time_stamp_its_data_set_still_counts(self, write: Write) -> None:
        """Its digest says that its bytes are those that were sent."""
        path = write("a", DATA)
        there = holder(path)
        os.utime(path, ns=(2 * 10**18, 2 * 10**18))
        assert compare(scanned(write("b", OTHER_GROUP_2)), there) is Sameness.SAME
        assert compare(scanned(write("c", OTHER_DATA_SET)), there) is Sameness.DIFFERENT


class TestAtItsOwnPath:
    def test_the_same_bytes_are_the_same_file(self, write: Write) -> None:
        path = write("a", DATA)
        assert compare(scanned(path), holder(path)) is Sameness.MOVED

    def test_other_bytes_are_not(self, write: Write) -> None:
        path = write("a", DATA)
        there = holder(path)
        write("a", OTHER_DATA_SET)
        assert compare(scanned(path), there) is Sameness.DIFFERENT


class TestTheInstancesOwnFile:
    def test_that_changed_since_the_scan_is_not_compared(self, write: Write) -> None:
        there = holder(write("a", OTHER_GROUP_2))
        path = write("b", DATA)
        here = scanned(path)
        write("b", OTHER_DATA_SET, old=False)
        with pytest.raises(SourceChanged):
            compare(here, there)

    def test_that_vanished_is_an_error_of_its_own(self, write: Write) -> None:
        there = holder(write("a", OTHER_GROUP_2))
        path = write("b", DATA)
        here = scanned(path)
        path.unlink()
        with pytest.raises(FileNotFoundError):
            compare(here, there)
