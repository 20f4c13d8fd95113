from __future__ import annotations

import asyncio
import errno
import os
import shutil
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ingester.catalog import UnreadableDirectory, WalkChunk, WalkOptions
from ingester.channel import Channel
from ingester.dicomweb.outcome import Outcome
from ingester.errors import FatalError
from ingester.items import (
    Directory,
    DirectoryStamp,
    FileRef,
    ListedBefore,
    Listing,
    Previous,
    Result,
    Root,
    Skipped,
)
from ingester.ledger import Ledger
from ingester.listing import CHUNK_NAMES, Frame, Names
from ingester.look import UNTRUSTED_MTIME_NS
from ingester.walk import LIST_BYTES, LIST_FILES, Walk, lists_of
from ingester.walker import SKIPPED_AT_ONCE, Walker
from tests.pipeline.job import age
from tests.support.mounts import shown_again
from tests.support.privileges import without_privileges
from tests.unit.road import Recorded, file_ref, readers_of


@dataclass
class Knowledge:
    """What a catalog has for a name."""

    file_id: int
    previous: Previous | None = None
    mtime_trusted: bool = True


@dataclass
class Catalog:
    """Numbers directories and files, and knows what a test tells it."""

    known: dict[bytes, Knowledge] = field(default_factory=dict)
    before: dict[bytes, ListedBefore] = field(default_factory=dict)  # by the path below the root
    complete: bool = True
    looked_up: list[list[bytes]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(1, 1_000_000)))

    def directory(self, root: Root, rel_path: bytes) -> Directory:
        return Directory(next(self.numbers), root, rel_path)

    def listed_before(self, directory: Directory) -> ListedBefore | None:
        return self.before.get(directory.rel_path)

    def skipped(self, directory: Directory, before: ListedBefore) -> Skipped | None:
        if not self.complete:
            return None
        return Skipped(directory, before.run_id, before.files, before.files * 10)

    def files(self, directory: Directory, names: Sequence[bytes]) -> Mapping[bytes, Knowledge]:
        self.looked_up.append(list(names))
        del directory
        return {name: self.known.get(name) or Knowledge(next(self.numbers)) for name in names}


@dataclass
class Walked:
    """All that a walk found."""

    files: list[FileRef] = field(default_factory=list)
    decided: list[Result] = field(default_factory=list)
    seen: list[FileRef] = field(default_factory=list)
    unreadable: list[UnreadableDirectory] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    forgotten: list[Listing] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)

    def add(self, chunk: WalkChunk) -> None:
        self.files += chunk.files
        self.decided += chunk.decided
        self.seen += chunk.seen
        self.unreadable += chunk.unreadable
        self.skipped += chunk.skipped
        self.forgotten += chunk.forgotten
        self.listings += chunk.listings

    @property
    def reasons(self) -> dict[bytes, tuple[Outcome, str]]:
        return {one.file.name: (one.outcome, one.reason_code) for one in self.decided}


def walker(
    path: Path,
    catalog: Catalog | None = None,
    *,
    follow: bool = False,
    exclude: Collection[Path] = (),
    only: frozenset[bytes] | None = None,
    recheck: bool = False,
) -> Walker:
    real = os.fsencode(path.resolve())
    options = WalkOptions(follow, frozenset(map(os.fsencode, exclude)), recheck)
    root = Root(1, real, real, only, os.stat(real).st_dev)
    return Walker(root, options, catalog or Catalog())


def walked(one: Walker) -> Walked:
    found = Walked()
    while (chunk := one.step()) is not None:
        found.add(chunk)
    return found


def an_empty_file(beside: Path) -> Path:
    """To be linked by many names: that is quicker than as many files."""
    path = beside.with_name(beside.name + "_empty")
    path.write_bytes(b"")
    return path


def below(path: Path, files: Sequence[FileRef]) -> list[bytes]:
    return [os.path.relpath(file.path, os.fsencode(path.resolve())) for file in files]


