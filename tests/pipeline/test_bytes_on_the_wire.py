"""What arrives is what lies on the disk, however slowly it is read; and how it is wrapped."""

from __future__ import annotations

import hashlib
import re
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from tests.pipeline.certificate import Certificate, make_certificate
from tests.pipeline.job import Job, uid_of, uid_of_study
from tests.support.multipart import boundary_of, split
from tests.support.scripted import Answer, ReadSlowly, ScriptedServer, Step, StoreAll


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


def slow_server(tls: ssl.SSLContext | None) -> ScriptedServer:
    server = ScriptedServer(tls=tls, receive_buffer=8192)
    server.default = ReadSlowly(40_000_000, chunk=65_536)
    return server


@pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
class TestASlowReader:
    def run(
        self,
        tmp_path: Path,
        certificate: Certificate,
        *,
        tls: bool,
        sizes: list[int],
        steps: Sequence[Step] = (),
        **flags: object,
    ) -> None:
        with slow_server(certificate.context if tls else None) as server:
            server.push(*steps)
            job = Job(tmp_path, server)
            names = [f"{number:03d}.dcm" for number in range(len(sizes))]
            for name, size in zip(names, sizes, strict=True):
                job.write(name, payload_bytes=size)
            ran = job.run(flags, ca_bundle=str(certificate.path))
            assert ran.outcomes == {"stored": len(names)}
            for name in names:
                assert job.stored(name) == [job.sha256(name)]
            assert len(server.posts) == ran.summary.requests

    @pytest.mark.parametrize(
        "sizes",
        [[32_000] * 1900, [100_000] * 640, [32_000, 100_000] * 480],
        ids=["copied together", "each by itself", "by turns"],
    )
    def test_gets_cached_files_uncorrupted(
        self,
        tmp_path: Path,
        certificate: Certificate,
        event_loop: str,
        sizes: list[int],
        *,
        tls: bool,
    ) -> None:
        """Buffers are used again while the bodies that they were written to still go out.

        For that a body must be larger than what the kernel takes of it (4 MiB), and files must be
        scanned while it goes out: there are more of them than the channels hold, and every other
        request is fast.
        """
        self.run(
            tmp_path, certificate, tls=tls, sizes=sizes, event_loop=event_loop,
            memory_budget="96MiB", max_batch_instances=200, max_concurrency=3, readers=2,
            steps=[ReadSlowly(15_000_000 * (1 + 4 * (n % 2)), chunk=131_072) for n in range(7)],
        )  # fmt: skip

    @pytest.mark.parametrize("processes", [0, 2])
    def test_gets_files_read_again_uncorrupted(
        self,
        tmp_path: Path,
        certificate: Certificate,
        event_loop: str,
        processes: int,
        *,
        tls: bool,
    ) -> None:
        """The budget holds one of them: the others are read a second time, many at once."""
        self.run(
            tmp_path, certificate, tls=tls, sizes=[30_000] * 300, event_loop=event_loop,
            memory_budget="64KiB", max_batch_instances=300, scan_processes=processes,
            steps=[ReadSlowly(12_000_000, chunk=65_536)],
        )  # fmt: skip

    def test_gets_large_files_uncorrupted(
        self, tmp_path: Path, certificate: Certificate, event_loop: str, *, tls: bool
    ) -> None:
        """Streamed in halves of a piece, right after files that were read into the same piece."""
        sizes = [5_500_000, 50_000, 3_100_000, 700_000, 50_000, 1_048_576, 500, 2_000_000, 50_000]
        self.run(
            tmp_path, certificate, tls=tls, sizes=sizes, event_loop=event_loop,
            memory_budget="4KiB", steps=[ReadSlowly(12_000_000, chunk=65_536)],
        )  # fmt: skip


class TestEveryWayOfReading:
    @pytest.mark.parametrize("inline_limit", ["1", "10KiB", "1MiB"])
    @pytest.mark.parametrize("checksums", ["sha256", "none"])
    def test_sends_and_resends_the_same_bytes(
        self, job: Job, server: ScriptedServer, inline_limit: str, checksums: str
    ) -> None:
        for number, size in enumerate([500, 20_000, 1_500_000, 524_288, 3000, 2_097_152, 0]):
            job.write(f"{number}.dcm", payload_bytes=size)
        server.push(Answer(503), Answer(500), Answer(503))
        ran = job.run(inline_limit=inline_limit, checksums=checksums)
        assert ran.outcomes == {"stored": 7}
        assert len({post.sha256 for post in server.posts}) == 1
        assert len(server.posts) == 4
        for name, row in ran.rows.items():
            if checksums == "sha256":
                assert row.sha256 == hashlib.sha256((job.archive / name).read_bytes()).digest()


