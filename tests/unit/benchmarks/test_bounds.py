"""What the cores have room for, worked out of a record."""

from typing import Any

import pytest

from benchmarks.bounds import Machine, line, table

MACHINE = Machine(hash_us=lambda size: size / 1000, read_us=lambda size: size / 5000)
CORPUS = {"size": 100_000, "files": 1000, "bytes": 100_000_000}


def record(name: str = "tls-literal", **changes: Any) -> dict[str, Any]:
    """Subject: 300 µs of CPU and 100 of the sink a file in 0.25 s; curl: 10,000 files/s at 90."""
    return {
        "row": "archive-tls-literal",
        "cores": 2,
        "target": 0.5,
        "value": {"median": 0.4},
        "subject": {
            "name": name,
            "corpus": CORPUS,
            "figures": {
                "cpu_us_per_file": {"median": 300.0},
                "cpu_s_per_gb": {"median": 3.0},
                "sink_cpu_s": {"median": 0.1},
                "wall_s": {"median": 0.25},
            },
        },
        "rival": {
            "name": "curl-tls-100",
            "figures": {
                "instances_per_s": {"median": 10_000.0},
                "cpu_us_per_file": {"median": 90.0},
            },
        },
        **changes,
    }


def cells(text: str) -> list[str]:
    return [cell.strip() for cell in text.strip("|").split("|")]


class TestALine:
    def test_says_what_each_part_takes_what_room_there_is_and_what_could_be(self) -> None:
        """Two cores at 5,000/s have 400 µs a file; 310 of them are needed."""
        assert cells(line(record(), MACHINE)) == [
            *("`archive-tls-literal`", "0.5", "0.4", "90", "100", "20", "100", "90", "90"),
            *("80%", "0.50", "0.65"),
        ]

    @pytest.mark.parametrize(
        ("name", "hashed"),
        [("tls-literal", "100"), ("tls-literal-none", "0"), ("tls-sha256-none", "100")],
    )
    def test_has_a_digest_where_the_row_has_one(self, name: str, hashed: str) -> None:
        assert cells(line(record(name), MACHINE))[6] == hashed


class TestTable:
    def test_has_rows_against_curl_with_a_target_and_a_value(self) -> None:
        records = {
            "a": record(row="a"),
            "no value": record(value=None),
            "no target": record(target=None),
            "no rival": record(rival=None),
            "another": record(rival={"name": "dicomweb-client"}),
        }
        assert [cells(text)[0] for text in list(table(records, MACHINE))[2:]] == ["`a`"]
