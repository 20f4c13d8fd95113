"""What a loop's process does with its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS = """
import resource
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def round():
    blocks = [b"x" * (1 << 20) for _ in range(8)]
round()
before = faults()
for _ in range(50):
    round()
print(faults() - before)
"""
ON_A_LOOP = f"""
from ingester.cli.loops import run_loop
async def main():
    exec({ROUNDS!r}, {{}})
run_loop(main(), "auto")
"""
PAGES = 50 * 8 * 256


def faults_of(program: str) -> int:
    """How many pages the system gave it, in fifty rounds that take and free 8 MiB."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
class TestMemoryThatIsFreed:
    def test_is_used_again_on_a_loop(self) -> None:
        assert faults_of(ON_A_LOOP) < PAGES // 20

    def test_goes_back_to_the_system_elsewhere(self) -> None:
        """Else the one above says nothing."""
        assert faults_of(ROUNDS) > PAGES // 2
