"""What was sent and not answered is sent again as it was, and asked for before it is refused."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from ingester import logs
from ingester.dicomweb.outcome import Evidence
from tests.healthimaging.proxying import Proxy
from tests.pipeline.certificate import make_certificate
from tests.pipeline.job import Job, Ran, age, uid_of
from tests.support.exchange import Exchange
from tests.support.logs import lines_of
from tests.support.scripted import (
    Answer,
    AnswerAndSee,
    Choose,
    CloseAfter,
    DropIdle,
    EarlyAnswer,
    FindStored,
    NeverAnswer,
    NeverRead,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)
from tests.support.steps import DICOM_JSON

BROKEN_OFF = "the connection was closed before the end of the answer, or the rest is no HTTP"
ASKS = Answer(407, {"Proxy-Authenticate": "Basic"}, b"<html>Cache Access Denied</html>")


def whole_bodies(server: ScriptedServer) -> list[bytes]:
    return [request.body for request in server.posts if request.complete]


def assert_one_body(server: ScriptedServer, attempts: int) -> None:
    """All attempts are one body, as far as each of them came."""
    posts = server.posts
    assert len(posts) == attempts
    longest = max((request.body for request in posts), key=len)
    for request in posts:
        assert longest.startswith(request.body)
        assert request.headers["content-type"] == posts[0].headers["content-type"]
        assert request.content_length == len(longest)


def assert_one_body_of(server: ScriptedServer, sop: str, attempts: int) -> None:
    """All that went out with this instance is one body."""
    bodies = [request.body for request in server.posts if sop.encode() in request.body]
    assert bodies == bodies[:1] * attempts


class TestA503Or429WithRetryAfter:
    @pytest.mark.parametrize("status", [503, 429, 425])
    def test_the_same_body_goes_again_when_the_server_wants_it(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_many(3)
        server.push(Answer(status, {"Retry-After": "1"}))
        ran = job.run()
        assert ran.exit_code == 0
        assert_one_body(server, 2)
        first, second = server.posts
        assert second.body == first.body
        assert second.received_at - first.received_at >= 1
        assert ran.summary.retries == 1

    def test_a_date_is_the_least_wait_too(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        due = 0.0

        def pick(_request: Request) -> Step:
            nonlocal due
            due = float(int(time.time()) + 2)
            return Answer(503, {"Retry-After": formatdate(due, usegmt=True)})

        server.push(Choose(pick))
        answered_at: list[float] = []
        server.before_answer(lambda _number: answered_at.append(time.time()))
        assert job.run().exit_code == 0
        assert_one_body(server, 2)
        assert answered_at[1] >= due - 0.01

    @pytest.mark.parametrize("status", [503, 429])
    def test_nobody_else_sends_meanwhile(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(12)
        refused_at = 0.0

        def refuse(_request: Request) -> Step:
            nonlocal refused_at
            server.wait_until(lambda: len(server.posts) == 4)
            refused_at = time.monotonic()
            return AnswerAndSee(read, status, {"Retry-After": "2"})

        # The others are answered when the refusal has been read: none is on its way then.
        read = threading.Event()
        server.push(Choose(refuse), *[Wait(read)] * 3)
        ran = job.run(max_concurrency=4)
        assert ran.exit_code == 0
        later = [post.received_at for post in server.posts[4:]]
        assert len(later) == 12 + 1 - 4
        assert min(later) >= refused_at + 2

    @pytest.mark.parametrize("words", ["soon", "-5", "", "1e3", "Mon, 99 Foo 2024", "\xff\xfe"])
    def test_a_retry_after_that_cannot_be_read_is_none(
        self, job: Job, server: ScriptedServer, words: str
    ) -> None:
        job.write("a.dcm")
        server.push(Answer(503, {"Retry-After": words}))
        assert job.run().exit_code == 0
        assert_one_body(server, 2)

    @pytest.mark.parametrize(
        ("until", "end"), [({"Retry-After": "0"}, "pending"), ({}, "in_doubt")]
    )
    def test_without_end_and_without_a_success_it_stops(
        self, job: Job, server: ScriptedServer, until: dict[str, str], end: str
    ) -> None:
        job.write_many(3)
        server.default = Answer(503, until)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {end: 3}
        assert_one_body(server, 6)


class TestA503ThatNamesNoTime:
    """A proxy says it of a server that it has lost, perhaps after the server stored what it got."""

    def answer_for(
        self, job: Job, server: ScriptedServer, name: str, first: Step, then: Step
    ) -> None:
        """Of two files, in studies of their own, one is answered so; the other is stored."""
        content = job.write(name, study="its own").read_bytes()
        job.write("other.dcm")
        steps = iter([first])
        server.default = Choose(
            lambda request: next(steps, then) if content in request.body else StoreAll()
        )

    def test_is_a_doubt_when_the_resend_is_called_a_failure(
        self, job: Job, server: ScriptedServer
    ) -> None:
        again = StoreAll(failures=lambda _: 0x0110)
        self.answer_for(job, server, "lost.dcm", StoreAll(status=503), again)
        ran = job.run()
        assert ran.outcomes == {"stored": 2}
        assert ran.rows["lost.dcm"].evidence is Evidence.QIDO

    @pytest.mark.parametrize("refusal", [Answer(400, {}, b"no"), Answer(413)])
    def test_is_none_when_the_server_will_not_have_it(
        self, job: Job, server: ScriptedServer, refusal: Answer
    ) -> None:
        """Servers that throttle so, and cannot be asked, are no reason for a doubt without end."""
        self.answer_for(job, server, "bad.dcm", Answer(503), refusal)
        server.default_get = Answer(404)
        end = "too_large" if refusal.status == 413 else "rejected"
        assert job.run().outcomes == {"stored": 1, end: 1}

    def test_keeps_others_with_its_uids_from_being_sent(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """A server that keeps the first would call the second stored, and have the first."""
        content = job.write("a.dcm", sop="x").read_bytes()
        job.write("b.dcm", sop="x", seed=1)
        job.write_studies(20)
        server.default = Choose(
            lambda request: StoreAll(status=503) if content in request.body else StoreAll()
        )
        ran = job.run(
            server="orthanc", max_concurrency=4, max_batch_instances=1, batch_age_s=0.01,
            idle_slot_s=0.01,
        )  # fmt: skip
        assert [ran.outcome("a.dcm"), ran.outcome("b.dcm")] == ["in_doubt", "failed"]
        assert set(server.stored[uid_of("x")]) == {job.sha256("a.dcm")}


class TestA2xxThatNamesNothing:
    def test_before_any_success_is_a_doubt_too(self, job: Job, server: ScriptedServer) -> None:
        """The next version goes to a server that keeps the first, and says that it has stored."""
        job.write("a.dcm")
        server.default = StoreAll(named=lambda _uid: False)
        assert job.run(server="orthanc").outcomes == {"in_doubt": 1}
        server.default = StoreAll()
        age(job.write("a.dcm", seed=1), 60)
        ran = job.run(server="orthanc", check=False)
        assert ran.rows["a.dcm"].reason_code == "earlier_version_kept"


class TestAConnectionLostInMidBody:
    @pytest.mark.parametrize("payload_bytes", [400, 300_000])
    @pytest.mark.parametrize("step", [Reset(700), CloseAfter(700), Reset(None), CloseAfter(None)])
    def test_the_same_body_goes_again(
        self, job: Job, server: ScriptedServer, step: Step, payload_bytes: int
    ) -> None:
        for number in range(3):
            job.write(f"{number}.dcm", payload_bytes=payload_bytes)
        server.push(step, step)
        ran = job.run()
        assert ran.outcomes == {"stored": 3}
        assert ran.exit_code == 0
        assert_one_body(server, 3)
        assert {row.attempts for row in ran.rows.values()} == {3}

    def test_a_reset_before_the_first_byte_is_read(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2)
        server.push(Reset(0))
        assert job.run().outcomes == {"stored": 2}
        assert_one_body(server, 2)

    def test_a_kept_connection_that_died_costs_nothing(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(4)
        server.push(StoreAll(), DropIdle(when="next_request"))
        ran = job.run()
        assert ran.outcomes == {"stored": 4}
        assert server.dropped_reuses == 1
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_twice_for_one_batch_while_others_succeed_splits_it(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(2, study="bad")
        job.write_studies(60)
        together = [uid_of(name).encode() for name in names]
        lost: list[Request] = []

        def pick(request: Request) -> Step:
            if not all(uid in request.body for uid in together):
                return StoreAll()
            lost.append(request)
            # Of two others that came after the first loss, the client has the answer to one.
            after = lost[0].number + len(lost)
            server.wait_until(lambda: len(server.posts) >= after + 2)
            return Reset(None)

        server.default = Choose(pick)
        ran = job.run(max_concurrency=2)
        assert ran.outcomes == {"stored": 62}
        assert len(lost) == 2  # it is not tried to the end


class TestAFileThatKillsTheServer:
    """It sinks only itself, also where nothing else is left that could succeed."""

    @pytest.mark.parametrize("killer", [0, 3, 7])
    def test_alone_in_the_last_batch(self, job: Job, server: ScriptedServer, killer: int) -> None:
        job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        names = job.write_many(8)
        uid = uid_of(names[killer]).encode()
        server.default = Choose(lambda r: Reset(None) if uid in r.body else StoreAll())
        ran = job.run(max_outage_s=60)
        assert ran.outcomes == {"stored": 8, "in_doubt": 1}
        assert ran.outcome(names[killer]) == "in_doubt"
        assert ran.exit_code == 3
        assert len(server.posts) <= 1 + 6 * 4 + 4

    def test_a_server_that_is_away_is_not_blamed_on_the_files(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        job.write_many(200)
        server.default = Answer(502)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes["stored"] == 1
        assert len(server.posts) <= 1 + 6 * 13


class TestAnAnswerLostAfterTheServerStored:
    @pytest.mark.parametrize(
        "step",
        [
            StoreThenDrop(),
            StoreThenDrop(reset=True),
            StoreThenDrop(answer_bytes=40),
            StoreThenDrop(answer_bytes=200, reset=True),
            StoreAll(only_answer_bytes=150),
        ],
    )
    def test_the_same_body_goes_again(self, job: Job, server: ScriptedServer, step: Step) -> None:
        names = job.write_many(3)
        server.push(step)
        ran = job.run(answer_timeout_s=3)
        assert ran.outcomes == {"stored": 3}
        assert_one_body(server, 2)
        assert all(job.stored(name) == [job.sha256(name)] * 2 for name in names)
        assert {row.evidence for row in ran.rows.values()} == {Evidence.MANIFEST}

    def test_a_server_that_calls_the_resend_a_failure_is_asked_by_qido(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(3)
        server.push(StoreThenDrop())
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        ran = job.run()
        assert ran.exit_code == 0
        assert ran.outcomes == {"stored": 3}
        assert {row.evidence for row in ran.rows.values()} == {Evidence.QIDO}
        asked = [r.path for r in server.requests if r.method == "GET"]
        assert sorted(uid for name in names for uid in [uid_of(name)]) == sorted(
            path.split("SOPInstanceUID=")[1].split("&")[0] for path in asked
        )
        assert all(len(job.stored(name)) == 1 for name in names)

    @pytest.mark.parametrize("first", [StoreThenDrop(), StoreAll(status=503)], ids=["lost", "503"])
    @pytest.mark.parametrize("reason", [0xC000, 0xA900, 0x0111])
    def test_so_is_one_that_refuses_it_for_any_other_reason(
        self, job: Job, server: ScriptedServer, reason: int, first: Step
    ) -> None:
        """Else its UIDs are free for another file, whose lost answer its look-up would settle."""
        job.write("a.dcm", sop="x")
        job.write("b.dcm", sop="x", seed=1)
        server.push(
            first,
            StoreAll(failures=lambda _uid: reason),
            StoreThenDrop(store=StoreAll(only=lambda _uid: False)),
        )
        ran = job.run()
        assert ran.rows["a.dcm"].evidence is Evidence.QIDO
        assert ran.outcomes == {"stored": 1, "conflict": 1}

    def test_so_is_one_that_has_a_reason_of_its_own_for_what_an_earlier_run_sent(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Google's store calls a second copy 409, 0x0199."""
        (name,) = job.write_many(1)
        server.default, server.default_get = StoreThenDrop(), Answer(503)
        assert job.run(max_outage_s=0.1).outcomes == {"in_doubt": 1}
        server.default, server.default_get = StoreAll(failures=lambda _uid: 0x0199), FindStored()
        ran = job.run()
        assert ran.outcomes == {"stored": 1}
        assert ran.rows[name].evidence is Evidence.QIDO

    def test_what_qido_does_not_find_was_refused(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(3)
        lost = uid_of(names[1])
        server.push(StoreThenDrop(store=StoreAll(only=lambda uid: uid != lost)))
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        ran = job.run()
        assert [ran.outcome(name) for name in names] == ["stored", "rejected", "stored"]
        assert ran.exit_code == 3
        refused = next(line for line in ran.lines if line["outcome"] == "rejected")
        assert (refused["failure_code"], refused["reason_code"]) == (0x0110, "failure_0110")

    @pytest.mark.parametrize(
        "answer",
        [Answer(500), Answer(404), Answer(200, {}, b"<html>"), Answer(200, {}, b'{"a": 1}')],
    )
    def test_where_qido_does_not_say_it_stays_in_doubt(
        self, job: Job, server: ScriptedServer, answer: Answer
    ) -> None:
        job.write_many(2)
        server.push(StoreThenDrop())
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        server.default_get = answer
        ran = job.run()
        assert ran.outcomes == {"in_doubt": 2}
        assert ran.exit_code == 3

    def test_an_answer_to_another_question_is_no_evidence(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Servers that do not know a parameter of a search leave it out (PS3.18 10.6)."""
        names = job.write_many(2)
        other = b'[{"00080018": {"vr": "UI", "Value": ["%s"]}}]' % uid_of(names[0]).encode()
        server.push(StoreThenDrop(store=StoreAll(only=lambda uid: uid == uid_of(names[0]))))
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        server.default_get = Answer(200, {"Content-Type": DICOM_JSON}, other)
        ran = job.run()
        assert ran.outcome(names[0]) == "stored"
        assert ran.outcome(names[1]) != "stored"

    def test_a_2xx_that_does_not_name_what_it_stored_is_a_doubt_like_a_lost_answer(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Then 'I have it already', said as 0110, must not become 'rejected'."""
        names = job.write_many(3)
        unnamed = uid_of(names[1])
        server.push(StoreAll(named=lambda uid: uid != unnamed))
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        ran = job.run()
        assert len(job.stored(names[1])) == 1
        assert ran.outcome(names[1]) == "stored"
        assert ran.rows[names[1]].evidence is Evidence.QIDO
        assert ran.exit_code == 0

    def test_a_2xx_cut_short_is_a_doubt_too(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(2, study="cut")
        job.write_studies(2)

        def cut(exchange_body: bytes) -> bool:
            return uid_of(names[0]).encode() in exchange_body

        seen: list[int] = []

        def pick(request: Request) -> Step:
            if not cut(request.body) and uid_of(names[1]).encode() not in request.body:
                return StoreAll()
            seen.append(request.number)
            if len(seen) == 1:
                return _StoreAndSay(b'{"00081199": {"vr": "SQ", "Value": [{"0008115')
            return StoreAll(failures=lambda _uid: 0x0110)

        server.default = Choose(pick)
        ran = job.run()
        assert all(len(job.stored(name)) == 1 for name in names)
        assert {ran.outcome(name) for name in names} == {"stored"}


class TestADoubtThatAnEarlierRunLeft:
    """The store takes no instance twice, and shows what it has."""

    def leave_in_doubt(self, job: Job, server: ScriptedServer, *names: str, stored: bool) -> None:
        """A run in which the answers for these files are lost, until it gives up."""
        job.write("0.dcm", study="taken")
        uids = {uid_of(name) for name in names}
        lost = StoreThenDrop(store=StoreAll(only=lambda _uid: stored))

        def pick(request: Request) -> Step:
            held = any(uid.encode() in request.body for uid in uids)
            return lost if held else StoreAll(failures=self.refuse_what_is_there(server))

        server.default = Choose(pick)
        ran = job.run(max_outage_s=0.5, check=False)
        assert ran.outcomes["in_doubt"] == len(names)
        server.default = StoreAll(failures=self.refuse_what_is_there(server))

    def refuse_what_is_there(self, server: ScriptedServer) -> Callable[[str], int | None]:
        return lambda uid: 0x0110 if uid in server.stored else None

    def test_ends_with_what_the_store_shows(self, job: Job, server: ScriptedServer) -> None:
        names = job.write_many(2, study="lost")
        self.leave_in_doubt(job, server, *names, stored=True)
        ran = job.run()
        assert ran.exit_code == 0
        assert ran.outcomes == {"stored": 3}
        assert {ran.rows[name].evidence for name in names} == {Evidence.QIDO}
        assert all(set(job.stored(name)) == {job.sha256(name)} for name in names)

    def refuse_without_a_word(self, server: ScriptedServer, name: str) -> None:
        """From now on a 400 without a manifest for every request with this file."""
        uid = uid_of(name).encode()
        refused = Answer(400, {}, b"no")
        server.default = Choose(lambda request: refused if uid in request.body else StoreAll())

    @pytest.mark.parametrize(("stored", "end"), [(True, "stored"), (False, "rejected")])
    def test_ends_so_too_after_a_refusal_that_names_nothing(
        self, job: Job, server: ScriptedServer, stored: bool, end: str
    ) -> None:
        (name,) = job.write_many(1, study="lost")
        self.leave_in_doubt(job, server, name, stored=stored)
        self.refuse_without_a_word(server, name)
        assert job.run().outcome(name) == end

    def test_stays_after_one_where_the_store_does_not_say(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Or another file with its UIDs would be sent, refused, and taken for what is shown."""
        first = job.write("1.dcm", study="lost", sop="x")
        self.leave_in_doubt(job, server, "x", stored=True)
        self.refuse_without_a_word(server, "x")
        server.default_get = Answer(503)
        assert job.run().outcome("1.dcm") == "in_doubt"
        first.unlink()
        job.write("2.dcm", study="lost", sop="x", seed=1)
        server.default_get = FindStored()
        server.default = StoreAll(failures=self.refuse_what_is_there(server))
        assert job.run(check=False).outcome("2.dcm") != "stored"

    def test_stays_where_a_version_before_may_be_what_is_shown(
        self, job: Job, server: ScriptedServer
    ) -> None:
        (name,) = job.write_many(1, study="lost")
        self.leave_in_doubt(job, server, name, stored=True)
        age(job.write(name, study="lost", seed=1), seconds=60)
        self.leave_in_doubt(job, server, name, stored=False)
        assert job.run().outcome(name) == "in_doubt"

    def test_stays_where_a_version_without_a_digest_may_be_what_is_shown(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Of the same size; what time stamp it had is not known any more."""
        (name,) = job.write_many(1, study="lost")
        assert job.run(checksums="none").outcomes == {"stored": 1}
        age(job.write(name, study="lost", seed=1), seconds=60)
        self.leave_in_doubt(job, server, name, stored=False)
        assert job.run().outcome(name) == "in_doubt"

    def test_stays_where_a_version_between_may_be_what_is_shown(
        self, job: Job, server: ScriptedServer
    ) -> None:
        (name,) = job.write_many(1, study="lost")
        self.leave_in_doubt(job, server, name, stored=False)
        age(job.write(name, study="lost", seed=1), seconds=60)
        self.leave_in_doubt(job, server, name, stored=True)
        age(job.write(name, study="lost"))
        assert job.run().outcome(name) == "in_doubt"
        assert job.run().outcome(name) == "in_doubt"

    def test_stays_where_another_file_may_be_what_is_shown(
        self, job: Job, server: ScriptedServer
    ) -> None:
        first = job.write("1.dcm", study="lost", sop="x")
        self.leave_in_doubt(job, server, "x", stored=False)
        kept = first.rename(job.archive.parent / "kept")
        job.write("2.dcm", study="lost", sop="x", seed=1)
        self.leave_in_doubt(job, server, "x", stored=True)
        kept.rename(first)
        ran = job.run()
        assert ran.outcome("1.dcm") == "in_doubt"
        assert ran.outcome("2.dcm") == "failed"


class _StoreAndSay:
    """Stores everything, answers 200 with a body of the test's own."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def play(self, exchange: Exchange) -> None:
        """Stores and answers."""
        exchange.read_body(keep_all=True)
        StoreAll().store(exchange)
        exchange.answer(200, {"Content-Type": DICOM_JSON}, self.body)


class TestAServerThatMakesNoProgress:
    def test_a_body_that_nobody_reads_is_given_up_and_goes_again(
        self, job: Job, server: ScriptedServer
    ) -> None:
        for number in range(4):
            job.write(f"{number}.dcm", payload_bytes=3_500_000)
        server.push(NeverRead())
        began = time.monotonic()
        ran = job.run(stall_timeout_s=2)  # an answer may take 10 minutes
        assert ran.outcomes == {"stored": 4}
        assert time.monotonic() - began >= 2
        assert_one_body(server, 2)

    def test_no_answer_is_given_up_and_goes_again(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(3)
        server.push(NeverAnswer())
        began = time.monotonic()
        ran = job.run(stall_timeout_s=600, answer_timeout_s=2)
        assert ran.outcomes == {"stored": 3}
        assert time.monotonic() - began >= 2
        assert_one_body(server, 2)

    def test_a_slow_answer_is_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(3)
        server.push(_AnswerByDrops())
        ran = job.run(stall_timeout_s=2, answer_timeout_s=2)
        assert ran.outcomes == {"stored": 3}
        assert_one_body(server, 1)


class _AnswerByDrops:
    """Answers in many pieces, for longer than an answer may take to begin: 2.5 s."""

    def play(self, exchange: Exchange) -> None:
        """Stores and answers slowly."""
        exchange.read_body(keep_all=True)
        _, body = StoreAll().store(exchange)
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        exchange.settle()
        exchange.request.status = 200
        data = head + body
        step = len(data) // 10
        for start in range(0, len(data), step):
            exchange.wire.send(data[start : start + step])
            exchange.pause(0.25)


class TestStrangeAnswers:
    def test_half_a_megabyte_is_read(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(3)
        padding = b" " * 500_000
        server.push(_Padded(padding))
        assert job.run().outcomes == {"stored": 3}
        assert len(server.posts) == 1

    def test_one_without_end_is_no_answer(self, job: Job, server: ScriptedServer) -> None:
        """A MiB and 6 KiB a file are kept of it."""
        job.write_many(3)
        server.push(_Padded(b" " * (1_048_576 + 3 * 6144)))
        assert job.run().outcomes == {"stored": 3}
        assert_one_body(server, 2)

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 abc\r\n\r\n",
            b"this is not HTTP\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: deflate\r\nContent-Length: 4\r\n\r\nnope",
            b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nnope",
            b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01",
        ],
    )
    def test_what_is_no_http_is_no_answer(
        self, job: Job, server: ScriptedServer, raw: bytes
    ) -> None:
        job.write_many(2)
        server.push(_Raw(raw))
        ran = job.run()
        assert ran.outcomes == {"stored": 2}
        assert_one_body(server, 2)

    @pytest.mark.parametrize("depth", [0, 200_000])
    def test_json_that_cannot_be_read_confirms_nothing(
        self, job: Job, server: ScriptedServer, depth: int
    ) -> None:
        job.write_many(2)
        server.default = Answer(200, {"Content-Type": DICOM_JSON}, b"[" * depth or b"\xff{")
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes in ({"pending": 2}, {"in_doubt": 2})

    def test_headers_that_are_no_text_do_no_harm(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2)
        server.default = StoreAll(headers={"X-Request-Id": "\xff\xfe\x01"})
        assert job.run().outcomes == {"stored": 2}

    def test_a_header_of_60_kib_does_no_harm(self, job: Job, server: ScriptedServer) -> None:
        """A portal before the store has such a policy or cookie, and has it in each answer."""
        job.write_many(2)
        server.default = StoreAll(headers={"Content-Security-Policy": "x" * (60 << 10)})
        assert job.run().outcomes == {"stored": 2}
        assert_one_body(server, 1)

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_a_chunk_that_cannot_be_read_ends_one_that_had_begun(
        self, job: Job, server: ScriptedServer, event_loop: str
    ) -> None:
        """The server keeps the connection open: nothing else tells that no more will come."""
        job.write_many(2)
        server.push(_BadChunk())
        log = job.archive.parent / "log"
        began = time.monotonic()
        with logs.opened(str(log), "info"):
            ran = job.run(stall_timeout_s=2, answer_timeout_s=60, event_loop=event_loop)
        assert ran.outcomes == {"stored": 2}
        (first,) = (line for line in lines_of(log) if line["event"] == "request")
        assert (first["no_answer"], first["detail"]) == ("lost", BROKEN_OFF)
        assert time.monotonic() - began < 10
        assert_one_body(server, 2)


class _Raw:
    """Reads the body and sends these bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def play(self, exchange: Exchange) -> None:
        """Reads and sends."""
        exchange.read_body()
        exchange.wire.send(self.data)
        exchange.finish()


_MORE_THAN_A_READ = 600_000
"""asyncio and uvloop read 250 KiB at a time."""


class _BadChunk:
    """Stores, begins a good answer and goes on with what is no chunk; then it waits."""

    def play(self, exchange: Exchange) -> None:
        """Stores and answers."""
        exchange.read_body(keep_all=True)
        StoreAll().store(exchange)
        # More than a client takes at a time, or the head would be lost together with the rest.
        exchange.wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.wire.send(b"%x\r\n" % _MORE_THAN_A_READ + b" " * _MORE_THAN_A_READ + b"\r\n")
        exchange.wire.send(b"no chunk\r\n")
        exchange.hold(None)


class _Padded:
    """A manifest with white space before it."""

    def __init__(self, padding: bytes) -> None:
        self.padding = padding

    def play(self, exchange: Exchange) -> None:
        """Stores and answers."""
        exchange.read_body(keep_all=True)
        status, body = StoreAll().store(exchange)
        exchange.answer(status, {"Content-Type": DICOM_JSON}, self.padding + body)


class TestAConnectionThatIsRefused:
    def test_at_the_start_five_tries_and_all_is_pending(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(3, 2)
        server.go_down()
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 6}
        assert ran.summary.requests == 5
        assert ran.cause is not None
        assert "cannot be reached" in ran.cause.message
        assert {row.reason_code for row in ran.rows.values()} == {"not_finished"}
        server.come_back()
        assert job.run().outcomes == {"stored": 6}

    def test_in_mid_run_is_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(10)
        back = threading.Timer(0.3, server.come_back)
        server.push(*[StoreAll()] * 3, _go_down(server, back.start))
        ran = job.run(max_attempts=10_000)
        back.join()
        assert ran.outcomes == {"stored": 10}
        assert ran.exit_code == 0

    def test_for_good_it_stops_and_nothing_has_failed(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(10)
        down = threading.Event()
        server.push(*[StoreAll()] * 3, _go_down(server, down.set))
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 3, "in_doubt": 1, "pending": 6}
        assert down.wait(60)
        server.come_back()
        assert job.run().outcomes == {"stored": 10}


class TestAProxyOfPlainHttpThatAsksWhoWeAre:
    """It answers in the server's place: what it says is no word about the files."""

    @pytest.fixture
    def proxied(self, server: ScriptedServer) -> dict[str, object]:
        """The options for the scripted server as the proxy of another."""
        return {"url": "http://store.invalid", "proxy": server.url}

    def test_for_a_moment_costs_no_file(
        self, job: Job, server: ScriptedServer, proxied: dict[str, object]
    ) -> None:
        job.write_studies(4)
        server.push(StoreAll(), ASKS)
        ran = job.run(proxied)
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 4})
        assert server.posts[1].body == server.posts[2].body

    def test_from_then_on_leaves_all_else_pending(
        self, job: Job, server: ScriptedServer, proxied: dict[str, object]
    ) -> None:
        job.write_studies(4)
        server.push(StoreAll())
        server.default = server.default_get = ASKS
        ran = job.run(proxied)
        assert (ran.exit_code, ran.outcomes) == (1, {"stored": 1, "pending": 3})
        assert ran.cause is not None
        assert "the proxy has let nothing through" in ran.cause.message

    def test_from_the_start_is_told(
        self, job: Job, server: ScriptedServer, proxied: dict[str, object]
    ) -> None:
        job.write_studies(4)
        server.default = ASKS
        ran = job.run(proxied)
        assert (ran.exit_code, ran.outcomes) == (1, {"pending": 4})
        assert ran.cause is not None
        assert ran.cause.message == "there is no connection through the proxy (HTTP 407)"


class TestA407ThatNoProxyOfOursCanHaveSaid:
    """A proxy on the way that nobody named asks for credentials: somebody has to name it."""

    WORDS = "a proxy on the way asks for credentials (HTTP 407)"

    def test_for_a_moment_costs_no_file(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(4)
        server.push(StoreAll(), ASKS)
        ran = job.run()
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 4})
        assert server.posts[1].body == server.posts[2].body

    @pytest.mark.parametrize("stored", [0, 1])
    def test_twice_ends_the_run_at_once(
        self, job: Job, server: ScriptedServer, stored: int
    ) -> None:
        job.write_studies(4)
        server.push(*[StoreAll()] * stored)
        server.default = server.default_get = ASKS
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes.get("stored", 0) == stored
        assert ran.outcomes["pending"] == 4 - stored
        assert len(server.posts) == stored + 2
        assert ran.cause is not None
        assert ran.cause.message == self.WORDS
        assert "--proxy" in ran.cause.hint

    @pytest.mark.parametrize("times", [2, 4])
    def test_now_and_then_while_others_are_stored_costs_no_file(
        self, job: Job, server: ScriptedServer, times: int
    ) -> None:
        names = job.write_studies(16)
        server.default = Choose(_AsksOver(server, uid_of(names[0]), times))
        ran = job.run(max_concurrency=2)
        assert (ran.exit_code, ran.outcomes) == (0, {"stored": 16})
        assert ran.summary.retries == times
        assert_one_body_of(server, uid_of(names[0]), times + 1)

    def test_for_one_batch_alone_is_no_word_about_its_files(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_studies(16)
        job.write_many(2, study=0, prefix="000/more")
        server.default = Choose(_AsksOver(server, uid_of(names[0]), 1000))
        ran = job.run(max_concurrency=2)
        assert (ran.exit_code, ran.outcomes) == (3, {"stored": 15, "failed": 3})
        row = ran.rows[names[0]]
        assert (row.reason_code, row.http_status) == ("attempts_used_up", 407)
        assert_one_body_of(server, uid_of(names[0]), 6)
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 18}

    def test_in_a_tunnel_is_not_our_proxys_either(self, job: Job, tmp_path: Path) -> None:
        job.write_studies(4)
        certificate = make_certificate(tmp_path)
        with ScriptedServer(tls=certificate.context) as server, Proxy() as proxy:
            server.default = ASKS
            ran = job.run(
                url=server.url, ca_bundle=str(certificate.path), proxy=f"http://{proxy.address}"
            )
            assert len(server.posts) == 2
        assert (ran.exit_code, ran.outcomes) == (1, {"pending": 4})
        assert ran.cause is not None
        assert ran.cause.message == "something behind --url asks for proxy credentials (HTTP 407)"
        assert "name it" not in ran.cause.hint
        assert "behind the proxy that was named" in ran.cause.hint


class _AsksOver:
    """One file meets 407 so many times, the second time after others were stored meanwhile."""

    def __init__(self, server: ScriptedServer, sop: str, times: int) -> None:
        self._server = server
        self._sop = sop.encode()
        self._times = times
        self._asked = 0
        self._stored = 0

    def __call__(self, request: Request) -> Step:
        """The step for a request whose body was read."""
        if self._sop not in request.body or self._asked == self._times:
            return StoreAll()
        self._asked += 1
        if self._asked == 1:
            self._stored = len(self._server.stored)
        elif self._asked == 2:  # with two workers the third of four was sent after the first 407
            self._server.wait_until(lambda: len(self._server.stored) >= self._stored + 4)
        return ASKS


class _ProxyThatHangs(Proxy):
    """From some moment on it takes a CONNECT and says nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.hangs = threading.Event()

    def _carry(self, client: socket.socket) -> None:
        if not self.hangs.is_set():
            super()._carry(client)
        while client.recv(4096):
            pass


class TestAProxyThatTakesAConnectAndHangs:
    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_from_the_start_is_told(self, job: Job, tmp_path: Path, event_loop: str) -> None:
        ran, server = self.load(job, tmp_path, 0, stall_timeout_s=1, event_loop=event_loop)
        assert (ran.exit_code, ran.outcomes) == (1, {"pending": 4})
        assert ran.cause is not None
        assert ran.cause.message.startswith("there is no connection through the proxy (")
        assert server.requests == []

    def test_in_mid_run_is_told_and_neither_body_nor_look_up_waits_for_an_answer(
        self, job: Job, tmp_path: Path
    ) -> None:
        began = time.monotonic()
        ran, server = self.load(
            job, tmp_path, 1, stall_timeout_s=1, answer_timeout_s=30, max_outage_s=10
        )
        assert time.monotonic() - began < 25
        assert (ran.exit_code, ran.outcomes) == (1, {"stored": 1, "pending": 3})
        assert ran.cause is not None
        assert "the proxy has let nothing through" in ran.cause.message
        assert len(server.requests) == 1

    def load(
        self, job: Job, tmp_path: Path, after: int, **options: object
    ) -> tuple[Ran, ScriptedServer]:
        """Loads four studies through a proxy that hangs after so many answers."""
        job.write_studies(4)
        certificate = make_certificate(tmp_path)
        with ScriptedServer(tls=certificate.context) as server, _ProxyThatHangs() as proxy:
            job.server = server
            server.default = StoreAll(headers={"Connection": "close"})
            server.before_answer(lambda number: proxy.hangs.set() if number == after else None)
            if not after:
                proxy.hangs.set()
            ran = job.run(
                options, url=server.url, ca_bundle=str(certificate.path),
                proxy=f"http://{proxy.address}",
            )  # fmt: skip
        return ran, server


def _go_down(server: ScriptedServer, then: Callable[[], None]) -> Step:
    """A request during which the server goes down: it is not answered."""

    def act() -> None:
        server.go_down()
        then()

    def pick(_request: Request) -> Step:
        threading.Thread(target=act).start()
        return NeverAnswer()

    return Choose(pick)


class TestAnOutage:
    @pytest.mark.parametrize("status", [500, 502, 504, 507, 408])
    def test_a_5xx_is_a_doubt_and_the_same_body_goes_again(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_many(3)
        server.push(Answer(status, {}, b"<html>oops</html>"))
        ran = job.run()
        assert ran.outcomes == {"stored": 3}
        assert_one_body(server, 2)

    def test_an_early_5xx_while_the_body_goes_out(self, job: Job, server: ScriptedServer) -> None:
        for number in range(3):
            job.write(f"{number}.dcm", payload_bytes=3_000_000)
        server.push(EarlyAnswer(500, after_bytes=100_000, afterwards="close"))
        assert job.run().outcomes == {"stored": 3}
        assert_one_body(server, 2)

    @pytest.mark.parametrize("studies", [1, 3, 40])
    def test_a_5xx_that_stays_stops_with_what_was_sent_in_doubt(
        self, job: Job, server: ScriptedServer, studies: int
    ) -> None:
        job.write_studies(studies, 2)
        server.default = Answer(502)
        ran = job.run()
        assert ran.exit_code == 1
        assert set(ran.outcomes) <= {"in_doubt", "pending"}
        assert len(server.posts) <= 6 * 13
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 2 * studies}