class TestOrder:
    def test_is_by_name_and_depth_first(self, tmp_path: Path) -> None:
        for name in ("b/2", "b/1", "a/x/9", "a/0", "z", "c"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        found = walked(walker(tmp_path))
        assert below(tmp_path, found.files) == [b"c", b"z", b"a/0", b"a/x/9", b"b/1", b"b/2"]

    def test_is_kept_within_chunks_of_a_huge_directory(self, tmp_path: Path) -> None:
        names = [b"%05d" % n for n in range(25_000)]
        first = an_empty_file(tmp_path)
        for name in names:
            os.link(first, os.path.join(os.fsencode(tmp_path), name))
        catalog = Catalog()
        sizes, all_names = [], list[bytes]()
        one = walker(tmp_path, catalog)
        while (chunk := one.step()) is not None:
            chunk_names = [file.name for file in chunk.files]
            assert chunk_names == sorted(chunk_names)
            sizes.append(len(chunk_names))
            all_names += chunk_names
        assert [size for size in sizes if size] == [CHUNK_NAMES, CHUNK_NAMES, 5000]
        assert sorted(all_names) == names
        assert max(map(len, catalog.looked_up)) == CHUNK_NAMES

    def test_of_an_empty_directory_is_nothing(self, tmp_path: Path) -> None:
        found = walked(walker(tmp_path))
        assert (found.files, found.decided, found.unreadable) == ([], [], [])

    def test_holds_no_directory_open_but_those_it_is_in(self, tmp_path: Path) -> None:
        for n in range(50):
            (tmp_path / f"{n}").mkdir()
        before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
        one = walker(tmp_path)
        while one.step() is not None:
            now = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            assert now <= before + 3


class TestNames:
    @pytest.mark.parametrize(
        "name",
        [b"a\nb", b"\xff\xfe", b"\xc3", b"-", b" ", b"\x01\x1b[2J", b"x" * 255, "é".encode()],
    )
    def test_may_be_anything(self, tmp_path: Path, name: bytes) -> None:
        (tmp_path / "d").mkdir()
        path = os.path.join(os.fsencode(tmp_path), b"d", name)
        os.close(os.open(path, os.O_CREAT))
        (file,) = walked(walker(tmp_path)).files
        assert (file.name, file.path) == (name, os.path.realpath(path))

    def test_of_directories_too(self, tmp_path: Path) -> None:
        os.mkdir(os.path.join(os.fsencode(tmp_path), b"\xff\n"))
        path = os.path.join(os.fsencode(tmp_path), b"\xff\n", b"a")
        os.close(os.open(path, os.O_CREAT))
        (file,) = walked(walker(tmp_path)).files
        assert (file.directory.rel_path, file.name) == (b"\xff\n", b"a")

    def test_that_a_file_system_lists_twice_are_one_file(self, tmp_path: Path) -> None:
        """Some do, while a directory is changed or over a network."""
        (tmp_path / "a").write_bytes(b"x")
        (tmp_path / "b").write_bytes(b"x")
        (tmp_path / "c").mkdir()
        twice = Entries([*os.scandir(os.fsencode(tmp_path))] * 2)
        root = root_of(tmp_path)
        frame, chunk = Frame(Directory(1, root, b""), twice, (0, 0), None), WalkChunk.empty()
        Names(WalkOptions(), Catalog()).take(frame, chunk)
        assert [file.name for file in chunk.files] == [b"a", b"b"]
        assert frame.subdirectories == [b"c"]


class Entries:
    """A listing of these entries."""

    def __init__(self, entries: Sequence[os.DirEntry[bytes]]) -> None:
        self._entries = iter(entries)

    def __iter__(self) -> Iterator[os.DirEntry[bytes]]:
        return self

    def __next__(self) -> os.DirEntry[bytes]:
        return next(self._entries)

    def close(self) -> None:
        pass


class Failing(Entries):
    """One that breaks off."""

    def __init__(self) -> None:
        super().__init__([])

    def __next__(self) -> os.DirEntry[bytes]:
        raise OSError(errno.EIO, "of the test")


class TestWhatIsNoFile:
    def test_is_skipped_with_a_reason(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "link").symlink_to("nowhere")
        (tmp_path / "dirlink").symlink_to(tmp_path)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "socket"))
            found = walked(walker(tmp_path))
        assert found.files == []
        assert found.reasons == {
            b"fifo": (Outcome.SKIPPED, "special"),
            b"socket": (Outcome.SKIPPED, "special"),
            b"link": (Outcome.SKIPPED, "symlink"),
            b"dirlink": (Outcome.SKIPPED, "symlink"),
        }

    def test_is_never_one_of_ours(self, tmp_path: Path) -> None:
        for name in ("ingester.db", "ingester.db-wal", "results.jsonl", "a.dcm"):
            (tmp_path / name).write_bytes(b"x")
        own = [
            tmp_path.resolve() / name
            for name in ("ingester.db", "ingester.db-wal", "results.jsonl")
        ]
        found = walked(walker(tmp_path, exclude=own))
        assert below(tmp_path, found.files) == [b"a.dcm"]
        assert found.decided == []

    def test_is_never_one_of_ours_by_another_path(self, tmp_path: Path) -> None:
        home, source = tmp_path / "home", tmp_path / "source"
        home.mkdir()
        source.mkdir()
        (home / "ingester.db").write_bytes(b"x")
        (source / "link").symlink_to(home)
        (source / "file").symlink_to(home / "ingester.db")
        found = walked(walker(source, follow=True, exclude=[home.resolve() / "ingester.db"]))
        assert found.files == []
        assert found.decided == []


