"""Writes the files of a corpus, unless they are there.

Takes: a `Corpus`.
Gives: a directory `files/` that holds nothing else, and beside it `corpus.json`, which is written
last: a corpus without it, or with files missing, is written again over itself.
Bounds: memory is a few MiB, whatever the size of a file.
"""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Final

from ingester.bench.corpora import Corpus
from ingester.bench.part10 import (
    ENCAPSULATED_END,
    ENCAPSULATED_START,
    NUMBER_PLACE,
    geometry,
    header,
    item,
    native_start,
    pixels,
    pool_of,
    trailing_padding,
    uid_place,
)

SYNTHETIC_NAME: Final = "INGESTER^BENCH"
SYNTHETIC_ID: Final = "INGESTER-BENCH"
FORMAT: Final = 1  # raised when the same parameters give other bytes


class Writer:
    """Writes the files of a corpus, best in the order of their numbers.

    Args:
        corpus: what they are.
        holes: leave pixels out, so that a file has its size and takes no room on the disk.
    """

    def __init__(self, corpus: Corpus, *, holes: bool = False) -> None:
        self._corpus = corpus
        self._pool = None if holes else pool_of(corpus.seed)
        self._uid_place = uid_place(len(corpus.sop_instance_uid(0)))
        self._header, self._header_of = b"", -1
        room = corpus.size - len(self._header_for(0, 0, 0))
        if corpus.frames > 1:
            self._rows = self._columns = 0
            room -= len(ENCAPSULATED_START) + len(ENCAPSULATED_END) + len(item(0)) * corpus.frames
            frame = room // corpus.frames & ~1
            last = room - frame * (corpus.frames - 1)
            self._frames = [frame] * (corpus.frames - 1) + [last]
            self._tail = ENCAPSULATED_END
        else:
            self._rows, self._columns = geometry(room)
            self._frames = [2 * self._rows * self._columns]
            self._tail = trailing_padding(room - 12 - self._frames[0])

    def write(self, index: int, path: str) -> None:
        """Writes file `index`.

        Raises:
            OSError: the file cannot be written.
        """
        with open(path, "wb", buffering=0) as out:
            for piece in self._pieces(index):
                if isinstance(piece, int):
                    out.seek(piece, os.SEEK_CUR)
                elif out.write(piece) != len(piece):
                    raise OSError("a corpus file was written short: is the disk full?")
            if self._pool is None:
                out.truncate()  # a hole at the end counts

    def _pieces(self, index: int) -> Iterator[memoryview | bytes | int]:
        """The content of a file; a number is a hole."""
        study = self._corpus.study_of(index)
        if study != self._header_of:
            self._header = self._header_for(study, self._rows, self._columns)
            self._header_of = study
        own = self._header.replace(self._uid_place, self._corpus.sop_instance_uid(index).encode())
        own = own.replace(NUMBER_PLACE, b"%08d" % (index + 1))
        encapsulated = len(self._frames) > 1
        yield own + (ENCAPSULATED_START if encapsulated else native_start(self._frames[0]))
        for number, length in enumerate(self._frames):
            if encapsulated:
                yield item(length)
            if self._pool is None:
                yield length
            else:
                yield from pixels(self._pool, index * len(self._frames) + number, length)
        yield self._tail

    def _header_for(self, study: int, rows: int, columns: int) -> bytes:
        corpus = self._corpus
        label = f"{corpus.seed:06d}-{study:07d}".encode()
        name, number = b"Benchmark^" + label, b"P" + label
        if corpus.uid_root:
            name, number = SYNTHETIC_NAME.encode(), f"{SYNTHETIC_ID}-".encode() + label
        return header(
            label,
            name,
            number,
            corpus.study_instance_uid(study).encode(),
            corpus.series_instance_uid(study).encode(),
            self._uid_place,
            rows,
            columns,
            corpus.frames,
        )


def write_files(
    corpus: Corpus, directory: str, before_each: Callable[[], None] = lambda: None
) -> None:
    """Writes all files of `corpus` below `directory`; over what is there.

    Raises:
        OSError: they cannot be written.
    """
    writer = Writer(corpus)
    made = set()
    for index, path in enumerate(corpus.paths(directory)):
        before_each()
        parent = os.path.dirname(path)
        if parent not in made:
            made.add(parent)
            os.makedirs(parent, exist_ok=True)
        writer.write(index, path)


def _is_complete(corpus: Corpus, root: str) -> bool:
    """Whether the corpus is there, by its record and by each file's size."""
    try:
        with open(os.path.join(root, "corpus.json"), encoding="ascii") as record:
            if json.load(record) != record_of(corpus):
                return False
        paths = corpus.paths(os.path.join(root, "files"))
        return all(os.stat(path).st_size == corpus.size for path in paths)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def record_of(corpus: Corpus) -> dict[str, str | int]:
    """What must be the same for the files on the disk to be this corpus."""
    record = {**asdict(corpus), "format": FORMAT}
    if not corpus.uid_root:
        del record["uid_root"]  # kept corpora know of none
    return record


def make(corpus: Corpus, work: str) -> str:
    """Makes `corpus` under the directory `work`, unless it is there complete.

    Returns:
        The directory that holds nothing but the corpus's files.

    Raises:
        OSError: the files cannot be written.
    """
    root = os.path.join(work, corpus.directory)
    files = os.path.join(root, "files")
    if not _is_complete(corpus, root):
        os.makedirs(files, exist_ok=True)
        write_files(corpus, files)
        with open(os.path.join(root, "corpus.json"), "w", encoding="ascii") as record:
            json.dump(record_of(corpus), record)
    return files
