from __future__ import annotations

import os
import tempfile

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingester.dicomweb.outcome import HOLDS_ITS_CLAIM, Evidence, Outcome
from ingester.items import FileRef, Holder, InstanceKey, Result
from ingester.journal import Count, iter_files, read_all_runs, read_status, read_study
from ingester.journal.lookup import MANY_NAMES
from ingester.journal.schema import OUTCOME_CODES, pack_uid, unpack_uid
from tests.unit.journal.made import (
    MTIME_NS,
    Session,
    header,
    outcome_of,
    recount,
    registered,
    stored,
)

KEY = InstanceKey("1.2", "1.2.3")
REFUSES_THESE_BYTES = {Outcome.REJECTED, Outcome.DUPLICATE, Outcome.CONFLICT}
RELEASED = [
    Outcome.INVALID,
    Outcome.REJECTED,
    Outcome.TOO_LARGE,
    Outcome.UNREADABLE,
    Outcome.FAILED,
]


def holder(path: str, key: InstanceKey = KEY) -> Holder | None:
    session = Session(path)
    found = session.journal.find_holders([key])[0]
    session.end()
    return found


class TestAResult:
    def test_is_kept_with_everything_it_says(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"caf\xe9\n.dcm", rel_path=b"sub/\xff")
        other = session.ref(b"other")
        session.journal.record(stored(other))
        session.journal.record(
            Result(
                ref,
                Outcome.CONFLICT,
                reason_code="other_data_set",
                reason="r\udcffeason",
                header=header("1.2", "1.2.9", "1.2.3"),
                size=77,
                sha256=b"x" * 32,
                other_file_id=other.file_id,
                findings=("late_uid", "meta_differs"),
                warning_code=0xB007,
                failure_code=0xA700,
                http_status=409,
                attempts=3,
                request_id="id-1",
            ),
        )
        session.end()
        row, _ = iter_files(path)
        assert row.path == b"/archive/sub/\xff/caf\xe9\n.dcm"
        assert row.rel_path == b"sub/\xff/caf\xe9\n.dcm"
        assert (row.file_id, row.root, row.size, row.mtime_ns) == (1, b"archive", 77, MTIME_NS)
        assert (row.outcome, row.evidence, row.sha256) == (Outcome.CONFLICT, None, b"x" * 32)
        assert (row.study_instance_uid, row.series_instance_uid) == ("1.2", "1.2.9")
        assert (row.sop_instance_uid, row.other_file_id) == ("1.2.3", other.file_id)
        assert (row.reason_code, row.reason) == ("other_data_set", "r?eason")
        assert row.findings == ("late_uid", "meta_differs")
        assert (row.warning_code, row.failure_code, row.http_status) == (0xB007, 0xA700, 409)
        assert (row.attempts, row.request_id) == (3, "id-1")

    def test_with_nothing_special_has_no_details(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        (row,) = iter_files(path)
        assert (row.attempts, row.evidence) == (None, Evidence.MANIFEST)

    def test_with_numbers_beyond_64_bits_sinks_nobody(self, path: str) -> None:
        session = Session(path)
        (ref,) = session.refs([b"a"], mtime_ns=2**70)
        session.journal.record(Result(ref, Outcome.REJECTED, failure_code=10**30))
        session.end()
        assert [row.outcome for row in iter_files(path)] == [Outcome.REJECTED]

    def test_of_a_header_without_a_study_counts_in_no_study(self, path: str) -> None:
        session = Session(path)
        incomplete = header("1.2")._replace(study_instance_uid="")
        session.journal.record(Result(session.ref(b"a"), Outcome.INVALID, header=incomplete))
        session.end()
        recount(path)
        assert [row.sop_instance_uid for row in iter_files(path)] == ["1.2.1.1"]

    def test_can_be_found_by_outcome(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"%04d" % number for number in range(2_500)])
        session.journal.record_all(
            [Result(ref, Outcome.FAILED if ref.file_id % 2 else Outcome.NOT_DICOM) for ref in refs],
        )
        session.end()
        failed = [row.file_id for row in iter_files(path, {Outcome.FAILED})]
        assert failed == list(range(1, 2_501, 2))


