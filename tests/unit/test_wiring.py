from __future__ import annotations

import pytest

from ingester.items import Directory, FileRef, Root
from ingester.wiring import in_a_root


def file(root: bytes, rel_path: bytes) -> FileRef:
    return FileRef(7, Directory(3, Root(1, root, root), rel_path), b"a.dcm", 10, 20, None)


class TestAFileThatAnotherRunHasLoaded:
    @pytest.mark.parametrize(
        ("loaded_from", "rel_path", "now", "found_at"),
        [
            (b"/archive", b"x/y", b"/archive", b"x/y"),
            (b"/archive", b"", b"/archive", b""),
            (b"/archive/x", b"y", b"/archive", b"x/y"),
            (b"/archive", b"x/y", b"/archive/x", b"y"),
            (b"/archive", b"x", b"/", b"archive/x"),
        ],
    )
    def test_is_found_below_a_root_of_this_one(
        self, loaded_from: bytes, rel_path: bytes, now: bytes, found_at: bytes
    ) -> None:
        root = Root(2, b"now", now)
        found = in_a_root(file(loaded_from, rel_path), [Root(9, b"other", b"/other"), root])
        assert found is not None
        assert found.directory.root is root
        assert found.directory.rel_path == found_at
        assert found.path == file(loaded_from, rel_path).path

    @pytest.mark.parametrize("now", [b"/arch", b"/archive/x", b"/other"])
    def test_is_not_asked_of_a_root_that_it_does_not_lie_in(self, now: bytes) -> None:
        assert in_a_root(file(b"/archive", b""), [Root(2, now, now)]) is None
