"""A target that refuses everything stops the run: nothing has failed, nothing is rejected."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.pipeline.certificate import Certificate, make_certificate
from tests.pipeline.job import Job
from tests.support.process import run_ingester
from tests.support.scripted import Answer, ScriptedServer, StoreAll, StoreThenDrop


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class TestAnAddressWithoutAService:
    @pytest.mark.parametrize("status", [404, 405])
    def test_on_trial_it_stops_at_once(self, job: Job, server: ScriptedServer, status: int) -> None:
        job.write_studies(20)
        server.default = Answer(status)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 20}
        assert len(server.posts) == 1
        assert ran.cause is not None
        assert ran.cause.hint

    @pytest.mark.parametrize("status", [404, 405])
    def test_after_a_success_it_is_an_outage(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(3)
        server.push(StoreAll(), Answer(status), Answer(status))
        ran = job.run()
        assert ran.outcomes == {"stored": 3}
        first, second = server.posts[1:3]
        assert first.body == second.body

    def test_an_outage_that_lasts_stops(self, job: Job, server: ScriptedServer) -> None:
        job.write_studies(4)
        server.push(StoreAll())
        server.default = Answer(404)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 1, "pending": 3}


class TestATargetThatRefusesEverybody:
    @pytest.mark.parametrize("status", [402, 406])
    @pytest.mark.parametrize("proven", [False, True])
    def test_it_stops_at_once(
        self, job: Job, server: ScriptedServer, status: int, *, proven: bool
    ) -> None:
        job.write_studies(20)
        if proven:
            server.push(StoreAll())
        server.default = Answer(status, {}, b"pay first")
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes.get("pending") == 20 - proven
        assert len(server.posts) == 1 + proven
        assert ran.cause is not None
        assert "pay first" in ran.cause.words


class TestARedirect:
    @pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
    @pytest.mark.parametrize("proven", [False, True])
    def test_it_stops_and_never_goes_there(
        self, job: Job, server: ScriptedServer, status: int, *, proven: bool
    ) -> None:
        job.write_studies(8)
        with ScriptedServer() as elsewhere:
            if proven:
                server.push(StoreAll())
            server.default = Answer(status, {"Location": elsewhere.url + "/studies"})
            ran = job.run()
            assert elsewhere.connections == 0
        assert ran.exit_code == 1
        assert ran.outcomes.get("pending") == 8 - proven
        assert len(server.posts) == 1 + proven

    def test_a_redirected_look_up_is_not_followed_either(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write("a.dcm")
        with ScriptedServer() as elsewhere:
            server.push(StoreThenDrop())
            server.default = StoreAll(failures=lambda _uid: 0x0110)
            server.default_get = Answer(307, {"Location": elsewhere.url})
            ran = job.run()
            assert elsewhere.connections == 0
        assert ran.outcomes == {"in_doubt": 1}

    def test_credentials_go_to_the_target_only(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        job.write("a.dcm")
        netrc = tmp_path / ".netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else")
        netrc.chmod(0o600)
        with ScriptedServer() as elsewhere:
            server.default = Answer(307, {"Location": elsewhere.url + "/studies"})
            done = run_ingester(
                "run", job.archive, "--url", server.url, "--auth", "bearer",
                "--journal", job.journal,
                env={"INGESTER_TOKEN": "s3cret-token", "HOME": str(tmp_path)}, cwd=tmp_path,
            )  # fmt: skip
            assert elsewhere.connections == 0
        assert done.returncode == 1
        assert server.posts[0].headers["authorization"] == "Bearer s3cret-token"
        assert "s3cret-token" not in done.stdout + done.stderr
        assert b"s3cret-token" not in job.journal.read_bytes()


class TestRefusedCredentials:
    @pytest.mark.parametrize("status", [401, 403])
    def test_once_more_and_then_it_stops(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(20)
        server.default = Answer(status)
        ran = job.run()
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 20}
        assert len(server.posts) == 2
        assert server.posts[0].body == server.posts[1].body

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_refusal_that_passes_costs_nothing(
        self, job: Job, server: ScriptedServer, status: int
    ) -> None:
        job.write_studies(3)
        server.push(Answer(status))
        assert job.run().outcomes == {"stored": 3}

    def test_when_they_expire_in_mid_run_nothing_is_rejected(
        self, job: Job, server: ScriptedServer
    ) -> None:
        job.write_studies(10)
        server.push(StoreAll(), StoreAll(), StoreAll())
        server.default = Answer(403)
        ran = job.run(max_concurrency=2)
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 3, "pending": 7}
        assert len(server.posts) <= 3 + 2 * 4


class TestACertificateThatNobodyVouchesFor:
    def test_it_stops_and_sends_nothing(self, job: Job, certificate: Certificate) -> None:
        job.write_studies(5)
        with ScriptedServer(tls=certificate.context) as untrusted:
            ran = job.run(url=untrusted.url)
            assert untrusted.requests == []
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 5}
        assert ran.summary.requests == 1
        assert ran.cause is not None
        assert "--ca-bundle" in ran.cause.hint

    def test_it_stops_after_a_success_too(self, job: Job, certificate: Certificate) -> None:
        job.write("0.dcm")
        job.run()
        job.write_studies(5)
        with ScriptedServer(tls=certificate.context) as untrusted:
            ran = job.run(url=untrusted.url, rebind=True)
        assert ran.exit_code == 1
        assert ran.outcomes == {"stored": 1, "pending": 5}

    @pytest.mark.parametrize("event_loop", ["asyncio", "uvloop"])
    def test_with_its_authority_named_it_works(
        self, job: Job, certificate: Certificate, event_loop: str
    ) -> None:
        names = job.write_many(5)
        with ScriptedServer(tls=certificate.context) as trusted:
            job.server = trusted
            ran = job.run(url=trusted.url, ca_bundle=str(certificate.path), event_loop=event_loop)
            assert all(job.stored(name) == [job.sha256(name)] for name in names)
        assert ran.exit_code == 0

    def test_a_name_that_the_certificate_does_not_have_is_refused(
        self, job: Job, certificate: Certificate
    ) -> None:
        job.write("a.dcm")
        with ScriptedServer(tls=certificate.context, host="localhost") as other:
            ran = job.run(url=other.url, ca_bundle=str(certificate.path))
            assert other.requests == []
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 1}

    def test_an_address_where_nobody_listens_is_none(self, job: Job) -> None:
        job.write("a.dcm")
        with socket.socket() as bound:  # nobody else can get the port
            bound.bind(("127.0.0.1", 0))
            ran = job.run(url=f"https://127.0.0.1:{bound.getsockname()[1]}")
        assert ran.exit_code == 1
        assert ran.outcomes == {"pending": 1}