class TestTheForm:
    def test_store_dicom_posts_to_studies(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(3, 2)
        assert job.run().exit_code == 0
        assert {post.path for post in server.posts} == {"/studies"}

    def test_store_dicom_study_posts_to_the_study(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(3, 2)
        assert job.run(operation="StoreDICOMStudy").exit_code == 0
        studies = {uid_of_study(number) for number in range(3)}
        assert {post.path for post in server.posts} == {f"/studies/{uid}" for uid in studies}
        for post in server.posts:
            assert post.path.rsplit("/", 1)[1].encode() in post.body

    def test_a_base_url_with_a_path_keeps_it(self, job: Job, server: ScriptedServer) -> None:
        job.write("a.dcm")
        assert job.run(url=server.url + "/dicom%20web/rs/").exit_code == 0
        assert server.posts[0].path == "/dicom%20web/rs/studies"

    def test_healthimaging_takes_a_file_alone_as_it_is(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm", study=1)
        job.write_many(2, study=2)
        assert job.run(server="healthimaging").exit_code == 0
        alone, together = sorted(server.posts, key=lambda post: post.content_length)
        assert alone.headers["content-type"] == "application/dicom"
        assert alone.body == (job.archive / "a.dcm").read_bytes()
        assert re.fullmatch(
            r'multipart/related; type="application/dicom"; boundary="[0-9a-f]{32}"',
            together.headers["content-type"],
        )

    def test_every_body_has_a_boundary_of_its_own(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(5, 2)
        assert job.run().exit_code == 0
        boundaries = {boundary_of(post.headers["content-type"]) for post in server.posts}
        assert len(boundaries) == 5

    def test_a_body_is_whole_and_in_the_order_of_its_series(
        self, job: Job, server: ScriptedServer
    ) -> None:
        names = job.write_many(5)
        assert job.run().exit_code == 0
        (post,) = server.posts
        assert post.headers["accept"] == "application/dicom+json"
        assert post.headers["user-agent"].startswith("ingester/")
        assert "authorization" not in post.headers
        parts = split(post.body, boundary_of(post.headers["content-type"]))
        assert [part.body for part in parts] == [(job.archive / n).read_bytes() for n in names]

    def test_a_request_keeps_within_its_limits(self, job: Job, server: ScriptedServer) -> None:
        for number in range(30):
            job.write(f"{number:02d}.dcm", payload_bytes=10_000)
        assert job.run(max_batch_bytes="50KiB", max_batch_instances=3).exit_code == 0
        for post in server.posts:
            assert len(split(post.body, boundary_of(post.headers["content-type"]))) <= 3
            assert post.content_length <= 50 * 1024 + 3 * 256
        assert len(server.posts) == 10

    def test_no_more_requests_at_a_time_than_asked_for(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(20)
        server.default = ReadSlowly(20_000)
        assert job.run(max_concurrency=3).exit_code == 0
        assert server.peak_requests <= 3
        assert server.peak_connections <= 3

    def test_a_connection_is_used_again(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(10)
        assert job.run().exit_code == 0
        assert server.connections == 1


class TestTheEndOfAnAttempt:
    def test_a_connection_given_up_is_not_left_open(self, tmp_path: Path) -> None:
        """Else its socket and its bytes stay as long as the other side does not read."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(60)
            with ScriptedServer() as server:
                job = Job(tmp_path, server)
                job.write("a.dcm", payload_bytes=9_000_000)
                ran = job.run(
                    url=f"http://127.0.0.1:{listener.getsockname()[1]}",
                    stall_timeout_s=1, max_attempts=2,
                )  # fmt: skip
                assert ran.exit_code == 1
                assert ran.outcomes == {"in_doubt": 1}
                peers = [listener.accept()[0], listener.accept()[0]]
                for peer in peers:
                    peer.settimeout(60)
                    taken = 0
                    with suppress(ConnectionResetError):
                        while piece := peer.recv(1 << 20):
                            taken += len(piece)
                    peer.close()
                    assert taken < 9_000_000
                assert uid_of("a.dcm") == next(iter(ran.rows.values())).sop_instance_uid


def test_store_all_is_what_the_default_does(job: Job, server: ScriptedServer) -> None:
    """The judge itself: a part that is altered on the way would be seen."""
    job.write("a.dcm")
    assert isinstance(server.default, StoreAll)
    job.run()
    assert job.stored("a.dcm") == [job.sha256("a.dcm")]
