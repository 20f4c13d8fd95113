"""One instance, several files: one is sent, the others are compared with it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Evidence, Outcome
from tests.pipeline.job import Job, age, uid_of
from tests.support.faults import Faults
from tests.support.process import run_ingester, start_ingester
from tests.support.scripted import (
    Answer,
    Choose,
    CloseAfter,
    FindStored,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
)

_IMPLEMENTATION_CLASS_UID = b"\x02\x00\x12\x00UI"


def copy_with_other_meta(job: Job, source: str, target: str) -> None:
    """Copies a file with another Implementation Class UID (0002,0012): as programs do."""
    data = bytearray((job.archive / source).read_bytes())
    value = data.index(_IMPLEMENTATION_CLASS_UID) + 8
    data[value + 6 : value + 8] = b"42" if data[value + 6 : value + 8] != b"42" else b"24"
    path = job.archive / target
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    age(path)


def copy(job: Job, source: str, target: str) -> None:
    path = job.archive / target
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(job.archive / source, path)


MEANWHILE = ("failed", "rejected", "no DICOM", "another instance", "a link")


def become(job: Job, server: ScriptedServer, path: Path, what: str) -> None:
    """A file changes so that the next run sends nothing of its instance, or is not answered."""
    name = path.name
    if what == "no DICOM":
        path.write_bytes(b"no DICOM" * 99)
    elif what == "another instance":
        job.write(name, sop="another")
    elif what == "a link":
        path.unlink()
        path.symlink_to("nowhere")
        return
    else:
        job.write(name, seed=1)
        reason = 0xA700 if what == "failed" else 0xC122
        server.default = StoreAll(failures={uid_of(name): reason})
    age(path, 60)


class TestTwoFilesOfOneInstance:
    @pytest.mark.parametrize("limits", [{}, {"max_batch_instances": 1}, {"inline_limit": "1"}])
    def test_of_one_data_set_one_is_sent(
        self, job: Job, server: ScriptedServer, limits: dict[str, object]
    ) -> None:
        job.write("a.dcm")
        copy_with_other_meta(job, "a.dcm", "b.dcm")
        ran = job.run(limits)
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "duplicate"]
        assert ran.rows["b.dcm"].other_file_id == ran.rows["a.dcm"].file_id
        assert ran.exit_code == 0
        assert len(server.posts) == 1

    @pytest.mark.parametrize("limits", [{}, {"max_batch_instances": 1}, {"inline_limit": "1"}])
    def test_of_two_data_sets_the_second_is_a_conflict(
        self, job: Job, limits: dict[str, object]
    ) -> None:
        job.write("a.dcm")
        job.write("b.dcm", sop="a.dcm", seed=1)
        ran = job.run(limits)
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "conflict"]
        assert job.stored("a.dcm") == [job.sha256("a.dcm")]
        assert ran.exit_code == 3

    def test_three_at_once(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        job.write("c.dcm", sop="a.dcm", seed=1)
        copy_with_other_meta(job, "a.dcm", "d.dcm")
        ran = job.run(max_concurrency=4, readers=4)
        assert len(server.posts) == 1
        assert sorted(ran.outcomes.values()) in ([1, 1, 2], [1, 3])
        assert ran.outcomes["stored"] == 1
        stored = next(name for name in ran.rows if ran.outcome(name) == "stored")
        assert job.stored("a.dcm") == [job.sha256(stored)]

    def test_in_another_study_it_is_another_instance(self, job: Job) -> None:
        job.write("a.dcm", study=1)
        job.write("b.dcm", study=2, sop="a.dcm")
        ran = job.run()
        assert ran.outcomes == {"stored": 2}

    @pytest.mark.parametrize("same", [True, False])
    def test_in_two_runs(self, job: Job, server: ScriptedServer, *, same: bool) -> None:
        job.write("b.dcm")
        job.run()
        if same:
            copy_with_other_meta(job, "b.dcm", "a.dcm")
        else:
            job.write("a.dcm", sop="b.dcm", seed=1)
        ran = job.run()
        assert ran.outcome("a.dcm") == ("duplicate" if same else "conflict")
        assert ran.outcome("b.dcm") == "stored"
        assert len(server.posts) == 1
        assert ran.exit_code == (0 if same else 3)
        assert job.run().summary.requests == 0

    @pytest.mark.parametrize("same", [True, False])
    def test_a_batch_full_of_copies_in_two_directories(
        self, job: Job, server: ScriptedServer, *, same: bool
    ) -> None:
        names = job.write_many(50, prefix="a/")
        for name in names:
            if same:
                copy(job, name, name.replace("a/", "b/"))
            else:
                job.write(name.replace("a/", "b/"), sop=name, seed=1)
        ran = job.run(max_concurrency=3, readers=3, max_batch_instances=7)
        assert ran.outcomes == {"stored": 50, "duplicate" if same else "conflict": 50}
        assert all(len(copies) == 1 for copies in server.stored.values())


class TestARefusedCopy:
    def refuse_the_first(self, job: Job, first: str, reason: int | None) -> Step:
        content = (job.archive / first).read_bytes()

        def pick(request: Request) -> Step:
            if content not in request.body:
                return StoreAll()
            if reason is None:
                return Answer(400, {}, b"no")
            return StoreAll(failures={uid_of(first): reason})

        return Choose(pick)

    @pytest.mark.parametrize("reason", [0xC122, 0xA700, None])
    def test_lets_the_second_through(
        self, job: Job, server: ScriptedServer, reason: int | None
    ) -> None:
        job.write("a.dcm")
        job.write("b.dcm", sop="a.dcm", seed=1)
        for number in range(8):  # so that two come after it, whichever comes first
            job.write(f"z{number}.dcm", study=number + 1)
        refuse = self.refuse_the_first(job, "a.dcm", reason)
        content = (job.archive / "a.dcm").read_bytes()
        refused: list[Request] = []

        def pick(request: Request) -> Step:
            if content in request.body and not refused:
                # Of two others that came meanwhile, the client has the answer to one.
                refused.append(request)
                server.wait_until(lambda: len(server.posts) >= request.number + 3)
            return refuse

        server.default = Choose(pick)
        ran = job.run(max_concurrency=2, max_attempts=3)
        expected = "failed" if reason == 0xA700 else "rejected"
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == [expected, "stored"]
        assert job.stored("a.dcm") == [job.sha256("b.dcm")]

    @pytest.mark.parametrize("reason", [0xC122, None])
    def test_lets_the_second_through_in_another_run(
        self, job: Job, server: ScriptedServer, reason: int | None
    ) -> None:
        job.write("a.dcm")
        job.write("z.dcm", study=1)
        server.default = self.refuse_the_first(job, "a.dcm", reason)
        assert job.run().outcome("a.dcm") == "rejected"
        job.write("b.dcm", sop="a.dcm", seed=1)
        ran = job.run()
        assert ran.outcome("b.dcm") == "stored"
        assert ran.outcome("a.dcm") == "rejected"

    def test_that_is_repaired_meets_the_one_that_went_through(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        job.write("b.dcm", sop="a.dcm", seed=1)
        server.default = self.refuse_the_first(job, "a.dcm", 0xC122)
        job.run()
        server.default = StoreAll()
        ran = job.run(retry="rejected")
        assert ran.outcome("a.dcm") == "conflict"
        assert job.stored("a.dcm") == [job.sha256("b.dcm")]

    def test_in_doubt_keeps_the_second_waiting_until_it_is_sent_again(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        copy_with_other_meta(job, "a.dcm", "b.dcm")
        job.write("z.dcm", study=1)
        uid = uid_of("a.dcm")
        server.default = StoreAll(named=lambda sop: sop != uid)
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["in_doubt", "failed"]
        server.default = StoreAll()
        again = job.run()
        assert [again.outcome("a.dcm"), again.outcome("b.dcm")] == ["stored", "duplicate"]

    def test_in_doubt_and_gone_lets_the_second_take_over(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        copy_with_other_meta(job, "a.dcm", "b.dcm")
        server.default = StoreAll(named=lambda sop: sop != uid_of("a.dcm"))
        job.write("z.dcm", study=1)
        job.run()
        (job.archive / "a.dcm").unlink()
        server.default = StoreAll()
        ran = job.run(check=False)
        assert ran.outcome("b.dcm") == "stored"


class TestAFileThatMoved:
    @pytest.mark.parametrize("target", ["b.dcm", "deep/er/b.dcm", "0.dcm"])
    def test_takes_its_row_along(self, job: Job, server: ScriptedServer, target: str) -> None:
        job.write("a.dcm")
        job.write("z.dcm")
        first = job.run()
        path = job.archive / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (job.archive / "a.dcm").rename(path)
        ran = job.run()
        assert ran.outcomes == {"stored": 2}
        assert ran.rows[target].file_id == first.rows["a.dcm"].file_id
        assert "a.dcm" not in ran.rows
        assert len(server.posts) == 1
        assert job.run().summary.requests == 0

    def test_and_was_edited_is_a_conflict(self, job: Job) -> None:
        job.write("a.dcm")
        job.write("z.dcm")
        job.run()
        (job.archive / "a.dcm").unlink()
        job.write("b.dcm", sop="a.dcm", seed=1)
        ran = job.run(check=False)
        assert ran.outcome("b.dcm") == "failed"  # the other may be met yet, elsewhere
        for _ in range(2):
            ran = job.run(check=False)
            assert ran.outcome("b.dcm") == "conflict"

    def test_to_where_another_was_and_both_were_edited_is_a_conflict(self, job: Job) -> None:
        """Each holds the claim of the other, and neither shows what was sent."""
        job.write_many(1)
        job.write("a.dcm")
        job.write("b.dcm")
        job.run()
        for name, sop in (("a.dcm", "b.dcm"), ("b.dcm", "a.dcm")):
            job.write(name, sop=sop, seed=1)
            age(job.archive / name, 60)
        for _ in range(3):
            ran = job.run(check=False)
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["conflict", "conflict"]

    @pytest.mark.parametrize("name", ["b.dcm", "zz.dcm"])
    @pytest.mark.parametrize("readers", [1, 3])
    def test_is_compared_where_it_is_by_now(self, job: Job, name: str, readers: int) -> None:
        path = job.write("a.dcm")
        job.write("keep.dcm")
        job.run()
        copy_with_other_meta(job, "a.dcm", name)
        path.rename(job.archive / "moved.dcm")
        job.run(readers=readers)
        ran = job.run(readers=readers)
        assert [ran.outcome("moved.dcm"), ran.outcome(name)] == ["stored", "duplicate"]
        assert (ran.exit_code, ran.summary.requests) == (0, 0)

    def test_and_left_a_copy_is_a_duplicate(self, job: Job) -> None:
        job.write("b.dcm")
        job.run()
        copy(job, "b.dcm", "a.dcm")
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["duplicate", "stored"]

    def test_while_it_waited_to_be_read_has_an_end_of_its_own(
        self, job: Job, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Copied, listed at both places, and then removed where it was."""
        for short in ("walk.LIST_FILES", "scan_stage.READ_FILES", "wiring.INSTANCES_HELD"):
            monkeypatch.setattr(f"ingester.{short}", 1)
        old = job.write("z/old.dcm")
        job.run()
        age(old, 60)
        for number in range(10):
            job.write(f"a/{number}.dcm", study=number + 1)
            job.write(f"c/{number}.dcm", study=number + 20)
        copy(job, "z/old.dcm", "b/new.dcm")

        def remove(number: int) -> None:
            if number == 2:  # the first of this run; what comes behind waits
                time.sleep(0.5)
                old.unlink()

        server.before_answer(remove)
        ran = job.run(check=False, max_batch_instances=1, scan_processes=0)
        assert ran.outcome("b/new.dcm") == "duplicate"
        assert ran.outcome("z/old.dcm") == "unreadable"
        assert ran.summary.files == ran.snapshots[-1].files_met == 22
        again = job.run()
        assert (again.exit_code, again.outcomes) == (0, {"stored": 20, "duplicate": 1})

    def test_all_of_them_renumbered_sends_nothing(self, job: Job, server: ScriptedServer) -> None:
        """Each path now has what its neighbour had."""
        names = job.write_many(10)
        for number, name in enumerate(names):
            age(job.archive / name, number * 10)
        job.run()
        for before, after in zip(reversed(names), [*reversed(names[1:]), "x"], strict=False):
            del after
            (job.archive / before).rename(job.archive / f"{int(before[:4]) + 1:04d}.dcm")
        ran = job.run(check=False)
        assert ran.exit_code == 0
        assert len(server.posts) == 1
        assert set(ran.outcomes) <= {"stored", "duplicate"}


