"""What the server says of each instance decides, whatever its status and Content-Type say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Evidence
from tests.pipeline.job import Job, age, uid_of, uid_of_study
from tests.support.dicom_files import instance_bytes
from tests.support.exchange import Exchange
from tests.support.scripted import (
    Answer,
    Choose,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
)


class TestSomeFailed:
    def test_out_of_resources_goes_again_later(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(4)
        full = {uid_of(names[1]), uid_of(names[2])}
        server.push(StoreAll(failures=dict.fromkeys(full, 0xA700)))
        ran = job.run()
        assert ran.outcomes == {"stored": 4}
        first, second = server.posts
        assert all(uid.encode() in second.body for uid in full)
        assert uid_of(names[0]).encode() not in second.body
        assert all(len(copies) == 1 for copies in server.stored.values())
        del first

    def test_out_of_resources_for_good_has_failed(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(4)
        server.default = StoreAll(failures={uid_of(names[1]): 0xA701})
        ran = job.run()
        assert ran.outcomes == {"stored": 3, "failed": 1}
        assert ran.outcome(names[1]) == "failed"
        assert ran.exit_code == 3
        assert len(server.posts) <= 16
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 4}

    def test_out_of_resources_for_everything_stops(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(5, 2)
        server.default = StoreAll(failures=lambda _uid: 0xA700)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 10}

    def test_retry_after_counts_for_them(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(2)
        full = {uid_of(names[1]): 0xA700}
        server.push(StoreAll(failures=full, headers={"Retry-After": "1"}))
        assert job.run().outcomes == {"stored": 2}
        first, second = server.posts
        assert second.received_at - first.received_at >= 1

    @pytest.mark.parametrize("tag", ["00081155", "00080018"])
    @pytest.mark.parametrize("reason", [0xC122, 0x0122, 0xA900, 0xC000])
    def test_a_refusal_of_the_data_is_final(
        self, job: Job, server: ScriptedServer, reason: int, tag: str
    ) -> None:
        names = job.write_many(4)
        server.default = StoreAll(failures={uid_of(names[2]): reason}, failed_uid_tag=tag)
        ran = job.run()
        assert ran.outcomes == {"stored": 3, "rejected": 1}
        assert ran.rows[names[2]].failure_code == reason
        assert len(server.posts) == 1
        assert ran.exit_code == 3

    def test_a_processing_failure_goes_once_more_alone(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(4)
        server.default = StoreAll(failures={uid_of(names[2]): 0x0110})
        ran = job.run()
        assert ran.outcomes == {"stored": 3, "rejected": 1}
        assert len(server.posts) == 2
        assert ran.rows[names[2]].attempts == 2

    def test_a_processing_failure_that_passes_is_stored(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(4)
        server.push(StoreAll(failures={uid_of(names[2]): 0x0110}))
        ran = job.run()
        assert ran.outcomes == {"stored": 4}
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_many_processing_failures(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(40)
        bad = {uid_of(name): 0x0110 for name in names[::2]}
        server.default = StoreAll(failures=bad)
        ran = job.run()
        assert ran.outcomes == {"stored": 20, "rejected": 20}
        assert all(len(copies) == 1 for copies in server.stored.values())


class TestAManifestUnderAnyStatus:
    @pytest.mark.parametrize("status", [200, 202, 203, 400, 409])
    @pytest.mark.parametrize("content_type", ["text/plain", None, "text/html; charset=x", "a"])
    def test_what_it_names_as_stored_is_stored(
        self, job: Job, server: ScriptedServer, status: int, content_type: str | None
    ) -> None:
        names = job.write_many(3)
        server.default = StoreAll(
            status=status, content_type=content_type, failures={uid_of(names[0]): 0xC000}
        )
        ran = job.run()
        assert [ran.outcome(name) for name in names] == ["rejected", "stored", "stored"]
        assert len(server.posts) == 1

    def test_400_with_one_stored_and_one_unnamed(self, job: Job, server: ScriptedServer) -> None:
        """Orthanc's answer to a part that it cannot read."""
        names = job.write_many(2)
        bad = uid_of(names[1])
        lists = json.dumps({"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}).encode()

        def pick(request: Request) -> Step:
            if uid_of(names[0]).encode() in request.body:
                return StoreAll(status=400, only=lambda uid: uid != bad)
            return Answer(400, {}, lists)

        server.default = Choose(pick)
        ran = job.run()
        assert [ran.outcome(name) for name in names] == ["stored", "rejected"]
        assert ran.rows[names[1]].reason_code == "not_confirmed"
        # Both, the other alone, and the one that is stored: is the setting still right?
        assert len(server.posts) == 3
        assert job.stored(names[0]) == [job.sha256(names[0])] * 2

    def test_200_with_one_unnamed_is_in_doubt(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(3)
        bad = uid_of(names[1])
        server.default = StoreAll(named=lambda uid: uid != bad)
        ran = job.run()
        assert [ran.outcome(name) for name in names] == ["stored", "in_doubt", "stored"]
        assert ran.exit_code == 3

    def test_a_subset_is_named_and_the_others_go_again(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(20)
        few = {uid_of(name) for name in names[:7]}
        server.push(StoreAll(only=lambda uid: uid in few))
        ran = job.run()
        assert ran.outcomes == {"stored": 20}
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_an_instance_in_both_lists_is_not_claimed(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(2)
        item = {"00081155": {"vr": "UI", "Value": [uid_of(names[0])]}}
        failed = item | {"00081197": {"vr": "US", "Value": [0xC000]}}
        other = {"00081155": {"vr": "UI", "Value": [uid_of(names[1])]}}
        body = {
            "00081199": {"vr": "SQ", "Value": [item, other]},
            "00081198": {"vr": "SQ", "Value": [failed]},
        }
        ran = job.run()  # stored honestly first
        assert ran.outcomes == {"stored": 2}
        for name in names:
            job.write(name, seed=1)
            age(job.archive / name, 5)
        server.default = StoreAndSay(json.dumps(body).encode())
        again = job.run()
        assert again.outcome(names[0]) == "rejected"
        assert again.outcome(names[1]) == "stored"


class StoreAndSay:
    """Stores everything and answers 202 with words of the test's own."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def play(self, exchange: Exchange) -> None:
        """Stores and answers."""
        exchange.read_body(keep_all=True)
        StoreAll().store(exchange)
        exchange.answer(202, {}, self.body)


class TestUidsOfTheFileMeta:
    def _write(self, job: Job, name: str, *, meta: str) -> Path:
        """Writes a file whose file meta names another instance (same length of UID)."""
        uid = uid_of(name)
        data = instance_bytes(study=uid_of_study(0), series="2.25.7", sop=uid, payload_bytes=256)
        position = data.index(uid.encode())
        padded = meta.ljust(len(uid), "0").encode()
        assert len(padded) == len(uid)
        data = data[:position] + padded + data[position + len(uid) :]
        path = job.archive / name
        path.write_bytes(data)
        age(path)
        return path

    def test_an_answer_may_name_it(self, job: Job, server: ScriptedServer) -> None:
        meta = uid_of("a.dcm")[:-3] + "999"
        self._write(job, "a.dcm", meta=meta)
        item = {"00081155": {"vr": "UI", "Value": [meta]}}
        body = json.dumps({"00081199": {"vr": "SQ", "Value": [item]}}).encode()
        server.default = StoreAndSay(body)
        ran = job.run()
        assert ran.outcomes == {"stored": 1}
        assert ran.rows["a.dcm"].findings == ("meta_uid_differs",)

    def test_it_does_not_stand_for_the_file_that_has_it(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """A derived image that kept its original's file meta, sent together with the original."""
        original = "00.dcm"
        job.write(original)
        name = next(
            f"{n:02d}.dcm"
            for n in range(1, 99)
            if len(uid_of(f"{n:02d}.dcm")) == len(uid_of(original))
        )
        self._write(job, name, meta=uid_of(original))
        server.default = StoreAll(only=lambda uid: uid == uid_of(original))
        ran = job.run()
        assert ran.outcome(original) == "stored"
        assert ran.outcome(name) != "stored"
        assert job.stored(name) == []


class TestUidsNeverSent:
    def test_three_times_stop_the_run(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(20, 2)
        server.default = StoreAll(named=lambda _uid: False, unknown=["2.25.99"])
        ran = job.run()
        assert ran.exit_code == 1
        assert "stored" not in ran.outcomes
        assert "rejected" not in ran.outcomes
        assert len(server.posts) == 3
        assert ran.cause is not None
        assert "never sent" in ran.cause.message

    def test_leave_what_was_sent_in_doubt(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(5, 2)
        server.push(StoreAll())
        server.default = StoreAll(named=lambda _uid: False, unknown=["2.25.99"])
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 2, "in_doubt": 6, "pending": 2}

    @pytest.mark.parametrize("together", [True, False], ids=["in a batch", "alone"])
    def test_for_single_files_sink_only_these(
        self, job: Job, server: ScriptedServer, *, together: bool
    ) -> None:
        """A file may hold its UID twice, and the server takes the other one."""
        names = job.write_studies(12, 3 if together else 1)
        odd = {uid_of(name) for name in names[1::5]}

        def pick(request: Request) -> Step:
            held = any(uid.encode() in request.body for uid in odd)
            others = StoreAll(named=lambda uid: uid not in odd, unknown=["2.25.99"])
            return others if held else StoreAll()

        server.default = Choose(pick)
        ran = job.run()
        assert ran.exit_code == 3
        assert ran.outcomes == {"stored": len(names) - len(odd), "in_doubt": len(odd)}


class TestWarnings:
    @pytest.mark.parametrize(
        ("reason", "exit_code"),
        [(0xB000, 0), (0xB006, 0), (0xB007, 0), (0xB100, 3), (0xB110, 3), (0xB120, 3)],
    )
    def test_are_kept_and_pixel_warnings_show_in_the_exit_code(
        self, job: Job, server: ScriptedServer, reason: int, exit_code: int
    ) -> None:
        names = job.write_many(3)
        server.default = StoreAll(warnings={uid_of(names[1]): reason})
        ran = job.run()
        assert ran.outcomes == {"stored": 2, "stored_with_warning": 1}
        row = ran.rows[names[1]]
        assert row.warning_code == reason
        assert row.evidence is Evidence.MANIFEST
        assert ran.exit_code == exit_code
        again = job.run()
        assert again.exit_code == exit_code
        assert again.summary.requests == 0


class TestWhatA2xxDidNotName:
    """It may be there: whatever comes after, it is in doubt until something shows it."""

    def test_keeps_its_claim_when_it_is_given_up(self, job: Job, server: ScriptedServer) -> None:
        job.write("0/a.dcm", sop="same", seed=1)
        job.write("0/x.dcm")
        job.write("1/b.dcm", sop="same", seed=2)
        job.write_studies(12)
        first, second = ((job.archive / name).read_bytes() for name in ("0/a.dcm", "1/b.dcm"))
        seen: list[Request] = []

        def pick(request: Request) -> Step:
            if first in request.body:
                seen.append(request)
                if len(seen) == 1:
                    return StoreAll(named=lambda uid: uid != uid_of("same"))
                return Answer(409)
            return Reset(None) if second in request.body else StoreAll()

        server.default = Choose(pick)
        ran = job.run(server="healthimaging", max_concurrency=2, check=False)
        assert [ran.outcome("0/a.dcm"), ran.outcome("1/b.dcm")] == ["in_doubt", "failed"]
        assert ran.rows["1/b.dcm"].reason_code == "other_file_in_doubt"

    def test_is_not_called_too_large(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        job.write("b.dcm")
        server.push(StoreAll(named=lambda uid: uid != uid_of("a.dcm")))
        server.default = Answer(413)
        ran = job.run()
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["in_doubt", "stored"]

    def test_is_not_called_rejected_before_a_look_up_shows_it(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        job.write("b.dcm")
        job.write_studies(3)
        seen: list[Request] = []

        def pick(request: Request) -> Step:
            if uid_of("a.dcm").encode() not in request.body:
                return StoreAll()
            seen.append(request)
            if len(seen) == 1:
                return StoreAll(named=lambda uid: uid != uid_of("a.dcm"))
            return Answer(400, {}, b"busy indexing")

        server.default = Choose(pick)
        server.default_get = Answer(200, {}, b"[]")
        ran = job.run()
        assert ran.outcome("a.dcm") == "in_doubt"
        assert len(job.stored("a.dcm")) == 1


class TestARefusalThatCallsItADuplicate:
    @pytest.mark.parametrize("reason", [0x0111, 0xB00E])
    def test_is_looked_up_after_a_lost_answer(
        self, job: Job, server: ScriptedServer, reason: int
    ) -> None:
        names = job.write_many(3)
        server.push(StoreThenDrop())
        server.default = StoreAll(failures=dict.fromkeys(map(uid_of, names), reason))
        ran = job.run()
        assert ran.outcomes == {"stored": 3}
        assert {row.evidence for row in ran.rows.values()} == {Evidence.QIDO}

    def test_is_a_rejection_where_nothing_was_in_doubt(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        job.write("b.dcm")
        server.default = StoreAll(failures={uid_of("a.dcm"): 0x0111})
        assert job.run().outcome("a.dcm") == "rejected"
