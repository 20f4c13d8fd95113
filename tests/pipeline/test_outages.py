"""A server that is away for a while costs that while, and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.pipeline.job import Job, uid_of
from tests.support.scripted import (
    Answer,
    Choose,
    Request,
    Reset,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
    Wait,
)

NO_ROOM = StoreAll(status=409, only=lambda _uid: False, failures=lambda _uid: 0xA700)
EMPTY_LISTS = b'{"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}'


class Away:
    """Answers a step from the n-th POST on, for some seconds after it; otherwise it stores."""

    def __init__(self, step: Step, *, after: int, seconds: float) -> None:
        self.step = step
        self.after = after
        self.seconds = seconds
        self.since = 0.0
        self.refused = 0

    def __call__(self, request: Request) -> Step:
        if request.number < self.after:
            return StoreAll()
        self.since = self.since or time.monotonic()
        if time.monotonic() - self.since > self.seconds:
            return StoreAll()
        self.refused += 1
        return self.step


AWAY = [
    pytest.param(Answer(503), id="503"),
    pytest.param(Answer(502), id="502 of a proxy"),
    pytest.param(Answer(500), id="500"),
    pytest.param(Answer(404), id="404 while it starts"),
    pytest.param(Reset(None), id="connections lost"),
]


class TestAnOutage:
    @pytest.mark.parametrize("step", AWAY)
    @pytest.mark.parametrize("workers", [1, 8])
    def test_is_waited_for_and_nothing_is_lost_or_refused(
        self, job: Job, server: ScriptedServer, step: Step, workers: int
    ) -> None:
        job.write_studies(40)
        away = Away(step, after=10, seconds=4)
        server.default = Choose(away)
        ran = job.run(max_concurrency=workers, max_outage_s=600)
        assert ran.outcomes == {"stored": 40}
        assert ran.exit_code == 0
        # Six attempts each of those under way, or ten in a row (a refusal for load is no loss) and
        # those that are under way with the tenth; then one a second at most.
        together = 6 * workers if step == Answer(503) else min(6 * workers, 10 + workers)
        assert 1 <= away.refused <= together + 5

    def test_of_a_server_that_is_down_sends_nothing_meanwhile(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(40)
        ten = threading.Event()

        def go_down_and_come_back() -> None:
            ten.wait(60)
            server.go_down()
            time.sleep(3)
            server.come_back()

        server.after_answer(lambda number: ten.set() if number == 10 else None)
        watcher = threading.Thread(target=go_down_and_come_back)
        watcher.start()
        ran = job.run(max_concurrency=4, max_outage_s=600)
        watcher.join()
        assert ran.outcomes == {"stored": 40}
        assert ran.exit_code == 0

    @pytest.mark.parametrize("step", AWAY)
    def test_that_is_too_long_ends_the_run_with_all_else_pending(
        self, job: Job, server: ScriptedServer, step: Step
    ) -> None:
        job.write_studies(20)
        server.default = Choose(Away(step, after=5, seconds=600))
        ran = job.run(max_outage_s=1.5)
        assert ran.exit_code == 1
        assert ran.cause is not None
        assert "taken nothing" in ran.cause.message
        assert ran.outcomes["stored"] == 5
        assert set(ran.outcomes) <= {"stored", "pending", "in_doubt"}
        server.default = StoreAll()
        again = job.run()
        assert again.outcomes == {"stored": 20}

    def test_that_is_too_long_quotes_no_answer_of_before(
        self, job: Job, server: ScriptedServer
    ) -> None:
        bad, *_ = job.write_studies(4)
        refuse = _refuse([uid_of(bad).encode()], Answer(400, {}, b"bad pixel data"))
        server.default = Choose(
            lambda request: refuse(request) if request.number < 3 else Reset(None)
        )
        ran = job.run(max_outage_s=0.5)
        assert ran.cause is not None
        assert "taken nothing" in ran.cause.message
        assert ran.cause.words == ""

    def test_is_told_of(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(20)
        server.default = Choose(Away(Answer(503), after=5, seconds=3))
        ran = job.run(max_outage_s=600)
        assert ran.outcomes == {"stored": 20}
        assert any(snapshot.away_s >= 1 for snapshot in ran.snapshots)
        assert ran.snapshots[-1].away_s == 0


class TestASettingThatIsRight:
    """Six unrelated batches are refused, and a file that was stored before is taken: bad files."""

    @pytest.mark.parametrize(
        "refusal",
        [Answer(400, {}, b"no"), Answer(200, {}, EMPTY_LISTS)],
        ids=["refused", "not confirmed"],
    )
    def test_the_files_are_to_blame(self, job: Job, server: ScriptedServer, refusal: Step) -> None:
        good = job.write_many(2, study="good")
        assert job.run().outcomes == {"stored": 2}
        bad = job.write_studies(9)
        uids = [uid_of(name).encode() for name in bad]
        server.default = Choose(_refuse(uids, refusal))
        ran = job.run()
        outcome = "rejected" if refusal == Answer(400, {}, b"no") else "in_doubt"
        assert ran.outcomes == {"stored": 2, outcome: 9}
        assert ran.exit_code == 3
        copies = [len(server.stored[uid_of(name)]) for name in good]
        assert sorted(copies) == [1, 3]  # one was sent again to see: in the middle and at the end

    def test_two_in_a_run_without_any_good_one_are_rejected_too(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("good.dcm", study="good")
        assert job.run().exit_code == 0
        bad = job.write_studies(2)
        server.default = Choose(_refuse([uid_of(name).encode() for name in bad], Answer(400)))
        ran = job.run()
        assert ran.outcomes == {"stored": 1, "rejected": 2}
        requests = len(server.posts)
        assert job.run().exit_code == 3
        assert len(server.posts) == requests, "they are settled"

    @pytest.mark.parametrize("which", [0, 2])
    def test_a_403_for_one_body_sinks_only_that_file(
        self, job: Job, server: ScriptedServer, which: int
    ) -> None:
        """A firewall before the server; the credentials are good."""
        job.write("good.dcm", study="good")
        assert job.run().exit_code == 0
        names = job.write_many(5, study="mixed")
        words = Answer(403, {}, b"blocked by policy")
        server.default = Choose(_refuse([uid_of(names[which]).encode()], words))
        ran = job.run(max_concurrency=1)
        assert ran.outcomes == {"stored": 5, "rejected": 1}
        assert ran.exit_code == 3

    def test_it_is_not_shown_by_a_manifest_under_a_500(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("good.dcm", study="good")
        assert job.run().exit_code == 0
        bad = [uid_of(name).encode() for name in job.write_studies(9)]

        def pick(request: Request) -> Step:
            refused = any(uid in request.body for uid in bad)
            return Answer(400, {}, b"no") if refused else StoreAll(status=500)

        server.default = Choose(pick)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 1, "pending": 9}

    def test_the_file_that_tells_may_have_come_from_another_source(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """The night before loaded a directory of the archive, this night the whole of it."""
        job.write("good/0.dcm", study="good")
        assert job.run(source="good").exit_code == 0
        bad = job.write("0bad.dcm", study="bad")
        server.default = Choose(_refuse([uid_of(bad.name).encode()], Answer(403, {}, b"blocked")))
        ran = job.run()
        assert ran.exit_code == 3
        assert ran.outcome(bad.name) == "rejected"

    def test_a_full_disk_behind_a_200_is_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2, study="good")
        assert job.run().exit_code == 0
        job.write_studies(12)
        server.default = Choose(Away(Answer(200, {}, EMPTY_LISTS), after=0, seconds=3))
        ran = job.run(max_outage_s=600)
        assert ran.outcomes == {"stored": 14}
        assert ran.exit_code == 0
        assert any(snapshot.away_s >= 1 for snapshot in ran.snapshots), "and it is told of"
        assert ran.snapshots[-1].away_s == 0


def _refuse(uids: list[bytes], refusal: Step) -> Callable[[Request], Step]:
    def pick(request: Request) -> Step:
        return refusal if any(uid in request.body for uid in uids) else StoreAll()

    return pick


class TestAFileThatIsTakenForAnOutage:
    """Something between us and the server answers one body as if the server were away."""

    @pytest.mark.parametrize(
        ("step", "outcome"),
        [
            (Answer(503, {"Retry-After": "0"}), "failed"),
            (Answer(503), "in_doubt"),
            (Answer(500), "in_doubt"),
            (Answer(404), "failed"),
            (Reset(None), "in_doubt"),
        ],
        ids=["503 until", "503", "500", "404", "lost"],
    )
    def test_sinks_alone_also_when_nothing_else_is_left(
        self, job: Job, server: ScriptedServer, step: Step, outcome: str
    ) -> None:
        job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        names = job.write_many(8)
        server.default = Choose(_refuse([uid_of(names[2]).encode()], step))
        ran = job.run(max_outage_s=600)
        assert ran.outcomes == {"stored": 8, outcome: 1}
        assert ran.outcome(names[2]) == outcome
        assert len(server.posts) <= 40

    @pytest.mark.parametrize("step", [Answer(500), Answer(403)], ids=["500", "403"])
    @pytest.mark.parametrize(
        ("payload_bytes", "checksums"),
        [(2_000_000, "sha256"), (256, "none")],
        ids=["read in pieces", "without a digest"],
    )
    def test_sinks_alone_where_an_earlier_run_stored_what_tells(
        self, job: Job, server: ScriptedServer, step: Step, payload_bytes: int, checksums: str
    ) -> None:
        job.write("0first.dcm", study="before", payload_bytes=payload_bytes)
        assert job.run(checksums=checksums).exit_code == 0
        bad = job.write("bad.dcm", payload_bytes=payload_bytes)
        server.default = Choose(_refuse([uid_of(bad.name).encode()], step))
        ran = job.run(checksums=checksums, max_outage_s=60)
        outcome = "rejected" if step == Answer(403) else "in_doubt"
        assert ran.outcomes == {"stored": 1, outcome: 1}
        assert set(job.stored("0first.dcm")) == {job.sha256("0first.dcm")}

    def test_is_not_told_by_a_file_that_has_changed(self, job: Job, server: ScriptedServer) -> None:
        """Under its old size and time stamp: only the digest in the journal tells."""
        first = job.write("0first.dcm", study="before", payload_bytes=2_000_000)
        assert job.run().exit_code == 0
        stored = job.sha256(first.name)
        job.write(first.name, study="before", payload_bytes=2_000_000, seed=1)
        bad = job.write("bad.dcm")
        server.default = Choose(_refuse([uid_of(bad.name).encode()], Answer(403)))
        ran = job.run(check=False)
        assert ran.exit_code == 1
        assert job.stored(first.name) == [stored]


class TestAStoreThatWantsNoInstanceTwice:
    """It refuses what it has with 0110, the stored file that is sent to tell bad files too."""

    @pytest.mark.parametrize("step", AWAY)
    def test_is_waited_for_like_any_other(
        self, job: Job, server: ScriptedServer, step: Step
    ) -> None:
        job.write_studies(20)
        away = Away(step, after=10, seconds=3)
        server.default = Choose(_once_each(server, away))
        ran = job.run(max_outage_s=60)
        assert ran.outcomes == {"stored": 20}
        assert all(len(copies) == 1 for copies in server.stored.values())

    def test_may_get_bad_files_that_are_to_blame(self, job: Job, server: ScriptedServer) -> None:
        job.write("good.dcm", study="good")
        assert job.run().exit_code == 0
        bad = [uid_of(name).encode() for name in job.write_studies(9)]
        server.default = Choose(_once_each(server, _refuse(bad, Answer(400, {}, b"no"))))
        ran = job.run()
        assert ran.exit_code == 3
        assert ran.outcomes == {"stored": 1, "rejected": 9}


def _once_each(
    server: ScriptedServer, pick: Callable[[Request], Step]
) -> Callable[[Request], Step]:
    """Whatever ``pick`` would have stored is stored once, and refused then."""

    def pick_once(request: Request) -> Step:
        step = pick(request)
        if not isinstance(step, StoreAll):
            return step
        return StoreAll(failures=lambda uid: 0x0110 if uid in server.stored else None)

    return pick_once


class TestAStoreThatHasNoRoom:
    """Every answer is a manifest in which every instance failed with A700 (PS3.18 Table I.2-2)."""

    def test_is_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(8)
        server.default = Choose(Away(NO_ROOM, after=1, seconds=3))
        ran = job.run(max_outage_s=600)
        assert ran.outcomes == {"stored": 8}

    def test_is_not_waited_for_without_end(self, job: Job, server: ScriptedServer) -> None:
        job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        job.write_studies(8)
        server.default = NO_ROOM
        ran = job.run(max_outage_s=2)
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 1, "pending": 8}
        assert len(server.posts) <= 1 + 6 + 5

    def test_is_waited_for_though_a_small_file_still_fits(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """One that was stored before is taken again: after two batches nobody goes by that."""
        small = job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        first, *_ = job.write_studies(9)
        room = [uid_of(name).encode() for name in (small.name, first)]
        server.default = Choose(
            lambda request: StoreAll() if any(uid in request.body for uid in room) else NO_ROOM
        )
        ran = job.run(max_outage_s=2)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 2, "failed": 2, "pending": 6}, 1)
        assert sum(len(job.stored(name)) for name in (small.name, first)) <= 2 + 2 + 1
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 10}

    @pytest.mark.parametrize("with_small_ones", [False, True], ids=["alone", "among others"])
    def test_for_files_that_are_larger_than_all_others_is_not_waited_for(
        self, job: Job, server: ScriptedServer, with_small_ones: bool
    ) -> None:
        job.write("0first.dcm", study="before")
        large = [
            job.write(f"z{number}.dcm", study=number, payload_bytes=20_000) for number in range(4)
        ]
        for number in range(4) if with_small_ones else ():
            job.write(f"y{number}.dcm", study=number)
        uids = {uid_of(path.name) for path in large}
        server.default = StoreAll(failures=lambda uid: 0xA700 if uid in uids else None)
        ran = job.run(max_outage_s=600)
        stored = 5 if with_small_ones else 1
        assert (ran.outcomes, ran.exit_code) == ({"stored": stored, "failed": 4}, 3)

    def test_for_batches_that_are_longer_than_all_others_is_not_waited_for(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(1)
        for number in range(3):
            job.write_many(6, study=f"z{number}", prefix=f"z{number}/")
        server.default = Choose(
            lambda request: NO_ROOM if len(request.body) > 5_000 else StoreAll()
        )
        ran = job.run(max_outage_s=600)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 1, "failed": 18}, 3)

    def test_from_the_start_is_waited_for_after_ten(self, job: Job, server: ScriptedServer) -> None:
        """Nothing shows that it would take files of this size: it may be these."""
        small = job.write("0first.dcm", study="before")
        assert job.run().exit_code == 0
        job.write_studies(12)
        uid = uid_of(small.name)
        server.default = StoreAll(failures=lambda each: None if each == uid else 0xA700)
        ran = job.run(max_outage_s=3)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 1, "failed": 9, "pending": 3}, 1)

    def test_is_waited_for_where_it_speaks_of_a_duplicate_in_between(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Two servers behind a balancer, both out of order: each answer is another's."""
        job.write("a.dcm")
        by_turns = [
            NO_ROOM,
            StoreAll(status=409, only=lambda _uid: False, failures=lambda _uid: 0x0110),
        ]
        server.default = Choose(lambda request: by_turns[request.number % 2])
        ran = job.run(max_outage_s=1)
        assert ran.outcomes == {"rejected": 1}
        assert len(server.posts) == 4