class TestAFileThatChangedAtItsPath:
    def test_is_sent_again_and_is_no_conflict_with_itself(self, job: Job) -> None:
        job.write("a.dcm")
        old = job.sha256("a.dcm")
        job.run()
        job.write("a.dcm", seed=1)
        age(job.archive / "a.dcm", 60)
        ran = job.run()
        assert ran.outcomes == {"stored": 1}
        assert job.stored("a.dcm") == [old, job.sha256("a.dcm")]
        assert job.run().summary.requests == 0

    def test_to_another_instance_leaves_its_claim_behind(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        old = job.sha256("a.dcm")
        shutil.copy2(job.archive / "a.dcm", job.archive.parent / "kept")
        job.run()
        job.write("a.dcm", sop="other")
        age(job.archive / "a.dcm", 60)
        assert job.run().outcomes == {"stored": 1}
        shutil.copy2(job.archive.parent / "kept", job.archive / "b.dcm")
        ran = job.run()
        assert ran.outcome("b.dcm") == "duplicate"
        assert job.stored("a.dcm") == [old]
        assert len(server.posts) == 2

    @pytest.mark.parametrize("checksums", ["sha256"])
    def test_only_in_its_time_stamp_is_not_sent(
        self, job: Job, server: ScriptedServer, checksums: str
    ) -> None:
        names = job.write_many(5)
        job.run(checksums=checksums)
        for name in names:
            age(job.archive / name, 60)
        ran = job.run(checksums=checksums)
        assert ran.outcomes == {"stored": 5}
        assert ran.lines == []
        assert len(server.posts) == 1

    def test_too_many_of_them_stop_the_run(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(300)
        job.run()
        sent = len(server.posts)
        for name in names[:150]:
            job.write(name, seed=1)
            age(job.archive / name, 60)
        for name in names[150:]:
            age(job.archive / name, 60)
        ran = job.run(check=False)
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert "--max-resend" in ran.cause.hint
        assert len(server.posts) - sent <= 2
        again = job.run(max_resend="100%")
        assert again.outcomes == {"stored": 300}
        for name in names[:150]:
            assert len(job.stored(name)) == 2

    def test_and_was_not_looked_at_before_a_stop_is_still_what_it_was(self, job: Job) -> None:
        """Else a stop makes the next run send what only has another time stamp."""
        names = job.write_many(300)
        job.run()
        for name in names[:150]:
            job.write(name, seed=1)
            age(job.archive / name, 60)
        for name in names[150:]:
            age(job.archive / name, 60)
        job.run(check=False)
        job.run(max_resend="100%")
        assert all(len(job.stored(name)) == 1 for name in names[150:])


class TestWhatTheStoreHasOfARowThatSaysOtherwise:
    """A claim outlives the row that made it: the bytes decide, not what the row says by now."""

    def test_two_directories_were_renamed_onto_each_other(
        self, job: Job, server: ScriptedServer
    ) -> None:
        for study in (1, 2):
            for number in range(60):
                path = job.write(f"d{study}/{number:04d}.dcm", study=study)
                age(path, 1000 * study + number)
        job.run()
        sent = len(server.posts)
        (job.archive / "d2").rename(job.archive / "d3")
        (job.archive / "d1").rename(job.archive / "d2")
        for _ in range(2):
            ran = job.run(check=False, max_resend="100%")
            assert ran.exit_code == 0
            assert set(ran.outcomes) <= {"stored", "duplicate"}
            assert sum(ran.outcomes.values()) == 120
        assert len(server.posts) == sent

    def test_another_took_its_path_and_its_bytes_come_back(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm", payload_bytes=300)
        b = job.write("b.dcm")
        kept = b.read_bytes()
        job.run()
        (job.archive / "a.dcm").replace(b)
        job.run(check=False)
        for name in ("d.dcm", "e.dcm"):
            (job.archive / name).write_bytes(kept)
            age(job.archive / name)
        ran = job.run(check=False)
        assert [ran.outcome("b.dcm"), ran.outcome("d.dcm")] == ["stored", "stored"]
        assert ran.rows["d.dcm"].evidence is Evidence.BYTES
        assert ran.outcome("e.dcm") == "duplicate"
        assert ran.rows["e.dcm"].other_file_id == ran.rows["d.dcm"].file_id
        assert (ran.exit_code, len(server.posts)) == (0, 1)
        again = job.run(check=False)
        assert (again.outcomes, again.summary.requests) == ({"stored": 2, "duplicate": 1}, 0)

    @pytest.mark.parametrize("other_uids", [True, False])
    def test_its_path_had_something_else_for_a_while(
        self, job: Job, server: ScriptedServer, *, other_uids: bool
    ) -> None:
        path = job.write("f.dcm")
        kept = path.read_bytes()
        job.write("x.dcm")
        job.run()
        if other_uids:
            job.write("f.dcm", sop="other")
        else:
            path.write_bytes(b"not dicom" * 99)
        age(path, 60)
        job.run(check=False)
        sent = len(server.posts)
        path.unlink()
        (job.archive / "g.dcm").write_bytes(kept)
        age(job.archive / "g.dcm")
        for _ in range(2):
            ran = job.run(check=False)
            assert ran.outcome("g.dcm") == "stored"
            assert ran.rows["g.dcm"].sop_instance_uid == uid_of("f.dcm")
        assert len(server.posts) == sent

    def test_it_was_a_link_that_was_not_to_be_followed_once(self, job: Job) -> None:
        elsewhere = job.archive.parent / "elsewhere"
        names = job.write_many(30)
        job.archive.rename(elsewhere)
        job.archive.mkdir()
        for name in names:
            (job.archive / name).symlink_to(elsewhere / name)
        size = sum((job.archive / name).stat().st_size for name in names)
        assert job.run(follow_symlinks=True).summary.bytes_stored == size
        assert job.run().outcomes == {"skipped": 30}
        ran = job.run(follow_symlinks=True)
        assert ran.outcomes == {"stored": 30}
        assert ran.rows[names[0]].evidence is Evidence.BYTES
        figures = ran.summary  # of what it sent, and it sent nothing
        assert (figures.requests, figures.bytes_stored) == (0, 0)
        assert (figures.mb_per_s, figures.instances_per_s) == (0, 0)
        assert all(len(job.stored(name)) == 1 for name in names)

    def test_it_was_broken_and_is_whole_again_beside_a_copy(
        self, job: Job, server: ScriptedServer
    ) -> None:
        path = job.write("f.dcm")
        kept = path.read_bytes()
        job.run()
        path.write_bytes(b"not dicom" * 99)
        age(path, 60)
        job.run(check=False)
        for name in ("a.dcm", "f.dcm"):
            (job.archive / name).write_bytes(kept)
            age(job.archive / name, 120)
        for _ in range(2):
            ran = job.run(check=False)
            assert ran.outcomes == {"stored": 1, "duplicate": 1}
        assert len(server.posts) == 1

    @pytest.mark.parametrize("warning", [0xB120, 0xB007])
    def test_it_had_a_warning_which_may_have_been_of_its_pixels(
        self, job: Job, server: ScriptedServer, warning: int
    ) -> None:
        """Which one it was went with the row: nothing shows that its pixels can be read."""
        path = job.write("f.dcm")
        kept = path.read_bytes()
        server.default = StoreAll(warnings={uid_of("f.dcm"): warning})
        job.run()
        path.write_bytes(b"not dicom" * 99)
        age(path, 60)
        job.run(check=False)
        path.write_bytes(kept)
        age(path, 120)
        for _ in range(2):
            ran = job.run()
            assert (ran.exit_code, ran.outcomes) == (3, {"stored_with_warning": 1})
            assert ran.summary.requests == 0
            said = run_ingester("status", "--exceptions", "--journal", job.journal).stdout
            (exception,) = map(json.loads, said.splitlines())
            assert exception["reason_code"] == "same_bytes"
        ran = job.run(retry=("stored_with_warning",))
        assert ran.rows["f.dcm"].warning_code == warning
        assert ran.exit_code == (3 if warning == 0xB120 else 0)

    @pytest.mark.parametrize("warning", [None, 0xB007])
    def test_it_moved_and_its_line_says_all_that_is_known_of_it(
        self, job: Job, server: ScriptedServer, warning: int | None
    ) -> None:
        path = job.write("a.dcm")
        if warning is not None:
            server.default = StoreAll(warnings={uid_of("a.dcm"): warning})
        (first,) = job.run().lines
        path.rename(job.archive / "b.dcm")
        ran = job.run()
        (line,) = ran.lines
        assert line["reason_code"] == "moved"
        for name in ("file_id", "outcome", "evidence", "warning_code", "sha256"):
            assert line[name] == first[name]
        assert (line["evidence"], line["warning_code"]) == ("manifest", warning)
        assert (ran.summary.requests, ran.summary.bytes_stored) == (0, 0)

    def test_retry_sends_what_has_a_warning_although_its_bytes_are_known(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        server.default = StoreAll(warnings={uid_of("a.dcm"): 0xB007})
        assert job.run().outcomes == {"stored_with_warning": 1}
        server.default = StoreAll()
        assert job.run(retry=("stored_with_warning",)).outcomes == {"stored": 1}
        assert len(server.posts) == 2


class TestWhatTheStoreMayHaveByNow:
    """An earlier version was stored, and a later one may have been put over it."""

    def leave_in_doubt(self, job: Job, server: ScriptedServer) -> bytes:
        """The bytes of the first version; the second is in doubt, and in the store."""
        path = job.write("f.dcm")
        first = path.read_bytes()
        job.run()
        job.write("f.dcm", seed=1)
        age(path, 60)
        server.default = StoreThenDrop()
        server.default_get = Answer(200, {}, b"[]")
        assert job.run(max_attempts=1, max_outage_s=0.2).outcome("f.dcm") == "in_doubt"
        server.default = StoreAll()
        return first

    @pytest.mark.parametrize("meanwhile", [None, "not dicom", "a link"])
    def test_the_first_is_sent_again_when_it_comes_back(
        self, job: Job, server: ScriptedServer, meanwhile: str | None
    ) -> None:
        first = self.leave_in_doubt(job, server)
        path = job.archive / "f.dcm"
        if meanwhile == "a link":
            path.rename(job.archive.parent / "kept")
            path.symlink_to(job.archive.parent / "kept")
        elif meanwhile is not None:
            path.write_bytes(b"not dicom" * 99)
            age(path, 90)
        if meanwhile is not None:
            job.run(check=False)
            path.unlink()
        path.write_bytes(first)
        age(path, 120)
        ran = job.run(check=False)
        assert ran.outcome("f.dcm") == "stored"
        assert job.stored("f.dcm")[-1] == job.sha256("f.dcm")

    def test_nor_does_a_hit_say_that_the_first_is_there_when_its_answer_is_lost_too(
        self, job: Job, server: ScriptedServer
    ) -> None:
        first = self.leave_in_doubt(job, server)
        (job.archive / "f.dcm").write_bytes(first)
        age(job.archive / "f.dcm", 120)
        server.default_get = FindStored()
        server.push(CloseAfter(None))
        ran = job.run(server="healthimaging")
        assert ran.outcome("f.dcm") == "stored"
        assert job.stored("f.dcm")[-1] == job.sha256("f.dcm")

    def test_nor_when_it_is_refused_after_that(self, job: Job, server: ScriptedServer) -> None:
        first = self.leave_in_doubt(job, server)
        (job.archive / "f.dcm").write_bytes(first)
        age(job.archive / "f.dcm", 120)
        good = job.write("good.dcm", study=2).read_bytes()
        server.default_get = FindStored()
        lost: list[Request] = []

        def pick(request: Request) -> Step:
            if good in request.body:
                return StoreAll()
            lost.append(request)
            return CloseAfter(None) if len(lost) == 1 else Answer(400, {}, b"no")

        server.default = Choose(pick)
        ran = job.run(check=False)
        assert [ran.outcome("f.dcm"), ran.outcome("good.dcm")] == ["in_doubt", "stored"]

    def test_a_refusal_of_the_second_when_it_was_touched_is_no_end_of_the_doubt(
        self, job: Job, server: ScriptedServer
    ) -> None:
        self.leave_in_doubt(job, server)
        second = (job.archive / "f.dcm").read_bytes()
        age(job.archive / "f.dcm", 180)
        job.write("good.dcm", study=2)
        server.default = Choose(
            lambda post: Answer(400, {}, b"no") if second in post.body else StoreAll()
        )
        ran = job.run(check=False)
        assert [ran.outcome("f.dcm"), ran.outcome("good.dcm")] == ["in_doubt", "stored"]

    def test_a_copy_of_the_first_is_sent_when_the_file_is_gone(
        self, job: Job, server: ScriptedServer
    ) -> None:
        first = self.leave_in_doubt(job, server)
        (job.archive / "f.dcm").unlink()
        (job.archive / "g.dcm").write_bytes(first)
        age(job.archive / "g.dcm")
        ran = job.run(check=False)
        assert ran.outcome("g.dcm") == "stored"
        assert job.stored("f.dcm")[-1] == job.sha256("g.dcm")

    @pytest.mark.parametrize("name", ["a.dcm", "z.dcm"])
    @pytest.mark.parametrize("later", [StoreAll(), Answer(400, {}, b"no"), CloseAfter(None)])
    def test_a_copy_of_the_first_is_compared_with_what_the_file_comes_to(
        self, job: Job, server: ScriptedServer, name: str, later: Step
    ) -> None:
        first = self.leave_in_doubt(job, server)
        (job.archive / name).write_bytes(first)
        age(job.archive / name)
        server.default = later
        ran = job.run(max_attempts=1, max_outage_s=0.2, check=False)
        assert (
            ran.outcome(name) == {"stored": "conflict", "in_doubt": "pending"}[ran.outcome("f.dcm")]
        )


class TestACopyThatIsMetBeforeTheFileThatChanged:
    def test_is_compared_again_when_the_file_was_sent(self, job: Job) -> None:
        path = job.write("f.dcm")
        old = job.sha256("f.dcm")
        job.run()
        copy(job, "f.dcm", "a.dcm")
        job.write("f.dcm", seed=1)
        age(path, 60)
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("f.dcm")] == ["failed", "stored"]
        assert ran.rows["a.dcm"].reason_code == "copy_of_an_earlier_version"
        assert job.stored("f.dcm") == [old, job.sha256("f.dcm")]
        assert [each["outcome"] for each in ran.lines if each["path"] != str(path)][-1] == "failed"
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("f.dcm")] == ["conflict", "stored"]
        assert ran.summary.requests == 0

    def test_one_of_what_it_is_now_stays_a_duplicate(self, job: Job) -> None:
        path = job.write("f.dcm")
        job.run()
        job.write("f.dcm", seed=1)
        age(path, 60)
        names = [f"{number}.dcm" for number in range(20)]
        for name in names:
            copy(job, "f.dcm", f"z/{name}")
        for _ in range(2):
            ran = job.run()
            assert ran.outcomes == {"stored": 1, "duplicate": 20}
            assert ran.exit_code == 0

    @pytest.mark.parametrize("checksums", ["sha256", "none"])
    @pytest.mark.parametrize(("seed", "outcome"), [(1, "duplicate"), (2, "conflict")])
    def test_is_compared_by_the_next_run_where_it_is_no_copy_of_what_was_sent(
        self, job: Job, checksums: str, seed: int, outcome: str
    ) -> None:
        path = job.write("f.dcm")
        job.run(checksums=checksums)
        job.write("a.dcm", sop="f.dcm", seed=seed)
        job.write("f.dcm", seed=1)
        age(path, 60)
        ran = job.run(checksums=checksums)
        assert [ran.outcome("a.dcm"), ran.outcome("f.dcm")] == ["failed", "stored"]
        assert ran.rows["a.dcm"].reason_code == "other_file_changed"
        ran = job.run(checksums=checksums)
        assert [ran.outcome("a.dcm"), ran.outcome("f.dcm")] == [outcome, "stored"]
        assert ran.summary.requests == 0

    @pytest.mark.parametrize("meanwhile", MEANWHILE)
    @pytest.mark.parametrize("name", ["a.dcm", "z.dcm"])
    @pytest.mark.parametrize(("seed", "outcome"), [(1, "duplicate"), (2, "conflict")])
    def test_and_was_something_else_for_a_while(
        self,
        job: Job,
        server: ScriptedServer,
        meanwhile: str,
        name: str,
        seed: int,
        outcome: str,
    ) -> None:
        path = job.write("f.dcm")
        job.write("good.dcm", study=2)
        job.run()
        become(job, server, path, meanwhile)
        job.run(max_attempts=2, check=False)
        server.default = StoreAll()
        path.unlink()
        job.write("f.dcm", seed=1)
        age(path, 90)
        job.write(name, sop="f.dcm", seed=seed)
        job.run(retry="rejected")
        ran = job.run(retry="rejected")
        assert [ran.outcome("f.dcm"), ran.outcome(name)] == ["stored", outcome]

    def test_with_two_readers_it_is_one_of_both(self, job: Job) -> None:
        path = job.write("f.dcm")
        job.run()
        job.write("f.dcm", seed=1)
        age(path, 60)
        for number in range(20):
            copy(job, "f.dcm", f"z/{number}.dcm")
        ran = job.run(readers=2)
        assert ran.outcomes.pop("stored") == 1
        assert set(ran.outcomes) <= {"stored", "duplicate", "failed"}
        assert job.run(readers=2).outcomes == {"stored": 1, "duplicate": 20}
        assert job.stored("f.dcm")[1:] == [job.sha256("f.dcm")]


class TestACopyOfAFileThatCannotBeRead:
    @pytest.mark.parametrize("error", [errno.EACCES, errno.EIO])
    def test_is_compared_when_it_can(self, job: Job, faults: Faults, error: int) -> None:
        job.write("f.dcm")
        job.run()
        copy_with_other_meta(job, "f.dcm", "a.dcm")
        faults.rule(f"open {error} f.dcm")
        command = ("run", job.archive, "--url", job.server.url, "--journal", job.journal)
        with start_ingester(*command, env=faults.environment) as process:
            assert process.wait().returncode == 3
        assert job.rows()["a.dcm"].outcome is Outcome.FAILED
        assert job.run().outcomes == {"stored": 1, "duplicate": 1}


class TestACopyOfAFileThatDoesNotAnswer:
    """The file was loaded from a source that hangs, by an earlier run."""

    def load(self, job: Job, faults: Faults, source: str) -> int:
        flags = ("--read-timeout-s=2", "--readers=1", "--batch-age-s=0.01")
        to = ("--url", job.server.url, "--journal", job.journal)
        command = ("run", job.archive / source, *to, *flags)
        with start_ingester(*command, env=faults.environment) as process:
            return process.wait().returncode

    def test_is_not_said_to_hang_itself_nor_is_its_source(self, job: Job, faults: Faults) -> None:
        for number in range(4):
            job.write(f"old/{number}.dcm")
        assert self.load(job, faults, "old") == 0
        for number in range(2):
            copy(job, f"old/{number}.dcm", f"new/{number}.dcm")
        for number in range(2, 4):
            copy_with_other_meta(job, f"old/{number}.dcm", f"new/{number}.dcm")
        job.write("new/good.dcm")
        faults.rule(*(f"{call} hang {job.archive}/old/" for call in ("open", "stat")))
        assert self.load(job, faults, "new") == 3
        rows = job.rows()
        assert [rows[f"new/{number}.dcm"].outcome.value for number in range(4)] == [
            "duplicate",
            "duplicate",
            "failed",
            "failed",
        ]
        assert rows["new/3.dcm"].reason_code == "other_file_changed"
        assert rows["new/good.dcm"].outcome is Outcome.STORED
        faults.rule()
        assert self.load(job, faults, "new") == 0
        assert job.rows()["new/3.dcm"].outcome is Outcome.DUPLICATE


class TestACopyOfAFileThatChanges:
    def take_away(self, job: Job, server: ScriptedServer, meanwhile: str) -> Path:
        """Its original is something else for one run, and then gone: to be written anew."""
        path = job.write("a.dcm")
        job.write("good.dcm", study=2)
        copy(job, "a.dcm", "b.dcm")
        job.run()
        become(job, server, path, meanwhile)
        ran = job.run(max_attempts=2, check=False)
        assert ran.outcome("b.dcm") == "duplicate"
        server.default = StoreAll()
        path.unlink()
        return path

    def load_and_change(self, job: Job, *, server: str = "generic", meta: bool = False) -> None:
        path = job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        ran = job.run(server=server)
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "duplicate"]
        if meta:
            copy_with_other_meta(job, "b.dcm", "a.dcm")
        else:
            job.write("a.dcm", seed=1)
        age(path, 60)

    def test_is_what_the_store_does_not_have_any_more(self, job: Job) -> None:
        self.load_and_change(job)
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "failed"]
        assert ran.rows["b.dcm"].reason_code == "copy_of_an_earlier_version"
        assert ran.exit_code == 3
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "conflict"]
        assert (ran.exit_code, ran.summary.requests) == (3, 0)

    @pytest.mark.parametrize("meanwhile", MEANWHILE)
    def test_and_was_something_else_for_a_while_is_compared_too(
        self, job: Job, server: ScriptedServer, meanwhile: str
    ) -> None:
        """The row of the file does not say any more that the store has what the copy is."""
        path = self.take_away(job, server, meanwhile)
        job.write("a.dcm", seed=1)
        age(path, 90)
        ran = job.run(retry="rejected")
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "failed"]
        assert ran.rows["b.dcm"].reason_code == "copy_of_an_earlier_version"
        assert ran.exit_code == 3
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "conflict"]

    @pytest.mark.parametrize("meanwhile", MEANWHILE)
    def test_and_is_again_what_it_was_is_a_duplicate_still(
        self, job: Job, server: ScriptedServer, meanwhile: str
    ) -> None:
        path = self.take_away(job, server, meanwhile)
        copy(job, "b.dcm", "a.dcm")
        age(path, 90)
        ran = job.run(retry="rejected")
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "duplicate"]
        assert ran.exit_code == 0

    def test_is_not_concerned_where_the_name_is_another_instance_by_now(self, job: Job) -> None:
        job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        job.run()
        age(job.write("a.dcm", sop="another"), 60)
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "duplicate"]
        assert ran.exit_code == 0

    def test_is_a_duplicate_of_it_where_the_data_set_is_the_same(self, job: Job) -> None:
        self.load_and_change(job, meta=True)
        job.run()
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "duplicate"]
        assert (ran.exit_code, ran.summary.requests) == (0, 0)

    def test_is_a_duplicate_still_where_the_store_keeps_the_first(self, job: Job) -> None:
        self.load_and_change(job, server="orthanc")
        ran = job.run(server="orthanc")
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["already_stored", "duplicate"]
        assert ran.exit_code == 0

    def test_is_compared_when_the_answer_to_the_change_is_lost(
        self, job: Job, server: ScriptedServer
    ) -> None:
        self.load_and_change(job)
        server.default = CloseAfter(None)
        ran = job.run(max_attempts=1, max_outage_s=0.2)
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["in_doubt", "failed"]
        server.default = StoreAll()
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["stored", "conflict"]

    def refuse_and_send_another(self, job: Job, server: ScriptedServer, later: Step) -> None:
        """The claim passes to a file that this journal has not known: its row tells nothing."""
        self.load_and_change(job)
        job.write("z.dcm", sop="a.dcm", seed=2)
        job.write("good.dcm", study=2)
        another = (job.archive / "z.dcm").read_bytes()
        refused = (job.archive / "a.dcm").read_bytes()
        failure = StoreAll(failures={uid_of("a.dcm"): 0xC122})

        def pick(post: Request) -> Step:
            if another in post.body:
                return later
            return failure if refused in post.body else StoreAll()

        server.default = Choose(pick)
        ran = job.run(max_attempts=1, max_outage_s=0.2, check=False)
        assert ran.outcome("a.dcm") == "rejected"
        assert ran.rows["b.dcm"].reason_code == "copy_of_an_earlier_version"

    def test_is_compared_where_the_change_is_refused_and_another_file_is_sent(
        self, job: Job, server: ScriptedServer
    ) -> None:
        self.refuse_and_send_another(job, server, StoreAll())
        ran = job.run(check=False)
        assert [ran.outcome("b.dcm"), ran.outcome("z.dcm")] == ["conflict", "stored"]
        assert job.stored("a.dcm")[-1] == job.sha256("z.dcm")

    @pytest.mark.parametrize("again", [True, False])
    def test_and_where_nobody_knows_whether_that_was_stored(
        self, job: Job, server: ScriptedServer, *, again: bool
    ) -> None:
        self.refuse_and_send_another(job, server, StoreThenDrop())
        copy(job, "b.dcm", "c.dcm")
        if again:
            server.default = StoreAll()
        ran = job.run(max_attempts=1, max_outage_s=0.2, check=False)
        there = {ran.outcome(name) for name in ("b.dcm", "c.dcm")}
        assert ran.outcome("z.dcm") == ("stored" if again else "in_doubt")
        assert there == {"conflict"} if again else there <= {"failed", "pending"}
        assert job.stored("a.dcm")[-1] == job.sha256("z.dcm")


