"""What a real proxy makes of the way to a real Orthanc, and what the real command makes of that."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from ingester.dicomweb.outcome import Outcome
from tests.orthanc.command import Command, assert_same_bytes
from tests.pipeline.certificate import make_certificate
from tests.support.command import Run, read_run
from tests.support.dicom_files import Corpus, write_corpus
from tests.support.haproxy import DIGESTS, Haproxy, find_haproxy
from tests.support.orthanc import Orthanc
from tests.support.scripted import ScriptedServer

FAST = ("--backoff-base-s=0.02", "--max-batch-instances=10")
BODY_BYTES = 25_000  # of ten instances, a little less
OpenProxy = Callable[..., Haproxy]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Twelve requests of ten instances."""
    return write_corpus(tmp_path / "archive", 6, 20, 2_000)


@pytest.fixture
def proxied(orthanc: Orthanc, tmp_path: Path) -> OpenProxy:
    """Makes a proxy in front of the Orthanc."""
    if find_haproxy() is None:
        if os.environ.get("INGESTER_REQUIRE_ORTHANC") == "1":
            pytest.fail("haproxy is not installed, but INGESTER_REQUIRE_ORTHANC=1")
        pytest.skip("haproxy is not installed")

    def make(*rules: str, certificate: Path | None = None, timeout: str = "300s") -> Haproxy:
        return Haproxy(
            tmp_path / "haproxy",
            orthanc.port,
            rules,
            certificate=certificate,
            server_timeout=timeout,
        )

    return make


def nth(numbers: str) -> str:
    """A condition: of the POSTs only those, as `3` or `3:5`."""
    return f"{{ var(txn.post) -m int {numbers} }}"


def statuses(proxy: Haproxy) -> Counter[int]:
    """How often it answered what, to look-ups too."""
    return Counter(each.status for each in proxy.passed)


def unread_bytes(port: int) -> int:
    """What a server has been sent and has not read: the receive queues of its sockets."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [line[4] for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "01"]
    return sum(int(queue.partition(":")[2], 16) for queue in queues)


def assert_stored(
    orthanc: Orthanc, command: Command, corpus: Corpus, run: Run, refused: Sequence[Path] = ()
) -> None:
    """Orthanc has the corpus without the refused, byte for byte; so says the journal.

    Nothing else became of it, and the same command sends nothing again.
    """
    expected = Counter((f.study, f.sop) for f in corpus if f.path not in refused)
    assert run.exit_code == (3 if refused else 0), run.ended.stderr
    assert run.summary["files"] == len(corpus)
    assert run.outcomes["stored"] == len(corpus) - len(refused)
    assert sum(run.outcomes.values()) == len(corpus)
    assert Counter(command.stored().keys()) == expected
    assert_same_bytes(orthanc, command)
    before = orthanc.instances()
    again = command.run()
    assert (again.exit_code, again.outcomes) == (run.exit_code, run.outcomes)
    assert again.summary["requests"] == 0
    assert orthanc.instances() == before


def assert_same_bodies(proxy: Haproxy, lost: Sequence[int]) -> None:
    """The body of each of these POSTs went once more, byte for byte: the proxy's own digests."""
    digests = {post.post: post.digest for post in proxy.posts}
    for number in lost:
        later = [digest for post, digest in digests.items() if post is not None and post > number]
        assert digests[number] is not None
        assert digests[number] in later


