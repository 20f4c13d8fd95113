"""Thousands of hostile files, each time the same; many more with `python -m tests.fuzz.run`."""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.cases import case
from tests.fuzz.crafted import crafted
from tests.fuzz.judge import judged
from tests.fuzz.stage import complaints_of_stage

ROOT = Path(__file__).parents[2]
CASES = 5_000
SEED = 1


@pytest.mark.timeout(600)
def test_five_thousand_files_never_crash_hang_fill_the_memory_or_get_another_uid(
    tmp_path: Path,
) -> None:
    """In processes that are limited in memory: scanner, pydicom behind it, and the scan stage."""
    command = ["-m", "tests.fuzz.run", "--cases", str(CASES), "--seed", str(SEED)]
    completed = subprocess.run(
        [sys.executable, *command, "--directory", str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    failures = [path.read_text(encoding="utf-8") for path in tmp_path.glob("seed*.txt")]
    assert failures == []
    assert (completed.stderr, completed.returncode) == ("", 0)
    assert completed.stdout.splitlines()[-1].startswith(f"{CASES} of {CASES} cases, 0 failed")


class TestAnyStructure:
    @settings(deadline=None, database=None, max_examples=150)
    @given(st.randoms(use_true_random=False))
    def test_is_read_as_pydicom_reads_it_or_refused(self, random: Random) -> None:
        one = crafted(random)
        assert judged(one.data, one.uids).wrong == []


class TestTheCases:
    def test_follow_from_their_seed_and_number(self) -> None:
        for number in (0, 7, 4_321):
            assert case(1, number) == case(1, number)
        assert case(1, 7) != case(2, 7)

    def test_are_damaged_in_every_way(self) -> None:
        kinds = {name for n in range(2_000) for name in case(SEED, n).name.split("+")}
        assert len(kinds) == 27


class TestTheJudge:
    """It finds what it is there to find."""

    CONFORMING = next(one for one in map(case, [SEED] * 99, range(99)) if one.uids is not None)

    def test_accepts_a_conforming_file(self) -> None:
        assert judged(self.CONFORMING.data, self.CONFORMING.uids).wrong == []

    def test_tells_another_uid(self) -> None:
        (wrong,) = judged(self.CONFORMING.data, ("1.2", "1.3", "1.4", "1.2.840.10008.1.2")).wrong
        assert "a conforming file is" in wrong

    def test_tells_an_end_that_the_stage_sees_differently(self, tmp_path: Path) -> None:
        verdict = judged(self.CONFORMING.data)
        other = verdict._replace(said=("not_dicom", "not_dicom"))
        directory = os.fsencode(tmp_path)
        for told, expected in ((verdict, 0), (other, 1)):
            (wrong,) = complaints_of_stage(directory, Random(1), [self.CONFORMING], [told])
            assert len(wrong) == expected
