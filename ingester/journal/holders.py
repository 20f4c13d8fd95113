"""Who holds the claims on instances, as committed: reading, beside the writer.

Has a connection of its own. A damaged page or value raises JournalError from every look-up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from ingester.dicomweb.outcome import SETTLED, Outcome
from ingester.items import Holder, InstanceKey
from ingester.journal.carrays import blobs
from ingester.journal.opening import connect_reader, reading
from ingester.journal.schema import OUTCOME_CODES, OUTCOMES, pack_uid

UNKNOWN_MTIME_NS: Final = -(2**63)  # no file has it: what the store was sent had another
TO_BE_MET: Final = (-1, UNKNOWN_MTIME_NS)  # the next: what its row says is looked at again

# Asked first, for all of a study: most instances have no holder, the joins below cost 15 µs, and
# every statement lets go of the interpreter.
_STUDY = "SELECT study_id FROM studies WHERE uid = ?"
_HELD = """
SELECT sop_instance_uid FROM instances WHERE study_id = ? AND sop_instance_uid IN carray(?)"""
_HOLDER = """
SELECT i.holder_file_id, r.path, d.rel_path, f.name, f.outcome, f.size, f.mtime_ns, f.sha256,
    i.sent_outcome, i.sent_size, i.sent_sha256,
    f.decided_run_id = (SELECT max(run_id) FROM runs),
    f.sop_instance_uid = i.sop_instance_uid AND s.study_id = i.study_id
FROM instances i
LEFT JOIN files f ON f.file_id = i.holder_file_id
LEFT JOIN series s ON s.series_id = f.series_id
LEFT JOIN directories d ON d.dir_id = f.dir_id
LEFT JOIN roots r ON r.root_id = d.root_id
WHERE i.study_id = ? AND i.sop_instance_uid = ?"""

COPIES_AT_MOST: Final = 64  # that stand for a file that is gone; one is enough
_COPIES = f"""
SELECT f.file_id, r.path, d.rel_path, f.name, f.size, f.mtime_ns, f.sha256
FROM files f JOIN directories d ON d.dir_id = f.dir_id JOIN roots r ON r.root_id = d.root_id
WHERE f.series_id IN (SELECT series_id FROM series WHERE study_id = ?) AND f.sop_instance_uid = ?
    AND f.outcome = {OUTCOME_CODES[Outcome.DUPLICATE]} AND f.file_id <> ?
LIMIT {COPIES_AT_MOST}"""  # noqa: S608 - constants


class Holders:
    """Finds who holds the claims on instances. For any thread."""

    def __init__(self, path: str, settled: Collection[Outcome] = SETTLED) -> None:
        """``settled``: outcomes of files that are not looked at again as they are."""
        self._path = path
        self._settled = settled
        self._connection = connect_reader(path)
        self._lock = threading.Lock()

    def find(self, keys: Sequence[InstanceKey]) -> list[Holder | None]:
        """The holder of each key, None where nobody holds it."""
        execute = self._connection.execute
        of_study: dict[str, list[int]] = {}
        for index, (study, _) in enumerate(keys):
            of_study.setdefault(study, []).append(index)
        found: list[Holder | None] = [None] * len(keys)
        with self._lock, reading(self._path):
            execute("BEGIN")  # one look for all of them, and one lock
            try:
                for uid, indexes in of_study.items():
                    study_id = execute(_STUDY, (pack_uid(uid),)).get
                    if study_id is None:
                        continue
                    packed = {index: pack_uid(keys[index].sop_instance_uid) for index in indexes}
                    held = self._held(study_id, list(packed.values()))
                    for index, sop_instance_uid in packed.items() if held else ():
                        if sop_instance_uid in held:
                            found[index] = self._holder(study_id, sop_instance_uid)
            finally:
                execute("COMMIT")
        return found

    def _held(self, study_id: int, packed: Sequence[bytes]) -> set[bytes]:
        rows = self._connection.execute(_HELD, (study_id, blobs(packed)))
        return {uid for (uid,) in rows}

    def _holder(self, study_id: int, sop_instance_uid: bytes) -> Holder:
        row: Any = self._connection.execute(_HOLDER, (study_id, sop_instance_uid)).fetchone()
        (
            file_id,
            root,
            rel_path,
            name,
            outcome,
            size,
            mtime_ns,
            sha256,
            *sent,
            decided_now,
            same_uids,
        ) = row
        now = bool(decided_now)
        path = b"" if root is None else os.path.join(root, rel_path, name)
        if sent[0] is None:
            return Holder(file_id, path, OUTCOMES[outcome], size, mtime_ns, sha256, True, now)
        same_bytes = sent[1] == size and sent[2] is not None and sent[2] == sha256
        current = bool(same_uids) and same_bytes
        overtaken = bool(same_uids) and not same_bytes and OUTCOMES[outcome] is Outcome.IN_DOUBT
        row_is = None
        if name is not None and not current:
            # As another instance it is known, whatever becomes of that one.
            known = OUTCOMES[outcome] in self._settled or same_uids == 0
            row_is = (size, mtime_ns) if known else TO_BE_MET
        mtime_ns = mtime_ns if current else UNKNOWN_MTIME_NS
        outcome = OUTCOMES[sent[0]]
        return Holder(
            file_id, path, outcome, sent[1], mtime_ns, sent[2], current, now, True, overtaken,
            row_is,
        )  # fmt: skip

    def copies(self, key: InstanceKey, but: int) -> list[Holder]:
        """Other files that were found to be what the store has of an instance."""
        with self._lock, reading(self._path):
            study_id = self._connection.execute(_STUDY, (pack_uid(key.study_instance_uid),)).get
            found: list[Any] = self._connection.execute(
                _COPIES, (study_id, pack_uid(key.sop_instance_uid), but)
            ).fetchall()
        return [
            Holder(file_id, os.path.join(*path), Outcome.DUPLICATE, size, mtime_ns, sha256, True)
            for file_id, *path, size, mtime_ns, sha256 in found
        ]

    def close(self) -> None:
        """Idempotent."""
        with self._lock:
            self._connection.close()