class TestWhereTheStoreKeepsTheFirst:
    """A file was stored, and was edited since: the store has what it was."""

    def load_and_edit(self, job: Job) -> bytes:
        """The bytes that the store has."""
        path = job.write("f.dcm")
        first = path.read_bytes()
        job.run(server="orthanc")
        job.write("f.dcm", seed=1)
        age(path, 60)
        return first

    def put(self, job: Job, name: str, content: bytes) -> None:
        (job.archive / name).write_bytes(content)
        age(job.archive / name)

    @pytest.mark.parametrize("name", ["a.dcm", "z.dcm"])
    @pytest.mark.parametrize("later", [False, True])
    def test_a_backup_is_a_duplicate_and_a_copy_of_the_edited_is_none(
        self, job: Job, name: str, *, later: bool
    ) -> None:
        first = self.load_and_edit(job)
        if later:
            job.run(server="orthanc")
        self.put(job, name, first)
        copy(job, "f.dcm", f"edited-{name}")
        job.run(server="orthanc")
        ran = job.run(server="orthanc")
        assert ran.outcome("f.dcm") == "already_stored"
        assert [ran.outcome(name), ran.outcome(f"edited-{name}")] == ["duplicate", "conflict"]
        assert (ran.exit_code, ran.summary.requests) == (3, 0)

    @pytest.mark.parametrize("meanwhile", ["no DICOM", "another instance", "edited again"])
    def test_it_is_still_known_after_more_edits(
        self, job: Job, server: ScriptedServer, meanwhile: str
    ) -> None:
        first = self.load_and_edit(job)
        job.run(server="orthanc")
        path = job.archive / "f.dcm"
        if meanwhile != "edited again":
            become(job, server, path, meanwhile)
            job.run(server="orthanc")
        job.write("f.dcm", seed=2)
        age(path, 90)
        assert job.run(server="orthanc").outcome("f.dcm") == "already_stored"
        self.put(job, "b.dcm", first)
        ran = job.run(server="orthanc")
        assert [ran.outcome("f.dcm"), ran.outcome("b.dcm")] == ["already_stored", "duplicate"]
        self.put(job, "f.dcm", first)
        age(path, 120)
        assert job.run(server="orthanc").outcomes == {"stored": 1, "duplicate": 1}


