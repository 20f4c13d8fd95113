"""The benchmark's sink answers what it received, however the bytes were cut up."""

import asyncio
import hashlib
import itertools
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingester.bench.answers import Totals
from ingester.bench.connection import BUFFER_BYTES, SinkProtocol
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import make
from ingester.bench.knobs import Knobs, Line, limit_of
from tests.support.process import is_alive
from tests.support.waiting import wait_until

CORPUS = Corpus("sink", files=4, size=2048, studies=1)
CT = "1.2.840.10008.5.1.4.1.1.2"
BOUNDARY = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    directory = Path(make(CORPUS, str(tmp_path_factory.mktemp("corpus"))))
    return [(directory / CORPUS.path(index)).read_bytes() for index in range(CORPUS.files)]


def part(content: bytes) -> bytes:
    return f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + content + b"\r\n"


def multipart(contents: Sequence[bytes]) -> bytes:
    return b"".join(map(part, contents)) + f"--{BOUNDARY}--".encode()


def request(
    body: bytes, content_type: str = MULTIPART, path: str = "/studies", extra: str = ""
) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: sink\r\nContent-Type: {content_type}\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def answers(raw: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Cuts what a server sent into status, headers and body."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        length = int(headers.get("content-length", 0))
        found.append((int(first.split()[1]), headers, raw[:length]))
        raw = raw[length:]
    return found


def stored(body: bytes) -> list[tuple[str, str]]:
    """The (class, instance) pairs of a Store Instances Response's (0008,1199)."""
    items: list[dict[str, Any]] = json.loads(body)["00081199"]["Value"]
    return [(item["00081150"]["Value"][0], item["00081155"]["Value"][0]) for item in items]


class Wire(asyncio.Transport):
    """Takes what the sink writes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True


class Connection:
    """A connection whose reads are cut exactly where the test says."""

    def __init__(self, knobs: Knobs | None = None, *, digests: bool = False) -> None:
        self.totals = Totals()
        self.wire = Wire()
        self.sink = SinkProtocol(self.totals, knobs or Knobs(), digests=digests)
        self.sink.connection_made(self.wire)

    def send(self, data: bytes, cuts: Sequence[int] = ()) -> None:
        borders = [0, *sorted(cuts), len(data)]
        for start, end in itertools.pairwise(borders):
            at = start
            while at < end:
                room = self.sink.get_buffer(-1)
                taken = min(len(room), end - at)
                room[:taken] = data[at : at + taken]
                self.sink.buffer_updated(taken)
                at += taken

    @property
    def answers(self) -> list[tuple[int, dict[str, str], bytes]]:
        return answers(bytes(self.wire.written))


def expected(count: int) -> list[tuple[str, str]]:
    return [(CT, CORPUS.sop_instance_uid(index)) for index in range(count)]


class TestAnswer:
    def test_names_every_instance_of_a_multipart_body(self, files: list[bytes]) -> None:
        connection = Connection()
        connection.send(request(multipart(files)))
        ((status, headers, body),) = connection.answers
        assert (status, headers["content-type"]) == (200, "application/dicom+json")
        assert stored(body) == expected(4)

    def test_takes_a_single_instance_as_application_dicom(self, files: list[bytes]) -> None:
        connection = Connection(digests=True)
        connection.send(request(files[0], "application/dicom", f"/studies/{CT}"))
        ((status, _, body),) = connection.answers
        assert (status, stored(body)) == (200, expected(1))
        assert list(connection.totals.digests.values()) == [hashlib.sha256(files[0]).hexdigest()]

    @pytest.mark.parametrize(
        "body_of",
        [
            lambda content: multipart([content]) + b"\r\n",
            lambda content: b"\r\n" + multipart([content]),
        ],
        ids=["CRLF after the end", "CRLF before the beginning"],
    )
    def test_accepts_a_crlf_around_the_body(self, files: list[bytes], body_of: Any) -> None:
        connection = Connection()
        connection.send(request(body_of(files[0])))
        assert stored(connection.answers[0][2]) == expected(1)

    def test_reads_a_quoted_boundary(self, files: list[bytes]) -> None:
        connection = Connection()
        quoted = MULTIPART.replace(BOUNDARY, f'"{BOUNDARY}"')
        connection.send(request(multipart(files), quoted))
        assert connection.answers[0][0] == 200

    def test_counts_a_part_that_is_no_part_10_file_as_failed(self, files: list[bytes]) -> None:
        connection = Connection()
        connection.send(request(multipart([b"garbage", files[0], b"", files[1][:140]])))
        ((status, _, body),) = connection.answers
        assert (status, stored(body)) == (202, expected(1))
        assert len(json.loads(body)["0008119A"]["Value"]) == 3

    def test_says_409_when_nothing_was_understood(self) -> None:
        connection = Connection()
        connection.send(request(multipart([b"x" * 100_000])))
        ((status, _, body),) = connection.answers
        assert status == 409
        assert "00081199" not in json.loads(body)

    def test_asks_for_the_body_where_the_client_waits(self, files: list[bytes]) -> None:
        connection = Connection()
        connection.send(request(multipart(files), extra="Expect: 100-continue\r\n"))
        assert [status for status, _, _ in connection.answers] == [100, 200]


class TestBorders:
    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_any_cuts_give_the_same_answers(self, files: list[bytes], data: st.DataObject) -> None:
        stream = request(multipart(files[:3])) + request(files[3], "application/dicom")
        cuts = data.draw(st.lists(st.integers(1, len(stream) - 1), max_size=40, unique=True))
        connection = Connection(digests=True)
        connection.send(stream, cuts)
        first, second = connection.answers
        assert stored(first[2]) + stored(second[2]) == expected(4)
        assert connection.totals.digests == {
            CORPUS.sop_instance_uid(index): hashlib.sha256(content).hexdigest()
            for index, content in enumerate(files)
        }

    def test_one_byte_at_a_time(self, files: list[bytes]) -> None:
        stream = request(multipart(files[:2]))
        connection = Connection(digests=True)
        connection.send(stream, range(1, len(stream)))
        assert stored(connection.answers[0][2]) == expected(2)
        assert set(connection.totals.digests.values()) == {
            hashlib.sha256(content).hexdigest() for content in files[:2]
        }

    def test_a_delimiter_anywhere_across_the_end_of_the_buffer(self, files: list[bytes]) -> None:
        head = len(request(b"." * BUFFER_BYTES)) - BUFFER_BYTES
        lead = len(part(b"")) - 2
        for shift in range(-10, 2 * len(BOUNDARY) + 60):
            size = BUFFER_BYTES - head - lead - shift
            first = files[0] + b"\r\n--" + b"-" * (size - len(files[0]) - 4)
            connection = Connection(digests=True)
            connection.send(request(multipart([first, files[1]])))
            assert stored(connection.answers[0][2]) == expected(2), shift
            assert connection.totals.digests == {
                CORPUS.sop_instance_uid(0): hashlib.sha256(first).hexdigest(),
                CORPUS.sop_instance_uid(1): hashlib.sha256(files[1]).hexdigest(),
            }


class TestRefusal:
    @pytest.mark.parametrize(
        ("body", "content_type", "path", "status"),
        [
            (b"", MULTIPART, "/studies", 400),
            (f"--{BOUNDARY}--".encode(), MULTIPART, "/studies", 400),
            (b"no delimiter at all, but long enough for one", MULTIPART, "/studies", 400),
            (part(b"never closed"), MULTIPART, "/studies", 400),
            (multipart([b"x"]) + b"more", MULTIPART, "/studies", 400),
            (multipart([b"x"])[:-1], MULTIPART, "/studies", 400),
            (multipart([b"x"]).replace(b"dicom", b"json"), MULTIPART, "/studies", 400),
            (f"--{BOUNDARY}junk".encode() + b"." * 50, MULTIPART, "/studies", 400),
            (multipart([b"x"]), 'multipart/related; type="application/dicom"', "/studies", 400),
            (multipart([b"x"]), f"multipart/related; boundary={BOUNDARY}", "/studies", 415),
            (b"{}", "application/json", "/studies", 415),
            (b"x", "application/dicom", "/series", 404),
        ],
    )
    def test_is_said_and_the_connection_lives_on(
        self, files: list[bytes], body: bytes, content_type: str, path: str, status: int
    ) -> None:
        connection = Connection()
        connection.send(request(body, content_type, path) + request(multipart(files)))
        assert [answer[0] for answer in connection.answers] == [status, 200]
        assert (connection.totals.requests, connection.totals.refused) == (1, 1)

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (b"POST /studies HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
            (b"POST /studies HTTP/1.1\r\n\r\n", 411),
            (b"POST /studies HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
            (b"hello\r\n\r\n", 400),
            (b"POST /studies HTTP/1.1\r\nX: " + b"x" * 100_000, 431),
        ],
    )
    def test_closes_where_the_next_request_cannot_be_found(self, head: bytes, status: int) -> None:
        connection = Connection()
        connection.send(head)
        assert [answer[0] for answer in connection.answers] == [status]
        assert connection.wire.closed

    def test_counts_what_was_sent_for_nothing(self, files: list[bytes]) -> None:
        connection = Connection()
        connection.send(request(b"x" * 1000, "application/json") + request(multipart(files)))
        connection.send(request(multipart(files))[:-500])
        connection.sink.connection_lost(None)
        body_bytes = len(multipart(files))
        assert connection.totals.wasted_bytes == 1000 + body_bytes - 500
        assert (connection.totals.bytes, connection.totals.instances) == (body_bytes, 4)

    def test_a_get_is_not_a_store(self) -> None:
        connection = Connection()
        connection.send(b"GET /studies HTTP/1.1\r\n\r\n")
        assert connection.answers[0][0] == 405


class TestBasePath:
    def test_is_that_of_a_healthimaging_data_store(self, files: list[bytes]) -> None:
        connection = Connection()
        base = f"/datastore/{'0a' * 16}"
        for path in (f"{base}/studies", f"{base}/studies/{CT}", f"{base[:-1]}/studies"):
            connection.send(request(files[0], "application/dicom", path, "Authorization: AWS4\r\n"))
        assert [status for status, _, _ in connection.answers] == [200, 200, 404]


class TestLimitOfRequests:
    def limited(self, *waits_s: int | None) -> Connection:
        """Answers by turns as if a bucket had said so."""
        return Connection(Knobs(retry_after_s=iter(waits_s).__next__))

    def test_answers_503_before_the_body_and_reads_past_it(self, files: list[bytes]) -> None:
        connection = self.limited(7, None)
        body = multipart(files)
        head = len(request(body)) - len(body)
        connection.send(request(body)[:head])
        ((status, headers, _),) = connection.answers
        assert (status, headers["retry-after"]) == (503, "7")
        connection.send(body + request(body))
        assert [answer[0] for answer in connection.answers] == [503, 200]
        totals = connection.totals
        assert (totals.throttled, totals.refused, totals.requests) == (1, 1, 1)
        assert (totals.wasted_bytes, totals.bytes) == (len(body), len(body))
        assert not connection.wire.closed

    def test_closes_on_a_client_that_asked_before_it_sent_a_body(self) -> None:
        connection = self.limited(1)
        head = b"POST /studies HTTP/1.1\r\nContent-Type: application/dicom\r\n"
        connection.send(head + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        assert [status for status, _, _ in connection.answers] == [503]
        assert connection.wire.closed
        connection.sink.connection_lost(None)
        assert connection.totals.wasted_bytes == 0

    def test_takes_a_second_s_worth_at_once_and_then_asks_to_wait(self) -> None:
        retry_after_s = limit_of(0.001)
        assert retry_after_s() is None
        wait_s = retry_after_s()
        assert wait_s is not None
        assert 500 < wait_s <= 1000  # less where this test stood still in between
        retry_after_s = limit_of(1000)
        assert [retry_after_s() for _ in range(1000)] == [None] * 1000

    @pytest.mark.parametrize("rate", [0, -1, float("nan")])
    def test_is_above_0(self, rate: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            limit_of(rate)


class TestLine:
    def test_pauses_as_long_as_what_all_brought_takes(self) -> None:
        now = [100.0]
        line = Line(1e6, lambda: now[0])
        assert line.pause_s(500_000) == pytest.approx(0.5)
        assert line.pause_s(500_000) == pytest.approx(1.0)
        now[0] += 3
        assert line.pause_s(250_000) == pytest.approx(0.25)

    def test_gives_no_credit_for_idle_time_and_carries_small_debts_on(self) -> None:
        line = Line(1e6, lambda: 100.0)
        assert [line.pause_s(999), line.pause_s(999), line.pause_s(999)] == [
            0,
            0,
            pytest.approx(0.002997),
        ]


class Address(NamedTuple):
    host: str
    port: int
    ca: str | None

    def connect(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), timeout=60)
        if self.ca is None:
            return plain
        return ssl.create_default_context(cafile=self.ca).wrap_socket(
            plain, server_hostname=self.host
        )


@contextmanager
def process(*arguments: str) -> Iterator[tuple[Address, "subprocess.Popen[str]"]]:
    command = [sys.executable, "-m", "ingester.bench.sink", *arguments]
    root = str(Path(__file__).parents[3])
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        try:
            ready = json.loads(sink.stdout.readline())
            assert ready["pid"] == sink.pid
            address = urlsplit(ready["url"])
            assert address.scheme == ("https" if "--tls" in arguments else "http")
            assert address.hostname is not None
            assert address.port is not None
            yield Address(address.hostname, address.port, ready["ca"]), sink
        finally:
            sink.kill()


def exchange(connection: socket.socket, data: bytes) -> tuple[int, dict[str, str], bytes]:
    connection.sendall(data)
    raw = b""
    while True:
        raw += connection.recv(65536)
        head, end, body = raw.partition(b"\r\n\r\n")
        length = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
        if end and len(body) == int(length[0].partition(b": ")[2]):
            return answers(raw)[0]


class TestProcess:
    def test_keeps_connections_counts_and_ends_with_totals(
        self, files: list[bytes], tmp_path: Path
    ) -> None:
        digests = tmp_path / "digests.json"
        big = files[0] + bytes(range(256)) * 12_000
        body = multipart([big, *files[1:]])
        with process("--verify", str(digests)) as (address, sink):
            with address.connect() as connection:
                for _ in range(3):
                    status, _, answer = exchange(connection, request(body))
                    assert (status, stored(answer)) == (200, expected(4))
            sink.send_signal(signal.SIGTERM)
            last, _ = sink.communicate(timeout=60)
            assert sink.returncode == 0
        totals = json.loads(last)
        assert totals.pop("cpu_s") >= 0
        assert totals.pop("span_s") > 0
        assert totals == {
            "requests": 3,
            "refused": 0,
            "throttled": 0,
            "instances": 12,
            "distinct_instances": 4,
            "bytes": 3 * len(body),
            "wasted_bytes": 0,
        }
        assert json.loads(digests.read_text()) == {
            CORPUS.sop_instance_uid(index): hashlib.sha256(content).hexdigest()
            for index, content in enumerate([big, *files[1:]])
        }

    def test_ends_with_whoever_holds_its_stdin(self) -> None:
        """A process that is killed ends no child: nothing of it may listen for ever."""
        starter = (
            "import os, subprocess, sys\n"
            "from ingester.bench.sink_process import running_sink\n"
            "with running_sink() as sink:\n"
            "    print(sink.url, sink.pid, flush=True)\n"
            "    os.kill(os.getpid(), 9)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", starter],
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
        pid = int(done.stdout.split()[1])
        wait_until(lambda: not is_alive(pid))

    def test_waits_the_latency_before_each_answer(self, files: list[bytes]) -> None:
        with (
            process("--latency-ms", "80") as (address, _),
            address.connect() as connection,
        ):
            for count in (1, 2):
                started = time.perf_counter()
                _, _, answer = exchange(connection, request(multipart(files[:count])))
                # libuv counts whole milliseconds from the start of a turn: it may be 2 early.
                assert time.perf_counter() - started >= 0.078
                assert stored(answer) == expected(count)

    def test_speaks_tls_with_a_certificate_that_its_authority_vouches_for(
        self, files: list[bytes], tmp_path: Path
    ) -> None:
        digests = tmp_path / "digests.json"
        big = files[0] + bytes(range(256)) * 12_000
        with process("--tls", "--verify", str(digests)) as (address, sink):
            assert address.ca is not None
            with address.connect() as connection:
                for _ in range(2):
                    _, _, answer = exchange(connection, request(multipart([big, *files[1:]])))
                    assert stored(answer) == expected(4)
            sink.send_signal(signal.SIGTERM)
            sink.communicate(timeout=60)
        assert json.loads(digests.read_text())[CORPUS.sop_instance_uid(0)] == (
            hashlib.sha256(big).hexdigest()
        )
        assert not Path(address.ca).exists()

    def test_refuses_what_comes_faster_than_allowed(self, files: list[bytes]) -> None:
        with process("--max-rps", "0.001") as (address, sink):
            with address.connect() as connection:
                statuses = [exchange(connection, request(multipart(files)))[0] for _ in range(3)]
            sink.send_signal(signal.SIGTERM)
            totals = json.loads(sink.communicate(timeout=60)[0])
        assert statuses == [200, 503, 503]
        assert (totals["throttled"], totals["wasted_bytes"]) == (2, 2 * len(multipart(files)))

    @pytest.mark.parametrize("tls", [[], ["--tls"]], ids=["plain", "TLS"])
    def test_takes_no_more_than_the_bandwidth(self, files: list[bytes], tls: list[str]) -> None:
        body = multipart([files[0] + bytes(2_000_000), *files[1:]])
        with (
            process("--bandwidth-mb-s", "4", *tls) as (address, _),
            address.connect() as connection,
        ):
            started = time.perf_counter()
            for _ in range(2):
                assert stored(exchange(connection, request(body))[2]) == expected(4)
            # What one buffer holds is taken before the first pause.
            assert time.perf_counter() - started >= (2 * len(body) - 2 * BUFFER_BYTES) / 4e6

    @pytest.mark.parametrize("wrong", [["--max-rps", "0"], ["--bandwidth-mb-s", "-1"]])
    def test_refuses_rates_that_are_none(self, wrong: list[str]) -> None:
        root = str(Path(__file__).parents[3])
        done = subprocess.run(
            [sys.executable, "-m", "ingester.bench.sink", *wrong],
            cwd=root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "above 0" in done.stderr
