"""Guarantee 5: memory is bounded by the options, whatever the archive."""

from pathlib import Path

import pytest

from benchmarks.memory import HUGE_BYTES, run_case, write_huge, write_many
from ingester.bench.corpora import Corpus
from ingester.bench.corpus_files import make

LIMIT_MIB = 300  # by VmHWM, the process's own word: what the kernel counts begins with the parent's


@pytest.mark.timeout(300)
def test_a_file_of_5_gb_goes_through_in_pieces(tmp_path: Path) -> None:
    """An encapsulated file of two sparse fragments is streamed, hashed and stored."""
    source = tmp_path / "source"
    source.mkdir()
    write_huge(str(source / "huge.dcm"))
    run = run_case(str(source), str(tmp_path), files=1)
    assert run.problems == []
    assert run.summary["bytes_stored"] == (source / "huge.dcm").stat().st_size
    assert run.summary["bytes_stored"] > HUGE_BYTES - 8
    assert run.summary["peak_rss_mib"] < LIMIT_MIB


@pytest.mark.timeout(300)
def test_a_directory_of_many_small_files_is_never_held_as_a_whole(tmp_path: Path) -> None:
    """Ten times the files cost no more: 20,000 here, 200,000 in benchmarks/memory.py.

    With a budget that both fill: how much of a larger one is used depends on who is slow.
    """
    peaks = []
    for files in (2_000, 20_000):
        source = tmp_path / f"source{files}"
        write_many(str(source), files)
        run = run_case(str(source), str(tmp_path), files, client_args=["--memory-budget", "8MiB"])
        assert run.problems == []
        peaks.append(run.summary["peak_rss_mib"])
    assert peaks[1] < peaks[0] + 40


@pytest.mark.timeout(300)
def test_an_open_instance_costs_a_kibibyte_and_a_half(tmp_path: Path) -> None:
    """Of studies that lie in all directories: every batch is open until the end."""
    corpus = Corpus("open", files=20_000, size=1024, studies=2_000, scattered=True)
    source = make(corpus, str(tmp_path))
    peaks = []
    for max_open in (1_000, 20_000):
        options = ["--memory-budget=4096", "--idle-slot-s=600", "--batch-age-s=600"]
        run = run_case(
            source, str(tmp_path), corpus.files,
            client_args=[*options, f"--max-open-instances={max_open}"],
        )  # fmt: skip
        assert run.problems == []
        peaks.append(run.summary["peak_rss_mib"])
    assert peaks[1] - peaks[0] < 19_000 * 1.5 / 1024 + 7


def test_a_budget_of_one_buffer_still_loads_everything(tmp_path: Path) -> None:
    """Where nothing can be cached, files are opened again when they are sent."""
    source = tmp_path / "source"
    write_many(str(source), 500, size=3000)
    run = run_case(str(source), str(tmp_path), 500, client_args=["--memory-budget", "4096"])
    assert run.problems == []
