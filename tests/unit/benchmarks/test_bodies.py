"""Ready-made bodies hold the corpus, whole, and every one is of one study."""

import hashlib
import os
from pathlib import Path

import pytest

from benchmarks.bodies import BOUNDARY, groups, make_bodies
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import make
from ingester.bench.parts import PartScanner

CORPUS = Corpus("bodies", files=11, size=4096, studies=3)


def digests_in(path: str) -> dict[str, str]:
    body = bytearray(Path(path).read_bytes())
    scanner = PartScanner(BOUNDARY.encode(), digests=True)
    assert scanner.consume(body, 0, len(body), final=True) == len(body)
    return {part.sop_instance_uid: part.sha256 for part in scanner.parts}


class TestGroups:
    @pytest.mark.parametrize(
        ("max_bytes", "max_instances", "sizes"),
        [
            (10**9, 10**9, [4, 4, 3]),
            (3 * 4096, 10**9, [3, 1, 3, 1, 3]),
            (10**9, 2, [2, 2, 2, 2, 2, 1]),
            (1, 10**9, [1] * 11),
        ],
    )
    def test_end_with_a_study_or_at_a_limit(
        self, max_bytes: int, max_instances: int, sizes: list[int]
    ) -> None:
        found = list(groups(CORPUS, max_bytes, max_instances))
        assert [len(group) for group in found] == sizes
        assert [index for group in found for index in group] == list(range(11))
        assert all(len({CORPUS.study_of(index) for index in group}) == 1 for group in found)


class TestMakeBodies:
    def test_hold_every_file_byte_for_byte(self, tmp_path: Path) -> None:
        files = make(CORPUS, str(tmp_path))
        bodies = make_bodies(CORPUS, files, max_bytes=3 * 4096, max_instances=100)
        found: dict[str, str] = {}
        for body in bodies:
            found.update(digests_in(body))
        assert found == {
            CORPUS.sop_instance_uid(index): hashlib.sha256(
                Path(files, CORPUS.path(index)).read_bytes()
            ).hexdigest()
            for index in range(CORPUS.files)
        }

    @pytest.mark.parametrize("damage", ["gone", "short", "unfinished", "other corpus", "none"])
    def test_are_made_again_only_where_they_are_damaged(self, tmp_path: Path, damage: str) -> None:
        files = make(CORPUS, str(tmp_path))
        bodies = make_bodies(CORPUS, files, max_bytes=10**9, max_instances=2)
        whole = [Path(body).read_bytes() for body in bodies]
        before = os.stat(bodies[0]).st_mtime_ns
        if damage == "gone":
            os.unlink(bodies[2])
        elif damage == "short":
            Path(bodies[2]).write_bytes(b"short")
        elif damage == "unfinished":
            Path(bodies[2]).with_name("bodies.json").unlink()
        elif damage == "other corpus":
            Path(bodies[2]).write_bytes(bytes(len(whole[2])))
            Path(bodies[2]).with_name("bodies.json").write_text("{}")
        assert make_bodies(CORPUS, files, max_bytes=10**9, max_instances=2) == bodies
        assert [Path(body).read_bytes() for body in bodies] == whole
        assert (os.stat(bodies[0]).st_mtime_ns == before) == (damage == "none")
