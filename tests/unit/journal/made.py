"""What the tests of the journal share: an archive that needs no files, and a recount."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from ingester.dicom.values import Header
from ingester.dicomweb.outcome import Evidence, Outcome
from ingester.items import FileRef, Result, Root
from ingester.journal import Journal, KnownFiles, RunFigures, RunInfo
from ingester.journal.changes import INCOMPLETE_CODES
from ingester.journal.schema import HOLDS_MAX, IN_THE_STORE_MAX, OUTCOME_CODES, SEEN_RUN_ID

TARGET = "https://store.example/datastore/1"
MTIME_NS = 1_700_000_000_123_456_789


def header(study: str = "1.2", series: str = "", sop: str = "", *, year: str = "2020") -> Header:
    return Header(
        study_instance_uid=study,
        series_instance_uid=series or study + ".1",
        sop_instance_uid=sop or study + ".1.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        media_storage_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        media_storage_sop_instance_uid=sop,
        patient_id="P",
        issuer_of_patient_id="",
        study_date=year + "0102",
        accession_number="A",
        modality="CT",
        data_set_offset=300,
    )


def registered(journal: Journal, path: bytes = b"/archive") -> Root:
    """The root that all files made here lie in."""
    (root_id,) = journal.register_roots([(b"archive", path)])
    return Root(root_id, b"archive", path)


class Session:
    """One run: an open journal, its root, and what the walk would ask."""

    def __init__(self, path: str, retry: frozenset[Outcome] = frozenset()) -> None:
        self.committed: list[Result] = []
        self.journal = Journal.open(path, target=TARGET, on_commit=self.committed.extend)
        self.run_id = self.journal.start_run(RunInfo(name="night"))
        self.root = registered(self.journal)
        self.known: KnownFiles = self.journal.known_files(retry)

    def refs(
        self,
        names: Sequence[bytes],
        *,
        rel_path: bytes = b"d",
        size: int = 100,
        mtime_ns: int = MTIME_NS,
    ) -> list[FileRef]:
        directory = self.known.directory(self.root, rel_path)
        known = self.known.files(directory, names)
        return [
            FileRef(known[name].file_id, directory, name, size, mtime_ns, known[name].previous)
            for name in names
        ]

    def ref(self, name: bytes, *, rel_path: bytes = b"d", size: int = 100) -> FileRef:
        return self.refs([name], rel_path=rel_path, size=size)[0]

    def end(self, exit_code: int = 0) -> None:
        self.journal.finish_run(self.run_id, exit_code, RunFigures(requests=1, elapsed_s=1.5))
        self.journal.close()


def stored(ref: FileRef, sop: str = "1.2.3", *, study: str = "1.2", digest: bytes = b"a") -> Result:
    return Result(
        ref,
        Outcome.STORED,
        evidence=Evidence.MANIFEST,
        header=header(study, sop=sop),
        sha256=digest * 32,
        http_status=200,
        attempts=1,
    )


def recount(path: str) -> None:
    """Fail unless every total, counter and claim is what the files say."""
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    last = db.execute("SELECT coalesce(max(run_id), 0) FROM runs").get
    kept = "SELECT outcome, pixel_warning, files, bytes FROM totals WHERE run_id = ? AND files ORDER BY 1, 2"
    counted = "SELECT outcome, pixel_warning, count(*), sum(size) FROM files f JOIN directories d USING (dir_id) WHERE {} GROUP BY 1, 2 ORDER BY 1, 2"
    assert db.execute(kept, (0,)).fetchall() == db.execute(counted.format("1")).fetchall()
    assert (
        db.execute(kept, (last,)).fetchall()
        == db.execute(counted.format(f"{SEEN_RUN_ID} = ?"), (last,)).fetchall()
    )
    incomplete = ", ".join(map(str, INCOMPLETE_CODES))
    assert (
        db.execute(
            "SELECT series_id, seen, stored, exceptions FROM series WHERE seen ORDER BY 1"
        ).fetchall()
        == db.execute(
            f"""SELECT series_id, count(*), sum(outcome <= {IN_THE_STORE_MAX}), sum(outcome IN ({incomplete}))
            FROM files WHERE series_id IS NOT NULL GROUP BY 1 ORDER BY 1""",  # noqa: S608
        ).fetchall()
    )
    assert (
        db.execute(
            "SELECT count(*) FROM details WHERE file_id NOT IN (SELECT file_id FROM files)"
        ).get
        == 0
    )
    assert (
        db.execute(
            "SELECT count(*) FROM files WHERE dir_id NOT IN (SELECT dir_id FROM directories)"
        ).get
        == 0
    )
    following_nothing = db.execute(
        f"""SELECT count(*) FROM instances i LEFT JOIN files f ON f.file_id = i.holder_file_id
        LEFT JOIN series s ON s.series_id = f.series_id
        WHERE i.sent_outcome IS NULL AND NOT coalesce(f.outcome <= {HOLDS_MAX}
            AND s.study_id = i.study_id AND f.sop_instance_uid = i.sop_instance_uid, 0)""",  # noqa: S608
    ).get
    assert following_nothing == 0
    unclaimed = db.execute(
        f"""SELECT count(*) FROM files f JOIN series s ON s.series_id = f.series_id
        WHERE f.outcome <= {IN_THE_STORE_MAX} AND NOT EXISTS (SELECT 1 FROM instances i
            WHERE i.study_id = s.study_id AND i.sop_instance_uid = f.sop_instance_uid)""",  # noqa: S608
    ).get
    assert unclaimed == 0
    met = "SELECT count(*) FROM studies WHERE seen_run_id = (SELECT max(run_id) FROM runs)"
    if last:
        assert (
            db.execute("SELECT studies FROM runs WHERE run_id = ?", (last,)).get
            == db.execute(met).get
        )
    assert db.execute("PRAGMA integrity_check").get == "ok"
    db.close()


def outcome_of(path: str, file_id: int) -> Outcome | None:
    db = apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY)
    code = db.execute("SELECT outcome FROM files WHERE file_id = ?", (file_id,)).get
    db.close()
    return next((outcome for outcome, number in OUTCOME_CODES.items() if number == code), None)
