from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ingester.budget import Budget
from ingester.dicomweb.outcome import Outcome
from ingester.items import Instance, Previous, Result
from ingester.look import MAX_HEAD_BYTES, UNTRUSTED_MTIME_NS
from ingester.scan import (
    SHARED_TEXTS,
    Scanner,
    ScanOptions,
)
from tests.support.dicom_files import instance_bytes, pydicom_test_files
from tests.unit.dicom.part10 import (
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    STUDY,
    UNDEFINED,
    deflated,
    element,
    group_2,
    identity,
    part10,
    pixels,
)
from tests.unit.road import ref_of, scanned_by

DATA = instance_bytes(study="1.2", series="1.2.1", sop="1.2.3")
LARGE = instance_bytes(study="1.2", series="1.2.1", sop="1.2.4", payload_bytes=3 << 20)
OLD_NS = 10**18

Write = Callable[..., bytes]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(data: bytes, name: str = "a", *, old: bool = True) -> bytes:
        path = os.fsencode(tmp_path / name)
        (tmp_path / name).write_bytes(data)
        if old:
            os.utime(path, ns=(OLD_NS, OLD_NS))
        return path

    return written


def budget_of(size: int = 1 << 24) -> Budget:
    return Budget(size)


def scan(
    path: bytes,
    options: ScanOptions | None = None,
    budget: Budget | None = None,
    previous: Previous | None = None,
) -> Instance | Result:
    scanner = Scanner(options or ScanOptions(), budget or budget_of())
    (found,) = scanned_by(scanner, [ref_of(path, 1, previous)])
    return found


def instance_of(found: Instance | Result) -> Instance:
    assert isinstance(found, Instance), found
    return found


def result_of(found: Instance | Result) -> Result:
    assert isinstance(found, Result), found
    return found


class TestASmallFile:
    def test_is_read_whole_into_a_buffer(self, write: Write) -> None:
        budget = budget_of()
        found = instance_of(scan(write(DATA), budget=budget))
        assert found.buffer is not None
        assert bytes(found.buffer.view or b"") == DATA
        assert found.sha256 == hashlib.sha256(DATA).digest()
        assert found.size == len(DATA)
        assert budget.in_use_bytes == found.buffer.size_class

    def test_is_only_identified_where_the_budget_has_no_bytes(self, write: Write) -> None:
        budget = budget_of(4096)
        found = instance_of(scan(write(DATA + bytes(8192)), budget=budget))
        assert found.buffer is None
        assert found.key.sop_instance_uid == "1.2.3"
        assert (budget.in_use_bytes, budget.refused) == (0, 1)

    def test_of_the_inline_limit_is_read_whole_and_one_more_is_not(self, write: Write) -> None:
        path = write(DATA)
        assert instance_of(scan(path, ScanOptions(inline_limit_bytes=len(DATA)))).buffer is not None
        assert instance_of(scan(path, ScanOptions(inline_limit_bytes=len(DATA) - 1))).buffer is None

    def test_has_no_digest_where_none_is_wanted(self, write: Write) -> None:
        found = instance_of(scan(write(DATA), ScanOptions(checksums=False)))
        assert (found.sha256, found.mtime_trusted) == (None, True)


class TestTheTextsOfItsHeader:
    def test_are_one_object_for_all_of_a_series(self, write: Write) -> None:
        scanner = Scanner(ScanOptions(), budget_of())
        paths = [write(DATA), write(instance_bytes(study="1.2", series="1.2.1", sop="1.2.9"), "b")]
        first, second = (
            instance_of(found).header
            for found in scanned_by(scanner, [ref_of(path, n) for n, path in enumerate(paths)])
        )
        assert first.sop_instance_uid != second.sop_instance_uid
        assert first.study_instance_uid is second.study_instance_uid
        assert first.sop_class_uid is second.sop_class_uid

    def test_are_not_interned(self, write: Write) -> None:
        """Some releases of Python 3.12 never let go of what is: a run may meet 10^8 UIDs."""
        uid = "1.2.826.0.1.3680043.10.1511.77"
        found = instance_of(scan(write(instance_bytes(study="1.2", series="1.2.1", sop=uid))))
        another = "".join([*uid])
        assert found.header.sop_instance_uid == another
        assert sys.intern(another) is another

    def test_are_forgotten(self, write: Write) -> None:
        scanner = Scanner(ScanOptions(), budget_of())
        for number in range(SHARED_TEXTS):
            path = write(part10(identity(sop=f"1.2.3.{number}")))
            instance_of(*scanned_by(scanner, [ref_of(path, 1)]))
        assert len(scanner._texts) < SHARED_TEXTS


