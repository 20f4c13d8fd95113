"""The table of the README says what the records say, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import RESULTS
from benchmarks.rows import Rows
from benchmarks.table import BEGIN, END, README, last_records, table, with_table

SIDE = {
    "name": "tls-literal",
    "runs": [{}, {}, {}],
    "figures": {"mb_per_s": {"median": 512.34}, "start_share": {"median": 0.01}},
}


def record(row: str, **changes: Any) -> dict[str, Any]:
    return {
        "row": row,
        "figure": "mb_per_s",
        "reached": False,
        "subject": SIDE,
        "rival": SIDE,
        "value": {"median": 0.54321, "best": 0.6, "worst": 0.5},
        "commit": "0123456789abcdef",
        "start_share": 0.0412,
        "dirty": True,
        "cpu": "A CPU",
        "cores": 2,
        "system": "Linux 6",
        "python": "3.11.7",
        **changes,
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


class TestTable:
    def test_has_a_line_for_every_row_measured_or_not(self) -> None:
        lines = list(table({}))
        assert [cells(line)[0] for line in lines[2:]] == [f"`{row.name}`" for row in Rows().all()]
        assert all(cells(line)[3:] == ["not measured", *[""] * 6] for line in lines[2:])

    def test_shows_medians_the_start_s_share_and_the_commit(self) -> None:
        lines = list(table({"ct-tls-literal": record("ct-tls-literal")}))
        (line,) = [line for line in lines if line.startswith("| `ct-tls-literal` ")]
        assert cells(line)[2:] == [
            *("≥ 0.6", "0.543 (missed)", "0.6", "512.3 MB/s", "512.3 MB/s", "4.1%", "3"),
            "0123456789+",
        ]
        assert lines[-1] == "Measured on: A CPU, 2 cores, Linux 6, Python 3.11.7."

    def test_shows_no_figure_of_a_row_whose_last_measurement_was_wrong(
        self, tmp_path: Path
    ) -> None:
        kept = tmp_path / "compare.jsonl"
        both = [record("ct-plain"), record("ct-plain", value=None, reached=None)]
        kept.write_text("".join(f"{json.dumps(line)}\n" for line in both))
        lines = list(table(last_records(str(kept))))
        (line,) = [line for line in lines if line.startswith("| `ct-plain` ")]
        assert cells(line)[3:] == ["a run was wrong", *[""] * 6]


class TestReadme:
    def test_keeps_everything_around_the_table(self) -> None:
        readme = f"before\n{BEGIN}\nold\nlines\n{END}\nafter\n"
        made = with_table(readme, iter(["new"]))
        assert made == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
        assert with_table(made, iter(["new"])) == made

    def test_without_a_place_is_left_alone(self) -> None:
        with pytest.raises(ValueError, match="no place"):
            with_table("nothing\n", iter(["new"]))

    def test_has_the_table_of_the_stored_records(self) -> None:
        readme = Path(README).read_text(encoding="utf-8")
        assert with_table(readme, table(last_records(RESULTS))) == readme

    def test_explains_every_option_of_the_sink(self) -> None:
        readme = Path(README).read_text(encoding="utf-8")
        options = (
            *("--tls", "--latency-ms", "--max-rps", "--bandwidth-mb-s", "--verify"),
            "--end-with-stdin",
        )
        assert [option for option in options if option not in readme] == []
