"""The journal writes where it lies and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.process import start_python

WITHOUT_ANOTHER_FILE = """
import os, resource, sys
from ingester.journal.opening import connect_writer, create_private

create_private(sys.argv[1])
connection = connect_writer(sys.argv[1])
row = "INSERT INTO directories (dir_id, root_id, rel_path) VALUES (?, 1, ?)"
with connection:
    connection.executemany(row, [(number, b"%099d" % number) for number in range(20_000)])
next_fd = os.open("/", os.O_RDONLY)
resource.setrlimit(resource.RLIMIT_NOFILE, (next_fd + 1, next_fd + 1))
connection.execute("BEGIN IMMEDIATE")
with connection:
    connection.execute("UPDATE directories SET root_id = 2")
    if sys.argv[2] == "undone":
        raise KeyError("undone")
connection.execute("COMMIT")
print(connection.execute("SELECT count(*) FROM directories WHERE root_id = 2").get)
"""


@pytest.mark.parametrize("end", ["kept", "undone"])
def test_a_large_part_of_a_commit_needs_no_room_elsewhere(tmp_path: Path, end: str) -> None:
    """What it was before, should it be undone: that of many rows went into a temporary file."""
    with start_python("-c", WITHOUT_ANOTHER_FILE, tmp_path / "journal.db", end) as process:
        ended = process.wait()
    if end == "undone":
        assert ended.stderr.splitlines()[-1] == "KeyError: 'undone'"
    else:
        assert (ended.stdout.strip(), ended.stderr) == ("20000", "")
