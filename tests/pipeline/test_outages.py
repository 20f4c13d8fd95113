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
)

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
        # Six attempts each of those under way, or ten in a row; then one a second at most.
        assert 1 <= away.refused <= 6 * workers + 10 + 5

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
        assert sorted(copies) == [1, 2]  # one was sent again, once, to see

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

    def test_a_full_disk_behind_a_200_is_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_many(2, study="good")
        assert job.run().exit_code == 0
        job.write_studies(12)
        server.default = Choose(Away(Answer(200, {}, EMPTY_LISTS), after=0, seconds=3))
        ran = job.run(max_outage_s=600)
        assert ran.outcomes == {"stored": 14}
        assert ran.exit_code == 0


def _refuse(uids: list[bytes], refusal: Step) -> Callable[[Request], Step]:
    def pick(request: Request) -> Step:
        return refusal if any(uid in request.body for uid in uids) else StoreAll()

    return pick


class TestAFileThatIsTakenForAnOutage:
    """Something between us and the server answers one body as if the server were away."""

    @pytest.mark.parametrize(
        ("step", "outcome"),
        [
            (Answer(503), "failed"),
            (Answer(500), "in_doubt"),
            (Answer(404), "failed"),
            (Reset(None), "in_doubt"),
        ],
        ids=["503", "500", "404", "lost"],
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