class TestACopyOfAFileThatIsGone:
    """Another copy, which is as it was, stands for it."""

    @pytest.mark.parametrize("checksums", ["sha256", "none"])
    @pytest.mark.parametrize("name", ["0.dcm", "z.dcm"])
    def test_is_compared_with_what_is_left(self, job: Job, name: str, checksums: str) -> None:
        path = job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        job.run(checksums=checksums)
        path.unlink()
        copy_with_other_meta(job, "b.dcm", name)
        job.write(f"other-{name}", sop="a.dcm", seed=1)
        for _ in range(2):
            ran = job.run(check=False, checksums=checksums)
        assert [ran.outcome(name), ran.outcome(f"other-{name}")] == ["duplicate", "conflict"]

    def test_is_compared_with_a_backup_where_the_file_was_edited(self, job: Job) -> None:
        path = job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        job.run(server="orthanc")
        copy_with_other_meta(job, "b.dcm", "c.dcm")
        job.write("a.dcm", seed=1)
        age(path, 60)
        for _ in range(2):
            ran = job.run(server="orthanc")
            assert ran.outcomes == {"already_stored": 1, "duplicate": 2}

    def test_is_not_compared_with_one_that_has_changed_too(self, job: Job) -> None:
        path = job.write("a.dcm")
        copy(job, "a.dcm", "b.dcm")
        job.run()
        path.unlink()
        copy_with_other_meta(job, "b.dcm", "c.dcm")
        job.write("b.dcm", sop="a.dcm", seed=1)
        age(job.archive / "b.dcm", 60)
        ran = job.run(check=False)
        assert [ran.outcome("b.dcm"), ran.outcome("c.dcm")] == ["failed", "failed"]


