"""Hostile files through a whole run: one outcome each, and nobody else pays for them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from ingester.dicomweb.outcome import Outcome
from tests.fuzz.cases import case
from tests.fuzz.crafted import CANARY, Crafted
from tests.pipeline.job import Job, age
from tests.support.scripted import ScriptedServer

HOSTILE_FILES = 300
HUGE_BYTES = 500_000
GOOD_FILES = 20
SEED = 8


@pytest.fixture(scope="module")
def hostile() -> list[Crafted]:
    """Of a few thousand cases those with the most done to them, and those with UIDs of 1 MB.

    Not what takes pydicom a minute: the server reads with it, and has no bounds.
    """
    spoiled = [one for n in range(3_000) if (one := case(SEED, n)).uids is None]
    huge = [one for one in spoiled if len(one.data) > HUGE_BYTES and "many" not in one.name]
    others = [one for one in spoiled if len(one.data) <= HUGE_BYTES]
    others.sort(key=lambda one: one.name.count("+"), reverse=True)
    return huge + Random(SEED).sample(others[:1_000], HOSTILE_FILES - len(huge))


@pytest.fixture
def job(tmp_path: Path, server: ScriptedServer, hostile: list[Crafted]) -> Job:
    """Hostile files and good ones, a few of them in one directory."""
    job = Job(tmp_path, server)
    for number in range(GOOD_FILES):
        job.write(f"{number % 7}/good{number}.dcm", study=number % 3)
    for number, one in enumerate(hostile):
        path = job.archive / f"{number % 7}" / f"{number}.dcm"
        path.write_bytes(one.data)
        age(path)
    return job


def check(job: Job, flags: dict[str, object]) -> None:
    """Run, and ask of every file what became of it."""
    ran = job.run(flags)
    assert ran.exit_code in (0, 3), ran.cause
    assert len(ran.rows) == ran.summary.files == HOSTILE_FILES + GOOD_FILES
    assert Counter(line["file_id"] for line in ran.lines) == Counter(
        row.file_id for row in ran.rows.values()
    )
    assert "internal_error" not in {line["reason_code"] for line in ran.lines}
    good = [row for name, row in ran.rows.items() if "good" in name]
    assert {row.outcome for row in good} == {Outcome.STORED}
    assert {row.outcome for row in ran.rows.values()} >= {Outcome.INVALID, Outcome.NOT_DICOM}
    assert CANARY not in job.results.read_text(encoding="utf-8")


class TestARunOverHostileFiles:
    def test_ends_each_in_one_outcome_and_stores_the_good_ones(self, job: Job) -> None:
        check(job, {})

    def test_the_same_where_nothing_can_be_cached(self, job: Job) -> None:
        check(job, {"memory_budget": 4096, "checksums": "none"})

    def test_none_of_their_uids_makes_another_path(self, job: Job, server: ScriptedServer) -> None:
        check(job, {"operation": "StoreDICOMStudy"})
        paths = {post.path for post in server.posts}
        assert len(paths) > 3
        for path in paths:
            assert re.fullmatch(r"/studies/(?!\.+$)[-.%0-9A-Za-z_~]{1,768}", path), path
