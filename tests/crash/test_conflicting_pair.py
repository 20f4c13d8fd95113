"""Two files with the same UIDs and other bytes, and a kill between them.

The server keeps the first that it is given and says of the second that it is stored, as Orthanc
does. If nobody remembered what was under way at the kill, the second would be claimed.
"""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from ingester.dicomweb.outcome import Outcome
from ingester.journal import iter_files
from tests.support.dicom_files import make_uid, write_instance
from tests.support.journals import Locked, copy_journal
from tests.support.process import Completed, start_ingester
from tests.support.scripted import (
    Choose,
    Request,
    ScriptedServer,
    Step,
    StoreAll,
    StoreThenDrop,
)

SOP = make_uid("sop", "both")


def write(path: Path, seed: int) -> None:
    path.parent.mkdir(exist_ok=True)
    write_instance(
        path, study=make_uid("study", 1), series=make_uid("series", 1), sop=SOP, seed=seed
    )
    os.utime(path, (1_700_000_000, 1_700_000_000))


def run(server: ScriptedServer, directory: Path, *, server_kind: str, kill: bool) -> Completed:
    with start_ingester(
        "run", directory / "archive", f"--url={server.url}", f"--server={server_kind}",
        f"--journal={directory / 'journal.db'}", "--json",
    ) as process:  # fmt: skip
        if kill:
            server.wait_until(lambda: bool(server.stored), 60)
            process.kill()
        return process.wait()


def outcomes(directory: Path) -> dict[str, Outcome]:
    rows = iter_files(str(directory / "journal.db"))
    return {os.path.basename(row.path).decode(): row.outcome for row in rows}


class TestAServerThatKeepsTheFirst:
    @pytest.mark.parametrize("server_kind", ["generic", "orthanc", "healthimaging"])
    def test_is_never_said_to_have_the_second(self, tmp_path: Path, server_kind: str) -> None:
        with ScriptedServer() as server:
            write(tmp_path / "archive" / "b.dcm", seed=2)
            server.default = StoreThenDrop()  # nothing of it is ever confirmed
            killed = run(server, tmp_path, server_kind=server_kind, kill=True)
            assert killed.returncode == -signal.SIGKILL
            server.default = StoreAll()
            first = server.stored[SOP][0]

            write(tmp_path / "archive" / "a.dcm", seed=1)  # the walk meets it before the other
            ended = run(server, tmp_path, server_kind=server_kind, kill=False)
            assert ended.returncode == 3, ended.stderr
            assert outcomes(tmp_path) == {"a.dcm": Outcome.CONFLICT, "b.dcm": Outcome.STORED}
            assert set(server.stored[SOP]) == {first}


class TestAServerThatRefusesTheFirst:
    def test_and_keeps_the_second_is_said_to_have_that_alone(self, tmp_path: Path) -> None:
        """The refusal was in no journal when the second, to which the claim passed, was sent."""
        archive = tmp_path / "archive"
        write(archive / "a.dcm", seed=1)
        write(archive / "b.dcm", seed=2)
        first = (archive / "a.dcm").read_bytes()
        locks: list[Locked] = []

        def refuse_the_first(request: Request) -> Step:
            if first in request.body:
                if not locks:
                    locks.append(Locked(tmp_path / "journal.db"))
                    locks[0].begin()
                return StoreAll(failures={SOP: 0xC000})
            return StoreAll() if restarted else StoreThenDrop()

        restarted = False
        with ScriptedServer() as server:
            server.default = Choose(refuse_the_first)
            killed = run(server, tmp_path, server_kind="generic", kill=True)
            assert killed.returncode == -signal.SIGKILL
            locks[0].end()
            copied = copy_journal(tmp_path / "journal.db", tmp_path / "copy")
            assert copied is not None
            assert copied.rows() == []
            assert {row.outcome for row in copied.recovered()} == {Outcome.IN_DOUBT}
            assert len(copied.rows()) == 2

            restarted = True
            ended = run(server, tmp_path, server_kind="generic", kill=False)
            assert ended.returncode == 3, ended.stderr
            assert outcomes(tmp_path) == {"a.dcm": Outcome.REJECTED, "b.dcm": Outcome.STORED}
            second = hashlib.sha256((archive / "b.dcm").read_bytes()).hexdigest()
            assert set(server.stored[SOP]) == {second}