class TestTheNumberOfARowThatIsGone:
    def test_is_not_shown_as_that_of_another_file(self, job: Job) -> None:
        """What was the original of a duplicate had another file put in its place."""
        a = job.write("a.dcm", payload_bytes=300)
        b = job.write("b.dcm")
        copy(job, "b.dcm", "c.dcm")
        first = job.run()
        assert first.rows["c.dcm"].other_file_id == first.rows["b.dcm"].file_id
        a.replace(b)
        ran = job.run(check=False)
        assert ran.rows["b.dcm"].file_id == first.rows["a.dcm"].file_id
        assert [ran.outcome("c.dcm"), ran.rows["c.dcm"].other_file_id] == ["duplicate", None]

    @pytest.mark.parametrize("same", [True, False])
    def test_is_not_given_to_another_file(
        self, job: Job, server: ScriptedServer, *, same: bool
    ) -> None:
        job.write("a.dcm")
        b = job.write("b.dcm", payload_bytes=300)
        job.run()
        (job.archive / "a.dcm").replace(b)
        job.run(check=False)
        job.write("d.dcm", sop="b.dcm", payload_bytes=300, seed=0 if same else 7)
        for _ in range(2):
            ran = job.run(check=False)
        assert ran.outcome("d.dcm") == ("stored" if same else "conflict")
        assert len(job.stored("b.dcm")) == 1
        assert len(server.posts) == 1


