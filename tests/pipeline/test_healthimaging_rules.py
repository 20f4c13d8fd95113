"""What AWS HealthImaging has of its own: a resend is a version, stores of one series may meet."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ingester.dicomweb.outcome import Evidence
from tests.pipeline.job import Job, age, uid_of
from tests.support.exchange import Exchange
from tests.support.scripted import (
    Answer,
    AnswerAndSee,
    Choose,
    FindStored,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)

CONFLICT = Answer(409, {"x-amzn-errortype": "ConflictException"}, b'{"message": "in use"}')


@pytest.fixture
def long_term_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a user, without an end."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)


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

    def test_a_store_that_was_away_when_it_was_asked_is_asked_when_it_is_back(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """It stored, and was gone: the look-up met nobody either."""
        _, second = job.write_studies(2)
        back_at: list[float] = []

        def is_away() -> bool:
            return bool(back_at) and time.monotonic() < back_at[0]

        def take(request: Request) -> Step:
            if is_away():
                return Answer(502)
            if request.number == 1:
                back_at.append(time.monotonic() + 2.5)
                return StoreThenDrop()
            return StoreAll()

        server.default = Choose(take)
        server.default_get = Choose(lambda _: Answer(502) if is_away() else FindStored())
        ran = job.run(server="healthimaging", max_outage_s=60)
        assert ran.outcomes == {"stored": 2}
        assert ran.rows[second].evidence is Evidence.QIDO
        assert len(job.stored(second)) == 1

    def test_a_file_that_takes_the_store_down_each_time_sinks_alone(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """It is not asked of it either then; what is known of a probe counts after that, too."""
        bad = job.write_studies(2)[1]
        down_until: list[float] = [0.0]

        def take(request: Request) -> Step:
            if uid_of(bad).encode() in request.body:
                down_until[0] = time.monotonic() + 0.3
                return Reset(None)
            return Answer(502) if time.monotonic() < down_until[0] else StoreAll()

        server.default = Choose(take)
        server.default_get = Choose(
            lambda _: Answer(502) if time.monotonic() < down_until[0] else FindStored()
        )
        ran = job.run(server="healthimaging", max_outage_s=60)
        assert ran.outcomes == {"stored": 1, "in_doubt": 1}
        assert sum(uid_of(bad).encode() in post.body for post in server.posts) <= 2 * 6 + 2

    def test_the_number_of_attempts_stays_bounded(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2)
        server.default = StoreThenDrop(store=StoreAll(only=lambda _uid: False))
        server.default_get = FindStored()
        ran = job.run(server="healthimaging", max_attempts=3)
        assert "stored" not in ran.outcomes
        assert len(server.posts) <= 3 * 3


def leave_in_doubt(job: Job, server: ScriptedServer, lost: Step) -> None:
    """A run whose every answer is lost, look-ups too, until it gives up."""
    server.default, server.default_get = lost, Answer(503)
    ran = job.run(server="healthimaging", max_outage_s=0.1)
    assert ran.outcomes == {"in_doubt": 1}
    server.default, server.default_get = StoreAll(), FindStored()


class TestAnAnswerLostForAFileThatChanged:
    """The store has its earlier version, and shows that: it says nothing of the new one."""

    @pytest.mark.parametrize("count", [1, 30])
    def test_the_version_that_was_there_proves_nothing(
        self, job: Job, server: ScriptedServer, count: int
    ) -> None:
        names = job.write_many(count)
        assert job.run(server="healthimaging").outcomes == {"stored": count}
        for name in names:
            age(job.write(name, seed=1), seconds=60)
        server.push(StoreThenDrop(store=StoreAll(only=lambda _uid: False)))
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": count}
        assert [job.stored(name)[-1] for name in names] == [job.sha256(name) for name in names]
        assert {row.evidence for row in ran.rows.values()} == {Evidence.MANIFEST}

    def test_of_its_neighbours_the_store_is_asked(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        job.run(server="healthimaging")
        age(job.write("a.dcm", seed=1), seconds=60)
        job.write("b.dcm")
        server.push(StoreThenDrop())
        ran = job.run(server="healthimaging")
        assert ran.outcomes == {"stored": 2}
        assert ran.rows["a.dcm"].evidence is Evidence.MANIFEST
        assert ran.rows["b.dcm"].evidence is Evidence.QIDO
        assert len(job.stored("b.dcm")) == 1

    def test_another_file_that_takes_its_place_is_not_taken_for_it(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """The changed file is refused; a second one with its UIDs follows, whose answer is lost."""
        job.write("a.dcm", sop="x")
        job.run(server="healthimaging")
        age(job.write("a.dcm", sop="x", seed=1), seconds=60)
        job.write("b.dcm", sop="x", seed=2)
        refused = StoreAll(status=409, failures={uid_of("x"): 0xC000})
        server.push(refused, StoreThenDrop(store=StoreAll(only=lambda _uid: False)))
        ran = job.run(server="healthimaging")
        assert (ran.outcome("a.dcm"), ran.outcome("b.dcm")) == ("rejected", "stored")
        assert job.stored("b.dcm", sop="x")[-1] == job.sha256("b.dcm")

    @pytest.mark.parametrize("first", [StoreAll(), StoreThenDrop()], ids=["heard", "lost"])
    def test_nor_does_it_when_a_run_left_the_new_one_in_doubt(
        self, job: Job, server: ScriptedServer, first: Step
    ) -> None:
        (name,) = job.write_many(1)
        if isinstance(first, StoreAll):
            assert job.run(server="healthimaging").outcomes == {"stored": 1}
        else:
            leave_in_doubt(job, server, first)
        age(job.write(name, seed=1), seconds=60)
        leave_in_doubt(job, server, StoreThenDrop(store=StoreAll(only=lambda _uid: False)))
        assert job.run(server="healthimaging").outcomes == {"stored": 1}
        assert job.stored(name)[-1] == job.sha256(name)
        assert job.stored(name).count(job.sha256(name)) == 1

    def test_nor_for_a_file_in_the_place_of_one_that_is_gone_and_in_doubt(
        self, job: Job, server: ScriptedServer
    ) -> None:
        gone = job.write("a.dcm", sop="x")
        leave_in_doubt(job, server, StoreThenDrop())
        gone.unlink()
        job.write("b.dcm", sop="x", seed=2)
        server.push(StoreThenDrop(store=StoreAll(only=lambda _uid: False)))
        ran = job.run(server="healthimaging", check=False)
        assert ran.outcome("b.dcm") == "stored"
        assert job.stored("b.dcm", sop="x")[-1] == job.sha256("b.dcm")

    def test_bytes_that_are_stored_already_are_found(
        self, job: Job, server: ScriptedServer
    ) -> None:
        (name,) = job.write_many(1)
        job.run(server="healthimaging")
        server.push(StoreThenDrop(store=StoreAll(only=lambda _uid: False)))
        ran = job.run(server="healthimaging", retry="stored")
        assert ran.outcomes == {"stored": 1}
        assert ran.rows[name].evidence is Evidence.QIDO
        assert job.stored(name) == [job.sha256(name)]


class TestAConflictException:
    def test_of_one_series_that_never_ends_sinks_that_alone(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("0.dcm", study="always in conflict")
        job.write_studies(12)
        uid = uid_of("0.dcm").encode()
        server.default = Choose(lambda request: CONFLICT if uid in request.body else Wait(0.2))
        ran = job.run(server="healthimaging", max_concurrency=4)
        assert ran.outcomes == {"stored": 12, "failed": 1}
        assert ran.outcome("0.dcm") == "failed"

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


class TestAnErrorThatAWSSendsWith400:
    """Its common errors come with 400 or with the status that says so: their name counts."""

    @pytest.mark.parametrize(
        "throttled",
        [
            Answer(400, {"x-amzn-errortype": "ThrottlingException:http://internal/"}),
            Answer(400, {}, b'{"__type": "com.amazon.coral#ThrottlingException"}'),
        ],
        ids=["in the head", "in the body"],
    )
    def test_a_limit_of_its_rate_rejects_nothing(
        self, job: Job, server: ScriptedServer, throttled: Answer
    ) -> None:
        names = job.write_studies(6, instances=2)
        server.push(StoreAll(), throttled, throttled, StoreAll(), throttled, throttled)
        ran = job.run(server="healthimaging")
        assert (ran.outcomes, ran.exit_code) == ({"stored": 12}, 0)
        assert all(job.stored(name) == [job.sha256(name)] for name in names)
        refused, again = server.posts[1], server.posts[3]
        assert refused.body == again.body  # not split: there is nothing wrong with it

    def test_a_token_that_has_expired_ends_the_run_and_rejects_nothing(
        self, job: Job, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIDEXAMPLE")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x" * 40)
        monkeypatch.setenv("AWS_SESSION_TOKEN", "y" * 40)
        job.write_studies(4)
        server.push(StoreAll())
        server.default = Answer(400, {"x-amzn-errortype": "ExpiredTokenException"})
        ran = job.run(server="healthimaging", auth="sigv4", region="us-east-1", auth_patience_s=0.2)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 1, "pending": 3}, 1)
        assert ran.cause is not None
        assert "the AWS session token in the environment has expired" in str(ran.cause)


class TestA401ToASignature:
    """AWS says 403 of keys: it comes of something on the way, and no token has expired."""

    @pytest.mark.usefixtures("long_term_keys")
    def test_is_tried_once_more_at_once(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(4)
        server.push(StoreAll(), Answer(401))
        ran = job.run(server="healthimaging", auth="sigv4", region="us-east-1", auth_patience_s=0.2)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 4}, 0)
        assert len(server.posts) == 5

    @pytest.mark.usefixtures("long_term_keys")
    def test_to_every_request_is_told_as_a_refusal(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(4)
        server.push(StoreAll())
        server.default = Answer(401)
        ran = job.run(server="healthimaging", auth="sigv4", region="us-east-1", auth_patience_s=0.2)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 1, "pending": 3}, 1)
        assert str(ran.cause).startswith("the server refuses the credentials (HTTP 401)")


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


class TestAWrongClockOnTheWay:
    @pytest.mark.usefixtures("long_term_keys")
    @pytest.mark.parametrize("off", [timedelta(hours=-1), timedelta(hours=1)], ids=str)
    def test_that_refuses_one_body_spoils_no_other_signature(
        self, job: Job, server: ScriptedServer, off: timedelta
    ) -> None:
        job.write_studies(12)
        bad = uid_of("005/0000.dcm").encode()

        def pick(request: Request) -> Step:
            now = datetime.now(UTC)
            if bad in request.body:
                wrong = format_datetime(now + off, usegmt=True)
                return Answer(403, {"Date": wrong}, b"blocked by the firewall")
            signed = datetime.strptime(request.headers["x-amz-date"], "%Y%m%dT%H%M%S%z")
            if abs(signed - now) > timedelta(minutes=5):
                return Answer(403, {"Date": format_datetime(now, usegmt=True)}, b"expired")
            return StoreAll()

        server.default = Choose(pick)
        url = f"{server.url}/datastore/{'a' * 32}"
        ran = job.run(server="healthimaging", auth="sigv4", region="us-east-1", url=url)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 11, "rejected": 1}, 3)
