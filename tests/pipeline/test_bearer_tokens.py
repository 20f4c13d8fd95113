"""Bearer tokens that are renewed, refused, or have expired, while a real run goes on."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.pipeline.job import Job
from tests.support.exchange import Exchange
from tests.support.logs import until_logged
from tests.support.process import Process, is_alive, start_ingester
from tests.support.scripted import Answer, Request, ScriptedServer, Step, StoreAll, Wait
from tests.support.steps import Choose
from tests.support.waiting import wait_until

EXPIRED = Answer(401, {"WWW-Authenticate": 'Bearer error="invalid_token"'})


@dataclass
class ByToken:
    """A server that knows which tokens are good, and keeps who came with which."""

    good: set[str]
    seen: list[str] = field(default_factory=list)

    def only(self, *tokens: str) -> None:
        """These are good from now on."""
        self.good = set(tokens)

    def __call__(self, request: Request) -> Step:
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.seen.append(token)
        return StoreAll() if token in self.good else EXPIRED


class Giver:
    """A token command; its calls are counted, from 1, in `n`."""

    def __init__(self, folder: Path, body: str) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "give token.py").write_text(
            "import json, os, sys, time\n"
            f"here = {str(folder)!r}\n"
            "calls = open(os.path.join(here, 'calls'), 'ab', 0)\n"
            "n = calls.write(b'x') and calls.tell()\n" + body
        )

    @property
    def option(self) -> str:
        words = [sys.executable, "-I", "-S", str(self.folder / "give token.py")]
        return f"--token-command={shlex.join(words)}"

    @property
    def calls(self) -> int:
        path = self.folder / "calls"
        return path.stat().st_size if path.exists() else 0

    def until_called(self, times: int) -> None:
        """Wait for a call; only a hang ends this early."""
        wait_until(lambda: self.calls >= times)


def start(
    job: Job, *options: str, env: Mapping[str, str] | None = None, at_a_time: int = 1
) -> Process:
    """One file a request."""
    return start_ingester(
        "run", job.archive, f"--url={job.server.url}", f"--journal={job.journal}",
        f"--results={job.results}", "--json", "--auth=bearer", "--max-batch-instances=1",
        f"--max-concurrency={at_a_time}", "--readers=1", "--backoff-base-s=0.01", *options, env=env,
    )  # fmt: skip


def ended(process: Process) -> tuple[int, dict[str, int], str]:
    """Exit code, outcomes that happened, and what was said."""
    done = process.wait(90)
    assert done.stdout, done.stderr
    counts = json.loads(done.stdout)["outcomes"]
    return done.returncode, {name: n for name, n in counts.items() if n}, done.stderr


class TestATokenCommand:
    def test_is_asked_again_before_the_token_expires(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """The first answer is held until the third call: then the second has been taken over."""
        job.write_studies(2)
        giver = Giver(
            tmp_path / "giver", "print(json.dumps({'access_token': f'T{n}', 'expires_in': 2}))"
        )
        again = threading.Event()
        server.push(Wait(again))
        with start(job, giver.option) as process:
            giver.until_called(3)
            again.set()
            assert ended(process)[:2] == (0, {"stored": 2})
        first, second = (post.headers["authorization"] for post in server.posts)
        assert first == "Bearer T1"
        assert int(second.removeprefix("Bearer T")) >= 2

    def test_is_asked_again_when_the_token_is_refused(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """It says of none when it ends; each is good for three requests."""
        job.write_studies(7)
        giver = Giver(tmp_path / "giver", "print(f'T{n}')")
        by_token = ByToken({"T1"})
        server.default = Choose(by_token)
        server.after_answer(lambda n: by_token.only("T2") if n == 3 else None)
        with start(job, giver.option) as process:
            assert ended(process)[:2] == (0, {"stored": 7})
        assert by_token.seen == ["T1"] * 4 + ["T2"] * 4
        assert server.posts[3].body == server.posts[4].body
        assert giver.calls == 2

    @pytest.mark.parametrize("then", ["time.sleep(600)", "sys.exit('no network')", "print()"])
    def test_that_gives_nothing_more_stops_no_upload(
        self, then: str, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """Its token says that it ends in a second; the server takes it for longer."""
        job.write_studies(6)
        giver = Giver(
            tmp_path / "giver",
            "open(os.path.join(here, 'pid'), 'w').write(str(os.getpid()))\n"
            f"if n > 1: {then}\n"
            "print(json.dumps({'access_token': 'T', 'expires_in': 1}))",
        )
        again = threading.Event()
        server.push(StoreAll(), Wait(again))
        with start(job, giver.option) as process:
            giver.until_called(2)
            again.set()
            code, outcomes, said = ended(process)
        assert (code, outcomes) == (0, {"stored": 6})
        assert "no network" not in said
        last = int((giver.folder / "pid").read_text())
        assert not is_alive(last)

    def test_that_never_gives_one_is_an_error_and_nothing_is_sent(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        job.write("a.dcm")
        giver = Giver(tmp_path / "giver", "sys.exit('canary')")
        with start(job, giver.option) as process:
            done = process.wait(60)
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            "ingester: the token command failed (exit code 1)",
            "  hint: run it by hand to see what it says",
        ]
        assert server.requests == []


class TestATokenThatHasExpired:
    def test_in_the_environment_stops_the_run_and_is_named(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(12)
        by_token = ByToken({"T1"})
        server.default = Choose(by_token)
        server.after_answer(lambda n: by_token.only() if n == 3 else None)
        env = {"INGESTER_TOKEN": "T1"}
        with start(job, "--auth-patience-s=1", env=env, at_a_time=4) as process:
            code, outcomes, said = ended(process)
        assert code == 1
        assert outcomes == {"stored": outcomes["stored"], "pending": 12 - outcomes["stored"]}
        assert said.splitlines()[-2:] == [
            "ingester: the bearer token of INGESTER_TOKEN has expired and nothing newer came in 1 s",
            "  hint: renew it where it comes from; the same command goes on",
        ]
        assert len(server.posts) <= outcomes["stored"] + 4, "requests went out during the pause"
        with start(job, env={"INGESTER_TOKEN": "T2"}) as process:
            by_token.good.add("T2")
            assert ended(process)[:2] == (0, {"stored": 12})

    def test_leaves_nothing_in_doubt(self, job: Job, server: ScriptedServer) -> None:
        """What was refused was not stored, though its body had gone out and nothing followed."""
        job.write_studies(3)
        server.push(StoreAll())
        server.default = EXPIRED
        with start(job, "--auth-patience-s=0.5", env={"INGESTER_TOKEN": "T1"}) as process:
            assert ended(process)[:2] == (1, {"stored": 1, "pending": 2})
        assert len(server.posts) == 2

    def test_lets_no_other_request_start(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """One is let in before, and answered during the pause: its worker waits, too."""
        job.write_studies(6)
        log, again = tmp_path / "log", threading.Event()
        server.push(StoreAll(), Wait(again), EXPIRED)
        options = ("--auth-patience-s=3", f"--log-file={log}")
        env = {"INGESTER_TOKEN": "T1"}
        with start(job, *options, env=env, at_a_time=2) as process:
            until_logged(log, "pause")
            again.set()
            assert ended(process)[:2] == (1, {"stored": 2, "pending": 4})
        assert len(server.posts) == 3

    def test_in_a_file_is_waited_for(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        job.write_studies(5)
        token = tmp_path / "token"
        token.write_text("T1\n")
        by_token = ByToken({"T1"})
        server.default = Choose(by_token)
        server.after_answer(lambda n: by_token.only() if n == 2 else None)
        with start(job, f"--token-file={token}", "--auth-patience-s=60") as process:
            server.wait_until(lambda: server.answers >= 3, 60)
            by_token.good.add("T2")
            new = tmp_path / "new"
            new.write_text("T2\n")
            new.rename(token)
            assert ended(process)[:2] == (0, {"stored": 5})
        assert by_token.seen == ["T1"] * 3 + ["T2"] * 3
        assert server.posts[2].body == server.posts[3].body

    def test_is_waited_for_too_where_nothing_but_conflicts_showed_it_good(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """A store that has everything already answers 409 to all, with a manifest."""
        job.write_studies(3)
        token, log = tmp_path / "token", tmp_path / "log"
        token.write_text("T1")
        has_it = StoreAll(failures=lambda _uid: 0x0111)
        server.push(has_it, EXPIRED)
        server.default = has_it
        options = (f"--token-file={token}", "--auth-patience-s=60", f"--log-file={log}")
        with start(job, *options) as process:
            until_logged(log, "pause")
            token.write_text("T2")
            code, outcomes, _ = ended(process)
        assert code == 3
        assert "pending" not in outcomes

    def test_and_was_never_good_is_not_waited_for(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(3)
        server.default = EXPIRED
        with start(job, "--auth-patience-s=600", env={"INGESTER_TOKEN": "T1"}) as process:
            assert ended(process)[:2] == (1, {"pending": 3})
        assert len(server.posts) == 2

    def test_and_is_asked_for_in_a_look_up_too(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """The look-up after a lost answer is refused: it is made again, not taken for silence."""
        job.write_studies(2)
        giver = Giver(tmp_path / "giver", "print(f'T{n}')")
        server.push(StoreAll())
        server.default = StoreAll(failures=lambda _uid: 0x0110)
        server.push(Answer(500))
        server.push_get(EXPIRED)
        with start(job, giver.option) as process:
            code, outcomes, _ = ended(process)
        assert (code, outcomes) == (3, {"stored": 1, "rejected": 1})
        gets = [request for request in server.requests if request.method == "GET"]
        assert [get.headers["authorization"] for get in gets][:2] == ["Bearer T1", "Bearer T2"]

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_ends_the_wait_for_another(
        self, number: signal.Signals, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(3)
        server.push(StoreAll())
        server.default = EXPIRED
        options = ("--auth-patience-s=600", "--drain-timeout-s=300")
        with start(job, *options, env={"INGESTER_TOKEN": "T1"}) as process:
            server.wait_until(lambda: server.answers >= 2, 60)
            process.signal(number)
            assert ended(process)[:2] == (128 + number, {"stored": 1, "pending": 2})
        assert len(server.posts) == 2


class TestARequestThatWaitsForAnotherToken:
    def test_breaks_nothing_off_on_the_connection_that_it_had(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        """It is the first's, which was refused; the third sends on it meanwhile."""
        job.write("0.dcm", study=0)
        job.write("1.dcm", study=1)
        job.write("2.dcm", study=2, payload_bytes=20_000_000)
        given = tmp_path / "given"
        giver = Giver(
            tmp_path / "giver",
            f"while n > 1 and not os.path.exists({str(given)!r}): time.sleep(0.01)\nprint(f'T{{n}}')",
        )
        under_way = threading.Event()

        class Steps:
            """By the order in which they come; the body of the third is read late."""

            number = 0

            def play(self, exchange: Exchange) -> None:
                self.number += 1
                if self.number == 1:
                    EXPIRED.play(exchange)
                    return
                if self.number == 2:
                    giver.until_called(2)
                if self.number == 3:
                    under_way.set()
                    given.touch()
                    exchange.hold(1.5)
                StoreAll().play(exchange)

        server.default = Steps()
        with start(job, giver.option, at_a_time=2) as process:
            assert ended(process)[:2] == (0, {"stored": 3})
        assert under_way.is_set()
        assert len(server.posts) == 4
        assert all(len(copies) == 1 for copies in server.stored.values())