class TestEveryOutcome:
    def test_has_a_code_of_its_own(self) -> None:
        assert sorted(OUTCOME_CODES.values()) == list(range(1, len(Outcome) + 1))
        assert set(OUTCOME_CODES) == set(Outcome)

    @given(st.text(max_size=70) | st.text("0123456789.", max_size=70))
    def test_uids_come_back_as_they_were(self, uid: str) -> None:
        assert unpack_uid(pack_uid(uid)) == uid

    def test_a_uid_takes_half_of_its_length(self) -> None:
        assert pack_uid("1.2.840.1").hex() == "1a2a840a1f"


class TestTheNextRun:
    def test_pending_then_stored_is_one_file(self, path: str) -> None:
        session = Session(path)
        session.journal.record(Result(session.ref(b"a"), Outcome.PENDING))
        session.end(exit_code=130)
        session = Session(path)
        ref = session.ref(b"a")
        assert ref.previous is not None
        assert (ref.previous.outcome, ref.previous.settled) == (Outcome.PENDING, False)
        session.journal.record(stored(ref))
        session.end()
        recount(path)
        status = read_status(path)
        assert status.totals.outcomes == {Outcome.STORED: Count(1, 100)}
        assert status.run_totals == status.totals

    def test_replaces_details_and_lets_them_go(self, path: str) -> None:
        for code in ("timeout", "refused", ""):
            session = Session(path)
            session.journal.record(Result(session.ref(b"a"), Outcome.FAILED, reason_code=code))
            session.end()
            assert [row.reason_code for row in iter_files(path)] == [code]
        recount(path)

    def test_counts_unchanged_files_as_what_they_were(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"a", b"b", b"c"])
        session.journal.record_all(
            [
                stored(refs[0]),
                stored(refs[1], "1.2.4")._replace(
                    outcome=Outcome.STORED_WITH_WARNING,
                    warning_code=0xB110,
                ),
                stored(refs[2], "1.5.4", study="1.5"),
            ],
        )
        session.end()
        assert read_status(path).run_totals.pixel_warnings == 1
        session = Session(path)
        session.journal.seen(session.refs([b"a", b"b"]))
        session.end()
        recount(path)
        status = read_status(path)
        assert status.run_totals.outcomes == {
            Outcome.STORED: Count(1, 100),
            Outcome.STORED_WITH_WARNING: Count(1, 100),
        }
        assert status.run_totals.pixel_warnings == 1
        assert status.totals.files == 3
        assert session.committed == []
        assert session.journal.run_totals == status.run_totals
        assert [run.studies for run in read_all_runs(path)] == [1, 2]
        assert [row.seen_run_id for row in iter_files(path)] == [2, 2, 1]

    def test_keeps_what_was_decided_of_a_file_found_unchanged(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a"))._replace(sha256=None, mtime_trusted=False))
        session.end()
        session = Session(path)
        ref = session.ref(b"a")
        unchanged = Result(ref, Outcome.STORED, mtime_ns=5, sha256=b"n" * 32, unchanged=True)
        session.journal.record(unchanged)
        session.end()
        recount(path)
        (row,) = iter_files(path)
        assert (row.evidence, row.sha256, row.mtime_ns) == (Evidence.MANIFEST, b"n" * 32, 5)
        assert (row.seen_run_id, row.decided_run_id, row.sop_instance_uid) == (2, 1, "1.2.3")

    def test_looks_again_at_a_file_whose_row_is_not_there(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"a", b"b"])
        session.journal.seen(refs[:1])
        session.journal.record(stored(refs[1])._replace(unchanged=True))
        session.end()
        recount(path)
        rows = list(iter_files(path))
        assert {row.outcome for row in rows} == {Outcome.PENDING}
        assert {row.reason_code for row in rows} == {"journal_row_missing"}
        assert {row.evidence for row in rows} == {None}

    def test_knows_a_file_by_its_bytes_where_the_row_that_it_had_is_not_there(
        self, path: str
    ) -> None:
        session = Session(path)
        (ref,) = session.refs([b"a"])
        session.journal.record(stored(ref)._replace(moved_from=99))
        session.end()
        recount(path)
        (row,) = iter_files(path)
        assert (row.file_id, row.outcome, row.evidence) == (1, Outcome.STORED, Evidence.BYTES)
        assert row.reason_code == "same_bytes"

    def test_knows_each_of_very_many_names(self, path: str) -> None:
        """They are looked up in another way than few."""
        session = Session(path)
        names = [b"%04d" % number for number in range(2 * MANY_NAMES)]
        refs = session.refs(names[::2])
        before = {ref.name: ref.file_id for ref in refs}
        session.journal.record_all([Result(ref, Outcome.NOT_DICOM) for ref in refs])
        session.end()
        session = Session(path)
        directory = session.known.directory(session.root, b"d")
        after = session.known.files(directory, names)
        assert {name: after[name].file_id for name in before} == before
        assert all((after[name].previous is None) is (name not in before) for name in names)
        session.end()

    def test_gives_out_numbers_after_the_last_one(self, path: str) -> None:
        session = Session(path)
        session.journal.record_all([stored(ref) for ref in session.refs([b"a", b"b"])])
        session.end()
        session = Session(path)
        assert [ref.file_id for ref in session.refs([b"a", b"0", b"b"])] == [1, 3, 2]
        assert session.known.directory(session.root, b"d").dir_id == 1
        assert session.known.directory(session.root, b"e").dir_id == 2
        assert session.known.directory(session.root, b"e").dir_id == 2
        session.end()

    def test_sends_settled_outcomes_again_only_when_asked(self, path: str) -> None:
        session = Session(path)
        session.journal.record(Result(session.ref(b"a"), Outcome.REJECTED))
        session.end()
        for retry in (frozenset({Outcome.REJECTED}), frozenset({Outcome.HELD})):
            session = Session(path, retry)
            previous = session.ref(b"a").previous
            session.end()
            assert previous is not None
            assert previous.settled is (Outcome.REJECTED not in retry)

    def test_knows_whether_a_root_had_files(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        session = Session(path)
        assert session.known.has_files(b"archive", b"/anywhere")
        assert not session.known.has_files(b"other", session.root.path)
        session.end()

    def test_knows_whether_there_were_files_at_a_path_or_below_it(self, path: str) -> None:
        session = Session(path)
        directory = session.known.directory(session.root, b"deep/er")
        known = session.known.files(directory, [b"a"])[b"a"]
        session.journal.record(stored(FileRef(known.file_id, directory, b"a", 1, 1, None)))
        session.end()
        session = Session(path)
        root = session.root.path
        for tail in (b"", b"/deep", b"/deep/er", b"/deep/er/a"):
            assert session.known.has_files(None, root + tail), tail
        assert session.known.has_files(None, os.path.dirname(root))
        assert session.known.has_files(None, b"/")
        for other in (root + b"er", root + b"/dee", root + b"/deep/er/b", root + b"/deep/era"):
            assert not session.known.has_files(None, other), other
        session.end()

    def test_may_find_a_root_at_another_place(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        moved = registered(session.journal, b"/elsewhere")
        assert moved.root_id == session.root.root_id
        session.end()
        assert [row.path for row in iter_files(path)] == [b"/elsewhere/d/a"]


class TestAClaim:
    def test_names_the_file_that_holds_it_and_what_was_sent(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a", size=100)))
        session.end()
        found = holder(path)
        assert found == Holder(
            1, b"/archive/d/a", Outcome.STORED, 100, MTIME_NS, b"a" * 32, current=True
        )

    def test_is_of_one_study(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        assert holder(path, InstanceKey("1.9", "1.2.3")) is None

    @pytest.mark.parametrize("outcome", sorted(HOLDS_ITS_CLAIM))
    def test_is_held_by(self, path: str, outcome: Outcome) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a"))._replace(outcome=outcome))
        session.end()
        found = holder(path)
        assert found is not None
        assert found.outcome is outcome

    @pytest.mark.parametrize("outcome", RELEASED)
    @pytest.mark.parametrize("before", [Outcome.IN_DOUBT, Outcome.PENDING, None])
    def test_is_released_by(self, path: str, outcome: Outcome, before: Outcome | None) -> None:
        for end in (before, outcome):
            if end is not None:
                session = Session(path)
                session.journal.record(stored(session.ref(b"a"))._replace(outcome=end))
                session.end()
        found = holder(path)
        if before is Outcome.IN_DOUBT and outcome not in REFUSES_THESE_BYTES:
            assert found is not None
            assert found.outcome is Outcome.IN_DOUBT  # nobody has said that it is not stored
        else:
            assert found is None
        recount(path)

    def test_is_kept_for_bytes_in_doubt_when_others_are_refused(self, path: str) -> None:
        for outcome, digest in ((Outcome.IN_DOUBT, b"a"), (Outcome.REJECTED, b"b")):
            session = Session(path)
            result = stored(session.ref(b"a"), digest=digest)
            session.journal.record(result._replace(outcome=outcome))
            session.end()
        found = holder(path)
        assert found is not None
        assert (found.outcome, found.sha256) == (Outcome.IN_DOUBT, b"a" * 32)
        recount(path)

    def test_stays_with_the_store_when_the_file_has_another_instance_now(self, path: str) -> None:
        for sop, digest in (("1.2.3", b"a"), ("1.2.4", b"b")):
            session = Session(path)
            session.journal.record(stored(session.ref(b"a"), sop, digest=digest))
            session.end()
        found = holder(path)
        assert found is not None
        assert (found.current, found.sha256, found.outcome) == (False, b"a" * 32, Outcome.STORED)
        recount(path)

    def test_stays_with_the_store_when_the_changed_file_is_refused(self, path: str) -> None:
        for outcome, digest in ((Outcome.STORED, b"a"), (Outcome.REJECTED, b"b")):
            session = Session(path)
            result = stored(session.ref(b"a"), digest=digest)
            session.journal.record(result._replace(outcome=outcome))
            session.end()
        found = holder(path)
        assert found is not None
        assert (found.current, found.sha256, found.outcome) == (False, b"a" * 32, Outcome.STORED)

    def test_is_current_again_when_the_old_bytes_are_back(self, path: str) -> None:
        for outcome, digest in (
            (Outcome.STORED, b"a"),
            (Outcome.REJECTED, b"b"),
            (Outcome.PENDING, b"a"),
        ):
            session = Session(path)
            result = stored(session.ref(b"a"), digest=digest)
            session.journal.record(result._replace(outcome=outcome))
            session.end()
        found = holder(path)
        assert found is not None
        assert (found.current, found.outcome) == (True, Outcome.STORED)

    def test_is_not_taken_from_a_stored_file_by_a_pending_one(self, path: str) -> None:
        session = Session(path)
        a, b, c = session.refs([b"a", b"b", b"c"])
        session.journal.record_all(
            [
                stored(a)._replace(outcome=Outcome.PENDING),
                stored(b),
                stored(c)._replace(outcome=Outcome.IN_DOUBT),
            ],
        )
        session.end()
        found = holder(path)
        assert found is not None
        assert found.file_id == b.file_id


class TestAMovedFile:
    def test_takes_its_row_along(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        session = Session(path)
        session.journal.record(stored(session.ref(b"b", rel_path=b"new"))._replace(moved_from=1))
        session.end()
        recount(path)
        (row,) = iter_files(path)
        assert (row.file_id, row.path, row.decided_run_id) == (1, b"/archive/new/b", 1)
        assert read_status(path).run_totals.outcomes == {Outcome.STORED: Count(1, 100)}
        found = holder(path)
        assert found is not None
        assert (found.path, found.current) == (b"/archive/new/b", True)

    def test_replaces_the_row_that_its_new_path_had(self, path: str) -> None:
        session = Session(path)
        refs = session.refs([b"a", b"b"])
        session.journal.record_all([stored(refs[0]), stored(refs[1], "1.2.4", digest=b"b")])
        session.end()
        session = Session(path)
        session.journal.record(stored(session.ref(b"b"))._replace(moved_from=1))
        session.end()
        recount(path)
        assert [(row.file_id, row.path) for row in iter_files(path)] == [(1, b"/archive/d/b")]
        left = holder(path, InstanceKey("1.2", "1.2.4"))
        assert left is not None
        assert (left.current, left.sha256) == (False, b"b" * 32)

    def test_that_was_met_in_this_run_has_not_moved_it_has_a_duplicate(self, path: str) -> None:
        session = Session(path)
        session.journal.record(stored(session.ref(b"a")))
        session.end()
        session = Session(path)
        for name in (b"b", b"c"):
            moved = stored(session.ref(name))._replace(moved_from=1, reason_code="moved")
            session.journal.record(moved)
        session.end()
        recount(path)
        assert [(row.path, row.outcome, row.other_file_id) for row in iter_files(path)] == [
            (b"/archive/d/b", Outcome.STORED, None),
            (b"/archive/d/c", Outcome.DUPLICATE, 1),
        ]
        assert [row.reason_code for row in iter_files(path)][1] == "same_data_set"


class TestAStudy:
    def test_is_answered_with_its_series(self, path: str) -> None:
        session = Session(path)
        a, b, c = session.refs([b"a", b"b", b"c"])
        session.journal.record_all(
            [
                stored(a),
                Result(b, Outcome.FAILED, header=header("1.2", "1.2.8", "1.2.8.1")),
                Result(c, Outcome.DUPLICATE, header=header("1.2", sop="1.2.3"), other_file_id=1),
            ],
        )
        session.end()
        study = read_study(path, "1.2")
        assert study is not None
        assert (study.year, study.seen, study.stored, study.exceptions) == (2020, 3, 1, 1)
        assert [(s.series_instance_uid, s.modality, s.seen) for s in study.series] == [
            ("1.2.1", "CT", 2),
            ("1.2.8", "CT", 1),
        ]
        assert read_study(path, "1.3") is None


NAMES = [b"a", b"b", b"c", b"d"]
SOPS = ["1.2.3", "1.2.4", ""]
STEP = st.tuples(
    st.sampled_from(NAMES),
    st.sampled_from(["record", "record", "record", "seen", "unchanged", "moved"]),
    st.sampled_from(sorted(Outcome)),
    st.sampled_from(SOPS),
    st.integers(1, 3),  # size
    st.sampled_from([None, 0xB110, 0xB007]),
    st.integers(1, 4),  # where it moves from
)


class TestAnySequenceOfRuns:
    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.lists(STEP, max_size=8), min_size=1, max_size=4))
    def test_leaves_totals_counters_and_claims_that_are_a_recount(
        self,
        runs: list[list[tuple[bytes, str, Outcome, str, int, int | None, int]]],
    ) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = directory + "/j.db"
            for steps in runs:
                session = Session(path)
                for name, how, outcome, sop, size, warning, moved_from in steps:
                    ref = session.ref(name, size=size)
                    result = Result(
                        ref,
                        outcome,
                        header=header("1.2", sop=sop) if sop else None,
                        sha256=bytes([size]) * 32,
                        warning_code=warning,
                    )
                    if how == "seen":
                        session.journal.seen([ref])
                    elif how == "unchanged":
                        session.journal.record(result._replace(unchanged=True))
                    elif how == "moved":
                        session.journal.record(result._replace(moved_from=moved_from))
                    else:
                        session.journal.record(result)
                    # The walk looks up what is committed: a path is met once in a run.
                    session.journal._writer.call(lambda: None)
                session.end()
                recount(path)


class TestANameListedTwice:
    def test_is_one_file(self, path: str) -> None:
        session = Session(path)
        first, again = session.ref(b"a"), session.ref(b"a")
        assert first.file_id != again.file_id
        others = session.refs([b"b", b"c"])
        session.journal.record_all([stored(first), stored(others[0], "1.2.4")])
        session.journal.record_all(
            [
                stored(others[1], "1.7.4", study="1.7"),
                stored(again)._replace(outcome=Outcome.DUPLICATE),
            ]
        )
        session.end()
        recount(path)
        assert [(row.path, row.outcome) for row in iter_files(path)] == [
            (b"/archive/d/a", Outcome.STORED),
            (b"/archive/d/b", Outcome.STORED),
            (b"/archive/d/c", Outcome.STORED),
        ]


class TestOneGroup:
    def test_may_speak_of_a_file_twice(self, path: str) -> None:
        session = Session(path)
        ref = session.ref(b"a")
        session.journal.record_all(
            [stored(ref)._replace(outcome=Outcome.PENDING), stored(ref), stored(session.ref(b"b"))],
        )
        session.end()
        recount(path)
        assert outcome_of(path, 1) is Outcome.STORED

    def test_is_written_with_the_row_number_as_key(self, path: str) -> None:
        Session(path).end()
        db = apsw.Connection(path)
        plan = db.execute(
            "EXPLAIN QUERY PLAN SELECT 1 FROM files WHERE file_id IN carray(?)", (None,)
        )
        assert "USING INTEGER PRIMARY KEY" in str(plan.fetchall())
        db.close()
