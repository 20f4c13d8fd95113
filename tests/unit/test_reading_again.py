"""Files that are not cached are read again when their body goes out, in a process where one is."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.budget import Budget
from ingester.dicomweb.profiles import PROFILES
from ingester.files import PIECE_BYTES, SourceChanged
from ingester.items import Instance, Root
from ingester.parcel import make_body
from ingester.readers import Readers
from ingester.scan import Scanner, ScanOptions
from ingester.scan_pool import ScanPool
from ingester.transport.body import Body
from tests.support.dicom_files import pydicom_test_files
from tests.support.faults import Faults
from tests.support.waiting import wait_until
from tests.unit.road import ref_of, scanned_by

ROOT = Root(1, b"/", b"/")


@pytest.fixture(params=[0, 1], ids=["threads", "processes"])
def processes(request: pytest.FixtureRequest) -> int:
    number: int = request.param
    return number


@pytest.fixture
def readers(processes: int) -> Iterator[Readers]:
    arena = Budget(1).arena
    readers = Readers([ROOT], 1, ScanPool(processes, arena.fd, checksums=True, at_once=True), arena)
    yield readers
    readers.shutdown()


def instances_of(paths: list[Path]) -> list[Instance]:
    """What they are, without a byte of them."""
    refs = [ref_of(os.fsencode(path), number) for number, path in enumerate(paths)]
    found = scanned_by(Scanner(ScanOptions(inline_limit_bytes=0), Budget(1)), refs)
    return [one for one in found if isinstance(one, Instance)]


def body_of(instances: list[Instance], readers: Readers) -> Body:
    return make_body(instances, PROFILES["generic"], readers, checksums=True)


def read(body: Body, first: int) -> tuple[list[bytes], list[OSError | SourceChanged]]:
    """The bytes of a group, and why it ended before its end."""
    views: list[memoryview] = []
    failures: list[OSError | SourceChanged] = []
    body.read_group(first, body.readers.piece(), views, failures)
    return [bytes(view) for view in views], failures


def path_of(instance: Instance) -> Path:
    return Path(os.fsdecode(instance.file.path))


@pytest.fixture
def small(tmp_path: Path) -> list[Instance]:
    """Some that fit into a piece together, and can be changed."""
    copies = []
    for number, path in enumerate(map(Path, pydicom_test_files())):
        if path.stat().st_size < 20_000:
            copies.append(tmp_path / f"{number}.dcm")
            copies[-1].write_bytes(path.read_bytes())
    return instances_of(copies)[:10]


def test_all_that_are_sent_are_as_they_lie_on_the_disk(readers: Readers) -> None:
    """Also those whose header only pydicom reads."""
    all_files = [Path(path) for path in pydicom_test_files()]
    instances = [each for each in instances_of(all_files) if each.size <= PIECE_BYTES]
    assert len(instances) > 50
    body = body_of(instances, readers)
    index = 0
    while index < len(instances):
        group, failures = read(body, index)
        assert group
        assert not failures
        for got in group:
            on_disk = path_of(instances[index]).read_bytes()
            assert got == on_disk
            assert body.sha256[index] == hashlib.sha256(on_disk).digest()
            index += 1


def test_one_that_has_changed_ends_the_group_before_it(
    readers: Readers, small: list[Instance]
) -> None:
    body = body_of(small, readers)
    path_of(small[4]).write_bytes(b"other")
    group, failures = read(body, 0)
    assert group == [path_of(one).read_bytes() for one in small[:4]]
    assert [type(failure) for failure in failures] == [SourceChanged]
    group, failures = read(body, 4)
    assert (group, [type(failure) for failure in failures]) == ([], [SourceChanged])


@pytest.mark.skipif(sys.platform != "linux", reason="the library is made for Linux")
@pytest.mark.parametrize("processes", [1])
def test_one_that_has_changed_is_told_while_another_behind_it_hangs(
    readers: Readers, small: list[Instance], faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would be the one that did not answer."""
    for name, value in faults.environment.items():
        monkeypatch.setenv(name, value)
    path_of(small[4]).write_bytes(b"other")
    hangs = str(path_of(small[6]))
    faults.rule(f"preadv hang {hangs}")
    views: list[memoryview] = []
    failures: list[OSError | SourceChanged] = []
    body = body_of(small, readers)
    reading = readers.of(ROOT).submit(body.read_group, 0, readers.piece(), views, failures)
    faults.wait_for("preadv", hangs)
    wait_until(lambda: failures)  # it does not wait for the other
    assert not reading.done()
    assert ([type(failure) for failure in failures], len(views)) == ([SourceChanged], 4)
    faults.rule()
    reading.result(30)


def test_one_that_is_gone_fails_when_it_is_the_first(
    readers: Readers, small: list[Instance]
) -> None:
    body = body_of(small, readers)
    path_of(small[1]).unlink()
    assert len(read(body, 0)[0]) == 1
    group, failures = read(body, 1)
    assert (group, [type(failure) for failure in failures]) == ([], [FileNotFoundError])


def test_other_bytes_with_the_time_stamps_of_before_are_no_match(
    readers: Readers, small: list[Instance]
) -> None:
    """Their digest is compared with the first reading's."""
    sha256 = [hashlib.sha256(path_of(one).read_bytes()).digest() for one in small]
    sha256[2] = hashlib.sha256(b"other").digest()
    body = make_body(small, PROFILES["generic"], readers, checksums=True, sha256=sha256)
    assert len(read(body, 0)[0]) == 2
    group, failures = read(body, 2)
    assert (group, [type(failure) for failure in failures]) == ([], [SourceChanged])


def test_a_process_that_was_killed_is_not_missed(readers: Readers, small: list[Instance]) -> None:
    body = body_of(small, readers)
    read(body, 0)
    assert len(readers.pool.started) == readers.pool.processes
    for each in readers.pool.started:
        each.process.kill()
        each.process.wait(10)
    assert read(body, 0) == ([path_of(one).read_bytes() for one in small], [])
