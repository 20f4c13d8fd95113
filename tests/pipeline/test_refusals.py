"""Refusals that name no instance: bisected where others succeed, waited with where none does."""

from __future__ import annotations

import json
import math
from collections.abc import Collection

import pytest

from tests.pipeline.job import Job, uid_of
from tests.support.scripted import (
    Answer,
    Choose,
    EarlyAnswer,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
)

EMPTY_LISTS = json.dumps({"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}).encode()


def refuse(names: Collection[str], answer: Answer) -> Choose:
    """Refuses every request that holds one of these files, as a whole."""
    uids = [uid_of(name).encode() for name in names]

    def pick(request: Request) -> Step:
        return answer if any(uid in request.body for uid in uids) else StoreAll()

    return Choose(pick)


class TestA413:
    def test_the_batch_is_split_and_later_ones_are_smaller(
        self, job: Job, server: ScriptedServer
    ) -> None:
        for number in range(320):
            job.write(f"{number:03d}.dcm", payload_bytes=8000)
        limit = 70_000

        def pick(request: Request) -> Step:
            return Answer(413) if request.content_length > limit else StoreAll()

        server.default = Choose(pick)
        ran = job.run(max_batch_bytes=130_000)
        assert ran.outcomes == {"stored": 320}
        refused = [post for post in server.posts if post.status == 413]
        assert 1 <= len(refused) <= 5  # what was grouped already, not every batch
        assert all(post.content_length > limit for post in refused)

    def test_a_single_file_is_too_large_and_its_neighbours_are_stored(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(7)
        job.write("large.dcm", payload_bytes=100_000)
        server.default = Choose(
            lambda r: Answer(413, {}, b"too big") if r.content_length > 50_000 else StoreAll()
        )
        ran = job.run()
        assert ran.outcomes == {"stored": 7, "too_large": 1}
        assert ran.outcome("large.dcm") == "too_large"
        assert ran.rows["large.dcm"].http_status == 413
        assert ran.exit_code == 3
        assert all(job.stored(name) == [job.sha256(name)] for name in names)

    @pytest.mark.parametrize("afterwards", ["read", "close", "reset"])
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_it_may_come_while_the_body_still_goes_out(
        self, job: Job, server: ScriptedServer, afterwards: str, event_loop: str
    ) -> None:
        for number in range(4):
            job.write(f"{number}.dcm", payload_bytes=2_000_000)
        early = EarlyAnswer(413, after_bytes=10_000, afterwards=afterwards)  # type: ignore[arg-type]
        server.push(early)
        ran = job.run(event_loop=event_loop)
        assert ran.outcomes == {"stored": 4}
        if afterwards != "reset":  # a reset may cost the client the answer
            assert len(server.posts) == 3


class TestAWholeRequestRefusedForOneFile:
    @pytest.mark.parametrize("status", [400, 409, 415, 422, 418])
    @pytest.mark.parametrize("bad", [0, 21, 31])
    def test_only_that_file_is_rejected_with_the_servers_words(
        self, job: Job, server: ScriptedServer, status: int, bad: int
    ) -> None:
        job.write("0first.dcm", study="first")
        names = job.write_many(32)
        server.default = refuse([names[bad]], Answer(status, {}, b"I do not like\r\n this one"))
        ran = job.run()
        assert ran.outcomes == {"stored": 32, "rejected": 1}
        row = ran.rows[names[bad]]
        assert row.outcome.value == "rejected"
        assert row.reason == "I do not like this one"
        assert row.http_status == status
        assert ran.exit_code == 3
        assert len(server.posts) <= 2 + 2 * math.log2(32) + 1 + 1
        copies = sorted(len(copies) for copies in server.stored.values())
        # A refusal at the very end: one stored file goes again to see that the setting is right.
        assert copies[:-1] == [1] * 31
        assert copies[-1] <= 2

    def test_on_trial_it_waits_for_the_first_success(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(8, study="a", prefix="0/")
        job.write_many(8, study="b", prefix="1/")
        server.default = refuse([names[3]], Answer(400, {}, b"no"))
        ran = job.run()
        assert ran.outcomes == {"stored": 15, "rejected": 1}
        assert ran.outcome(names[3]) == "rejected"
        first, second, *_ = server.posts
        assert uid_of(names[3]).encode() in first.body
        assert uid_of("1/0000.dcm").encode() in second.body

    def test_several_in_one_batch(self, job: Job, server: ScriptedServer) -> None:
        job.write("0first.dcm", study="first")
        names = job.write_many(32)
        bad = {names[2], names[3], names[17], names[30]}
        server.default = refuse(bad, Answer(400, {}, b"no"))
        ran = job.run(max_concurrency=2)
        assert ran.outcomes == {"stored": 29, "rejected": 4}
        assert {name for name in names if ran.outcome(name) == "rejected"} == bad

    def test_all_of_a_study_while_others_are_stored(self, job: Job, server: ScriptedServer) -> None:
        bad = job.write_many(8, study="bad", prefix="5/")
        job.write_studies(5)
        job.write_many(4, study="good", prefix="9/")
        server.default = refuse(bad, Answer(400, {}, b"no"))
        ran = job.run()
        assert ran.outcomes == {"stored": 9, "rejected": 8}


class TestASettingThatIsWrong:
    @pytest.mark.parametrize("instances", [1, 20])
    @pytest.mark.parametrize("concurrency", [1, 4])
    @pytest.mark.parametrize(
        "answer",
        [
            Answer(400, {}, b"not like this"),
            Answer(400, {}, EMPTY_LISTS),
            Answer(409, {}, b"conflict"),
            Answer(415),
            Answer(200, {}, EMPTY_LISTS),
            Answer(200, {}, b"{}"),
            Answer(200),
            Answer(204),
            Answer(202, {}, b"<html>Welcome</html>"),
        ],
        ids=lambda answer: f"{answer.status}-{len(answer.body)}",
    )
    def test_costs_a_few_requests_and_no_file(
        self,
        job: Job,
        server: ScriptedServer,
        answer: Answer,
        instances: int,
        concurrency: int,
    ) -> None:
        count = len(job.write_studies(60 // instances * 2, instances))
        server.default = answer
        ran = job.run(max_concurrency=concurrency, max_batch_instances=instances)
        assert ran.exit_code == 1
        # A 2xx that confirms nothing may have stored it.
        assert set(ran.outcomes) <= (
            {"pending", "in_doubt"} if answer.status < 300 else {"pending"}
        )
        assert len(server.posts) <= 12 + 2 * concurrency
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": count}

    @pytest.mark.parametrize("status", [200, 400])
    def test_at_the_end_of_a_small_archive_too(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(2, 4)
        server.default = Answer(status, {}, EMPTY_LISTS)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"in_doubt" if status == 200 else "pending": 8}
        assert len(server.posts) == 2

    @pytest.mark.parametrize("status", [200, 400])
    @pytest.mark.parametrize("instances", [1, 8])
    def test_in_mid_run_six_in_a_row_stop_it(
        self, job: Job, server: ScriptedServer, status: int, instances: int
    ) -> None:
        job.write_studies(30, instances)
        server.push(StoreAll(), StoreAll())
        server.default = Answer(status, {}, EMPTY_LISTS)
        ran = job.run()
        assert ran.exit_code == 1
        # A 2xx that confirms nothing may have stored it.
        assert set(ran.outcomes) - {"in_doubt"} == {"stored", "pending"}
        assert status == 200 or "in_doubt" not in ran.outcomes
        assert ran.outcomes["stored"] == 2 * instances
        # Twelve at most, and then a file that it had stored, now and then until the outage's end.
        assert len(server.posts) <= 2 + 12 + 3

    def test_the_hint_has_the_servers_words(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(8)
        server.default = Answer(415, {}, b"only application/json here")
        ran = job.run()
        assert ran.cause is not None
        assert "only application/json here" in ran.cause.words
