from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

from ingester.errors import FatalError, IngesterError, UsageError
from ingester.items import Root
from ingester.sources import ResolvedSource, Source, as_root, resolve_sources


def resolved(*paths: Path | Source, known: Collection[bytes] = ()) -> list[ResolvedSource]:
    sources = [path if isinstance(path, Source) else Source(os.fsencode(path)) for path in paths]
    return asyncio.run(resolve_sources(sources, lambda name, path: (name or path) in known, 20))


def names(sources: list[ResolvedSource]) -> list[str]:
    return [os.fsdecode(os.path.basename(source.path)) for source in sources]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Directories a, a/b, ab, c, each with a file f."""
    for name in ("a/b", "ab", "c"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a/f", "a/b/f", "ab/f", "c/f"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path.resolve()


class TestADirectory:
    def test_is_its_real_path_and_named_by_it(self, tree: Path) -> None:
        (source,) = resolved(tree / "c" / ".." / "a")
        path = os.fsencode(tree / "a")
        assert source == ResolvedSource(path, path, os.stat(path).st_dev)
        assert as_root(source, 3) == Root(3, path, path, None, os.stat(path).st_dev)

    def test_may_have_a_name(self, tree: Path) -> None:
        (source,) = resolved(Source(os.fsencode(tree / "a"), b"NAS"))
        assert (source.name, source.path) == (b"NAS", os.fsencode(tree / "a"))

    def test_inside_another_is_part_of_it(self, tree: Path) -> None:
        assert names(resolved(tree / "a" / "b", tree / "a")) == ["a"]
        assert names(resolved(tree / "a", tree / "a" / "b")) == ["a"]

    def test_that_only_begins_like_another_is_not(self, tree: Path) -> None:
        assert names(resolved(tree / "ab", tree / "a")) == ["ab", "a"]

    def test_is_taken_once(self, tree: Path) -> None:
        (tree / "link").symlink_to("a")
        (tree / "deep").symlink_to(tree / "a" / "b")
        assert names(resolved(tree / "link", tree / "a", tree / "a", tree / "deep")) == ["a"]

    def test_of_the_whole_file_system_holds_all_others(self, tree: Path) -> None:
        assert [source.path for source in resolved(tree / "a", Path("/"))] == [b"/"]

    def test_keeps_the_order_in_which_it_was_given(self, tree: Path) -> None:
        assert names(resolved(tree / "c", tree / "a", tree / "ab")) == ["c", "a", "ab"]


class TestAFile:
    def test_is_its_directory_and_its_name(self, tree: Path) -> None:
        (source,) = resolved(tree / "a" / "f")
        path = os.fsencode(tree / "a")
        assert (source.name, source.path, source.only) == (path, path, frozenset({b"f"}))

    def test_that_is_mounted_by_itself_is_on_the_device_of_its_directory(self, tree: Path) -> None:
        """As containers mount single files."""
        other = Path("/dev/shm") / f"ingester-{os.getpid()}"  # noqa: S108 - another file system
        other.write_bytes(b"x")
        code = (
            "import asyncio, os, sys; from ingester.sources import Source, resolve_sources\n"
            "path = os.fsencode(sys.argv[1])\n"
            "(one,) = asyncio.run(resolve_sources([Source(path)], lambda *_: False, 20))\n"
            "print(os.stat(path).st_dev != os.stat(os.path.dirname(path)).st_dev,\n"
            "    one.device == os.stat(os.path.dirname(path)).st_dev)\n"
        )
        script = 'mount --bind "$1" "$2" && exec "$3" -c "$4" "$2"'
        file = str(tree / "a" / "f")
        try:
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-c", script, "", str(other), file, sys.executable, code],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        finally:
            other.unlink()
        if "Operation not permitted" in done.stderr or "permission denied" in done.stderr:
            pytest.skip("may not mount")
        assert done.stdout.split() == ["True", "True"], done.stderr

    def test_by_a_link_is_the_file_itself(self, tree: Path) -> None:
        (tree / "link").symlink_to(tree / "a" / "f")
        (source,) = resolved(tree / "link")
        assert (source.path, source.only) == (os.fsencode(tree / "a"), frozenset({b"f"}))

    def test_inside_a_source_is_part_of_it(self, tree: Path) -> None:
        assert [source.only for source in resolved(tree / "a" / "f", tree / "a")] == [None]
        assert [source.only for source in resolved(tree / "a" / "b" / "f", tree / "a")] == [None]

    def test_beside_another_is_listed_with_it(self, tree: Path) -> None:
        (tree / "a" / "g").write_bytes(b"x")
        found = resolved(tree / "a" / "f", tree / "a" / "g", tree / "a" / "f")
        assert [source.only for source in found] == [frozenset({b"f", b"g"})]

    def test_given_again_under_another_name_is_taken_once(self, tree: Path) -> None:
        path = os.fsencode(tree / "a" / "f")
        found = resolved(Source(path, b"NAS"), Source(path), Source(path, b"PACS"))
        assert [(source.name, source.only) for source in found] == [(b"NAS", frozenset({b"f"}))]

    def test_does_not_hold_its_directory(self, tree: Path) -> None:
        found = resolved(tree / "a" / "f", tree / "a" / "b")
        assert [source.only for source in found] == [frozenset({b"f"}), None]

    def test_must_be_a_file_or_a_directory(self, tree: Path) -> None:
        os.mkfifo(tree / "fifo")
        with pytest.raises(UsageError, match="a directory or a file"):
            resolved(tree / "fifo")


class TestNames:
    def test_of_two_directories_are_two(self, tree: Path) -> None:
        one, two = os.fsencode(tree / "a"), os.fsencode(tree / "c")
        with pytest.raises(UsageError, match="same name"):
            resolved(Source(one, b"NAS"), Source(two, b"NAS"))

    def test_of_a_directory_and_a_file_elsewhere_are_two(self, tree: Path) -> None:
        """The journal would take c/f and a/f for one file."""
        one, two = os.fsencode(tree / "a"), os.fsencode(tree / "c" / "f")
        with pytest.raises(UsageError, match="same name"):
            resolved(Source(one, b"NAS"), Source(two, b"NAS"))

    def test_of_files_in_two_directories_are_two(self, tree: Path) -> None:
        one, two = os.fsencode(tree / "a" / "f"), os.fsencode(tree / "c" / "f")
        with pytest.raises(UsageError, match="same name"):
            resolved(Source(one, b"NAS"), Source(two, b"NAS"))

    def test_of_files_in_one_directory_may_be_one(self, tree: Path) -> None:
        (tree / "a" / "g").write_bytes(b"x")
        one, two = os.fsencode(tree / "a" / "f"), os.fsencode(tree / "a" / "g")
        (source,) = resolved(Source(one, b"NAS"), Source(two, b"NAS"))
        assert source.only == frozenset({b"f", b"g"})


class TestASourceThatIsGone:
    def test_is_wrong_use(self, tree: Path) -> None:
        with pytest.raises(UsageError, match="No such file"):
            resolved(tree / "gone")

    @pytest.mark.parametrize("name", [None, b"NAS"])
    def test_is_fatal_where_the_journal_has_files_of_it(
        self, tree: Path, name: bytes | None
    ) -> None:
        path = os.fsencode(tree / "gone")
        with pytest.raises(FatalError, match="is gone"):
            resolved(Source(path, name), known=[name or path])

    def test_is_wrong_use_without_a_path(self) -> None:
        """It would be the current directory."""
        with pytest.raises(UsageError, match="empty"):
            resolved(Source(b""))

    def test_is_a_loop_of_links(self, tree: Path) -> None:
        (tree / "loop").symlink_to("loop")
        with pytest.raises(UsageError):
            resolved(tree / "loop")

    def test_is_an_empty_mount_point(self, tree: Path) -> None:
        (tree / "mount").mkdir()
        assert names(resolved(tree / "mount")) == ["mount"]
        with pytest.raises(FatalError, match="is empty"):
            resolved(tree / "mount", known=[os.fsencode(tree / "mount")])

    def test_is_not_one_whose_name_is_new(self, tree: Path) -> None:
        (tree / "mount").mkdir()
        source = Source(os.fsencode(tree / "mount"), b"NEW")
        assert len(resolved(source, known=[os.fsencode(tree / "mount")])) == 1

    def test_says_what_to_do_without_a_trace(self, tree: Path) -> None:
        with pytest.raises(IngesterError) as caught:
            resolved(tree / "gone", known=[os.fsencode(tree / "gone")])
        assert caught.value.hint
        assert "\n" not in str(caught.value)