class TestLinksThatAreFollowed:
    def test_lead_to_files_and_directories(self, tmp_path: Path) -> None:
        real, source = tmp_path / "real", tmp_path / "source"
        real.mkdir()
        source.mkdir()
        (real / "a").write_bytes(b"four")
        (source / "dir").symlink_to(real)
        (source / "file").symlink_to(real / "a")
        found = walked(walker(source, follow=True))
        assert below(source, found.files) == [b"file", b"dir/a"]
        assert [file.size for file in found.files] == [4, 4]

    def test_never_round_a_loop(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
        (tmp_path / "a" / "b" / "root").symlink_to(tmp_path)
        (tmp_path / "a" / "here").symlink_to(".")
        (tmp_path / "a" / "b" / "file").write_bytes(b"x")
        found = walked(walker(tmp_path, follow=True))
        assert below(tmp_path, found.files) == [b"a/b/file"]

    def test_that_lead_round_each_other_end(self, tmp_path: Path) -> None:
        for name, other in (("x", "y"), ("y", "x")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "to").symlink_to(tmp_path / other)
            (tmp_path / name / f"{name}.dcm").write_bytes(b"x")
        found = walked(walker(tmp_path, follow=True))
        assert sorted(below(tmp_path, found.files)) == [
            b"x/to/y.dcm",
            b"x/x.dcm",
            b"y/to/x.dcm",
            b"y/y.dcm",
        ]

    def test_that_lead_nowhere_are_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "broken").symlink_to("nowhere")
        (tmp_path / "self").symlink_to("self")
        found = walked(walker(tmp_path, follow=True))
        assert found.reasons == {
            b"broken": (Outcome.UNREADABLE, "stat_error"),
            b"self": (Outcome.UNREADABLE, "stat_error"),
        }


class TestWhatTheJournalKnows:
    def known(
        self, path: Path, outcome: Outcome, *, settled: bool = True, trusted: bool = True
    ) -> Catalog:
        status = path.stat()
        previous = Previous(outcome, status.st_size, status.st_mtime_ns, None, settled)
        return Catalog({os.fsencode(path.name): Knowledge(7, previous, trusted)})

    def test_to_be_settled_and_unchanged_is_seen_and_not_opened(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"x")
        found = walked(walker(tmp_path, self.known(path, Outcome.STORED)))
        assert [file.file_id for file in found.seen] == [7]
        assert found.files == []

    def test_not_to_be_settled_goes_again(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"x")
        found = walked(walker(tmp_path, self.known(path, Outcome.FAILED, settled=False)))
        assert [file.file_id for file in found.files] == [7]

    def test_by_a_time_stamp_it_does_not_trust_is_read(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"x")
        found = walked(walker(tmp_path, self.known(path, Outcome.STORED, trusted=False)))
        assert [file.file_id for file in found.files] == [7]

    @pytest.mark.parametrize("change", ["size", "mtime"])
    def test_with_another_size_or_time_is_read(self, tmp_path: Path, change: str) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"x")
        catalog = self.known(path, Outcome.STORED)
        if change == "size":
            mtime_ns = path.stat().st_mtime_ns
            path.write_bytes(b"xx")
            os.utime(path, ns=(mtime_ns, mtime_ns))
        else:
            os.utime(path, ns=(1, 1))
        found = walked(walker(tmp_path, catalog))
        assert [file.file_id for file in found.files] == [7]
        assert found.files[0].previous is not None

    def test_to_be_a_link_that_is_followed_now_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "a").write_bytes(b"long enough")
        link = tmp_path / "link"
        link.symlink_to(tmp_path / "real" / "a")
        status = link.lstat()
        previous = Previous(Outcome.SKIPPED, status.st_size, status.st_mtime_ns, None, settled=True)
        catalog = Catalog({b"link": Knowledge(7, previous)})
        assert [file.file_id for file in walked(walker(tmp_path, catalog)).seen] == [7]
        found = walked(walker(tmp_path, catalog, follow=True))
        assert 7 in [file.file_id for file in found.files]


