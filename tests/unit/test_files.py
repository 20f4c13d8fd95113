from __future__ import annotations

import hashlib
import os
import socket
import sys
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.files import SourceChanged, opened, read_again, read_into, sha256_of
from ingester.items import FileIdentity, ended
from tests.support.leases import leased
from tests.unit.road import instance


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(range(256)) * 40)
    return path


def identity_of(path: Path) -> FileIdentity:
    with opened(os.fsencode(path)) as (fd, identity):
        assert FileIdentity.of(fd) == identity
        return identity


def again(path: Path, identity: FileIdentity) -> bytes:
    view = memoryview(bytearray(identity.size))
    read_again(os.fsencode(path), identity, view)
    return bytes(view)


class TestReadInto:
    def test_fills_the_view_from_an_offset(self, file: Path) -> None:
        view = memoryview(bytearray(300))
        with opened(os.fsencode(file)) as (fd, _):
            assert read_into(fd, view, 100) == 300
        assert bytes(view) == file.read_bytes()[100:400]

    def test_gives_fewer_bytes_only_at_the_end(self, file: Path) -> None:
        view = memoryview(bytearray(300))
        with opened(os.fsencode(file)) as (fd, _):
            assert read_into(fd, view, 10240 - 7) == 7
            assert read_into(fd, view, 99_999) == 0
            assert read_into(fd, view[:0]) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="leases are of Linux")
class TestAFileOfWhichAnotherProgramHasALease:
    def test_is_read_when_it_was_given_up(self, file: Path) -> None:
        digest = hashlib.sha256(file.read_bytes()).digest()
        with leased(file):
            assert sha256_of(os.fsencode(file))[0] == digest


class TestReadAgain:
    def test_gives_the_same_bytes(self, file: Path) -> None:
        assert again(file, identity_of(file)) == file.read_bytes()

    def test_knows_a_file_that_grew(self, file: Path) -> None:
        identity = identity_of(file)
        with file.open("ab") as handle:
            handle.write(b"x")
        with pytest.raises(SourceChanged):
            again(file, identity)

    def test_knows_a_file_that_shrank(self, file: Path) -> None:
        identity = identity_of(file)
        os.truncate(file, 10)
        with pytest.raises(SourceChanged):
            again(file, identity)

    def test_knows_other_bytes_of_the_same_length_and_time(self, file: Path) -> None:
        """The change time is the file system's: nobody can set it back."""
        identity = identity_of(file)
        file.write_bytes(bytes(10240))
        os.utime(file, ns=(identity.mtime_ns, identity.mtime_ns))
        with pytest.raises(SourceChanged):
            again(file, identity)

    def test_knows_another_file_in_its_place(self, file: Path) -> None:
        identity = identity_of(file)
        other = file.with_name("b")
        other.write_bytes(file.read_bytes())
        os.utime(other, ns=(identity.mtime_ns, identity.mtime_ns))
        other.rename(file)
        with pytest.raises(SourceChanged):
            again(file, identity)

    def test_says_that_a_file_vanished(self, file: Path) -> None:
        identity = identity_of(file)
        file.unlink()
        with pytest.raises(FileNotFoundError):
            again(file, identity)


class TestWhatIsNoFile:
    """A file that was replaced: an error, at once, and never an empty file."""

    def test_a_fifo(self, file: Path) -> None:
        file.unlink()
        os.mkfifo(file)
        with pytest.raises(OSError), opened(os.fsencode(file)):  # noqa: PT011 - any of them
            pass

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(OSError), opened(os.fsencode(tmp_path)):  # noqa: PT011 - any of them
            pass

    def test_a_device(self) -> None:
        with pytest.raises(OSError), opened(b"/dev/zero"):  # noqa: PT011 - any of them
            pass

    def test_a_socket(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            with pytest.raises(OSError), opened(os.fsencode(path)):  # noqa: PT011 - any of them
                pass

    def test_leaves_no_descriptor_open(self, file: Path) -> None:
        file.unlink()
        os.mkfifo(file)
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        for _ in range(5):
            with pytest.raises(OSError), opened(os.fsencode(file)):  # noqa: PT011 - any of them
                pass
        after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        assert after <= before + 1


class TestSha256:
    @pytest.mark.parametrize("start", [0, 1, 10239, 10240, 20_000])
    def test_is_of_the_bytes_from_the_start(self, file: Path, start: int) -> None:
        digest, identity = sha256_of(os.fsencode(file), start)
        assert digest == hashlib.sha256(file.read_bytes()[start:]).digest()
        assert identity == identity_of(file)

    def test_is_of_more_than_one_piece(self, tmp_path: Path) -> None:
        path = tmp_path / "large"
        path.write_bytes(os.urandom(1 << 20) * 2 + b"end")
        assert sha256_of(os.fsencode(path))[0] == hashlib.sha256(path.read_bytes()).digest()


class TestEnded:
    def test_says_all_that_was_read_of_the_instance(self) -> None:
        one = instance(7, sha256=b"d" * 32)._replace(
            mtime_trusted=False, findings=("meta_uid_differs",)
        )
        result = ended(one, Outcome.CONFLICT, "other_data_set", "words")
        assert result.file.file_id == 7
        assert (result.outcome, result.reason_code, result.reason) == (
            Outcome.CONFLICT,
            "other_data_set",
            "words",
        )
        assert (result.size, result.mtime_ns) == (one.identity.size, one.identity.mtime_ns)
        assert (result.header, result.sha256) == (one.header, b"d" * 32)
        assert result.mtime_trusted is False
        assert result.findings == ("meta_uid_differs",)
        assert result.evidence is None
