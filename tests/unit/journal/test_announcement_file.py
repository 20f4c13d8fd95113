"""Records in blocks: what was synced is read again, whatever else is in the file."""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingester.errors import JournalError
from ingester.journal.announcement_file import BLOCK_BYTES, AnnouncementFile, read_records

SESSION = bytes(range(16))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "records")


@pytest.fixture
def file(path: str) -> Iterator[AnnouncementFile]:
    made = AnnouncementFile(path, SESSION)
    yield made
    made.close(remove=False)


def put(file: AnnouncementFile, number: int, payload: bytes) -> range:
    blocks = file.take(len(payload))
    file.write(blocks, number, payload)
    return blocks


class TestARecord:
    @pytest.mark.parametrize("size", [0, 1, 4055, 4056, 4057, 8152, 50_000])
    def test_of_any_size_is_read_as_it_was_written(
        self, size: int, path: str, file: AnnouncementFile
    ) -> None:
        payloads = {number: random.Random(number).randbytes(size) for number in (1, 2, 2**40)}
        for number, payload in payloads.items():
            put(file, number, payload)
        file.sync()
        assert dict(read_records(path, SESSION)) == payloads
        assert os.stat(path).st_mode & 0o777 == 0o600

    def test_of_another_session_is_not_read(self, path: str, file: AnnouncementFile) -> None:
        put(file, 1, b"x")
        assert list(read_records(path, bytes(16))) == []

    @pytest.mark.parametrize("at", [3, 20, 24, 31, 35, 39, 40, 100, 9_000])
    def test_with_one_bit_that_is_not_as_it_was_is_none_and_others_are_read(
        self, at: int, path: str, file: AnnouncementFile
    ) -> None:
        """Magic, session, number at both ends, length, checksum and payload."""
        for number in (1, 2, 3):
            put(file, number, bytes(9_500))
        with open(path, "r+b") as raw:
            raw.seek(3 * BLOCK_BYTES + at)
            (byte,) = raw.read(1)
            raw.seek(3 * BLOCK_BYTES + at)
            raw.write(bytes([byte ^ 1]))
        assert sorted(number for number, _ in read_records(path, SESSION)) == [1, 3]

    @pytest.mark.parametrize("left", [0, 1, 39, 40, 4_000, BLOCK_BYTES, BLOCK_BYTES + 500])
    def test_that_is_torn_is_none(self, left: int, path: str, file: AnnouncementFile) -> None:
        put(file, 1, b"whole")
        put(file, 2, bytes(9_000))
        os.truncate(path, BLOCK_BYTES + left)
        assert list(read_records(path, SESSION)) == [(1, b"whole")]

    def test_is_never_written_over_before_it_is_free(
        self, path: str, file: AnnouncementFile
    ) -> None:
        """Any order of coming and going: those that count are read, and the file stays small."""
        chance = random.Random(5)
        counting: dict[int, tuple[range, bytes]] = {}
        most = 0
        for number in range(2_000):
            payload = chance.randbytes(chance.choice([0, 200, 5_000, 20_000]))
            counting[number] = (put(file, number, payload), payload)
            most = max(most, sum(len(blocks) for blocks, _ in counting.values()))
            while len(counting) > 12 or (counting and chance.random() < 0.4):
                blocks, _ = counting.pop(chance.choice(list(counting)))
                file.free(blocks)
            if number % 100 == 0:
                found = dict(read_records(path, SESSION))
                for each, (_, expected) in counting.items():
                    assert found[each] == expected
        assert os.stat(path).st_size <= 2 * most * BLOCK_BYTES


class TestAFile:
    def test_that_was_there_is_made_empty_and_private(self, path: str) -> None:
        before = AnnouncementFile(path, bytes(16))
        put(before, 1, bytes(100_000))
        before.close(remove=False)
        os.chmod(path, 0o644)
        AnnouncementFile(path, SESSION).close(remove=False)
        assert Path(path).read_bytes() == b""
        assert os.stat(path).st_mode & 0o777 == 0o600

    def test_is_not_reached_through_a_link(self, path: str, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"of somebody else")
        os.symlink(tmp_path / "other", path)
        with pytest.raises(OSError, match="symbolic links"):
            AnnouncementFile(path, SESSION)
        assert (tmp_path / "other").read_bytes() == b"of somebody else"

    @pytest.mark.parametrize("kind", ["text", "FIFO", "device"])
    def test_of_somebody_else_is_refused_and_stays(self, kind: str, path: str) -> None:
        if kind == "text":
            Path(path).write_bytes(b"of somebody else")
        elif kind == "FIFO":
            os.mkfifo(path)
        else:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        before = os.stat(path)
        with pytest.raises(JournalError, match="that is not the journal's") as caught:
            AnnouncementFile(path, SESSION)
        assert "move it away" in caught.value.hint
        after = os.stat(path)
        assert (after.st_size, after.st_mode) == (before.st_size, before.st_mode)

    def test_whose_size_came_to_the_disk_before_its_bytes_is_one_of_ours(self, path: str) -> None:
        """As a power cut during its first record may leave it."""
        Path(path).write_bytes(bytes(2 * BLOCK_BYTES))
        assert list(read_records(path, SESSION)) == []
        AnnouncementFile(path, SESSION).close(remove=False)
        assert Path(path).read_bytes() == b""

    def test_that_is_no_file_is_not_read(self, path: str) -> None:
        os.mkfifo(path)
        with pytest.raises(OSError, match="not a regular file"):
            list(read_records(path, SESSION))

    def test_that_goes_twice_troubles_nobody(self, path: str) -> None:
        file = AnnouncementFile(path, SESSION)
        os.unlink(path)
        file.close(remove=True)

    def test_goes_where_nothing_in_it_counts(self, path: str) -> None:
        AnnouncementFile(path, SESSION).close(remove=True)
        assert not Path(path).exists()