class TestALargeFile:
    def test_is_only_looked_at(self, write: Write) -> None:
        budget = budget_of()
        found = instance_of(scan(write(LARGE), budget=budget))
        assert (found.buffer, found.sha256) == (None, None)
        assert found.size == len(LARGE)
        assert found.header.sop_instance_uid == "1.2.4"
        assert budget.in_use_bytes == 0

    def test_may_have_its_identity_late(self, write: Write) -> None:
        data_set = identity_around(300 << 10) + element(0x7FE00010, "OW", bytes(2 << 20))
        found = instance_of(scan(write(part10(data_set))))
        assert found.key.study_instance_uid == "1.2.826.0.1.1"

    @pytest.mark.parametrize("syntax", [EXPLICIT, DEFLATED])
    def test_may_refer_to_thousands_of_others(self, write: Write, syntax: str) -> None:
        """A segmentation does, in a sequence of undefined length before its identity."""
        one = ITEM + element(0x00081155, "UI", "1.2.826.0.1.3680043.8.498." + "7" * 30) + ITEM_END
        count = 20_000 if syntax == EXPLICIT else 6_000
        sequence = element(0x00081115, "SQ", one * count, length=UNDEFINED) + SEQUENCE_END
        whole = identity()
        middle = whole.index(b"\x10\x00\x20\x00")
        data_set = whole[:middle] + sequence + whole[middle:]
        data = part10(data_set) if syntax == EXPLICIT else deflated(data_set)
        found = instance_of(scan(write(data), ScanOptions(inline_limit_bytes=1 << 16)))
        assert found.key.study_instance_uid == "1.2.826.0.1.1"

    def test_is_read_in_pieces_wherever_its_identity_is(self, write: Write) -> None:
        """A private element of 16 MiB in between is passed over or says that it is too much."""
        found = scan(write(part10(identity_around(4 * MAX_HEAD_BYTES))))
        if isinstance(found, Result):
            assert (found.outcome, found.reason_code) == (Outcome.INVALID, "header_too_large")
        else:
            assert found.key.study_instance_uid == "1.2.826.0.1.1"


def identity_around(size: int) -> bytes:
    """The elements that identify an instance, with ``size`` bytes among them."""
    whole = identity()
    middle = whole.index(b"\x10\x00\x20\x00")
    return whole[:middle] + element(0x00091010, "UN", bytes(size)) + whole[middle:]


class TestATimeStamp:
    @pytest.mark.parametrize(
        ("age_s", "trusted"), [(0, False), (1.5, False), (-3600, False), (60, True)]
    )
    def test_is_trusted_after_two_seconds(self, write: Write, age_s: float, trusted: bool) -> None:
        path = write(DATA)
        for checksums in (True, False):
            late = True
            while late:  # a process that had no processor meanwhile tries again
                then = time.time_ns() - int(age_s * 1e9)
                os.utime(path, ns=(then, then))
                found = instance_of(scan(path, ScanOptions(checksums=checksums)))
                late = not trusted and time.time_ns() - then >= UNTRUSTED_MTIME_NS
            assert found.mtime_trusted is trusted
            assert (found.sha256 is not None) is (checksums or not trusted)


