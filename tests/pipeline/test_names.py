"""A file name is bytes: whatever it holds, its file is loaded, recorded, and forges nothing."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path

import pytest

from ingester.journal import iter_files
from tests.pipeline.job import Job, age, uid_of
from tests.support.dicom_files import make_uid, write_instance
from tests.support.process import Completed, run_ingester
from tests.support.scripted import ScriptedServer

NAMES = [
    b"new\nline.dcm",
    b"\nprogress elapsed_s=0 files=999 stored=999\n",
    b"\r\x1b[2K\x1b]0;title\x07.dcm",
    b"quo\"te's`$(id).dcm",
    b"back\\slash.dcm",
    b" leading and trailing ",
    b"-flag",
    b"\xff\xfe\x80.dcm",
    b"\xed\xa0\x80surrogate",
    "\u202eover\u0301ride\u2028separator".encode(),
    b"tab\ttab.dcm",
    b"n" * 255,
    b"\xc3" * 255,
    b'{"outcome":"stored"}',
    b"%s%n{}.dcm",
]
PATH_BYTES = 4000


def write(path: bytes) -> bytes:
    """Writes an instance of its own UID there."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    written = Path(os.fsdecode(path))
    name = path.hex()
    write_instance(
        written, study=make_uid("study", 0), series=make_uid("series", 0), sop=uid_of(name)
    )
    age(written)
    return path


def long_path(root: bytes, size: int) -> bytes:
    """A path of so many bytes below a directory."""
    path = root
    while size - len(path) > 256:
        path += b"/" + b"d" * min(200, size - len(path) - 50)
    return path + b"/" + b"f" * (size - len(path) - 1)


def run(job: Job) -> Completed:
    return run_ingester(
        "run", job.archive, "--json", "--url", job.server.url, "--journal", job.journal,
        "--results", job.results, "--progress-interval-s=0.05",
    )  # fmt: skip


@pytest.fixture
def paths(job: Job) -> set[bytes]:
    """An archive of such names, of files and of directories."""
    root = os.fsencode(job.archive)
    made = {write(os.path.join(root, name)) for name in NAMES}
    made |= {write(os.path.join(root, b"in", name, b"file")) for name in NAMES}
    made.add(write(long_path(root, PATH_BYTES)))
    return made


class TestStrangeNames:
    def test_are_loaded_and_recorded_byte_for_byte(
        self, job: Job, server: ScriptedServer, paths: set[bytes]
    ) -> None:
        ended = run(job)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["outcomes"]["stored"] == len(paths)
        assert {row.path for row in iter_files(str(job.journal))} == paths
        assert set(server.stored) == {uid_of(path.hex()) for path in paths}
        before = len(server.posts)
        again = run(job)
        assert again.returncode == 0
        assert len(server.posts) == before, "known names were sent again"

    def test_have_one_line_each_that_gives_the_bytes_back(
        self, job: Job, paths: set[bytes]
    ) -> None:
        assert run(job).returncode == 0
        lines = [json.loads(line) for line in job.results.read_bytes().split(b"\n")[:-1]]
        assert len(lines) == len(paths)
        found = {
            base64.b64decode(line["path_b64"]) if line.get("path_b64") else line["path"].encode()
            for line in lines
        }
        assert found == paths

    def test_forge_nothing_that_a_person_sees(self, job: Job, paths: set[bytes]) -> None:
        """Nor does a name of the archive appear there."""
        gone = os.path.join(os.fsencode(job.archive), b"loop\n\x1b[31mprogress x")
        os.symlink(gone, gone)
        ended = run(job)
        assert ended.returncode == 0
        for line in ended.stderr.splitlines():
            assert re.fullmatch(r"progress( [a-z0-9_]+=[a-z0-9_.]+)+", line), line
        assert len(ended.stdout.splitlines()) == 1
        assert json.loads(ended.stdout)["files"] == len(paths) + 1


class TestAPathLongerThanTheKernelTakes:
    def test_is_counted_and_costs_its_neighbours_nothing(
        self, job: Job, server: ScriptedServer
    ) -> None:
        """Made step by step; no path leads to it (PATH_MAX, 4,096 bytes)."""
        job.write("a.dcm")
        job.write("z.dcm")
        fd = os.open(job.archive, os.O_RDONLY)
        for _ in range(25):
            os.mkdir(b"d" * 200, dir_fd=fd)
            below = os.open(b"d" * 200, os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = below
        os.close(os.open(b"file", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        os.close(fd)
        ended = run(job)
        assert ended.returncode == 3, ended.stderr
        summary = json.loads(ended.stdout)
        assert summary["outcomes"]["stored"] == 2
        assert summary["unreadable_directories"] == 1
        assert "cannot be listed (File name too long)" in ended.stderr
        assert len(server.stored) == 2


class TestADirectoryWhoseNameIsNotUtf8:
    def test_may_have_the_journal_and_the_results(
        self, job: Job, server: ScriptedServer, tmp_path: Path
    ) -> None:
        job.write("a.dcm")
        folder = os.fsencode(tmp_path) + b"/K\xf6ln"
        os.mkdir(folder)
        command = ("run", job.archive, f"--url={server.url}", "--results=r.jsonl", "--json")
        done = run_ingester(*command, cwd=os.fsdecode(folder))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["journal"] == "ingester.db"
        named = ("--journal", os.fsdecode(folder + b"/j.db"))
        done = run_ingester(*command, *named, cwd=os.fsdecode(folder))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["journal"].endswith("/K\\xf6ln/j.db")
        status = run_ingester("status", *named)
        assert status.returncode == 0, status.stderr
        assert "ln/j.db" in status.stdout
