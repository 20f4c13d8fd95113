"""A server that is killed under a run, with requests on the wire, and is started again."""

import json
import random
import threading
import time
from collections import Counter

from ingester.dicomweb.outcome import IN_THE_STORE
from tests.crash.job import NEVER, Job, Summary, key_of
from tests.support.process import Process

OUTAGES = 2


class TestAServerThatIsKilled:
    def test_is_waited_for_and_has_all_it_takes_and_what_it_has_twice_had_no_answer(
        self, server_seed: int, job: Job
    ) -> None:
        """Once, or twice; the answers under way are lost, whatever was stored of them."""
        chance = random.Random(f"server {server_seed}")
        job.options |= {"--backoff-base-s": "0.05", "--backoff-cap-s": "0.2"}
        due, back = threading.Event(), threading.Event()

        lost: list[bytes] = []

        def go_down_and_come_back() -> None:
            for _ in range(chance.randint(1, OUTAGES)):
                if not due.wait(60) or back.is_set():
                    return
                job.server.go_down()
                last = {post.connection: post for post in job.server.posts}
                lost.extend(post.body for post in last.values())
                time.sleep(chance.uniform(0, 1.0))
                job.server.come_back()

        killer = threading.Thread(target=go_down_and_come_back)
        killer.start()
        job.moment(certain=True).arm(job.server, due.set)
        with job.start() as process:
            ended = process.wait()
        back.set()
        killer.join()
        job.ended(ended, 0)
        assert lost
        if ended.returncode == 1:  # before a first success five tries are all that it has
            assert "cannot be reached" in ended.stderr
            assert not [row for row in job.rows() if row.outcome in IN_THE_STORE]
            ended = job.run(NEVER, Process.kill)
        assert ended.returncode == 3, ended.stderr  # the archive has what cannot be stored
        summary: Summary = json.loads(ended.stdout)
        job.check_complete(summary, lost_answers=True)
        claimed = {key_of(row) for row in job.rows() if row.outcome in IN_THE_STORE}
        assert claimed == job.archive.storable.keys() == job.stored().keys()
        again = {}
        for key, digests in job.stored().items():
            unanswered = sum(all(uid.encode() in body for uid in key) for body in lost)
            if len(digests) > 1 + unanswered:
                again[key] = len(digests) - 1 - unanswered
        # After an outage that a request may be to blame for, a small stored file goes first.
        alone = Counter(
            key
            for key in again
            for post in job.server.posts
            if post.body.count(b"DICM") == 1 and all(uid.encode() in post.body for uid in key)
        )
        assert all(again[key] <= alone[key] for key in again), again
        assert sum(again.values()) <= OUTAGES, again


class TestARunThatIsKilledWhileTheServerIsAway:
    def test_goes_on_when_both_are_there_again(self, server_seed: int, job: Job) -> None:
        job.options |= {"--backoff-base-s": "0.05", "--backoff-cap-s": "0.2"}
        pause_s = random.Random(f"away {server_seed}").uniform(0, 1.0)
        due = threading.Event()

        job.moment(certain=True).arm(job.server, due.set)
        with job.start() as process:
            assert due.wait(60)
            job.server.go_down()
            time.sleep(pause_s)
            process.kill()
            job.server.come_back()
            ended = process.wait()
        job.ended(ended, 0)
        job.check()
        in_flight = job.in_flight()
        job.finish()
        doubles = {key for key, digests in job.stored().items() if len(digests) > 1}
        assert doubles <= in_flight
