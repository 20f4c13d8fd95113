"""What AWS HealthImaging has of its own: a resend is a version, stores of one series may meet."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from ingester.dicomweb.outcome import Evidence
from tests.pipeline.job import Job, uid_of
from tests.support.exchange import Exchange
from tests.support.scripted import (
    Answer,
    AnswerAndSee,
    Choose,
    FindStored,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)

CONFLICT = Answer(409, {"x-amzn-errortype": "ConflictException"}, b'{"message": "in use"}')


def conflict_of_four(server: ScriptedServer) -> list[Step]:
    """Four requests meet; the others are answered when the first has read of the conflict."""
    read = threading.Event()

    def meet(_request: Request) -> Step:
        server.wait_until(lambda: len(server.posts) == 4)
        return AnswerAndSee(read, CONFLICT.status, CONFLICT.headers, CONFLICT.body)

    return [Choose(meet), *[Wait(read)] * 3]


class TestAnAnswerLostAfterTheServerStored:
    """Each resend makes a version that is paid for: the store is asked first."""

    @pytest.mark.parametrize("count", [1, 3, 30])
    def test_nothing_that_the_store_shows_is_sent_again(
        self, job: Job, server: ScriptedServer, count: int
    ) -> None:
        names = job.write_many(count)
        server.push(StoreThenDrop())
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": count}
        assert ran.exit_code == 0
        assert len(server.posts) == 1
        assert {row.evidence for row in ran.rows.values()} == {Evidence.QIDO}
        assert all(job.stored(name) == [job.sha256(name)] for name in names)

    def test_what_it_does_not_show_is_sent_again(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(4)
        kept = uid_of(names[0])
        server.push(StoreThenDrop(store=StoreAll(only=lambda uid: uid == kept)))
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": 4}
        assert len(server.posts) == 2
        assert [len(job.stored(name)) for name in names] == [1, 1, 1, 1]
        assert ran.rows[names[0]].evidence is Evidence.QIDO
        assert ran.rows[names[1]].evidence is Evidence.MANIFEST

    def test_a_store_that_does_not_answer_that_gets_the_same_body_again(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_many(2)
        server.push(StoreThenDrop())
        server.default_get = Answer(500)
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": 2}
        assert [post.body for post in server.posts] == [server.posts[0].body] * 2

    def test_the_number_of_attempts_stays_bounded(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2)
        server.default = StoreThenDrop(store=StoreAll(only=lambda _uid: False))
        server.default_get = FindStored()
        ran = job.run(server="healthimaging", max_attempts=3)
        assert "stored" not in ran.outcomes
        assert len(server.posts) <= 3 * 3


class TestAConflictException:
    def test_is_tried_again_and_never_split(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(3)
        server.push(CONFLICT, CONFLICT)
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": 3}
        assert [post.body for post in server.posts] == [server.posts[0].body] * 3

    def test_from_then_on_a_series_has_one_request_at_a_time(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_many(40)
        server.push(*conflict_of_four(server))
        server.default = alone = OneAtATime()
        ran = job.run(server="healthimaging", max_concurrency=4, max_batch_instances=4)
        assert ran.outcomes == {"stored": 40}
        assert alone.seen == 10 + 1 - 4
        assert alone.most == 1

    def test_other_series_are_not_held_up(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(12, 4)
        server.push(*conflict_of_four(server))
        four = threading.Barrier(4, timeout=60)

        def together(_request: Request) -> Step:
            four.wait()
            return StoreAll()

        server.push(*[Choose(together)] * 4)
        ran = job.run(server="healthimaging", max_concurrency=4)
        assert ran.outcomes == {"stored": 48}
        assert not four.broken

    def test_of_a_manifest_is_none(self, job: Job, server: ScriptedServer) -> None:
        """409 is both: the body says which. Here one instance failed for good."""
        names = job.write_many(2)
        server.push(StoreAll(status=409, failures={uid_of(names[0]): 0xC122}))
        ran = job.run(server="healthimaging")
        assert (ran.outcome(names[0]), ran.outcome(names[1])) == ("rejected", "stored")
        assert len(server.posts) == 1


class TestAWarning:
    def test_is_said_in_words(self, job: Job, server: ScriptedServer) -> None:
        (name,) = job.write_many(1)
        server.push(StoreAll(warnings={uid_of(name): 0xB110}))
        ran = job.run(server="healthimaging")
        assert ran.outcome(name) == "stored_with_warning"
        assert ran.lines[0]["reason"] == "a frame could not be extracted"
        assert ran.lines[0]["reason_code"] == "warning_B110"
        assert ran.exit_code == 3


@dataclass
class OneAtATime:
    """Stores everything, takes its time, and counts how many requests it has at a time."""

    seen: int = 0
    most: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def play(self, exchange: Exchange) -> None:
        """Reads, waits whether another comes, stores."""
        with self._lock:
            self.seen += 1
            self._now += 1
            self.most = max(self.most, self._now)
        exchange.read_body(keep_all=True)
        exchange.pause(0.02)
        with self._lock:
            self._now -= 1
        StoreAll().play(exchange)
