"""Ready-made multipart bodies of a corpus, for clients that only have to send them.

Takes: a corpus and how large a body may be.
Gives: files with one body each (PS3.18 10.5.1), of instances of one study, beside the corpus; and
`bodies.json`, written last, as with a corpus.
Bounds: memory is one copy buffer.
"""

import json
import os
import shutil
from collections.abc import Iterator
from typing import Final

from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import record_of

BOUNDARY: Final = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
CONTENT_TYPE: Final = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
_PART: Final = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
_END: Final = f"--{BOUNDARY}--".encode()


def groups(corpus: Corpus, max_bytes: int, max_instances: int) -> Iterator[range]:
    """The files of each body: of one study, `max_bytes` of files or one file, `max_instances`."""
    most = max(1, min(max_instances, max_bytes // corpus.size))
    start = 0
    for index in range(1, corpus.files + 1):
        whole = index == corpus.files or corpus.study_of(index) != corpus.study_of(start)
        if whole or index - start == most:
            yield range(start, index)
            start = index


def make_bodies(corpus: Corpus, files: str, *, max_bytes: int, max_instances: int) -> list[str]:
    """Makes the bodies of the corpus whose files lie in `files`, unless they are there.

    Returns:
        Their paths.

    Raises:
        OSError: they cannot be written.
    """
    directory = f"{files}-bodies-{max_bytes}-{max_instances}"
    record = os.path.join(directory, "bodies.json")
    wanted = list(groups(corpus, max_bytes, max_instances))
    paths = [os.path.join(directory, f"{number:06d}.body") for number in range(len(wanted))]
    sizes = [len(group) * (len(_PART) + corpus.size + 2) + len(_END) for group in wanted]
    whole = {**record_of(corpus), "body_bytes": sum(sizes)}
    if not _are_there(paths, sizes, record, whole):
        os.makedirs(directory, exist_ok=True)
        for group, path in zip(wanted, paths, strict=True):
            _write(corpus, files, group, path)
        with open(record, "w", encoding="ascii") as out:
            json.dump(whole, out)
    return paths


def _write(corpus: Corpus, files: str, group: range, path: str) -> None:
    with open(path, "wb") as out:
        for index in group:
            out.write(_PART)
            with open(os.path.join(files, corpus.path(index)), "rb") as file:
                shutil.copyfileobj(file, out)
            out.write(b"\r\n")
        out.write(_END)


def _are_there(
    paths: list[str], sizes: list[int], record: str, whole: dict[str, str | int]
) -> bool:
    try:
        with open(record, encoding="ascii") as text:
            if json.load(text) != whole:
                return False
        return all(os.stat(path).st_size == size for path, size in zip(paths, sizes, strict=True))
    except (FileNotFoundError, ValueError):
        return False