class TestAFileThatIsKnown:
    def previous(
        self,
        data: bytes,
        *,
        outcome: Outcome = Outcome.STORED,
        settled: bool = True,
        digest: bytes | None = b"",
    ) -> Previous:
        sha256 = hashlib.sha256(data).digest() if digest == b"" else digest
        return Previous(outcome, len(data), 5, sha256, settled)

    @pytest.mark.parametrize("data", [DATA, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("checksums", [True, False])
    def test_by_its_digest_keeps_its_outcome(
        self, write: Write, data: bytes, checksums: bool
    ) -> None:
        budget, options = budget_of(), ScanOptions(checksums=checksums)
        found = result_of(scan(write(data), options, budget, self.previous(data)))
        assert (found.outcome, found.unchanged) == (Outcome.STORED, True)
        assert (found.size, found.mtime_ns) == (len(data), OLD_NS)
        assert budget.in_use_bytes == 0

    def test_of_other_bytes_goes_again(self, write: Write) -> None:
        changed = DATA[:-1] + bytes([DATA[-1] ^ 1])
        assert instance_of(scan(write(changed), previous=self.previous(DATA))).size == len(DATA)

    def test_of_another_size_goes_again_without_being_hashed(self, write: Write) -> None:
        instance_of(scan(write(LARGE), previous=self.previous(DATA)))

    def test_that_is_not_settled_goes_again(self, write: Write) -> None:
        previous = self.previous(DATA, outcome=Outcome.FAILED, settled=False)
        instance_of(scan(write(DATA), previous=previous))

    def test_without_a_digest_goes_again(self, write: Write) -> None:
        instance_of(scan(write(DATA), previous=self.previous(DATA, digest=None)))

    def test_to_be_no_dicom_is_not_looked_at_twice(self, write: Write) -> None:
        found = result_of(
            scan(write(b"text"), previous=self.previous(b"text", outcome=Outcome.NOT_DICOM))
        )
        assert (found.outcome, found.unchanged) == (Outcome.NOT_DICOM, True)


class TestAFileThatCannotBeSent:
    def test_is_larger_than_a_request(self, write: Write) -> None:
        budget = budget_of()
        options = ScanOptions(max_file_bytes=len(DATA) - 1, too_large_hint="use the import job")
        found = result_of(scan(write(DATA), options, budget))
        assert (found.outcome, found.reason_code) == (Outcome.TOO_LARGE, "larger_than_a_request")
        assert found.reason == "use the import job"
        assert found.header is not None
        assert budget.in_use_bytes == 0

    def test_of_exactly_the_limit_can(self, write: Write) -> None:
        instance_of(scan(write(DATA), ScanOptions(max_file_bytes=len(DATA))))

    @pytest.mark.parametrize(
        ("data", "outcome", "code"),
        [
            (b"", Outcome.NOT_DICOM, "empty"),
            (b"hello", Outcome.NOT_DICOM, "not_dicom"),
            (bytes(100_000), Outcome.NOT_DICOM, "not_dicom"),
            (identity(), Outcome.INVALID, "no_part10_header"),
            (part10(identity(study="") + pixels()), Outcome.INVALID, "missing_study_instance_uid"),
            (DATA[:400], Outcome.INVALID, "truncated_header"),
        ],
        ids=["empty", "text", "zeros", "no preamble", "no study", "cut"],
    )
    def test_says_why(self, write: Write, data: bytes, outcome: Outcome, code: str) -> None:
        budget = budget_of()
        found = result_of(scan(write(data), budget=budget))
        assert (found.outcome, found.reason_code) == (outcome, code)
        assert (found.size, found.mtime_ns) == (len(data), OLD_NS)
        assert budget.in_use_bytes == 0

    def test_vanished(self, write: Write) -> None:
        path = write(DATA)
        file = ref_of(path)
        os.unlink(path)
        (found,) = scanned_by(Scanner(ScanOptions(), budget_of()), [file])
        found = result_of(found)
        assert (found.outcome, found.reason_code) == (Outcome.UNREADABLE, "vanished")

    @pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
    def test_is_something_else_by_now(self, write: Write, make: Callable[[bytes], None]) -> None:
        path = write(DATA)
        file = ref_of(path)
        os.unlink(path)
        make(path)
        (found,) = scanned_by(Scanner(ScanOptions(), budget_of()), [file])
        found = result_of(found)
        assert (found.outcome, found.reason_code) == (Outcome.UNREADABLE, "read_error")

    def test_is_not_told_by_its_path(self, write: Write) -> None:
        for data in (b"", b"text", DATA[:400]):
            found = result_of(scan(write(data, "Doe^Jane.dcm")))
            assert "Doe" not in found.reason

    def test_does_not_stop_its_neighbours(self, write: Write) -> None:
        paths = [write(data, f"{n}") for n, data in enumerate([DATA, b"x", DATA[:400], LARGE, b""])]
        files = [ref_of(path, n) for n, path in enumerate(paths)]
        found = scanned_by(Scanner(ScanOptions(), budget_of()), files)
        assert [type(one) for one in found] == [Instance, Result, Result, Instance, Result]
        assert [one.file.file_id for one in found] == [0, 1, 2, 3, 4]

    def test_has_a_meta_uid_that_differs_and_is_sent_with_a_finding(self, write: Write) -> None:
        data = part10(identity() + pixels(), group_2(media_storage_sop_instance_uid="1.9.9"))
        assert instance_of(scan(write(data))).findings == ("meta_uid_differs",)
        assert instance_of(scan(write(part10(identity() + pixels())))).findings == ()


HOSTILE = {
    "no bytes": (b"", Outcome.NOT_DICOM, "empty"),
    "a DICOMDIR": (
        part10(bytes(5000), group_2(media_storage_sop_class_uid="1.2.840.10008.1.3.10")),
        Outcome.SKIPPED, "dicomdir",
    ),
    "no preamble": (group_2() + identity(), Outcome.INVALID, "no_part10_header"),
    "no group 2": (
        part10(identity() + pixels(), b""), Outcome.INVALID, "missing_transfer_syntax_uid",
    ),
    "an empty UID": (
        part10(identity().replace(element(0x0020000D, "UI", STUDY), element(0x0020000D, "UI", ""))),
        Outcome.INVALID, "missing_study_instance_uid",
    ),
    "a UID of 1 MB": (
        part10(identity(explicit=False, study="1." * 500_000), group_2(IMPLICIT)),
        Outcome.INVALID, "bad_uid",
    ),
    "a UID that leads up": (part10(identity(study="../..")), Outcome.INVALID, "bad_uid"),
    "a UID with a NUL": (part10(identity(sop="1.2\0.3")), Outcome.INVALID, "bad_uid"),
    "a UID of two lines": (part10(identity(sop="1\r\nX: 2")), Outcome.INVALID, "bad_uid"),
    "a length of 4 GiB": (
        part10(element(0x00080018, "OB", b"1.2", length=0xFFFFFFFE)),
        Outcome.INVALID, "truncated_header",
    ),
    "5,000 sequences in each other": (
        part10(element(0x0040A170, "SQ", ITEM, length=UNDEFINED) * 5_000),
        Outcome.INVALID, "unreadable_header",
    ),
    "millions of values": (
        part10(identity() + pixels(), element(0x00020002, "UC", b"1\\" * 1_900_000)),
        Outcome.INVALID, "missing_transfer_syntax_uid",
    ),
    "a stream that is no stream": (
        part10(b"\xff" * 99, group_2(DEFLATED)), Outcome.INVALID, "unreadable_header",
    ),
}  # fmt: skip


class TestAHostileFile:
    @pytest.mark.parametrize("kind", HOSTILE)
    @pytest.mark.parametrize("inline_limit_bytes", [0, 1 << 23])
    def test_is_one_outcome_and_its_neighbours_are_instances(
        self, write: Write, kind: str, inline_limit_bytes: int
    ) -> None:
        data, outcome, code = HOSTILE[kind]
        budget = budget_of()
        options = ScanOptions(inline_limit_bytes=inline_limit_bytes)
        files = [ref_of(write(one, f"{n}"), n) for n, one in enumerate([DATA, data, DATA])]
        before, found, after = scanned_by(Scanner(options, budget), files)
        hostile = result_of(found)
        assert (hostile.outcome, hostile.reason_code) == (outcome, code)
        assert hostile.header is None
        for neighbour in (instance_of(before), instance_of(after)):
            assert neighbour.key.sop_instance_uid == "1.2.3"
            if neighbour.buffer is not None:
                neighbour.buffer.give_back()
        assert budget.in_use_bytes == 0


class TestAFileThatPydicomMustRead:
    def test_is_not_opened_again_by_its_name(self, write: Write) -> None:
        """Whatever has the name by now: a FIFO would hold the reader, another file be read."""
        data = part10(identity() + pixels(), group_2()[12:]) + bytes(100_000)
        path = write(data)
        opened: list[object] = []

        def at_open(event: str, arguments: tuple[object, ...]) -> None:
            if event == "open" and arguments[0] == path:
                opened.append(path)
                if len(opened) == 2:
                    os.unlink(path)

        sys.addaudithook(at_open)  # cannot be removed; it does nothing after this test
        found = instance_of(scan(path, ScanOptions(inline_limit_bytes=0)))
        assert opened == [path]
        assert found.key.sop_instance_uid == "1.2.826.0.1.1.2.3"


class TestAFileThatIsWrittenMeanwhile:
    def test_is_what_its_digest_says_and_its_time_stamp_is_not_trusted(
        self, tmp_path: Path
    ) -> None:
        """Where the clock of the file system is too coarse to see it, the next run reads again."""
        path = os.fsencode(tmp_path / "a")
        versions = [bytes([n]) * 300_000 for n in range(2)]
        datas = [DATA + version for version in versions]
        (tmp_path / "a").write_bytes(datas[0])
        end = threading.Event()

        def rewrite() -> None:
            turn = 0
            while not end.is_set():
                turn ^= 1
                fd = os.open(path, os.O_WRONLY)
                for start in range(0, len(datas[turn]), 50_000):
                    os.pwrite(fd, datas[turn][start : start + 50_000], start)
                os.close(fd)
                time.sleep(0.0005)

        writer = threading.Thread(target=rewrite)
        writer.start()
        budget = budget_of()
        try:
            for _ in range(150):
                found = scan(path, budget=budget)
                if isinstance(found, Instance):
                    assert found.buffer is not None
                    assert found.buffer.view is not None
                    assert hashlib.sha256(found.buffer.view).digest() == found.sha256
                    assert not found.mtime_trusted
                    found.buffer.give_back()
                else:
                    assert found.reason_code == "changed_while_read"
        finally:
            end.set()
            writer.join()
        assert budget.in_use_bytes == 0


class TestPydicomsFiles:
    @pytest.mark.parametrize(
        "options",
        [
            ScanOptions(),
            ScanOptions(inline_limit_bytes=0),
            ScanOptions(checksums=False, inline_limit_bytes=4096),
        ],
        ids=["cached", "heads", "mixed"],
    )
    def test_give_one_end_each_and_all_buffers_back(self, options: ScanOptions) -> None:
        paths = pydicom_test_files()
        files = [ref_of(os.fsencode(path), n) for n, path in enumerate(paths)]
        budget = budget_of(1 << 27)
        found = scanned_by(Scanner(options, budget), files)
        assert [one.file.file_id for one in found] == list(range(len(paths)))
        assert [
            one for one in found if isinstance(one, Result) and one.reason_code == "internal_error"
        ] == []
        cached = [
            one.buffer for one in found if isinstance(one, Instance) and one.buffer is not None
        ]
        assert budget.in_use_bytes == sum(buffer.size_class for buffer in cached)
        for one in found:
            if isinstance(one, Instance) and one.buffer is not None:
                assert (
                    bytes(one.buffer.view or b"") == Path(os.fsdecode(one.file.path)).read_bytes()
                )
                one.buffer.give_back()
        assert budget.in_use_bytes == 0

    def test_are_the_same_whether_cached_or_not(self) -> None:
        files = [ref_of(os.fsencode(path), n) for n, path in enumerate(pydicom_test_files())]
        whole = scanned_by(
            Scanner(ScanOptions(inline_limit_bytes=1 << 30), budget_of(1 << 30)), files
        )
        heads = scanned_by(Scanner(ScanOptions(inline_limit_bytes=0), budget_of()), files)
        for one, other in zip(whole, heads, strict=True):
            if isinstance(one, Instance):
                assert isinstance(other, Instance), (other, one.file.name)
                assert one.header == other.header
            else:
                assert isinstance(other, Result), one
                assert (one.outcome, one.reason_code) == (other.outcome, other.reason_code)
