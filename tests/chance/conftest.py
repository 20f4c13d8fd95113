"""Seeds: others, or more of them, by the environment.

INGESTER_CHANCE_SEEDS=1000 runs so many, INGESTER_CHANCE_FIRST_SEED=5000 begins there.
"""

import os

import pytest

SEEDS = 24


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Gives a test that takes ``chance_seed`` a run with each."""
    if "chance_seed" in metafunc.fixturenames:
        first = int(os.environ.get("INGESTER_CHANCE_FIRST_SEED", "0"))
        count = int(os.environ.get("INGESTER_CHANCE_SEEDS", str(SEEDS)))
        metafunc.parametrize("chance_seed", range(first, first + count))