class TestADeltaLoad:
    def test_sends_only_what_is_new(self, job: Job) -> None:
        old = job.write_many(20, prefix="a/")
        job.run()
        new = job.write_many(5, prefix="b/") + job.write_many(3, prefix="a/x")
        ran = job.run()
        assert ran.outcomes == {"stored": 28}
        assert len(ran.lines) == 8
        assert all(len(job.stored(name)) == 1 for name in old + new)

    def test_retry_sends_what_was_rejected(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(4)
        server.default = StoreAll(failures={uid_of(names[0]): 0xC122})
        job.run()
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 3, "rejected": 1}
        assert len(server.posts) == 1
        ran = job.run(retry="rejected")
        assert ran.outcomes == {"stored": 4}
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_what_failed_or_is_in_doubt_goes_again(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(3)
        server.default = StoreAll(
            failures={uid_of(names[0]): 0xA700}, named=lambda uid: uid != uid_of(names[1])
        )
        ran = job.run(max_attempts=2)
        assert ran.outcome(names[2]) == "stored"
        assert ran.outcome(names[1]) == "in_doubt"
        server.default = StoreAll()
        sent = len(job.stored(names[2]))  # more than once: it told bad files from a bad setting
        assert job.run().outcomes == {"stored": 3}
        assert job.stored(names[2]) == [job.sha256(names[2])] * sent


class TestASecondRun:
    def test_sends_nothing_and_opens_nothing(self, job: Job) -> None:
        names = job.write_many(10)
        (job.archive / "notes.txt").write_text("not DICOM")
        age(job.archive / "notes.txt")
        job.run()
        for name in [*names, "notes.txt"]:  # other bytes under the same size and time stamp
            path = job.archive / name
            path.write_bytes(bytes(path.stat().st_size))
            age(path)
        ran = job.run(check=False)
        assert ran.outcomes == {"stored": 10, "not_dicom": 1}
        assert ran.summary.requests == 0
        assert ran.lines == []
        assert ran.exit_code == 0

    def test_ends_with_the_exit_code_of_the_first(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(4)
        (job.archive / "broken.dcm").write_bytes(bytes(128) + b"DICM" + b"rubbish")
        age(job.archive / "broken.dcm")
        server.default = StoreAll(failures={uid_of(names[0]): 0xC122})
        first = job.run()
        second = job.run()
        assert first.exit_code == second.exit_code == 3
        assert first.outcomes == second.outcomes
        assert second.summary.requests == 0

    def test_does_not_trust_a_time_stamp_of_just_now(
        self, job: Job, server: ScriptedServer
    ) -> None:
        path = job.write("a.dcm")
        later = time.time() + 60  # however long it takes until it is read
        os.utime(path, (later, later))
        status = path.stat()
        job.run()
        assert job.run().summary.requests == 0
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        ran = job.run()
        assert ran.outcomes == {"stored": 1}
        assert len(job.stored("a.dcm")) == 2
        assert len(server.posts) == 2


class TestADoubt:
    """A server that keeps the first copy stored a file, and its answer was lost."""

    def test_outlives_the_file_that_it_is_about(self, job: Job, server: ScriptedServer) -> None:
        first = job.write("a.dcm", sop="x")
        server.default = StoreThenDrop()
        assert job.run(server="orthanc").outcomes == {"in_doubt": 1}
        server.default = StoreAll()
        first.write_text("somebody else's notes")
        assert job.run(server="orthanc").outcomes == {"not_dicom": 1}
        job.write("b.dcm", sop="x", seed=2)
        ran = job.run(server="orthanc", check=False)
        assert ran.outcome("b.dcm") == "already_stored"
        assert ran.rows["b.dcm"].reason_code == "earlier_version_kept"

    def test_outlives_a_limit_that_says_nothing_of_what_is_stored(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm", sop="x")
        server.default = StoreThenDrop()
        assert job.run(server="orthanc").outcomes == {"in_doubt": 1}
        server.default = Answer(413)
        assert job.run(server="orthanc").outcomes == {"too_large": 1}
        server.default = StoreAll()
        job.write("b.dcm", sop="x", seed=2)
        assert job.run(server="orthanc").outcome("b.dcm") == "already_stored"