class TestADirectory:
    @pytest.mark.parametrize("follow", [False, True])
    def test_with_the_inode_of_one_above_it_is_walked(self, tmp_path: Path, follow: bool) -> None:
        """All subvolumes of btrfs have the same, and over NFS the same device."""
        (tmp_path / "file").write_bytes(b"x")
        with shown_again(tmp_path, tmp_path / "volume"):
            found = walked(walker(tmp_path, follow=follow))
        assert below(tmp_path, found.files) == [b"file", b"volume/file"]

    def test_with_the_inode_of_one_above_a_link_that_leads_to_it_is_walked(
        self, tmp_path: Path
    ) -> None:
        source = tmp_path / "source"
        source.mkdir()
        (source / "file").write_bytes(b"x")
        with shown_again(source, tmp_path / "volume"):
            (source / "link").symlink_to(tmp_path / "volume")
            found = walked(walker(source, follow=True))
        assert below(source, found.files) == [b"file", b"link/file"]

    def test_that_vanished_before_it_was_entered_is_counted_and_named(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "f").write_bytes(b"x")
        one = walker(tmp_path)
        found = Walked()
        chunk = one.step()
        assert chunk is not None
        found.add(chunk)
        shutil.rmtree(tmp_path / "a")
        while (chunk := one.step()) is not None:
            found.add(chunk)
        assert below(tmp_path, found.files) == [b"b/f"]
        ((path, reason),) = found.unreadable
        assert path == os.fsencode(tmp_path.resolve() / "a")
        assert reason == "No such file or directory"

    def test_that_became_a_file_is_unreadable(self, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        one = walker(tmp_path)
        one.step()
        (tmp_path / "a").rmdir()
        (tmp_path / "a").write_bytes(b"x")
        found = walked(one)
        assert [each.reason for each in found.unreadable] == ["Not a directory"]

    def test_with_a_path_that_is_too_long_is_unreadable(self, tmp_path: Path) -> None:
        where, names = os.getcwd(), 0
        try:
            os.chdir(tmp_path)
            while names < 20:
                os.mkdir("n" * 250)
                os.chdir("n" * 250)
                names += 1
            found = walked(walker(tmp_path))
        finally:
            os.chdir(where)
        assert [each.reason for each in found.unreadable] == ["File name too long"]

    def test_in_which_files_vanish_gives_those_that_are_left(self, tmp_path: Path) -> None:
        empty = an_empty_file(tmp_path)
        for n in range(CHUNK_NAMES + 10):
            os.link(empty, tmp_path / f"{n}")
        one = walker(tmp_path)
        first = one.step()
        assert first is not None
        for name in os.listdir(tmp_path):
            os.unlink(tmp_path / name)
        found = walked(one)
        assert len(first.files) == CHUNK_NAMES
        assert len(found.files) + len(found.decided) <= 10
        assert {reason for _, reason in found.reasons.values()} <= {"stat_error"}


class TestAListing:
    """What a later run may go by: only of directories in which nothing can be overlooked."""

    @pytest.fixture
    def leaf(self, tmp_path: Path) -> Path:
        leaf = tmp_path / "top" / "leaf"
        leaf.mkdir(parents=True)
        for name in ("a", "b"):
            (leaf / name).write_bytes(b"x")
        (leaf / "link").symlink_to("nowhere")
        os.mkfifo(leaf / "fifo")
        age(leaf)
        return leaf

    def test_is_kept_of_a_directory_without_subdirectories(self, leaf: Path) -> None:
        (listing,) = walked(walker(leaf.parent)).listings
        assert listing.directory.rel_path == b"leaf"
        assert listing.stamp == DirectoryStamp.of(leaf.lstat())
        assert listing.files == 4

    def test_is_kept_of_the_root_itself(self, leaf: Path) -> None:
        (listing,) = walked(walker(leaf)).listings
        assert (listing.directory.rel_path, listing.files) == (b"", 4)

    def test_comes_with_the_last_of_its_files(self, tmp_path: Path) -> None:
        first = an_empty_file(tmp_path)
        for number in range(CHUNK_NAMES + 5):
            os.link(first, tmp_path / f"{number}")
        age(tmp_path)
        one = walker(tmp_path)
        chunks = [chunk for chunk in iter(one.step, None) if chunk.files]
        assert [len(chunk.files) for chunk in chunks] == [CHUNK_NAMES, 5]
        assert [[each.files for each in chunk.listings] for chunk in chunks] == [
            [], [CHUNK_NAMES + 5],
        ]  # fmt: skip

    def test_is_not_kept_with_a_subdirectory(self, leaf: Path) -> None:
        (leaf / "sub").mkdir()
        age(leaf)
        assert [each.directory.rel_path for each in self.kept(leaf)] == []

    def test_is_not_kept_of_a_directory_that_has_just_changed(self, leaf: Path) -> None:
        """Where time stamps are coarse, what comes next may not give it another one."""
        now = time.time_ns()
        for back_ns in (0, UNTRUSTED_MTIME_NS // 2):
            os.utime(leaf, ns=(now - back_ns, now - back_ns))
            kept = self.kept(leaf)
            late = time.time_ns() - (now - back_ns) >= UNTRUSTED_MTIME_NS
            assert late or kept == []
        os.utime(leaf, ns=(now - UNTRUSTED_MTIME_NS, now - UNTRUSTED_MTIME_NS))
        assert len(self.kept(leaf)) == 1

    def test_nor_of_one_that_says_it_will_be_changed(self, leaf: Path) -> None:
        later = time.time() + 3600
        os.utime(leaf, (later, later))
        assert self.kept(leaf) == []

    @pytest.mark.parametrize("how", ["a name more", "a name less", "touched", "its mode"])
    def test_is_not_kept_of_one_that_changes_while_it_is_listed(self, leaf: Path, how: str) -> None:
        first = an_empty_file(leaf.parent)
        for number in range(CHUNK_NAMES):
            os.link(first, leaf / f"{number}")
        age(leaf)
        one = walker(leaf)
        assert one.step() is not None
        if how == "a name more":
            (leaf / "c").write_bytes(b"x")
        elif how == "a name less":
            (leaf / "a").unlink()
        elif how == "its mode":
            leaf.chmod(0o711)
        age(leaf, 0 if how != "touched" else 1)
        assert walked(one).listings == []
        assert len(self.kept(leaf)) == 1

    def test_is_not_kept_of_one_that_vanishes(self, leaf: Path) -> None:
        first = an_empty_file(leaf.parent)
        for number in range(CHUNK_NAMES):
            os.link(first, leaf / f"{number}")
        age(leaf)
        one = walker(leaf.parent)
        while (chunk := one.step()) is not None and not chunk.files:
            pass
        shutil.rmtree(leaf)
        assert walked(one).listings == []

    def test_is_not_kept_of_one_that_cannot_be_listed_to_its_end(self, leaf: Path) -> None:
        first = an_empty_file(leaf.parent)
        for number in range(CHUNK_NAMES):
            os.link(first, leaf / f"{number}")
        age(leaf)
        one = walker(leaf)
        assert one.step() is not None
        assert one._stack
        one._stack[-1].entries.close()
        one._stack[-1].entries = Failing()
        found = walked(one)
        assert [each.reason for each in found.unreadable] == ["Input/output error"]
        assert found.listings == []

    def test_is_not_kept_of_single_files(self, leaf: Path) -> None:
        assert walked(walker(leaf, only=frozenset({b"a"}))).listings == []

    def test_is_not_kept_where_links_are_followed(self, leaf: Path) -> None:
        assert walked(walker(leaf, follow=True)).listings == []

    def test_is_not_kept_where_the_run_writes_itself(self, leaf: Path) -> None:
        """Another run may write elsewhere, and then it is a file like others."""
        assert walked(walker(leaf, exclude=[leaf.resolve() / "a"])).listings == []

    def kept(self, path: Path) -> list[Listing]:
        return walked(walker(path)).listings


class TestADirectoryListedBefore:
    @pytest.fixture
    def top(self, tmp_path: Path) -> Path:
        for number in range(3):
            leaf = tmp_path / "top" / f"{number}"
            leaf.mkdir(parents=True)
            (leaf / "a").write_bytes(b"x")
            age(leaf)
        return tmp_path / "top"

    def catalog(self, top: Path, *, complete: bool = True) -> Catalog:
        stamps = {os.fsencode(leaf.name): DirectoryStamp.of(leaf.lstat()) for leaf in top.iterdir()}
        before = {name: ListedBefore(4, stamp, 1) for name, stamp in stamps.items()}
        return Catalog(before=before, complete=complete)

    def test_is_skipped_if_it_is_as_it_was_and_complete(self, top: Path) -> None:
        catalog = self.catalog(top)
        found = walked(walker(top, catalog))
        assert [each.directory.rel_path for each in found.skipped] == [b"0", b"1", b"2"]
        assert {(each.listed_run_id, each.files, each.size) for each in found.skipped} == {
            (4, 1, 10)
        }
        assert (found.files, found.listings, catalog.looked_up) == ([], [], [[]])

    def test_is_skipped_as_a_root(self, top: Path) -> None:
        leaf = top / "0"
        stamp = DirectoryStamp.of(leaf.lstat())
        found = walked(walker(leaf, Catalog(before={b"": ListedBefore(4, stamp, 1)})))
        assert [each.directory.rel_path for each in found.skipped] == [b""]
        assert found.files == []

    def test_is_listed_if_it_is_not_complete(self, top: Path) -> None:
        found = walked(walker(top, self.catalog(top, complete=False)))
        assert found.skipped == []
        assert below(top, found.files) == [b"0/a", b"1/a", b"2/a"]

    def test_that_is_listed_is_forgotten_until_it_came_to_its_end(self, top: Path) -> None:
        one = walker(top, self.catalog(top, complete=False))
        chunks = [chunk for chunk in iter(one.step, None) if chunk.files]
        for chunk in chunks:
            (file,), (listing,) = chunk.files, chunk.listings
            assert chunk.forgotten == [Listing(file.directory, None)]
            assert (listing.directory, listing.files) == (file.directory, 1)
        assert len(chunks) == 3

    @pytest.mark.parametrize("field_name", ["ino", "mtime_ns", "ctime_ns"])
    def test_is_listed_if_it_is_another_or_changed(self, top: Path, field_name: str) -> None:
        catalog = self.catalog(top)
        old = catalog.before[b"1"]
        stamp = old.stamp._replace(**{field_name: 1})
        catalog.before[b"1"] = old._replace(stamp=stamp)
        found = walked(walker(top, catalog))
        assert below(top, found.files) == [b"1/a"]
        assert len(found.skipped) == 2

    def test_is_listed_with_recheck(self, top: Path) -> None:
        found = walked(walker(top, self.catalog(top), recheck=True))
        assert len(found.files) == 3
        assert found.skipped == []

    @pytest.mark.parametrize("how", ["follow", "exclude", "only"])
    def test_is_listed_where_its_listing_would_not_be_kept(self, top: Path, how: str) -> None:
        catalog = self.catalog(top)
        leaf = top / "0"
        catalog.before[b""] = catalog.before[b"0"]
        if how == "follow":
            found = walked(walker(leaf, catalog, follow=True))
        elif how == "exclude":
            found = walked(walker(leaf, catalog, exclude=[leaf.resolve() / "results.jsonl"]))
        else:
            found = walked(walker(leaf, catalog, only=frozenset({b"a"})))
        assert below(leaf, found.files) == [b"a"]
        assert found.skipped == []

    def test_costs_no_step_of_its_own(self, tmp_path: Path) -> None:
        for number in range(SKIPPED_AT_ONCE * 2 + 10):
            (tmp_path / f"{number:03}").mkdir()
            age(tmp_path / f"{number:03}")
        one = walker(tmp_path, self.catalog(tmp_path))
        counts = []
        while (chunk := one.step()) is not None:
            counts.append(len(chunk.skipped))
        assert [count for count in counts if count] == [SKIPPED_AT_ONCE, SKIPPED_AT_ONCE, 10]

    def test_does_not_hide_that_its_root_vanished(self, top: Path) -> None:
        catalog = self.catalog(top)
        real = os.fsencode(top.resolve())
        one = Walker(Root(1, real, real, None, os.stat(real).st_dev + 1), WalkOptions(), catalog)
        with pytest.raises(FatalError, match="vanished"):
            walked(one)


class TestARootThatVanishes:
    def test_stops_the_run_before_it_is_listed(self, tmp_path: Path) -> None:
        source = tmp_path / "mount"
        source.mkdir()
        one = walker(source)
        source.rmdir()
        with pytest.raises(FatalError, match="vanished"):
            one.step()

    def test_stops_the_run_in_the_middle(self, tmp_path: Path) -> None:
        source = tmp_path / "mount"
        (source / "a").mkdir(parents=True)
        one = walker(source)
        one.step()
        shutil.rmtree(source)
        with pytest.raises(FatalError, match="vanished"):
            walked(one)

    def test_is_one_whose_device_changed(self, tmp_path: Path) -> None:
        """An empty mount point is not an archive from which everything was deleted."""
        real = os.fsencode(tmp_path.resolve())
        one = Walker(Root(1, real, real, None, os.stat(real).st_dev + 1), WalkOptions(), Catalog())
        with pytest.raises(FatalError, match="vanished"):
            one.step()

    def test_that_may_not_be_read_any_more_is_not_called_vanished(self, tmp_path: Path) -> None:
        above = tmp_path / "above"
        (above / "mount").mkdir(parents=True)
        one = walker(above / "mount")
        above.chmod(0)
        try:
            with without_privileges(), pytest.raises(FatalError) as caught:
                one.step()
        finally:
            above.chmod(0o700)
        assert caught.value.message == (
            f"a source cannot be read any more (Permission denied): {above / 'mount'}"
        )
        assert caught.value.hint.startswith("let this user list and enter it")

    def test_that_is_a_file_by_now_cannot_be_listed(self, tmp_path: Path) -> None:
        source = tmp_path / "mount"
        source.mkdir()
        one = walker(source)
        source.rmdir()
        source.write_bytes(b"x")
        with pytest.raises(FatalError, match="cannot be listed"):
            one.step()


class TestASingleFile:
    def test_is_the_only_one_taken(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        for name in ("a", "b", "c", "sub/b"):
            (tmp_path / name).write_bytes(b"x")
        found = walked(walker(tmp_path, only=frozenset({b"b"})))
        assert below(tmp_path, found.files) == [b"b"]

    def test_is_found_among_very_many(self, tmp_path: Path) -> None:
        first = an_empty_file(tmp_path)
        for n in range(300):
            os.link(first, tmp_path / f"{n}")
        found = walked(walker(tmp_path, only=frozenset({b"299"})))
        assert below(tmp_path, found.files) == [b"299"]

    def test_that_its_directory_does_not_show_is_asked_for_all_the_same(
        self, tmp_path: Path
    ) -> None:
        """A file system may take other letters for the same; and one may vanish."""
        (tmp_path / "a").write_bytes(b"x")
        for follow in (False, True):
            one = walker(tmp_path, only=frozenset({b"a", b"gone"}), follow=follow)
            found = walked(one)
            assert below(tmp_path, found.files) == [b"a"]
        (result,) = found.decided
        assert (result.file.name, result.outcome) == (b"gone", Outcome.UNREADABLE)
        assert result.reason_code == "stat_error"


class TestListsOfFiles:
    def test_have_at_most_so_many_files(self) -> None:
        files = [file_ref(n, size=1) for n in range(200)]
        lists = list(lists_of(files))
        assert [len(each) for each in lists] == [
            LIST_FILES,
            LIST_FILES,
            LIST_FILES,
            200 - 3 * LIST_FILES,
        ]
        assert [file for each in lists for file in each] == files

    def test_have_at_most_so_many_bytes_or_one_file(self) -> None:
        files = [
            file_ref(n, size=size)
            for n, size in enumerate([5 << 20, 3 << 20, 1, 100 << 20, 9 << 20, 1])
        ]
        lists = list(lists_of(files))
        assert [[file.file_id for file in each] for each in lists] == [[0, 1], [2], [3], [4], [5]]
        assert all(
            len(each) == 1 or sum(file.size for file in each) <= LIST_BYTES for each in lists
        )

    def test_of_nothing_are_none(self) -> None:
        assert list(lists_of([])) == []


class Report:
    def __init__(self) -> None:
        self.found: list[UnreadableDirectory] = []
        self.ended = False

    def unreadable_directories(self, found: Collection[UnreadableDirectory]) -> None:
        self.found += found

    def discovered_all(self) -> None:
        self.ended = True


def root_of(path: Path, root_id: int = 1) -> Root:
    real = os.fsencode(path.resolve())
    return Root(root_id, real, real, None, os.stat(real).st_dev)


class Stage:
    """The stage with a lane for each of some roots."""

    def __init__(self, *roots: Root) -> None:
        self.roots = roots
        self.record = Recorded()
        self.ledger, self.report = Ledger(self.record), Report()
        self.readers = readers_of(*roots)
        self.outs = [Channel[list[FileRef]](10_000) for _ in roots]
        self.walk = Walk(
            WalkOptions(), Catalog(), self.readers, self.ledger, self.report, len(roots)
        )

    async def run(self) -> list[list[list[FileRef]]]:
        lanes = [
            self.walk.lane([root], out) for root, out in zip(self.roots, self.outs, strict=True)
        ]
        async with asyncio.timeout(20):
            await asyncio.gather(*lanes)
        self.readers.shutdown()
        return [[files async for files in out] for out in self.outs]


class TestTheStage:
    async def test_accounts_for_everything_and_closes_its_channel(self, tmp_path: Path) -> None:
        for n in range(150):
            (tmp_path / f"{n:03}").write_bytes(b"x")
        os.mkfifo(tmp_path / "fifo")
        stage = Stage(root_of(tmp_path))
        (lists,) = await stage.run()
        assert [len(files) for files in lists] == [64, 64, 22]
        assert (stage.ledger.files_met, len(stage.ledger), stage.report.ended) == (151, 150, True)
        assert stage.record.outcomes == {b"fifo": Outcome.SKIPPED}

    async def test_hands_a_listing_over_when_all_its_files_were_taken(self, tmp_path: Path) -> None:
        """A run that is stopped before that has not met them."""
        for n in range(2 * LIST_FILES):
            (tmp_path / f"{n:03}").write_bytes(b"x")
        age(tmp_path)
        stage = Stage(root_of(tmp_path))
        listings: list[int] = []

        class Out:
            async def put(self, item: list[FileRef], weight: int = 1) -> None:
                assert len(item) == weight
                listings.append(len(stage.record.listings))

            def close(self) -> None:
                pass

        async with asyncio.timeout(20):
            await stage.walk.lane(stage.roots, Out())
        stage.readers.shutdown()
        assert listings == [0, 0]
        assert [each.files for each in stage.record.listings] == [2 * LIST_FILES]

    async def test_goes_on_elsewhere_when_a_root_vanished(self, tmp_path: Path) -> None:
        roots = []
        for n, name in enumerate(("gone", "there"), 1):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a").write_bytes(b"x")
            roots.append(root_of(tmp_path / name, n))
        stage = Stage(*roots)
        shutil.rmtree(tmp_path / "gone")
        first, second = await stage.run()
        assert first == []
        assert [file.name for files in second for file in files] == [b"a"]
        (cause,) = stage.readers.causes
        assert "vanished" in cause.message
        assert [each.path for each in stage.report.found] == [roots[0].path]
        assert stage.report.ended