class TestAProxyThatThrottles:
    @pytest.mark.parametrize("status", [429, 503])
    def test_for_a_while_costs_that_while_and_the_same_bodies_go_again(
        self, status: int, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        refuse = f"http-request return status {status} hdr Retry-After 1 if {nth('4:6')}"
        with proxied(*DIGESTS, refuse) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            run = command.run()
            assert_stored(orthanc, command, corpus, run)
            assert {post.post for post in proxy.posts if post.status == status} == {4, 5, 6}
            assert_same_bodies(proxy, [4, 5, 6])
            assert run.summary["retries"] == 3
            assert run.ended.elapsed_s > 1.0

    def test_from_the_first_request_on_is_no_wrong_setting(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        with proxied(f"http-request return status 503 hdr Retry-After 1 if {nth('1:3')}") as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            assert_stored(orthanc, command, corpus, command.run())


class TestAProxyThatDropsARequest:
    @pytest.mark.parametrize("drop", ["reject", "silent-drop"])
    def test_the_same_body_goes_again(
        self, drop: str, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """As root a silent drop is silence: then the answer is not waited for long."""
        with proxied(*DIGESTS, f"http-request {drop} if {nth('3:4')}") as proxy:
            command = Command(
                corpus.root, proxy.dicomweb_url, tmp_path, (*FAST, "--answer-timeout-s=2")
            )
            run = command.run()
            assert_stored(orthanc, command, corpus, run)
            assert_same_bodies(proxy, [3, 4])
            assert run.summary["retries"] >= 2

    def test_before_it_has_read_any_of_it(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """Three of four new connections, as a firewall would."""
        rules = (
            "tcp-request connection track-sc1 int(2)",
            "tcp-request connection sc-inc-gpc0(1)",
            "tcp-request connection reject if { sc1_get_gpc0 -m int 2:4 }",
        )
        with proxied(*rules) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            assert_stored(orthanc, command, corpus, command.run())


class TestAnAnswerLostAfterOrthancStored:
    LOST: ClassVar[dict[str, str]] = {
        "500": f"http-response return status 500 if {nth('3:4')}",
        "502": f"http-response deny status 502 if {nth('3:4')}",
        "504": f"http-response return status 504 if {nth('3:4')}",
        "silence": f"http-response silent-drop if {nth('3:4')}",
    }

    @pytest.mark.parametrize("how", LOST)
    def test_the_same_bodies_go_again_and_nothing_is_there_twice(
        self, how: str, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        with proxied(*DIGESTS, self.LOST[how]) as proxy:
            options = (*FAST, "--answer-timeout-s=2")
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, options)
            run = command.run()
            assert_stored(orthanc, command, corpus, run)
            assert_same_bodies(proxy, [3, 4])

    def test_by_every_request_the_run_ends_in_doubt_of_what_orthanc_has(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """Nothing is claimed; the same command, on a better way, claims and sends it all."""
        with proxied("http-response return status 502 if METH_POST") as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            run = command.run("--max-outage-s=1", "--max-attempts=3")
            assert run.exit_code == 1
            assert run.outcomes.keys() <= {"pending", "in_doubt"}
            assert run.outcomes["in_doubt"] >= 10
            assert len(orthanc.instances()) >= 10
            assert command.stored() == {}
            proxy.restart()
            assert_stored(orthanc, command, corpus, command.run())

    def test_because_the_proxy_died_with_it(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        with proxied(*DIGESTS) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            os.kill(orthanc.pid, signal.SIGSTOP)
            with command.start() as process:
                proxy.wait_until(lambda: unread_bytes(orthanc.port) > 3 * BODY_BYTES)
                proxy.freeze()
                os.kill(orthanc.pid, signal.SIGCONT)
                proxy.wait_until(lambda: len(orthanc.sop_instance_uids()) >= 20)
                assert command.stored() == {}
                proxy.restart()
                ended = process.wait(90)
            assert_stored(orthanc, command, corpus, read_run(ended))

    def test_in_its_own_time_after_the_proxy_had_said_504(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """What Orthanc has of those requests it stores when it wakes, beside their second ones."""
        with proxied(timeout="500ms") as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            os.kill(orthanc.pid, signal.SIGSTOP)
            with command.start() as process:
                proxy.wait_until(lambda: sum(post.status == 504 for post in proxy.posts) >= 3)
                os.kill(orthanc.pid, signal.SIGCONT)
                ended = process.wait(90)
            assert_stored(orthanc, command, corpus, read_run(ended))


class TestAProxyThatTakesNoLargeBody:
    LIMIT = 500_000

    def test_halves_the_batches_and_all_is_stored(
        self, orthanc: Orthanc, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """It says so by the Content-Length, while the body goes out."""
        corpus = write_corpus(tmp_path / "archive", 3, 40, 100_000)
        with proxied(self.refuse_above(self.LIMIT)) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path)
            run = command.run()
            assert_stored(orthanc, command, corpus, run)
            assert statuses(proxy)[413] >= 3

    def test_only_a_file_that_is_larger_by_itself_is_not_stored_until_it_may_be(
        self, orthanc: Orthanc, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        corpus = write_corpus(tmp_path / "archive", 2, 10, 100_000)
        other = write_corpus(tmp_path / "archive" / "large", 1, 1, 9_000_000, seed=1)
        both = Corpus(corpus.root, corpus.files | other.files)
        (large,) = other.files
        os.utime(large, (0, 0))  # one that was just written would be read and sent again
        with proxied(self.refuse_above(self.LIMIT)) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path)
            run = command.run()
            assert run.outcomes == {"stored": 20, "too_large": 1}
            assert command.rows()[large].outcome is Outcome.TOO_LARGE
            assert_stored(orthanc, command, both, run, refused=[large])
            proxy.restart([self.refuse_above(20_000_000)])
            assert_stored(orthanc, command, both, command.run("--retry=too_large"))

    @staticmethod
    def refuse_above(limit: int) -> str:
        """The rule."""
        return (
            f"http-request deny deny_status 413 if {{ req.hdr(content-length) -m int gt {limit} }}"
        )


class TestAnEarlyRefusal:
    """The proxy answers and closes while the body goes out: a reset follows the answer."""

    @pytest.mark.parametrize(("loop", "size"), [("asyncio", 3_000), ("uvloop", 100_000)])
    def test_is_always_heard(
        self, loop: str, size: int, orthanc: Orthanc, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        corpus = write_corpus(tmp_path / "archive", 100, 1, size)
        with proxied("http-request deny deny_status 413") as proxy:
            options = (*FAST, f"--event-loop={loop}")
            run = Command(corpus.root, proxy.dicomweb_url, tmp_path, options).run()
            assert (run.exit_code, run.outcomes) == (3, {"too_large": 100})
            assert run.summary["requests"] == 100
        assert orthanc.instances() == []


class TestAProxyThatReadsNothing:
    def test_is_given_up_after_the_stall_timeout_and_the_body_goes_again(
        self, orthanc: Orthanc, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """Orthanc is stopped, and the proxy reads no further than its buffers."""
        corpus = write_corpus(tmp_path / "archive", 2, 15, 1_000_000)
        with proxied() as proxy:
            log = tmp_path / "log.jsonl"
            options = ("--stall-timeout-s=1", "--backoff-base-s=0.02", f"--log-file={log}")
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, options)
            os.kill(orthanc.pid, signal.SIGSTOP)
            with command.start() as process:
                proxy.wait_until(lambda: log.exists() and log.read_text().count("stalled") >= 2)
                os.kill(orthanc.pid, signal.SIGCONT)
                ended = process.wait(90)
            assert_stored(orthanc, command, corpus, read_run(ended))


class TestAServerThatIsAwayBehindTheProxy:
    def test_is_waited_for(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """The proxy answers 503 to everything, without Retry-After."""
        options = (*FAST, "--max-attempts=3")
        with proxied() as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, options)
            assert replace(command, source=corpus.root / "study00000").run().exit_code == 0
            orthanc.kill()
            with command.start() as process:
                proxy.wait_until(lambda: statuses(proxy)[503] >= 12)
                orthanc.restart()
                ended = process.wait(90)
            assert_stored(orthanc, command, corpus, read_run(ended))

    def test_from_the_first_request_on_stops_the_run_and_the_same_command_completes(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        with proxied() as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            orthanc.kill()
            run = command.run()
            assert run.exit_code == 1
            # What was tried may have been stored, for all that a 503 without a time says.
            assert set(run.outcomes) <= {"pending", "in_doubt"}
            assert "hint:" in run.ended.stderr
            orthanc.restart()
            assert_stored(orthanc, command, corpus, command.run())

    def test_behind_a_404_too_once_something_was_stored(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        """As a container platform answers while it starts the service anew."""
        with proxied("http-request return status 404 if { sc0_get_gpc0 -m int 5:16 }") as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            assert_stored(orthanc, command, corpus, command.run())
            assert statuses(proxy)[404] >= 12


class TestAProxyThatRedirects:
    @pytest.mark.parametrize("code", [301, 307])
    def test_stops_the_run_and_nothing_goes_there(
        self,
        code: int,
        orthanc: Orthanc,
        corpus: Corpus,
        proxied: OpenProxy,
        server: ScriptedServer,
        tmp_path: Path,
    ) -> None:
        with proxied(f"http-request redirect code {code} location {server.url}/studies") as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            run = command.run()
            assert run.exit_code == 1
            assert run.outcomes.keys() <= {"pending", "in_doubt"}  # what was still on its way
            assert "hint:" in run.ended.stderr
            assert orthanc.instances() == []
            assert server.posts == []
            proxy.restart()
            assert_stored(orthanc, command, corpus, command.run())

    def test_in_mid_run_too(
        self,
        orthanc: Orthanc,
        corpus: Corpus,
        proxied: OpenProxy,
        server: ScriptedServer,
        tmp_path: Path,
    ) -> None:
        rule = f"http-request redirect code 308 location {server.url}/studies if {nth('ge 5')}"
        with proxied(rule) as proxy:
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, FAST)
            run = command.run()
            assert run.exit_code == 1
            assert run.outcomes["stored"] == 40
            assert run.outcomes.keys() <= {"stored", "pending", "in_doubt"}
            assert_same_bytes(orthanc, command)
            assert server.posts == []
            proxy.restart()
            assert_stored(orthanc, command, corpus, command.run())


class TestAFirewallThatRefusesOneBody:
    WORDS = "Blocked by policy, rule 942100"
    MARK = b"UNION SELECT"
    REFUSE = (
        f'http-request return status 403 content-type text/html string "<h1>{WORDS}</h1>"'
        f" if {{ req.body,hex -m sub {MARK.hex().upper()} }}"
    )

    @pytest.mark.parametrize("concurrency", [1, 8])
    @pytest.mark.parametrize("study", ["study00000", "study00003", "study00005"])
    def test_sinks_only_that_file(
        self,
        study: str,
        concurrency: int,
        orthanc: Orthanc,
        corpus: Corpus,
        proxied: OpenProxy,
        tmp_path: Path,
    ) -> None:
        bad = sorted(path for path in corpus.files if path.parent.name == study)[7]
        whole = bad.read_bytes()
        bad.write_bytes(whole[: -len(self.MARK)] + self.MARK)
        with proxied(*DIGESTS, self.REFUSE) as proxy:
            options = (*FAST, f"--max-concurrency={concurrency}")
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, options)
            assert replace(command, source=corpus.root / "study00001").run().exit_code == 0
            run = command.run()
            assert run.outcomes == {"stored": len(corpus) - 1, "rejected": 1}
            row = command.rows()[bad]
            assert row.outcome is Outcome.REJECTED
            assert row.http_status == 403
            assert self.WORDS in str(row.reason)
            assert_stored(orthanc, command, corpus, run, refused=[bad])


class TestTlsEndedByTheProxy:
    def test_is_verified_and_all_is_stored(
        self, orthanc: Orthanc, corpus: Corpus, proxied: OpenProxy, tmp_path: Path
    ) -> None:
        ours, another = make_certificate(tmp_path), make_certificate(tmp_path, "another")
        both = tmp_path / "both.pem"
        both.write_bytes(ours.path.read_bytes() + ours.key.read_bytes())
        with proxied(certificate=both) as proxy:
            trusting = f"--ca-bundle={another.path}"
            wrong = Command(corpus.root, proxy.dicomweb_url, tmp_path, (*FAST, trusting)).run()
            assert (wrong.exit_code, set(wrong.outcomes)) == (1, {"pending"})
            assert proxy.posts == []
            trusting = f"--ca-bundle={ours.path}"
            command = Command(corpus.root, proxy.dicomweb_url, tmp_path, (*FAST, trusting))
            assert_stored(orthanc, command, corpus, command.run())
