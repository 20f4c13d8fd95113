"""A file that was loaded below one root and is loaded below another: it is the same file."""

from __future__ import annotations

import shutil
import threading

import pytest

from ingester.dicomweb.outcome import Outcome
from tests.pipeline.job import Job, age
from tests.support.process import start_ingester
from tests.support.scripted import (
    Answer,
    Choose,
    CloseAfter,
    ScriptedServer,
    StoreAll,
    StoreThenDrop,
    Wait,
)

ROOTS = [("", "sub"), ("sub", "")]


def change(job: Job, seed: int) -> None:
    age(job.write("sub/f.dcm", seed=seed), 60 * seed)


@pytest.mark.parametrize(("first", "second"), ROOTS)
@pytest.mark.parametrize("checksums", ["sha256", "none"])
class TestAFileThatIsAsItWas:
    def test_is_not_sent_again(
        self, job: Job, server: ScriptedServer, first: str, second: str, checksums: str
    ) -> None:
        job.write("sub/f.dcm")
        before = job.run(source=first, checksums=checksums)
        ran = job.run(source=second, checksums=checksums)
        assert ran.outcomes == {"stored": 1}
        assert ran.rows["sub/f.dcm"].file_id == before.rows["sub/f.dcm"].file_id
        assert len(server.posts) == 1

    def test_in_doubt_it_is_asked_for_and_sent_like_any_other(
        self, job: Job, server: ScriptedServer, first: str, second: str, checksums: str
    ) -> None:
        job.write("sub/f.dcm")
        server.default = StoreThenDrop()
        ran = job.run(source=first, checksums=checksums, max_attempts=1, max_outage_s=0.2)
        assert ran.outcomes == {"in_doubt": 1}
        server.default = StoreAll()
        ran = job.run(source=second, checksums=checksums)
        assert ran.outcomes == {"stored": 1}

    @pytest.mark.parametrize("readers", [1, 4])
    @pytest.mark.parametrize("name", ["sub/a.dcm", "sub/z.dcm"])
    def test_in_doubt_it_goes_before_a_copy(
        self, job: Job, server: ScriptedServer, first: str, second: str, checksums: str, name: str,
        readers: int,
    ) -> None:  # fmt: skip
        path = job.write("sub/f.dcm")
        server.default = StoreThenDrop()
        job.run(source=first, checksums=checksums, max_attempts=1, max_outage_s=0.2)
        shutil.copy2(path, job.archive / name)
        server.default = StoreAll()
        ran = job.run(source=second, checksums=checksums, readers=readers)
        assert [ran.outcome("sub/f.dcm"), ran.outcome(name)] == ["stored", "duplicate"]


@pytest.mark.parametrize(("first", "second"), ROOTS)
@pytest.mark.parametrize("checksums", ["sha256", "none"])
class TestAFileThatChanged:
    def test_is_sent_and_is_no_conflict_with_itself(
        self, job: Job, first: str, second: str, checksums: str
    ) -> None:
        job.write("sub/f.dcm")
        before = job.run(source=first, checksums=checksums)
        old = job.sha256("sub/f.dcm")
        change(job, 1)
        ran = job.run(source=second, checksums=checksums)
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 1})
        assert ran.rows["sub/f.dcm"].file_id == before.rows["sub/f.dcm"].file_id
        assert [line["file_id"] for line in ran.lines] == [before.rows["sub/f.dcm"].file_id]
        assert job.stored("sub/f.dcm") == [old, job.sha256("sub/f.dcm")]
        for source in (first, second):
            assert job.run(source=source, checksums=checksums).summary.requests == 0

    def test_is_sent_when_a_copy_of_what_it_was_is_met_before_it(
        self, job: Job, first: str, second: str, checksums: str
    ) -> None:
        path = job.write("sub/f.dcm")
        job.run(source=first, checksums=checksums)
        shutil.copy2(path, path.with_name("a.dcm"))
        change(job, 1)
        ran = job.run(source=second, checksums=checksums)
        assert ran.outcome("sub/f.dcm") == "stored"
        assert job.stored("sub/f.dcm")[-1] == job.sha256("sub/f.dcm")

    @pytest.mark.parametrize("loaded_before", [True, False])
    def test_and_whose_answer_is_lost_is_in_doubt_and_goes_again(
        self,
        job: Job,
        server: ScriptedServer,
        first: str,
        second: str,
        checksums: str,
        *,
        loaded_before: bool,
    ) -> None:
        job.write("sub/f.dcm")
        if loaded_before:
            job.write("sub/g.dcm")
            job.run(source=second, checksums=checksums)
        job.run(source=first, checksums=checksums)
        change(job, 1)
        server.default = CloseAfter(None)
        ran = job.run(source=second, checksums=checksums, max_attempts=1, max_outage_s=0.2)
        assert ran.outcome("sub/f.dcm") == "in_doubt"
        server.default = StoreAll()
        for source in (first, second):
            assert job.run(source=source, checksums=checksums).outcome("sub/f.dcm") == "stored"
            assert job.stored("sub/f.dcm")[-1] == job.sha256("sub/f.dcm")
        assert len(job.stored("sub/f.dcm")) == 2

    def test_and_is_refused_is_what_its_row_says_below_either(
        self, job: Job, server: ScriptedServer, first: str, second: str, checksums: str
    ) -> None:
        job.write("sub/f.dcm")
        job.write("sub/good.dcm", study=2)
        before = job.run(source=first, checksums=checksums)
        change(job, 1)
        age(job.write("sub/good.dcm", study=2, seed=1), 60)
        changed = (job.archive / "sub/f.dcm").read_bytes()
        server.default = Choose(
            lambda request: Answer(400, {}, b"no") if changed in request.body else StoreAll()
        )
        ran = job.run(source=second, checksums=checksums, check=False)
        assert ran.outcomes == {"stored": 1, "rejected": 1}
        assert ran.rows["sub/f.dcm"].outcome is Outcome.REJECTED
        for name, row in before.rows.items():
            assert ran.rows[name].file_id == row.file_id

    def test_and_the_run_is_killed_while_it_is_sent(
        self, job: Job, server: ScriptedServer, first: str, second: str, checksums: str
    ) -> None:
        path = job.write("sub/f.dcm")
        job.run(source=first, checksums=checksums)
        shutil.copy2(path, job.archive.parent / "kept")
        change(job, 1)
        gate = threading.Event()
        server.default = Wait(gate, CloseAfter())
        with start_ingester(
            *("run", str(job.archive / second), "--url", server.url, "--journal", str(job.journal)),
            *("--checksums", checksums),
        ) as process:
            server.wait_until(lambda: len(server.posts) == 2)
            process.kill()
            process.wait()
        gate.set()
        (job.archive.parent / "kept").rename(path.with_name("a.dcm"))
        server.default = CloseAfter(None)
        options = {"checksums": checksums, "max_attempts": 1, "max_outage_s": 0.2}
        ran = job.run(options, source=second)
        assert ran.outcomes == {"in_doubt": 1, "pending": 1}  # the copy is not compared yet
        server.default = StoreAll()
        ran = job.run(source=second, checksums=checksums)
        assert ran.outcomes == {"stored": 1, "conflict": 1}
        assert job.stored("sub/f.dcm")[-1] == job.sha256("sub/f.dcm")
