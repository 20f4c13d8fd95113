"""Duplicates of what a file was that has changed since and was sent: are they that still?

The store may have the later version alone, and then nobody has sent what the copy is. So it is
``failed``, which the next run looks at again; and the run that sent the later version, which may
have met the copy already, does not end as if all were stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ingester.dicomweb.outcome import Outcome
from ingester.items import Directory, FileRef, Result, Root
from ingester.journal.changes import Changes, Overtaken, Row
from ingester.journal.schema import OUTCOME_CODES, SEEN_RUN_ID

if TYPE_CHECKING:
    import apsw

CODE: Final = "copy_of_an_earlier_version"
WORDS: Final = "the file that it is a copy of has changed and was sent; the next run compares them"

_COPIES = f"""
SELECT f.file_id, f.size, f.outcome, f.pixel_warning, {SEEN_RUN_ID}, f.series_id, NULL,
    f.sop_instance_uid, f.sha256, f.mtime_ns,
    f.name, d.dir_id, d.rel_path, r.root_id, r.name, r.path
FROM files f JOIN directories d ON d.dir_id = f.dir_id JOIN roots r ON r.root_id = d.root_id
WHERE f.series_id IN (SELECT series_id FROM series WHERE study_id = ?) AND f.sop_instance_uid = ?
    AND f.outcome = {OUTCOME_CODES[Outcome.DUPLICATE]}"""  # noqa: S608 - constants
_TAKE_UP = f"UPDATE files SET outcome = {OUTCOME_CODES[Outcome.FAILED]} WHERE file_id = ?"  # noqa: S608 - the same
_SAY_WHY = "UPDATE details SET reason_code = ?, reason = ? WHERE file_id = ?"


def take_up_copies(
    connection: apsw.Connection,
    run_id: int,
    overtaken: Sequence[tuple[Overtaken, int]],
    positions: Mapping[int, int],
) -> list[Result]:
    """What becomes of the copies of what the store had. In the transaction that is open.

    ``positions``, by file_id, among the results that are recorded now: a copy that comes behind the
    one that changed was compared with what that is by now.
    """
    changes, taken = Changes(run_id), dict[int, Result]()
    for (*key, other_file_id), position in overtaken:
        found: list[Any] = connection.execute(_COPIES, key).fetchall()
        for *columns, name, dir_id, rel_path, root_id, root, path in found:
            copy = Row._make(columns)
            if positions.get(copy.file_id, -1) > position or copy.file_id in taken:
                continue
            changes.count(copy, -1)
            changes.count(copy._replace(outcome=OUTCOME_CODES[Outcome.FAILED]), 1)
            directory = Directory(dir_id, Root(root_id, root, path), rel_path)
            file = FileRef(copy.file_id, directory, name, copy.size, copy.mtime_ns, None)
            taken[copy.file_id] = Result(
                file, Outcome.FAILED, CODE, WORDS, sha256=copy.sha256, other_file_id=other_file_id
            )
    connection.executemany(_TAKE_UP, [(file_id,) for file_id in taken])
    connection.executemany(_SAY_WHY, [(CODE, WORDS, file_id) for file_id in taken])
    changes.write(connection)
    return list(taken.values())
