"""Wrong use of ``ingester emulate``; tests/emulator_curl has it run."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from ingester.cli.emulate import command
from ingester.errors import UsageError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--access-key", "A"], "go together"),
        (["--secret-key", "S"], "go together"),
        (["--no-auth", "--access-key", "A", "--secret-key", "S"], "exclude each other"),
        (["--no-auth", "--session-token", "T"], "exclude each other"),
        (["--access-key", "A B", "--secret-key", "S"], "visible ASCII"),
        (["--payload-modes", "literal,gzip"], "payload modes are"),
        (["--max-rps", "0"], "above 0"),
        (["--latency-ms", "-1"], "a latency"),
        (["--datastore", "x"], "32 characters"),
        (["--region", "Ohio"], "a region"),
    ],
)
def test_a_wrong_option_is_told(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(command, ["--store", str(tmp_path), *arguments])
    assert isinstance(result.exception, UsageError)
    assert message in str(result.exception)