class TestAProbe:
    def test_that_is_told_to_come_back_in_a_week_comes_at_the_end_of_the_wait(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(5)
        server.push(StoreAll(), *[Answer(503)] * 6, Answer(503, {"Retry-After": "604800"}))
        ran = job.run(max_outage_s=4)
        assert ran.outcomes == {"stored": 5}

    @pytest.mark.parametrize("kind", ["generic", "healthimaging"])
    def test_goes_out_although_look_ups_are_not_answered(
        self, job: Job, server: ScriptedServer, kind: str
    ) -> None:
        job.write_studies(5)
        server.default_get = Answer(502)
        server.default = Choose(Away(Answer(502), after=1, seconds=1.5))
        ran = job.run(max_outage_s=60, server=kind)
        assert ran.outcomes == {"stored": 5}


class TestOneThatIsRefusedWhileOthersAreTaken:
    def test_is_not_sent_for_as_long_as_the_others_take(
        self, job: Job, server: ScriptedServer
    ) -> None:
        bad = job.write("0.dcm", study="bad")
        job.write_studies(30)
        uid = uid_of(bad.name).encode()
        server.default = Choose(lambda request: Answer(500) if uid in request.body else Wait(0.3))
        ran = job.run(max_concurrency=4, max_outage_s=600)
        assert ran.outcomes == {"stored": 30, "in_doubt": 1}
        assert sum(uid in post.body for post in server.posts) <= 2 * 6 + 2


class TestRefusalsAtTheEnd:
    def test_of_a_server_that_refuses_what_it_took_before_reject_nothing(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(5)
        server.push(StoreAll())
        server.default = Answer(400, {}, b"maintenance")
        ran = job.run()
        assert ran.outcomes == {"stored": 1, "failed": 4}
        server.default = StoreAll()
        assert job.run().outcomes == {"stored": 5}

    def test_nor_where_every_store_came_with_a_warning(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_studies(5)
        server.push(StoreAll(warnings=dict.fromkeys(map(uid_of, names), 0xB000)))
        server.default = Answer(400, {}, b"maintenance")
        ran = job.run()
        assert ran.outcomes == {"stored_with_warning": 1, "failed": 4}

    def test_nor_where_what_it_took_is_gone(self, job: Job, server: ScriptedServer) -> None:
        """Nothing is at hand that would tell whether it still takes it."""
        first, *_ = job.write_studies(5)
        taken = job.archive / first
        server.after_answer(lambda number: taken.unlink() if number == 1 else None)
        server.push(StoreAll())
        server.default = Answer(400, {}, b"maintenance")
        ran = job.run(check=False)
        assert ran.outcomes == {"stored": 1, "failed": 4}

    def test_by_a_bare_conflict_to_everything_reject_nothing(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """A store that was made read-only says it of what it has, too."""
        job.write_studies(5)
        server.push(StoreAll())
        server.default = Answer(409)
        ran = job.run()
        assert ran.outcomes == {"stored": 1, "failed": 4}

    def test_by_a_bare_conflict_reject_nothing_whatever_was_said_last(
        self, job: Job, server: ScriptedServer
    ) -> None:
        *_, last = job.write_studies(5)
        server.push(StoreAll())
        bad = uid_of(last).encode()
        server.default = Choose(lambda request: Answer(413 if bad in request.body else 409))
        ran = job.run()
        assert ran.outcomes == {"stored": 1, "failed": 3, "too_large": 1}


class TestAStoreThatRefusesWhatItHasByABareConflict:
    def test_goes_on_after_an_outage(self, job: Job, server: ScriptedServer) -> None:
        """A second copy tells nothing of it: the next body is the probe."""
        job.write_studies(10)
        away_until: list[float] = []

        def pick(request: Request) -> Step:
            if len(server.stored) == 3 and not away_until:
                away_until.append(time.monotonic() + 3)
            if away_until and time.monotonic() < away_until[0]:
                return Answer(503)
            if any(uid.encode() in request.body for uid in list(server.stored)):
                return Answer(409)
            return StoreAll()

        server.default = Choose(pick)
        ran = job.run(max_concurrency=2, max_outage_s=20.0)
        assert (ran.outcomes, ran.exit_code) == ({"stored": 10}, 0)

    def test_is_asked_for_what_it_has_of_a_last_batch_whose_answer_was_lost(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(3)
        names = job.write_many(8, study="last", prefix="z/")
        last = uid_of(names[0]).encode()

        def pick(request: Request) -> Step:
            if any(uid.encode() in request.body for uid in list(server.stored)):
                return Answer(409)
            return StoreThenDrop() if last in request.body else StoreAll()

        server.default = Choose(pick)
        ran = job.run()
        assert ran.outcomes == {"stored": 3 + 8}

    def test_is_no_store_that_is_set_wrongly_when_its_last_batch_is_refused(
        self, job: Job, server: ScriptedServer
    ) -> None:
        good = job.write_studies(3)
        names = job.write_many(8, study="last", prefix="z/")
        bad = uid_of(names[3]).encode()

        def pick(request: Request) -> Step:
            if any(uid.encode() in request.body for uid in list(server.stored)):
                return Answer(409)
            return Answer(400, {}, b"no") if bad in request.body else StoreAll()

        server.default = Choose(pick)
        ran = job.run()
        assert ran.outcomes == {"stored": len(good) + 7, "rejected": 1}


class TestTheKnownGoodFile:
    @pytest.mark.parametrize("first", [True, False], ids=["of an earlier run", "of this run"])
    def test_may_have_been_stored_with_a_warning(
        self, job: Job, server: ScriptedServer, first: bool
    ) -> None:
        """Some stores change a data set of each instance, and say so each time."""
        good, bad = job.write_studies(2)
        warning = StoreAll(warnings={uid_of(good): 0xB000})
        refused = [uid_of(bad).encode()]
        server.default = warning
        if first:
            assert job.run(source="000").outcomes == {"stored_with_warning": 1}
        blocked = Answer(403, {}, b"blocked by the firewall")
        refuse = _refuse(refused, blocked)
        server.default = Choose(lambda request: blocked if refuse(request) == blocked else warning)
        ran = job.run()
        assert (ran.outcomes, ran.exit_code) == ({"stored_with_warning": 1, "rejected": 1}, 3)

    @pytest.mark.parametrize("step", [Answer(503), Answer(429), Reset(None)], ids=str)
    def test_is_sent_once_more_where_the_server_was_not_well(
        self, job: Job, server: ScriptedServer, step: Step
    ) -> None:
        """One firewall's 403 and one 503 are no reason to end a run."""
        job.write_studies(12)
        bad = uid_of("005/0000.dcm").encode()
        unwell: list[Request] = []

        def pick(request: Request) -> Step:
            if bad in request.body:
                return Answer(403, {}, b"blocked by the firewall")
            if any(uid.encode() in request.body for uid in list(server.stored)) and not unwell:
                unwell.append(request)
                return step
            return StoreAll()

        server.default = Choose(pick)
        ran = job.run()
        assert unwell
        assert (ran.outcomes, ran.exit_code) == ({"stored": 11, "rejected": 1}, 3)
